"""What the commands about versions cost: no torch, and a moment each, also with heads of real size."""

import subprocess
import sys
import time

import numpy as np
import pytest
from store_fixtures import a_record, with_backbone

from hydra_detect.cli import version_commands
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor
from hydra_detect.versions import VersionManager

SHAPES = {
    "roi_heads.box_head.fc6.bias": (1024,),
    "roi_heads.box_head.fc6.weight": (1024, 256 * 49),
    "roi_heads.box_head.fc7.bias": (1024,),
    "roi_heads.box_head.fc7.weight": (1024, 1024),
    "roi_heads.box_predictor.bbox_pred.weight": (12, 1024),
    "roi_heads.box_predictor.cls_score.weight": (3, 1024),
    "rpn.head.conv.0.0.weight": (256, 256, 3, 3),
}
"""The large tensors of torchvision's own head: 58 MB."""

MOST_SECONDS, SLACK = 0.5, 5
"""What is promised, and how many times that a slow or busy machine may take."""

READING_SECONDS = 1.5
"""What is promised of those that read three heads of this size, or compare two."""

QUICK = (
    "versions whale", "heads", "store usage", "history whale", "promote whale 2", "promote whale 2", "rollback whale",
    "pin whale 3 --reason paper", "unpin whale 3 --pinned-for paper", "store verify --quick",
    "prune whale --keep 1 --dry-run", "prune whale --keep 1", "rename whale orca", "history orca --json",
    "heads --json", "remove orca --dry-run", "remove orca --yes", "history whale",
)  # fmt: skip
READING = ("compare whale 1 2", "store verify", "store verify --full --repair")
REFUSED = ("versions zebra", "promote whale 9", "remove whale", "unpin whale 1 --pinned-for nothing", "pin whale 1.5")

SCRIPT = """
import sys
from hydra_detect.cli.commands import run
code = run(sys.argv[1:])
loaded = {'torch', 'torchvision'} & set(sys.modules)
sys.exit(f'it loaded {loaded}' if loaded else code)
"""


@pytest.fixture
def whale(tmp_path):
    """A store with three versions of `whale`, each of real size, of which 1 is active and was pinned."""
    store = with_backbone(Store.create(tmp_path / "store", durability="fast"))
    manager, source = VersionManager(store, actor="ann"), np.random.default_rng(0)
    for _ in range(3):
        raw = {name: RawTensor.of(source.standard_normal(shape, dtype=np.float32)) for name, shape in SHAPES.items()}
        assert 57e6 < manager.create("whale", raw, a_record(raw)).nbytes < 59e6
    manager.promote("whale", 1)
    manager.pin("whale", 1)
    return manager


def seconds(manager, command, *, code):
    """Run a command as people do, see its exit code and that it loads no torch, and return how long it took."""
    began = time.perf_counter()
    arguments = [sys.executable, "-c", SCRIPT, *command.split(), "--store", str(manager.store.root)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    assert done.returncode == code, (command, done.stderr)
    return took


def test_no_command_loads_torch_or_takes_long(whale):
    """No command about versions or the store imports torch, and each is done in half a second with heads of 58 MB."""
    refused = {command: seconds(whale, command, code=2) for command in REFUSED}
    whale.unpin("whale", 1)
    reading = {command: seconds(whale, command, code=0) for command in READING}
    quick = {command: seconds(whale, command, code=0) for command in QUICK}
    slowest = max({**refused, **quick}.items(), key=lambda item: item[1])
    assert slowest[1] < MOST_SECONDS * SLACK, slowest
    assert max(reading.values()) < READING_SECONDS * SLACK, reading


def test_every_command_is_among_them():
    """No command about versions or the store is forgotten here."""
    timed = {" ".join(command.split()[: 2 if command.startswith("store") else 1]) for command in (*QUICK, *READING)}
    names = {command.__name__ for command in version_commands.COMMANDS}
    assert timed == {*names, "heads", "store verify", "store usage"}
