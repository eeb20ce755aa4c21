"""Work in interpreters of their own, one for each core: they fork fast, having no torch, and share the cases.

`run("killing", "kill_at_every_step", exhaustive=False)` calls that function of that module beside this one in each of
them, as `kill_at_every_step(share, exhaustive=False)`, and returns what they returned, one after another.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs

HERE = Path(__file__).parent
SHARES = max(1, min(4, os.cpu_count() or 1))
_CALL = """
import importlib, json, sys
module, function, share, of, options = json.loads(sys.argv[1])
from apart import Share
print("\\n" + json.dumps(getattr(importlib.import_module(module), function)(Share(share, of), **options)))
"""


@attrs.frozen
class Share:
    """One of several equal shares of the cases."""

    number: int = 0
    of: int = 1

    def __call__(self, cases):
        """Yield every so manyth case, so that neighbours, which cost alike, are divided."""
        for place, case in enumerate(cases):
            if place % self.of == self.number:
                yield case


def run(module, function, *, shares=SHARES, **options):
    """Call a function once for each share, in processes that run side by side; return the list of what they returned.

    Raises:
        AssertionError: If one of them failed, with what it said.

    """
    path = os.pathsep.join([str(HERE), str(HERE.parent), *(path for path in sys.path if path)])
    surroundings = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _CALL, json.dumps([module, function, share, shares, options])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings,
        )
        for share in range(shares)
    ]  # fmt: skip
    said = [process.communicate() for process in started]
    for process, (_out, error) in zip(started, said, strict=True):
        assert process.returncode == 0, error[-6000:]
    return [json.loads(out.splitlines()[-1]) for out, _error in said]


def cases(module, function, **options):
    """Return the cases, as tuples, that all shares of a function returned."""
    return [tuple(_frozen(case)) for found in run(module, function, **options) for case in found]


def _frozen(value):
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
