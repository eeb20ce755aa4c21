"""Following the store: exactly the heads that changed are swapped, and whatever goes wrong, the old ones serve on."""

import copy
import gc
import logging
import shutil
import threading
import time
import weakref

import attrs
import numpy as np
import pytest
from originals import SETTINGS, save, small
from store_fixtures import flip

from hydra_detect import HeadRegistry, HydraDetector, VersionManager, split_checkpoint
from hydra_detect.checkpoints.noise import structured_noise
from hydra_detect.errors import CheckpointError, CorruptError, IncompatibleError, InputError, NotFoundError
from hydra_detect.storage import heads, layout
from hydra_detect.tensors import RawTensor, tensors_digest

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


@pytest.fixture(autouse=True)
def _nobody_is_left():
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
    state = manager.store.item(*RBC).pointer()
    manifest = manager.store.item(*RBC).manifest(number).digest
    facts = {"event": "promoted", "version": number, "active": number, "manifest": manifest}
    manager.store.item(*RBC).swap(state, {**facts, "earlier": (*state.earlier, state.active)})


def create(manager, change=lambda raw: raw, **changes):
    """Publish a version of `rbc` like version 1, with other weights or facts."""
    version, raw = heads.load(manager.store, "rbc@1")
    raw = change(dict(raw))
    record = attrs.evolve(version.record, tensors=tensors_digest(raw), **changes)
    return manager.create("rbc", raw, record).number


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
    assert manager.active("rbc").number == 3
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


# Watching


def test_watching_follows_until_it_is_closed(manager):
    """A detector that watches follows by itself; closed, it serves on and follows no more."""
    with HydraDetector.from_store(manager.store, device="cpu", watch=SOON) as detector:
        assert len(watchers()) == 1
        manager.promote("rbc", 2)
        until(lambda: numbers(detector)["rbc"] == 2)
        manager.rollback("rbc")
        until(lambda: numbers(detector)["rbc"] == 1)
    assert watchers() == []
    manager.promote("rbc", 2)
    time.sleep(5 * SOON)
    assert numbers(detector)["rbc"] == 1
    assert found(detector)
    assert list(detector.refresh().swapped) == ["rbc"]
    detector.close()


def test_watching_ends_with_the_detector(manager):
    """A detector that is dropped is freed, although a thread was watching for it, and the thread ends."""
    detector = HydraDetector.from_store(manager.store, device="cpu", watch=SOON)
    network = weakref.ref(detector._heads["rbc"].network)
    time.sleep(3 * SOON)
    del detector
    gc.collect()
    until(lambda: network() is None)
    until(lambda: not watchers())


def test_nobody_watches_unasked(follower, manager):
    """Unasked no thread is started and closing does nothing; an interval that cannot be is refused."""
    assert watchers() == []
    follower.close()
    for seconds in (0, -1.0, float("nan"), "5"):
        with pytest.raises(InputError, match="Give seconds, above 0"):
            HydraDetector.from_store(manager.store, device="cpu", watch=seconds)
    assert watchers() == []
