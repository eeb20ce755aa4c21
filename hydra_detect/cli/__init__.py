"""The command line: parses, calls the library, prints; no logic of its own.

Exit codes: 0 done; 1 done, and not all is well (not proven, not all could be read, something had to be mended); 2 an
error, which is one sentence on standard error, without a traceback; 3 the same, where something stored is damaged; 130
stopped by the user.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code. The process is its own: it keeps freed memory, whatever it runs."""
    from hydra_detect.allocation import keep_freed_memory
    from hydra_detect.cli.commands import run

    keep_freed_memory()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
