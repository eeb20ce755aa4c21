"""How long things take, and how much memory: measured, printed, and held within five times what is promised."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_fixtures import a_record, create, with_backbone

from hydra_detect.registry import HeadRegistry
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


def real_head():
    """Return weights of real size and their record."""
    source = np.random.default_rng(0)
    raw = {name: RawTensor.of(source.standard_normal(shape, dtype=np.float32)) for name, shape in SHAPES.items()}
    return raw, a_record(raw)


def median_seconds(work, *, repeats, clock=time.perf_counter):
    """Return the median time of several runs of `work`, which is given the number of the run."""
    seconds = []
    for number in range(repeats):
        began = clock()
        work(number)
        seconds.append(clock() - began)
    return statistics.median(seconds)


@pytest.fixture(scope="module")
def real(disk_folder):
    """Give the manager of a store on the disk, fully durable, with three versions of `whale` of real size."""
    manager = VersionManager(with_backbone(Store.create(disk_folder / "real")), actor="test")
    raw, record = real_head()
    for _ in range(3):
        manager.create("whale", raw, record)
    return manager


def test_publishing(real, figure):
    """A head of 58 MB is published, durable, in at most half a second."""
    raw, record = real_head()
    seconds = median_seconds(lambda _: real.create("new", raw, record), repeats=5)
    figure("publish a head of 58 MB, durable", seconds, 0.5, "s")


def test_promoting(real, figure):
    """Promoting is a matter of 20 ms, also of a head of 58 MB, of which each byte is hashed before."""
    for seed in (1, 2):
        create(real, "owl", seed)
    seconds = median_seconds(lambda turn: real.promote("owl", 1 + turn % 2), repeats=21)
    figure("promote a version, durable", seconds, 0.02, "s")
    seconds = median_seconds(lambda turn: real.promote("whale", 1 + turn % 2), repeats=7)
    figure("promote a version of 58 MB, each byte of it hashed before, durable", seconds, 0.02, "s")


def test_promoting_after_many_promotions(tmp_path, figure):
    """A promotion, and a look whether there was one, stay cheap when a head has a long history."""
    manager = VersionManager(Store.create(tmp_path / "store", durability="fast"), actor="test")
    for seed in (1, 2):
        create(manager, "owl", seed)
    for turn in range(400):
        manager.promote("owl", 1 + turn % 2)
    seconds = median_seconds(lambda turn: manager.promote("owl", 1 + turn % 2), repeats=21)
    figure("promote a version after 400 promotions", seconds, 0.02, "s")
    seconds = median_seconds(lambda _: manager.store.head("owl").pointer(), repeats=21)
    figure("look what is active after 400 promotions", seconds, 0.002, "s")


def test_opening_and_listing(tmp_path, figure):
    """A store of 12 heads with 5 versions each is opened and listed in 50 ms, without an index and with one."""
    store = Store.create(tmp_path / "store", durability="fast")
    manager = VersionManager(store)
    for seed in range(5):
        for place in range(12):
            create(manager, f"head-{place}", seed)
            manager.promote(f"head-{place}", seed + 1)

    def listed(*, indexed):
        if not indexed:
            store.layout.index.unlink(missing_ok=True)
        infos = HeadRegistry(Store.open(store.root)).infos()
        assert [(info.active, len(info.versions)) for info in infos] == [(5, 5)] * 12

    for indexed, when in ((False, "first time"), (True, "with its index")):
        seconds = median_seconds(lambda _, indexed=indexed: listed(indexed=indexed), repeats=9)
        figure(f"open and list 12 heads x 5 versions, {when}", seconds, 0.05, "s")


def test_verifying(tmp_path, figure, exhaustive):
    """A full check costs 2 s of a core for 3.5 GB; nearly all of it is SHA-256 itself."""
    manager = VersionManager(with_backbone(Store.create(tmp_path / "store", durability="fast")), actor="test")
    raw, record = real_head()
    for place in range(12):
        for _ in range(5 if exhaustive else 1):
            manager.create(f"head-{place}", raw, record)
    reports = []
    seconds = median_seconds(lambda _: reports.append(manager.verify()), repeats=3, clock=time.process_time)
    assert all(not report.findings for report in reports)
    gigabytes = reports[0].nbytes / 1e9
    figure("CPU to verify 1 GB", seconds / gigabytes, 2 / 3.5, "s")


CHILD = """
import json, sys
from pathlib import Path

sys.path[:0] = {path!r}
from test_speed import real_head
from hydra_detect.versions import VersionManager

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

manager = VersionManager({root!r})
begin = memory("VmRSS")
version = manager.create("whale", *real_head())
print(json.dumps([memory("VmHWM") - begin, version.nbytes]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells the peak of a process's memory")
def test_memory_of_publishing(tmp_path, figure):
    """Publishing takes at most three times the file in memory, the weights that it was given among them."""
    root = with_backbone(Store.create(tmp_path / "store", durability="fast")).root
    code = CHILD.format(path=[path for path in sys.path if path], root=str(root))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, nbytes = json.loads(done.stdout)
    assert nbytes > 57_000_000
    figure("memory at the peak of publishing, in files of 58 MB", peak / nbytes, 3, "times", slack=1)
