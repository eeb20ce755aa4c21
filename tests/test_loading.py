"""From artifacts to networks, and the deepest check of a store, which tries it for every version."""

import shutil

import attrs
import pytest

from hydra_detect import VersionManager
from hydra_detect.errors import CheckpointError
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.building import build, build_head
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import raw_tensors
from hydra_detect.storage import backbones, findings, heads
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest


@pytest.fixture
def manager(split_store, tmp_path):
    """Give the manager of a copy of the split store."""
    return VersionManager(shutil.copytree(split_store, tmp_path / "copy"))


def test_build(split_store):
    """A record and its tensors make the network that holds exactly them, for a backbone and for a head."""
    store = Store.open(split_store)
    stored = backbones.find(store, "default")
    backbone = build(stored.record, backbones.tensors(store, stored))
    assert isinstance(backbone, Backbone)
    assert tensors_digest(raw_tensors(backbone.network.state_dict())) == stored.record.tensors
    version, raw = heads.load(store, "rbc@1")
    for head in (build(version.record, raw), build_head(version.record, raw)):
        assert isinstance(head, RCNNHead)
        assert tensors_digest(raw_tensors(head.state_dict())) == version.record.tensors


def test_build_lists_what_does_not_fit(split_store):
    """Tensors that make no network are refused with the names of those that are missing and those that are too many."""
    version, raw = heads.load(Store.open(split_store), "rbc@1")
    name = min(raw)
    with pytest.raises(CheckpointError, match="cannot ") as caught:
        build(version.record, {("other" if key == name else key): value for key, value in raw.items()})
    assert name in str(caught.value)
    assert "other" in str(caught.value)


def test_a_deep_check_of_a_sound_store(split_store):
    """Every version of a store that a split made can be built."""
    calls = []
    report = VersionManager(split_store).verify(depth="deep", progress=lambda *call: calls.append(call))
    assert report.findings == ()
    assert report.versions == 4
    assert calls[-1][0] == calls[-1][1] == report.nbytes


def test_only_a_deep_check_builds(manager):
    """A version that proves itself and makes no network is found by a deep check alone; a repair leaves it as it is."""
    version, raw = heads.load(manager.store, "rbc@1")
    less = {name: value for name, value in raw.items() if name != min(raw)}
    manager.create("rbc", less, attrs.evolve(version.record, tensors=tensors_digest(less)))
    manager.promote("rbc", 3)
    assert manager.verify(depth="full").is_sound
    found = manager.verify(depth="deep").findings
    assert [(one.what, one.name, one.number) for one in found] == [(findings.CONTENT, "rbc", 3)]
    assert (found[0].severity, found[0].is_harmless) == ("unusable", False)
    assert min(raw) in found[0].problem
    report = manager.repair(depth="deep")
    assert (report.depth, report.findings, report.mended) == ("deep", found, ())
    assert manager.active("rbc").number == 3
    assert manager.store.head("rbc").numbers() == [1, 2, 3]
