"""Heads: published through one gate, and read as of one moment, whatever is replaced and pruned meanwhile."""

import numpy as np
import pytest
import store_damage
import store_fixtures
from store_damage import at, version
from store_fixtures import (
    a_record,
    create,
    flip,
    publish,
    some_tensors,
)

from hydra_detect.errors import (
    CorruptError,
    NotFoundError,
    StaleError,
)
from hydra_detect.names import HeadRef
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import heads, items, layout
from hydra_detect.storage.items import Item
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


class Replacing:
    """Another process that makes a new version active and prunes, each time somebody reads weights of the store."""

    def __init__(self, manager, times):
        self.manager, self.times, self.done = VersionManager(manager.store.root), times, 0
        self.read, self.reader = Item.read, manager.store

    def as_method(self):
        """Return what takes the place of `Item.read`; an object with `__call__` would not be given the item."""

        def read(item, version, path):
            self.replace(item, path)
            return self.read(item, version, path)

        return read

    def replace(self, item, path):
        """Replace the active version before its weights are read."""
        if item.store is self.reader and path == layout.TENSORS and self.done < self.times:
            self.done += 1
            create(self.manager, seed=self.done)
            create(self.manager, seed=self.done)
            for number in self.manager.store.head("owl").numbers()[-2:]:
                self.manager.promote("owl", number)
            self.manager.prune("owl", keep=1)


# Finding


def test_nothing_to_read(store):
    """A store without heads has no names, and a miss says so."""
    assert heads.names(store) == []
    for ask in (heads.there, heads.find, heads.load):
        with pytest.raises(NotFoundError, match=r"cannot find head 'owl': .* There is none yet\."):
            ask(store, "owl")


def test_find_and_load(rich):
    """A name is its active version and a number that one, with the weights that were published."""
    assert heads.names(rich.store) == ["fox", "owl"]
    assert heads.there(rich.store, "owl") == rich.store.head("owl")
    assert heads.there(rich.store, "owl").numbers() == [1, 2, 3, 4]
    for ref, number in (
        ("owl", 2), ("owl@3", 3), (HeadRef("owl"), 2), (HeadRef("owl", 1), 1), (HeadRef("owl", np.int64(4)), 4),
    ):  # fmt: skip
        found, weights = heads.load(rich.store, ref)
        assert found == heads.find(rich.store, ref)
        assert (found.head, found.number) == ("owl", number)
        assert weights == dict(sorted(some_tensors(number - 1).items()))


def test_what_is_near_is_named(rich):
    """A head that there never was is a plain miss, which says which heads come near."""
    with pytest.raises(NotFoundError, match=r"has no such head\. Did you mean 'owl'\?$"):
        heads.there(rich.store, "owls")


def test_none_of_the_versions_is_active(filled):
    """A head of which no version is active says which there are, and how to make one so."""
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active\. Promote one: ") as caught:
        heads.find(filled.store, "fox")
    assert caught.value.remedy == "Promote one: 'hydra-detect promote fox 1'."


def test_a_head_that_was_renamed(rich):
    """Who asks for a head by its old name hears the new one, since when, and by whom it got it."""
    rich.unpin("owl", 4)
    HeadRegistry(rich.store, actor="ada").rename("owl", "strix")
    when = rich.store.head("owl").pointer().change.at
    for ask in (heads.there, heads.find, heads.load):
        with pytest.raises(NotFoundError, match="cannot find head 'owl'") as caught:
            ask(rich.store, "owl")
        assert caught.value.found == f"it was renamed to 'strix' by ada at {when}"
        assert caught.value.remedy == "Use 'strix'."
    assert heads.find(rich.store, "strix").number == 2


def test_a_head_that_was_removed(rich):
    """Who asks for a head that was removed hears since when, and by whom, and where its story is."""
    HeadRegistry(rich.store, actor="ada").remove("fox")
    when = rich.store.head("fox").pointer().change.at
    for ask in (heads.there, heads.find, heads.load):
        with pytest.raises(NotFoundError, match="cannot find head 'fox'") as caught:
            ask(rich.store, "fox")
        assert caught.value.found == f"it was removed by ada at {when}"
        assert caught.value.remedy == "'hydra-detect history fox' tells its story."
    create(rich, "fox", 7)
    assert heads.there(rich.store, "fox").numbers() == [2]


def test_a_head_of_which_nothing_but_a_damaged_state_is_left(rich):
    """A head without versions whose state is damaged may be anything: the damage is told, and no plain miss."""
    HeadRegistry(rich.store).remove("fox")
    flip(at(rich, "heads/fox/pointer/00000002.json"), 30)
    with pytest.raises(CorruptError, match="cannot read generation 2 of the pointer of 'fox'"):
        heads.there(rich.store, "fox")


# Overtaken


@pytest.mark.parametrize("times", [1, 5])
def test_a_reader_that_is_overtaken_reads_again(rich, monkeypatch, times):
    """Who reads the active version while it is replaced and pruned gets all of the one that is active by then."""
    replacing = Replacing(rich, times)
    monkeypatch.setattr(Item, "read", replacing.as_method())
    found, weights = heads.load(rich.store, "owl")
    assert replacing.done == times
    assert found == rich.active("owl")
    assert weights == dict(sorted(some_tensors(times).items()))


def test_a_reader_that_is_overtaken_before_it_read_anything(rich, monkeypatch):
    """Between the look at the pointer and that at the version it names, that one may go: then the new one counts."""
    replacing, manifest = Replacing(rich, 3), Item.manifest

    def overtaken(item, number):
        replacing.replace(item, layout.TENSORS)
        return manifest(item, number)

    monkeypatch.setattr(Item, "manifest", overtaken)
    assert heads.find(rich.store, "owl").number == VersionManager(rich.store.root).active("owl").number
    assert replacing.done == 3


def test_a_reader_that_is_overtaken_for_ever(rich, monkeypatch):
    """Who is overtaken again and again is told so in the end, rather than kept for ever."""
    replacing = Replacing(rich, 1000)
    monkeypatch.setattr(items, "_MOST_TRIES", 5)
    monkeypatch.setattr(Item, "read", replacing.as_method())
    with pytest.raises(StaleError, match="cannot look at 'owl': other processes changed it 5 times meanwhile"):
        heads.load(rich.store, "owl")
    assert replacing.done == 5


def test_a_version_by_its_number_is_that_one_or_none(rich, monkeypatch):
    """Who asked for a version by its number never gets another one in its place, though another is active by then."""
    replacing = Replacing(rich, 1)
    monkeypatch.setattr(Item, "read", replacing.as_method())
    with pytest.raises(NotFoundError, match=r"'owl' has no version 3|does not exist"):
        heads.load(rich.store, "owl@3")


# Damage


def test_a_file_that_is_missing_is_not_tried_for_ever(rich):
    """Weights that are missing while the version stays active are a plain miss."""
    at(rich, version(2, layout.TENSORS)).unlink()
    with pytest.raises(NotFoundError, match=r"cannot read model\.safetensors of owl@2: .* does not exist"):
        heads.load(rich.store, "owl")


def test_a_version_that_was_exchanged_since_it_was_found(rich):
    """Weights are those of the version that was found, or none: a version that another took the place of is refused."""
    found = heads.find(rich.store, "owl@2")
    heads.check_same(rich.store.head("owl"), found)
    store_damage.exchanged(rich)
    with pytest.raises(CorruptError, match=r"cannot read model\.safetensors of owl@2: its SHA-256 is not"):
        heads.tensors(rich.store, found)
    with pytest.raises(CorruptError, match="cannot read owl@2: its manifest was exchanged while it was checked"):
        heads.check_same(rich.store.head("owl"), found)
    with pytest.raises(CorruptError, match="version 2 is not the one that was promoted"):
        heads.find(rich.store, "owl")
    assert heads.find(rich.store, "owl@2") != found


def test_a_version_that_was_taken_away_since_it_was_found(rich):
    """A version that is gone by now is not the one that was checked."""
    found = heads.find(rich.store, "owl@1")
    rich.promote("owl", 3)
    rich.prune("owl", keep=1)
    with pytest.raises(NotFoundError, match=r"'owl' has no version 1\. There are versions 2, 3, 4\."):
        heads.check_same(rich.store.head("owl"), found)


def test_a_version_is_whole(rich):
    """A version is whole only if each of its files is, byte for byte, those that no reader needs among them."""
    tensors = some_tensors(9)
    rich.create("owl", tensors, a_record(tensors), attachments={"parity.json": b"{}", "notes.txt": b"fine"})
    item = rich.store.head("owl")
    assert heads.whole(item, 5) == heads.find(rich.store, "owl@5")
    for path in ("notes.txt", "parity.json", layout.TENSORS, layout.RECORD):
        flip(item.place.version(5) / path)
        with pytest.raises(CorruptError, match=f"cannot read {path} of owl@5: its SHA-256 is not"):
            heads.whole(item, 5)
        flip(item.place.version(5) / path)
    (item.place.version(5) / "notes.txt").unlink()
    with pytest.raises(NotFoundError, match=r"cannot read notes\.txt of owl@5: .* does not exist"):
        heads.whole(item, 5)


def test_damage_is_not_a_miss(rich):
    """A damaged manifest or pointer is told as damage, and not as a version that there is not."""
    flip(at(rich, version(2, layout.MANIFEST)), 30)
    with pytest.raises(CorruptError, match="the manifest of owl@2"):
        heads.load(rich.store, "owl")
    assert heads.load(rich.store, "owl@1")[0].number == 1
    flip(at(rich, store_damage.pointer(4)), 30)
    with pytest.raises(CorruptError, match="cannot read generation 4 of the pointer of 'owl'"):
        heads.load(rich.store, "owl")


def test_a_version_without_weights(store):
    """A version that lists no weights is no head's, and is told as damage."""
    publish(store)
    with pytest.raises(CorruptError, match=r"cannot read owl@1: the manifest lists only a\.bin, b\.json, c"):
        heads.find(store, "owl@1")
