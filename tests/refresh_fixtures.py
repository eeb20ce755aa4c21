"""What tests of detectors that follow a store share: a store of small networks that may be changed and damaged."""

import gc
import shutil
import threading
import time

import attrs
import numpy as np
import pytest
from store_fixtures import AT, flip

from hydra_detect import HydraDetector, VersionManager
from hydra_detect.checkpoints.noise import structured_noise
from hydra_detect.storage import heads, layout
from hydra_detect.storage.pointers import Change
from hydra_detect.tensors import tensors_digest

RBC = (layout.HEADS, "rbc")
SOON = 0.02
PATIENCE = 60.0


@pytest.fixture
def manager(split_store, tmp_path):
    """Give the manager of a copy of the split store, with `rbc` (1 active, 2) and `wbc` (1 active)."""
    return VersionManager(shutil.copytree(split_store, tmp_path / "copy"))


@pytest.fixture
def follower(manager):
    """Give a detector that follows `rbc` and `wbc`."""
    return HydraDetector.from_store(manager.store, device="cpu")


@pytest.fixture
def nobody_is_left():
    """See that no test leaves a thread behind."""
    yield
    gc.collect()
    until(lambda: not watchers())


def watchers():
    """Return the threads that watch."""
    return [thread for thread in threading.enumerate() if thread.name == "hydra-detect-watch"]


def until(condition):
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(SOON)


def picture():
    """Return a structured RGB picture, uint8 [height, width, 3]."""
    noise = structured_noise(np.random.default_rng(0), 96, 96, channels=3)
    return np.ascontiguousarray((noise * 255).round().astype(np.uint8).transpose(1, 2, 0))


def found(detector):
    """Return what a detector finds at any score."""
    return detector.predict(picture(), score_threshold=0.0)


def numbers(detector):
    """Return the numbers of the loaded versions by head."""
    return {name: version.number for name, version in detector.heads.items()}


def damage(manager, number):
    """Flip a bit in the weights of a version of `rbc`."""
    path = manager.store.layout.item(*RBC).version(number) / layout.TENSORS
    flip(path, place=path.stat().st_size // 2)


def point(manager, number):
    """Make a version active without looking at it, as a process does that died before the disk rotted."""
    item = manager.store.item(*RBC)
    state, manifest = item.pointer(), item.manifest(number).digest
    after = {"active": number, "manifest": manifest, "earlier": (*state.earlier, state.active)}
    item.swap(state, after, Change(what="promoted", version=number, manifest=manifest, at=AT))


def create(manager, change=lambda raw: raw, **changes):
    """Publish a version of `rbc` like version 1, with other weights or facts."""
    version, raw = heads.load(manager.store, "rbc@1")
    raw = change(dict(raw))
    record = attrs.evolve(version.record, tensors=tensors_digest(raw), **changes)
    return manager.create("rbc", raw, record).number
