"""Promoting: only what is whole becomes active, whatever others do meanwhile."""

import functools

import filelock
import numpy as np
import pytest
import store_damage
import store_fixtures
from store_damage import at, version
from store_fixtures import a_record, create, flip, leftovers, on_disk, snapshot, some_tensors
from version_fixtures import FILES, ORIGINAL, OWL, at_link, damage, exchange, look_between, with_attachments

from hydra_detect import VersionManager, codec
from hydra_detect.errors import ConflictError, CorruptError, NameInvalidError, NotFoundError
from hydra_detect.storage import artifacts, heads, layout
from hydra_detect.storage.items import Item
from hydra_detect.tensors import tensors_digest

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


# Promoting


def test_promote(filled):
    """The promoted version is the active one, for every manager of the store, with the reason kept."""
    found = filled.promote("owl", 2, reason="better")
    find = functools.partial(heads.find, filled.store)
    assert found == find("owl@2") == filled.active("owl") == find("owl")
    assert VersionManager(filled.store.root).active("owl").number == 2
    pointer = filled.store.head("owl").pointer()
    assert (pointer.generation, pointer.previous, pointer.change.reason) == (2, 1, "better")
    assert pointer.manifest == pointer.change.manifest == found.manifest
    assert (pointer.change.what, pointer.change.version) == ("promoted", 2)


def test_promoting_what_is_active_changes_nothing(filled):
    """The active version can be promoted again without a new generation, so the one before it stays known."""
    filled.promote("owl", 2)
    before = filled.store.head("owl").pointer()
    assert filled.promote("owl", 2).number == 2
    assert filled.store.head("owl").pointer() == before
    assert (before.active, before.previous) == (2, 1)


def test_promoting_another_version_of_the_active_number(rich):
    """Where another whole version stands in the place of the active one, nobody can make it so by promoting it."""
    exchange(rich, 2, seed=70)
    with pytest.raises(CorruptError, match="version 2 is not the one that was promoted"):
        rich.active("owl")
    before = rich.store.head("owl").pointer()
    for ask in (rich.promote, rich.pin):
        with pytest.raises(CorruptError, match="owl@2: it is not the one that the history speaks of") as caught:
            ask("owl", 2, reason="from the copy")
        assert "store verify --repair" in caught.value.remedy
    assert rich.store.head("owl").pointer() == before
    assert rich.repair().is_sound
    assert [event.what for event in rich.history("owl")[-1:]] == ["repaired"]
    assert rich.active("owl").number == 3
    with pytest.raises(NotFoundError, match="has no version 2"):
        rich.promote("owl", 2)


def test_promoting_another_version_of_an_old_number(rich):
    """The digest is that of when the history spoke of it last, however long ago, and whatever came after it."""
    for number in (1, 2, 3, 2, 3):
        rich.promote("owl", number)
    for _ in range(20):
        rich.pin("owl", 3, reason="a")
        rich.unpin("owl", 3, pinned_for="a")
    exchange(rich, 1, seed=70)
    with pytest.raises(CorruptError, match="cannot read owl@1: it is not the one that the history speaks of"):
        rich.promote("owl", 1)
    assert [(one.what, one.path) for one in rich.verify().findings] == [("version", "heads/owl/versions/000001")]


NUMBERS = (0, -1, "2", "", 2.0, 2.6, True, False, None, [2], np.float64(2), np.True_, np.int64(-1), 10**9)


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_what_is_no_number(filled, number):
    """What is no version number is never promoted, pinned, unpinned or compared; None does not mean the active one."""
    before = snapshot(filled.store.root / "heads")
    asks = (
        filled.promote, filled.pin, filled.unpin, lambda *ref: filled.compare(*ref, 1),
        lambda head, number: filled.compare(head, 1, number),
    )  # fmt: skip
    for ask in asks:
        with pytest.raises(NameInvalidError, match=r"^cannot refer to a version of 'owl'") as caught:
            ask("owl", number)
        assert caught.value.remedy == "Give the version as a whole number from 1."
    assert snapshot(filled.store.root / "heads") == before


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array], ids=lambda kind: kind.__name__)
def test_whole_numbers_of_any_kind(filled, kind):
    """A whole number of numpy is a version number like Python's own, and is written as such."""
    assert filled.promote("owl", kind(2)).number == 2
    assert filled.pin("owl", kind(2)).number == 2
    assert [type(number) for number in filled.store.head("owl").pointer().pinned] == [int]
    filled.unpin("owl", kind(2))
    assert filled.store.head("owl").pointer().pins == ()
    assert filled.compare("owl", kind(1), kind(2)).b == 2
    assert list(filled.prune("owl", keep=kind(1), dry_run=True).kept) == [1, 2]


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("kind", ["flip", "cut", "gone"])
def test_damaged_versions_are_not_promoted(filled, path, kind):
    """A version of which any file is damaged or missing is refused, and the active one stays and still works."""
    number = with_attachments(filled, seed=3).number
    damage(at(filled, version(number, path)), kind)
    before = snapshot(filled.store.root / "heads")
    with pytest.raises(NotFoundError if kind == "gone" else CorruptError, match=r"cannot read ") as caught:
        filled.promote("owl", number)
    assert path in str(caught.value) or path == layout.MANIFEST
    assert f"owl@{number}" in str(caught.value)
    assert snapshot(filled.store.root / "heads") == before
    active = filled.active("owl")
    assert active.number == 1
    assert len(heads.tensors(filled.store, active)) == 2
    assert leftovers(filled.store) == []


@pytest.mark.parametrize("path", [layout.PARITY, ORIGINAL])
def test_the_active_version_is_checked_too(filled, path):
    """Promoting what is active already changes nothing, and still refuses it if something beside it is damaged."""
    number = with_attachments(filled, seed=3).number
    filled.promote("owl", number)
    damage(at(filled, version(number, path)), "flip")
    with pytest.raises(CorruptError, match=f"read {path} of owl@{number}: its SHA-256"):
        filled.promote("owl", number)


def test_weights_of_another_record(filled):
    """Promoting proves the bytes alone; weights that are not those of their record are refused by who loads them."""
    contents = {
        layout.TENSORS: artifacts.encode_tensors(some_tensors(5)),
        layout.RECORD: codec.encode(a_record(some_tensors())),
    }
    filled.store.head("owl").publish(contents, created_at=store_fixtures.AT)  # past the gate that `create` is
    assert filled.promote("owl", 3).number == 3
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        heads.load(filled.store, "owl")


def test_active_version_that_was_exchanged(filled):
    """An active version whose folder now holds another one of the same number is found."""
    seed = exchange(filled, 1, seed=7)
    assert heads.find(filled.store, "owl@1").record.tensors == tensors_digest(some_tensors(seed))
    for ask in (filled.active, functools.partial(heads.find, filled.store)):
        with pytest.raises(CorruptError, match="version 1 is not the one that was promoted"):
            ask("owl")


def test_damaged_pointer_is_not_guessed(filled):
    """With a damaged pointer no version counts as active, rather than a wrong one; each is still there by number."""
    flip(filled.store.layout.item(*OWL).pointer(1), place=20)
    before = snapshot(filled.store.root / "heads")
    asks = (
        filled.active, filled.rollback, filled.prune, lambda head: filled.promote(head, 2),
        lambda head: filled.pin(head, 1), lambda head: filled.unpin(head, 1),
        lambda head: filled.prune(head, dry_run=True),
    )  # fmt: skip
    for ask in asks:
        with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl'"):
            ask("owl")
    assert heads.find(filled.store, "owl@2").number == 2
    assert [found.number for found in filled.versions("owl")] == [1, 2]
    assert snapshot(filled.store.root / "heads") == before


# Promoting beside others


@pytest.mark.parametrize("change", ["promote", "rollback"])
def test_files_are_read_while_others_may_write(rich, monkeypatch, change):
    """Checking a version, which takes the longest, holds up nobody: the lock is free while files are read."""
    lock = filelock.FileLock(rich.store.layout.lock(*OWL))
    check, free = Item.check, []

    def look(self, found, path):
        with lock.acquire(timeout=0):
            free.append((found.number, path))
        return check(self, found, path)

    monkeypatch.setattr(Item, "check", look)
    number = (rich.promote("owl", 4) if change == "promote" else rich.rollback("owl")).number
    assert free == [(number, layout.TENSORS), (number, layout.RECORD)]


def test_what_is_exchanged_while_it_is_promoted(filled, monkeypatch):
    """A version in whose place another was put since it was checked is not made active."""
    done = look_between(monkeypatch, "whole", lambda: exchange(filled, 2, seed=50))
    with pytest.raises(CorruptError, match="cannot read owl@2: its manifest was exchanged while it was checked"):
        filled.promote("owl", 2)
    assert done == [51]
    assert filled.active("owl").number == 1


def test_what_is_pruned_while_it_is_checked(rich, monkeypatch):
    """A version that was pruned since it was checked is not made active."""
    other = VersionManager(rich.store.root)
    done = look_between(monkeypatch, "whole", lambda: other.prune("owl", keep=1))
    with pytest.raises(NotFoundError, match=r"'owl' has no version 1\. There are versions 2, 3, 4"):
        rich.promote("owl", 1)
    assert list(done[0].removed) == [1]
    assert rich.active("owl").number == 2


def test_what_is_pruned_while_it_is_promoted(rich):
    """Where locks do nothing: a version that is pruned at the last moment is not made active."""
    other, done = VersionManager(rich.store.root), []
    late = VersionManager(on_disk(rich.store, at_link(lambda: done or done.append(other.prune("owl", keep=1)))))
    with pytest.raises(NotFoundError, match="'owl' has no version 1"):
        late.promote("owl", 1)
    assert list(done[0].removed) == [1]
    assert rich.active("owl").number == 2


@pytest.mark.parametrize("number", [2, 3])
def test_promote_instead_of_what_was_compared(filled, number):
    """A version that was compared with the active one is promoted only as long as that one is active; 0 is none."""
    create(filled)
    assert filled.promote("fox", 1, instead_of=0).number == 1
    assert filled.promote("owl", number, instead_of=1).number == number
    before = filled.store.item(*OWL).pointer()
    for instead_of, found in ((1, "version 1"), (0, "none")):
        with pytest.raises(ConflictError, match=f"version {number} is active and not {found}") as caught:
            filled.promote("owl", 5 - number, instead_of=instead_of)
        assert caught.value.facts == {"active": number}
    create(filled, "lynx")
    with pytest.raises(ConflictError, match="no version is active and not version 1"):
        filled.promote("lynx", 1, instead_of=1)
    assert filled.store.item(*OWL).pointer() == before


def test_promote_instead_of_what_others_replaced(filled):
    """What another process promotes at the last moment is not replaced by what was never compared with it."""
    create(filled)
    other, done = VersionManager(filled.store.root), []
    late = VersionManager(on_disk(filled.store, at_link(lambda: done or done.append(other.promote("owl", 2)))))
    with pytest.raises(ConflictError, match="version 2 is active and not version 1"):
        late.promote("owl", 3, instead_of=1)
    assert filled.active("owl").number == 2


@pytest.mark.parametrize("number", [-1, "1", 1.0, True, [1]], ids=repr)
def test_instead_of_what_is_no_number(filled, number):
    """What is no number of a version is refused, and does not count as any version or none."""
    with pytest.raises(NameInvalidError, match="is no version number"):
        filled.promote("owl", 2, instead_of=number)
    assert filled.active("owl").number == 1


def test_promote_in_a_race(filled):
    """Who promotes while another does comes after it: both happened, in an order that the history tells."""
    create(filled)
    other, done = VersionManager(filled.store.root), []
    late = VersionManager(on_disk(filled.store, at_link(lambda: done or done.append(other.promote("owl", 2)))))
    assert late.promote("owl", 3).number == 3
    pointer = filled.store.item(*OWL).pointer()
    assert (pointer.active, pointer.earlier) == (3, (1, 2))
    assert leftovers(filled.store) == []
