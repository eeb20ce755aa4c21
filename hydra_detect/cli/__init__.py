"""The command line: parses, calls the library, prints; no logic of its own.

Exit codes: 0 done (for `verify`: proven), 1 not proven, 2 anything that the user has to see to. Errors are one
sentence on standard error, without a traceback.
"""

from __future__ import annotations

import sys


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with its code."""
    from hydra_detect.cli.commands import run

    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
