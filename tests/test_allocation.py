"""How the process gets memory for tensors: only when it is asked to."""

import subprocess
import sys

import pytest

from hydra_detect.allocation import keep_freed_memory

MEGABYTES = 64
HELD = f"""
import sys
from pathlib import Path
from hydra_detect.allocation import keep_freed_memory
def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 >> 20
if sys.argv[1] == "asked":
    assert keep_freed_memory() is True
if sys.argv[1] == "command line":
    from contextlib import redirect_stdout, suppress
    from hydra_detect.cli import main
    with suppress(SystemExit), redirect_stdout(sys.stderr):
        main(["--version"])
before = resident()
b"x" * ({MEGABYTES} << 20)
print(resident() - before)
"""


def held(how):
    """Return how many megabytes a process still holds of a block that it has freed."""
    return int(subprocess.run([sys.executable, "-c", HELD, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_freed_memory_is_kept_once_it_was_asked_for():
    """A large block that was freed stays with the process that asked for it; without asking it goes back at once."""
    assert held("asked") > 0.9 * MEGABYTES
    assert held("not asked") < 0.1 * MEGABYTES


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_the_command_line_keeps_it():
    """A process of the command line keeps freed memory, whatever it runs."""
    assert held("command line") > 0.9 * MEGABYTES


def test_elsewhere_nothing_is_changed(monkeypatch):
    """On another system the answer is no, and no C library is asked."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    assert keep_freed_memory() is False
