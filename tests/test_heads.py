"""Reading heads: as of one moment, whatever is replaced and pruned meanwhile, and never half of it."""

import pytest
import store_damage
import store_fixtures
from store_damage import at, version
from store_fixtures import create, flip, some_tensors

from hydra_detect.errors import ConflictError, CorruptError, NotFoundError
from hydra_detect.names import HeadRef
from hydra_detect.storage import heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

OWL = (layout.HEADS, "owl")


class Replacing:
    """Another process that makes a new version active and prunes, each time somebody reads a file of the store."""

    def __init__(self, manager, times):
        self.manager, self.times, self.done = VersionManager(manager.store.root), times, 0
        self.read, self.reader = Store.read, manager.store

    def as_method(self):
        """Return what takes the place of `Store.read`; an object with `__call__` would not be given the store."""

        def read(store, manifest, path):
            self.replace(store, path)
            return self.read(store, manifest, path)

        return read

    def replace(self, store, path):
        """Replace the active version before its weights are read."""
        if store is self.reader and path == layout.TENSORS and self.done < self.times:
            self.done += 1
            create(self.manager, seed=self.done)
            create(self.manager, seed=self.done)
            for number in self.manager.store.item(*OWL).numbers()[-2:]:
                self.manager.promote("owl", number)
            self.manager.prune("owl", keep=1)


def test_nothing_to_read(store):
    """A store without heads has no names, and a miss says so."""
    assert heads.names(store) == []
    for ask in (heads.numbers, heads.find, heads.load):
        with pytest.raises(NotFoundError, match=r"cannot find head 'owl': .* There is none yet\."):
            ask(store, "owl")


def test_find_and_load(rich):
    """A name is its active version and a number that one, with the weights that were published."""
    assert heads.names(rich.store) == ["fox", "owl"]
    assert heads.numbers(rich.store, "owl") == [1, 2, 3, 4]
    for ref, number in (("owl", 2), ("owl@3", 3), (HeadRef("owl"), 2), (HeadRef("owl", 1), 1)):
        found, weights = heads.load(rich.store, ref)
        assert found == heads.find(rich.store, ref)
        assert (found.head, found.number) == ("owl", number)
        assert weights == dict(sorted(some_tensors(number - 1).items()))


@pytest.mark.parametrize("times", [1, 5, 19])
def test_a_reader_that_is_overtaken_reads_again(rich, monkeypatch, times):
    """Who reads the active version while it is replaced and pruned gets all of the one that is active by then."""
    replacing = Replacing(rich, times)
    monkeypatch.setattr(Store, "read", replacing.as_method())
    found, weights = heads.load(rich.store, "owl")
    assert replacing.done == times
    assert found == rich.active("owl")
    assert weights == dict(sorted(some_tensors(times).items()))


def test_a_reader_that_is_overtaken_before_it_read_anything(rich, monkeypatch):
    """Between the look at the pointer and that at the version it names, that one may go: then the new one counts."""
    replacing, manifest = Replacing(rich, 3), Store.manifest

    def overtaken(store, kind, name, number):
        replacing.replace(store, layout.TENSORS)
        return manifest(store, kind, name, number)

    monkeypatch.setattr(Store, "manifest", overtaken)
    assert heads.find(rich.store, "owl").number == VersionManager(rich.store.root).active("owl").number
    assert replacing.done == 3


def test_a_reader_that_is_overtaken_for_ever(rich, monkeypatch):
    """Who is overtaken again and again is told so in the end, rather than kept for ever."""
    replacing = Replacing(rich, 1000)
    monkeypatch.setattr(Store, "read", replacing.as_method())
    with pytest.raises(ConflictError, match="cannot read owl: it was replaced 20 times meanwhile"):
        heads.load(rich.store, "owl")
    assert replacing.done == heads._MOST_TRIES == 20


def test_a_version_by_its_number_is_that_one_or_none(rich, monkeypatch):
    """Who asked for a version by its number never gets another one in its place, though another is active by then."""
    replacing = Replacing(rich, 1)
    monkeypatch.setattr(Store, "read", replacing.as_method())
    with pytest.raises(NotFoundError, match=r"'owl' has no version 3|does not exist"):
        heads.load(rich.store, "owl@3")


def test_a_file_that_is_missing_is_not_tried_for_ever(rich):
    """Weights that are missing while the version stays active are a plain miss."""
    at(rich, version(2, layout.TENSORS)).unlink()
    with pytest.raises(NotFoundError, match=r"cannot read model\.safetensors of owl@2: .* does not exist"):
        heads.load(rich.store, "owl")


def test_a_version_that_was_exchanged_since_it_was_found(rich):
    """Weights are those of the version that was found, or none: a version that another took the place of is refused."""
    found = heads.find(rich.store, "owl@2")
    store_damage.exchanged(rich)
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        heads.tensors(rich.store, found)


def test_damage_is_not_a_miss(rich):
    """A damaged manifest or pointer is told as damage, and not as a version that there is not."""
    flip(at(rich, version(2, layout.MANIFEST)), 30)
    with pytest.raises(CorruptError, match="the manifest of owl@2"):
        heads.load(rich.store, "owl")
    assert heads.load(rich.store, "owl@1")[0].number == 1
