"""How the process gets memory for tensors: only when it is asked to."""

import subprocess
import sys

import pytest

from hydra_detect import Samples
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.cli.commands import run

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


@pytest.mark.parametrize(
    "words",
    [
        ["split", "none.pth", "--head", "owl", "--store", "none"],
        ["verify", "--store", "none"],
        ["predict", "none.jpg", "--store", "none"],
        ["train", "owl", "--data", "none", "--store", "none"],
        ["train-original", "owl", "--data", "none", "--store", "none"],
        ["evaluate", "owl", "--data", "none", "--store", "none"],
        ["compress", "owl", "--store", "none", "--rank", "8", "--unmeasured"],
        ["demo", "--out", "none"],
    ],
    ids=lambda words: words[0],
)
def test_commands_that_run_networks_ask_for_it(words, monkeypatch, tmp_path):
    """Whatever runs networks over pictures on the command line keeps freed memory."""
    asked, none = [], Samples(items=[], class_names=("owl",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hydra_detect.allocation.keep_freed_memory", lambda: asked.append(words))
    monkeypatch.setattr("hydra_detect.demo.run.run_demo", lambda *_given, **_options: None)
    monkeypatch.setattr("hydra_detect.cli.training_commands.DataOptions.read", lambda _self: none)
    run(words)
    assert asked == [words]


def test_elsewhere_nothing_is_changed(monkeypatch):
    """On another system the answer is no, and no C library is asked."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    assert keep_freed_memory() is False
