"""Backbones in a store: published once under a name, never replaced."""

import errno
import os

import numpy as np
import pytest
import store_fixtures
from store_fixtures import (
    AT,
    Stopped,
    WatchedDisk,
    a_backbone,
    a_contract,
    a_record,
    flip,
    leftovers,
    on_disk,
    publish,
    refuse_opening,
    snapshot,
    some_tensors,
    stopping,
)

from hydra_detect import codec
from hydra_detect.contracts import Preprocessing
from hydra_detect.errors import ConflictError, CorruptError, IncompatibleError, NotFoundError, RecordError, StoreError
from hydra_detect.storage import artifacts, backbones, files, layout, pointers
from hydra_detect.storage.pointers import Change
from hydra_detect.tensors import RawTensor

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled


def put(store, name="demo", seed=0):
    """Put a backbone into a store."""
    tensors, record = a_backbone(seed)
    return backbones.publish(store, name, record, tensors)


def state(store, name="demo"):
    """Return the numbers of the versions of a backbone, and which one is active."""
    item = store.backbone(name)
    return item.numbers(), item.pointer().active


def refusing(step, number, place=""):
    """Return a disk that refuses one step, on a path of one name if one is given."""

    def look(now, path, *_arguments):
        if now == step and place in ("", getattr(path, "name", "")):
            raise OSError(number, os.strerror(number))

    return WatchedDisk(look)


# Finding


def test_backbone(store):
    """A backbone is published once, found by name, and an equal one is the one that is there."""
    tensors, record = a_backbone()
    assert backbones.names(store) == []
    first = backbones.publish(store, "demo", record, tensors)
    assert first.is_new
    before = snapshot(store.root / "backbones")
    again = backbones.publish(store, "demo", record, tensors)
    assert not again.is_new
    assert (again.record, again.manifest) == (record, first.manifest)
    assert snapshot(store.root / "backbones") == before
    assert store.backbone("demo").pointer().change.reason == "first of its name"
    found = backbones.find(store, "demo")
    assert backbones.tensors(store, found) == dict(sorted(tensors.items()))
    assert found.nbytes == len(artifacts.encode_tensors(tensors))


def test_backbone_name_of_another(store):
    """A name belongs to one backbone for ever: another one is refused with what differs."""
    tensors, record = a_backbone()
    backbones.publish(store, "demo", record, tensors)
    others, other = a_backbone(seed=1)
    before = snapshot(store.root / "backbones")
    with pytest.raises(ConflictError, match=r"that name belongs to another one .*digest is") as caught:
        backbones.publish(store, "demo", other, others)
    assert len(caught.value.facts["differences"]) == 1
    assert snapshot(store.root / "backbones") == before
    assert backbones.publish(store, "demo-2", other, others).is_new


def test_backbone_that_is_not_there(filled):
    """A miss says which names come near, as one sentence."""
    with pytest.raises(NotFoundError, match=r"no such backbone\. Did you mean 'demo'\?$"):
        backbones.find(filled.store, "demos")


def test_backbone_that_is_damaged(filled):
    """A backbone whose record or weights changed on disk is refused."""
    folder = filled.store.backbone("demo").place.version(1)
    found = backbones.find(filled.store, "demo")
    flip(folder / layout.TENSORS)
    with pytest.raises(CorruptError, match="its SHA-256 is not"):
        backbones.tensors(filled.store, found)
    flip(folder / layout.RECORD)
    with pytest.raises(CorruptError, match="its SHA-256 is not"):
        backbones.find(filled.store, "demo")


def test_backbone_without_weights(store):
    """A version that lists no weights is no backbone, and is told as damage."""
    _tensors, record = a_backbone()
    item = store.backbone("demo")
    manifest = item.publish({layout.RECORD: codec.encode(record)}, created_at=AT)
    change = Change(what=pointers.PROMOTED, at=AT)
    item.swap(pointers.NOTHING, {"active": 1, "manifest": manifest.digest}, change)
    with pytest.raises(CorruptError, match=r"cannot read backbone 'demo': the manifest lists only record\.json"):
        backbones.find(store, "demo")


def test_record_of_another_kind_in_the_place(store):
    """A backbone whose record is a head's is refused by the codec."""
    tensors = some_tensors()
    contents = {layout.RECORD: codec.encode(a_record(tensors)), layout.TENSORS: artifacts.encode_tensors(tensors)}
    item = store.backbone("demo")
    manifest = item.publish(contents, created_at=AT)
    change = Change(what=pointers.PROMOTED, at=AT)
    item.swap(pointers.NOTHING, {"active": 1, "manifest": manifest.digest}, change)
    with pytest.raises(RecordError, match=r"cannot read the record of backbone 'demo': .*contract: missing"):
        backbones.find(store, "demo")


def test_the_only_backbone(store):
    """Where there is one backbone it is meant; where there is none, or several, that is said, and what to do."""
    with pytest.raises(NotFoundError, match=r"the store has none\. Split an original into it first\."):
        backbones.only(store)
    put(store)
    assert backbones.only(store) == "demo"
    put(store, "other", 1)
    with pytest.raises(NotFoundError, match=r"the store has several: demo, other\. Say which one with backbone=NAME"):
        backbones.only(store)


def test_check_free(store):
    """A free name is free, that of an equal backbone gives that one, and that of another one is refused."""
    _tensors, record = a_backbone()
    assert backbones.check_free(store, "demo", record) is None
    put(store)
    assert backbones.check_free(store, "demo", record) == backbones.find(store, "demo")
    with pytest.raises(ConflictError, match="put this backbone into the store as 'demo'"):
        backbones.check_free(store, "demo", a_backbone(seed=1)[1])


# Whether a store holds what a head was made on


def test_check_holds(store):
    """A head's backbone is there by weights and settings, under whatever name, and its own name proves nothing."""
    put(store, "another", 1)
    put(store, "by-any-name")
    backbones.check_holds(store, a_contract(), "look")
    backbones.check_holds(store, a_backbone(seed=1)[1].contract, "look")


def test_check_holds_not(store):
    """What a store does not hold is told with what differs in each of those that it holds."""
    with pytest.raises(
        IncompatibleError, match=r"cannot look: .* that it was made on: it has none\. Put that backbone"
    ):
        backbones.check_holds(store, a_contract(), "look")
    put(store)
    put(store, "other", 1)
    wanted = a_contract(preprocessing=Preprocessing(min_size=640))
    with pytest.raises(IncompatibleError, match="the store has no backbone that it was made on") as caught:
        backbones.check_holds(store, wanted, "look")
    said = "preprocessing.min_size is 800 against 640"
    digests = f"digest is {a_backbone(1)[1].contract.digest.short} against {wanted.digest.short}"
    assert f"(stored against given): demo ({said}), other ({digests}; {said})" in caught.value.found


def test_check_holds_beside_damage(store):
    """A damaged backbone hides no other; only if none of the others is the one is the damage told."""
    for name, seed in (("demo", 0), ("other", 1), ("third", 2)):
        put(store, name, seed)
    flip(store.backbone("other").place.version(1) / layout.RECORD)
    for seed in (0, 2):
        backbones.check_holds(store, a_backbone(seed)[1].contract, "look")
    with pytest.raises(CorruptError, match=r"cannot read record\.json of other@1: its SHA-256 is not"):
        backbones.check_holds(store, a_backbone(seed=1)[1].contract, "look")


def test_check_holds_passes_over_what_is_not_finished(store):
    """A backbone that was written, and whose name was not given to it yet, is not there yet, and is no damage."""
    with pytest.raises(StoreError, match="No space left"):
        put(on_disk(store, refusing("link", errno.ENOSPC)))
    with pytest.raises(IncompatibleError, match="that it was made on: it has none"):
        backbones.check_holds(store, a_contract(), "look")
    put(store)
    backbones.check_holds(store, a_contract(), "look")


# Publishing, whoever else does


@pytest.mark.parametrize("step", ["make_folder", "rename", "link"])
def test_two_backbones_want_one_name(store, step):
    """Of two that want one name without a lock one gets it, the other hears what differs, and neither is replaced."""
    done = []

    def look(now, *_arguments):
        if now == step and not done:
            done.append("begun")
            done.append(put(store, seed=1))

    with pytest.raises(ConflictError, match=r"that name belongs to another one .*digest is") as caught:
        put(on_disk(store, WatchedDisk(look)))
    assert len(caught.value.facts["differences"]) == 1
    assert done[1].is_new
    found = backbones.find(store, "demo")
    assert (found.record, found.manifest) == (a_backbone(1)[1], done[1].manifest)
    assert store.backbone("demo").pointer().generation == 1
    assert leftovers(store) == []


@pytest.mark.parametrize("step", ["make_folder", "rename", "link"])
def test_two_put_the_same_backbone(store, step):
    """Of two that put the same backbone without a lock one does, and both get the one that is there."""
    done = []

    def look(now, *_arguments):
        if now == step and not done:
            done.append("begun")
            done.append(put(store))

    found = put(on_disk(store, WatchedDisk(look)))
    assert (done[1].is_new, found.is_new) == (True, False)
    assert found.manifest == done[1].manifest == backbones.find(store, "demo").manifest
    assert store.backbone("demo").pointer().generation == 1


def test_a_call_that_is_stopped_anywhere_is_finished_by_the_next(store):
    """Wherever putting a backbone is stopped, the next call finishes it, and no second version is written for it."""
    at, stopped = 0, True
    while stopped:
        at += 1
        name, (disk, _wanted) = f"demo-{at}", stopping(at)
        try:
            put(on_disk(store, disk), name)
        except Stopped:
            pass
        else:
            stopped = False
        before, found = store.backbone(name).numbers(), put(store, name)
        assert before in ([], [found.manifest.number])
        assert state(store, name) == ([found.manifest.number], found.manifest.number)
        assert backbones.find(store, name).record == a_backbone()[1]
    assert at > 30


def begun(store, seed=0):
    """Put a backbone into a store as far as its own name, which it is not given."""
    with pytest.raises(StoreError, match="No space left"):
        put(on_disk(store, refusing("link", errno.ENOSPC)), seed=seed)


def test_a_call_that_was_cut_off(store):
    """A backbone that was written without getting its name gets it by the next call, which is told that it is new."""
    begun(store)
    assert (state(store), backbones.names(store)) == (([1], None), ["demo"])
    assert put(store).is_new
    assert state(store) == ([1], 1)


def test_a_backbone_that_was_cut_off_is_not_found(store):
    """Whoever asks for a backbone that never got its name hears that, and how it gets it."""
    begun(store)
    with pytest.raises(NotFoundError, match=r"cannot find backbone 'demo': it was written, .* Put it into the store"):
        backbones.find(store, "demo")


def test_a_call_that_was_cut_off_and_damaged(store):
    """What was written and is damaged by now is not made the backbone of its name: it is written again."""
    begun(store)
    flip(store.backbone("demo").place.version(1) / layout.TENSORS)
    assert put(store).is_new
    assert state(store) == ([1, 2], 2)
    assert backbones.tensors(store, backbones.find(store, "demo")) == dict(sorted(some_tensors().items()))


def test_a_call_that_was_cut_off_and_cannot_be_read(store, monkeypatch):
    """What was written and may not be read is not written again beside it: that is for whoever may read it."""
    begun(store)
    with monkeypatch.context() as patch:
        refuse_opening(patch, store.backbone("demo").place.version(1) / layout.TENSORS)
        with pytest.raises(StoreError, match=r"cannot read model\.safetensors of demo@1: Input/output error"):
            put(store)
    assert state(store) == ([1], None)


def test_a_call_that_was_cut_off_keeps_no_name(store):
    """A name that was not given yet is free: another backbone may get it, and what was written is not that one."""
    begun(store)
    assert put(store, seed=1).manifest.number == 2
    assert state(store) == ([1, 2], 2)
    with pytest.raises(ConflictError, match="that name belongs to another one"):
        put(store)


# The gate


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (some_tensors(5), r"the record names tensors .* and these have"),
        ({"box.weight": RawTensor.of(np.float32("nan"))}, r"NaN or infinity in 1 of 1 tensors: box\.weight"),
    ],
    ids=["other weights", "NaN"],
)
def test_what_does_not_pass_the_gate(store, weights, found):
    """Weights that are not those of the record, or no numbers, get no name, and do not keep it from the right ones."""
    _tensors, record = a_backbone()
    before = snapshot(store.root)
    with pytest.raises(CorruptError, match=found):
        backbones.publish(store, "demo", record, weights)
    assert snapshot(store.root) == before
    assert put(store).is_new


def test_an_equal_backbone_that_is_damaged(store):
    """A backbone is not said to be there when its weights are damaged by now."""
    put(store)
    flip(store.backbone("demo").place.version(1) / layout.TENSORS)
    with pytest.raises(CorruptError, match=r"cannot read model\.safetensors of demo@1: its SHA-256"):
        put(store)


# Errors of the disk


def test_a_disk_that_is_full(store):
    """A disk that is full before the backbone is written says that nothing was changed, and nothing was."""
    with pytest.raises(StoreError, match=r"Free some space and run it again; nothing was changed\.$"):
        put(on_disk(store, refusing("write", errno.ENOSPC)))
    assert state(store) == ([], None)
    assert leftovers(store) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_disk_that_is_full_half_way(store, number):
    """A disk that fails once the backbone is written says what is there, and that the next call finishes it."""
    with pytest.raises(StoreError, match="cannot change the state of 'demo': ") as caught:
        put(on_disk(store, refusing("link", number)))
    assert caught.value.remedy.startswith("Run it again, which finishes it: so far the backbone has been written")
    assert caught.value.facts == {"errno": number}
    assert state(store) == ([1], None)
    assert put(store).manifest.number == 1


def test_a_disk_that_does_not_confirm_the_name(store):
    """Where only the last sync fails the backbone is the one of its name, and a power loss could undo it."""
    with pytest.raises(StoreError, match="Input/output error") as caught:
        put(on_disk(store, refusing("sync_folder", errno.EIO, "pointer")))
    assert caught.value.remedy == files.UNCERTAIN
    assert state(store) == ([1], 1)


@pytest.mark.parametrize("folder", ["store", "backbones", "demo", "versions", "pointer"])
def test_a_backbone_that_is_there_is_confirmed(store, folder):
    """An equal backbone that is there is not said to be so before the disk confirms it: its writer may have died."""
    put(store)
    before = snapshot(store.root)
    assert not put(store).is_new
    with pytest.raises(StoreError, match="cannot confirm the state of 'demo': Input/output error"):
        put(on_disk(store, refusing("sync_folder", errno.EIO, folder)))
    assert snapshot(store.root) == before


def test_backbones_and_heads_have_names_of_their_own(store):
    """A backbone and a head may have one name, and do not know each other."""
    put(store, "owl")
    publish(store, "owl")
    assert (store.names(layout.BACKBONES), store.names(layout.HEADS)) == (["owl"], ["owl"])
    assert state(store, "owl") == ([1], 1)
    assert store.head("owl").pointer() == pointers.NOTHING
