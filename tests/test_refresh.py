"""Following the store: exactly the heads that changed are swapped, and whatever goes wrong, the old ones serve on."""

import copy
import gc
import logging
import shutil
import weakref

import attrs
import numpy as np
import pytest
import refresh_fixtures
from originals import SETTINGS, save, small
from refresh_fixtures import RBC, create, damage, found, numbers, point
from store_fixtures import flip

from hydra_detect import HeadRegistry, HydraDetector, Store, VersionManager, split_checkpoint
from hydra_detect.errors import CheckpointError, CorruptError, IncompatibleError, NotFoundError
from hydra_detect.storage import heads
from hydra_detect.tensors import RawTensor
from hydra_detect.watching import Refreshed

manager, follower = refresh_fixtures.manager, refresh_fixtures.follower


def complaints(caplog):
    """Return what the log says that keeps serving."""
    return [record.getMessage() for record in caplog.records if "keeps serving" in record.getMessage()]


# Loading


def test_the_active_version_is_loaded_by_default(follower, manager):
    """Without a version the active one is taken, and a promotion counts from the next loading on."""
    assert numbers(follower) == {"rbc": 1, "wbc": 1}
    manager.promote("rbc", 2)
    assert follower.heads["rbc"].number == 1
    assert follower.load_head("rbc").number == 2
    assert "rbc@2" in repr(follower)


def test_a_damaged_version_is_refused_and_the_loaded_one_keeps_serving(manager):
    """Swapping to a version with a flipped byte raises, and predictions go on as before."""
    detector = HydraDetector.from_store(manager.store, ["rbc@1"], device="cpu")
    before = found(detector)
    damage(manager, 2)
    with pytest.raises(CorruptError, match="SHA-256"):
        detector.swap("rbc@2")
    assert detector.heads["rbc"].number == 1
    assert found(detector) == before


# Refreshing


def test_exactly_the_heads_that_changed_are_swapped(follower, manager):
    """A promotion is followed by the next refresh; the other head's network stays the very same object."""
    kept, old = follower._heads["wbc"], follower._heads["rbc"]
    manager.promote("rbc", 2)
    report = follower.refresh()
    assert ({name: version.number for name, version in report.swapped.items()}, dict(report.refused)) == (
        {"rbc": 2},
        {},
    )
    assert report.swapped["rbc"] == manager.active("rbc")
    assert numbers(follower) == {"rbc": 2, "wbc": 1}
    assert follower._heads["wbc"] is kept
    assert follower._heads["rbc"].network is not old.network
    assert found(follower) == found(HydraDetector.from_store(manager.store, device="cpu"))


def test_another_version_of_the_same_number_is_swapped_in(follower, manager, tmp_path):
    """The active version is known by its manifest: another one that a state names by that number is followed."""
    donor = VersionManager(Store.create(tmp_path / "donor"))
    shutil.copytree(manager.store.root / "backbones", donor.store.root / "backbones")
    version, raw = heads.load(manager.store, "rbc@2")
    made = donor.create("rbc", raw, attrs.evolve(version.record, notes="made elsewhere"))
    place = manager.store.layout.item(*RBC).version(1)
    shutil.rmtree(place)
    shutil.copytree(donor.store.layout.item(*RBC).version(1), place)
    assert follower.refresh() == Refreshed({}, {})  # what was promoted is what is loaded
    state = manager.store.head("rbc").pointer()
    change = attrs.evolve(state.change, version=1, manifest=made.manifest)  # of a writer who asked nobody
    manager.store.head("rbc").swap(state, {"active": 1, "manifest": made.manifest}, change)
    assert follower.refresh().swapped["rbc"].manifest == made.manifest
    assert follower.heads["rbc"].record.notes == "made elsewhere"


def test_what_the_last_refresh_did_can_be_asked_later(follower, manager):
    """What the last look came to is kept, whoever looked: nothing before the first, and each look replaces it."""
    assert (dict(follower.last_refresh.swapped), dict(follower.last_refresh.refused)) == ({}, {})
    manager.promote("rbc", 2)
    report = follower.refresh()
    assert follower.last_refresh is report
    assert list(report.swapped) == ["rbc"]
    damage(manager, 1)
    point(manager, 1)
    assert list(follower.refresh().refused) == list(follower.last_refresh.refused) == ["rbc"]
    assert dict(follower.last_refresh.swapped) == {}
    assert list(report.swapped) == ["rbc"]


def test_nothing_changed(follower, monkeypatch):
    """Where nothing changed a refresh reads pointers alone, replaces nothing, and says so."""
    kept = dict(follower._heads)
    monkeypatch.setattr(HydraDetector, "_read", lambda *_: pytest.fail("a head was read"))
    for _ in range(2):
        report = follower.refresh()
        assert (dict(report.swapped), dict(report.refused)) == ({}, {})
    assert all(follower._heads[name] is head for name, head in kept.items())


def test_new_versions_and_pins_are_no_change(follower, manager):
    """A version that was created but not promoted, and a pin, swap nothing."""
    kept = follower._heads["rbc"]
    create(manager)
    manager.pin("rbc", 2)
    assert dict(follower.refresh().swapped) == {}
    assert follower._heads["rbc"] is kept


def test_heads_that_were_loaded_by_version_stay(manager):
    """A head that was asked for by its number is not followed, until it is loaded by its name."""
    detector = HydraDetector.from_store(manager.store, ["rbc@1", "wbc"], device="cpu")
    manager.promote("rbc", 2)
    assert dict(detector.refresh().swapped) == {}
    assert numbers(detector)["rbc"] == 1
    detector.swap("rbc")
    manager.promote("rbc", 1)
    assert list(detector.refresh().swapped) == ["rbc"]
    detector.swap("rbc@2")
    assert (dict(detector.refresh().swapped), numbers(detector)["rbc"]) == ({}, 2)


def test_a_rollback_is_followed(follower, manager):
    """A rollback leads back to the very answers of before."""
    before = found(follower)
    manager.promote("rbc", 2)
    follower.refresh()
    assert found(follower) != before
    manager.rollback("rbc")
    assert follower.refresh().swapped["rbc"].number == 1
    assert found(follower) == before


def test_a_damaged_new_version_is_refused(follower, manager, caplog):
    """A damaged new version is refused with the reason, the old one keeps serving, and the log says so once."""
    before, kept = found(follower), follower._heads["rbc"]
    point(manager, 2)
    damage(manager, 2)
    with caplog.at_level(logging.DEBUG, "hydra_detect"):
        for _ in range(3):
            report = follower.refresh()
            assert dict(report.swapped) == {}
            assert isinstance(report.refused["rbc"], CorruptError)
            assert "SHA-256" in report.refused["rbc"].found
    (said,) = complaints(caplog)
    assert said.startswith("rbc@1 keeps serving: cannot read model.safetensors of rbc@2: ")
    assert follower._heads["rbc"] is kept
    assert found(follower) == before


def test_each_new_reason_is_said_and_so_is_the_same_one_later(follower, manager, caplog):
    """The log says once what is wrong, again when it is something else, and again after all was well in between."""
    point(manager, 2)
    item = manager.store.layout.item(*RBC)
    flip(item.pointer(item.pointer_generations()[-1]), 30)
    follower.refresh()
    flip(item.pointer(item.pointer_generations()[-1]), 30)
    damage(manager, 2)
    follower.refresh()
    follower.refresh()
    assert len(complaints(caplog)) == 2
    manager.rollback("rbc")
    assert (dict(follower.refresh().swapped), dict(follower.refresh().refused)) == ({}, {})
    point(manager, 2)
    follower.refresh()
    assert len(complaints(caplog)) == 3


def test_one_refusal_does_not_hold_up_the_others(follower, manager):
    """While one head's new version is refused, another head's is swapped in."""
    point(manager, 2)
    damage(manager, 2)
    version, raw = heads.load(manager.store, "rbc@1")
    manager.create("wbc", raw, version.record)
    manager.promote("wbc", 2)
    report = follower.refresh()
    assert (list(report.swapped), list(report.refused)) == (["wbc"], ["rbc"])
    assert numbers(follower) == {"rbc": 1, "wbc": 2}


def test_a_version_that_was_mended_is_swapped_in(follower, manager):
    """Once the damaged version is whole again, or another one is promoted, the head follows."""
    point(manager, 2)
    damage(manager, 2)
    assert list(follower.refresh().refused) == ["rbc"]
    damage(manager, 2)
    assert list(follower.refresh().swapped) == ["rbc"]
    assert numbers(follower)["rbc"] == 2


def test_a_repair_is_followed(follower, manager):
    """After a repair went back to an earlier version the detector serves that one, by its old network."""
    point(manager, 2)
    follower.refresh()
    assert numbers(follower)["rbc"] == 2
    damage(manager, 2)
    manager.repair()
    assert follower.refresh().swapped["rbc"].number == 1


@pytest.mark.parametrize("change", ["remove", "rename"])
def test_a_head_that_went_keeps_serving(follower, manager, change, caplog):
    """A head that was removed or renamed serves on, though nothing of it is left to load; the log says so once."""
    before = found(follower)
    registry = HeadRegistry(manager.store)
    registry.remove("rbc") if change == "remove" else registry.rename("rbc", "red")
    for _ in range(2):
        report = follower.refresh()
        assert isinstance(report.refused["rbc"], NotFoundError)
    assert len(complaints(caplog)) == 1
    assert found(follower) == before
    if change == "rename":
        assert follower.load_head("red").number == 1
        assert np.array_equal(found(follower).by_head()["red"].boxes, before.by_head()["rbc"].boxes)


def test_a_head_of_another_backbone_is_refused(follower, manager, tmp_path):
    """A new active version that was made for another backbone is refused, with what differs."""
    other = save(small(seed=9), tmp_path / "other.pth")
    split_checkpoint(other, manager.store, head="rbc", backbone="second", settings=SETTINGS)
    assert manager.promote("rbc", 3).number == 3
    assert isinstance(follower.refresh().refused["rbc"], IncompatibleError)
    assert numbers(follower)["rbc"] == 1


def test_a_version_that_is_no_network_is_refused(follower, manager):
    """A new active version whose tensors make no network is refused with their names, before anything is swapped."""

    def lose_one(raw):
        raw.pop(min(raw))
        return {**raw, "more": RawTensor.of(np.float32(1))}

    manager.promote("rbc", create(manager, lose_one))
    error = follower.refresh().refused["rbc"]
    assert isinstance(error, CheckpointError)
    assert "more" in str(error)
    assert numbers(follower)["rbc"] == 1


def test_a_store_that_is_gone_keeps_nobody_from_serving(follower, manager, caplog):
    """With the whole store gone every head serves on, and each is told once."""
    before = found(follower)
    shutil.move(manager.store.root, manager.store.root.parent / "elsewhere")
    for _ in range(2):
        assert sorted(follower.refresh().refused) == ["rbc", "wbc"]
    assert len(complaints(caplog)) == 2
    assert found(follower) == before


def test_what_others_do_to_the_detector_meanwhile_counts(follower, manager, monkeypatch):
    """A head that is dropped, or loaded anew, while its new version is read is left as the other thread left it."""
    manager.promote("rbc", 2)
    read, acts = HydraDetector._read, [lambda: follower.unload_head("rbc"), lambda: follower.load_head("rbc@1")]

    def act_meanwhile(self, ref):
        head = read(self, ref)
        if ref == "rbc" and acts:
            acts.pop()()
        return head

    monkeypatch.setattr(HydraDetector, "_read", act_meanwhile)
    assert dict(follower.refresh().swapped) == {}
    assert numbers(follower)["rbc"] == 1
    follower._put(attrs.evolve(follower._heads["rbc"], follows=True))
    assert dict(follower.refresh().swapped) == {}
    assert "rbc" not in follower.heads


def test_reports_do_not_change_and_hold_no_network(follower, manager):
    """What a refresh returns is read-only, and keeping it keeps no network alive."""
    manager.promote("rbc", 2)
    old = weakref.ref(follower._heads["rbc"].network)
    report = follower.refresh()
    with pytest.raises(TypeError, match="does not support item assignment"):
        report.swapped["rbc"] = None
    gc.collect()
    assert old() is None
    point(manager, 1)
    damage(manager, 1)
    refused = copy.copy(follower.refresh())
    assert refused.refused["rbc"].__traceback__ is None
