"""Versions: created once, promoted only when whole, and a history that survives reopening."""

import functools
import shutil
import tempfile
from pathlib import Path

import attrs
import numpy as np
import pytest
import store_fixtures
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from store_fixtures import a_record, create, flip, leftovers, rewrite, snapshot, some_tensors

from hydra_detect import codec
from hydra_detect.errors import (
    CorruptError,
    NameInvalidError,
    NotFoundError,
    RecordError,
    StoreError,
)
from hydra_detect.names import Digest, HeadRef
from hydra_detect.records import HeadRecord, VersionRecord
from hydra_detect.storage import artifacts, files, heads, layout, pointers
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, tensors_digest
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled


def folder_of(manager, head, number):
    """Return the folder of a version."""
    return manager.store.layout.item(layout.HEADS, head).version(number)


# Empty first


def test_empty_store(manager):
    """A store without heads answers every question about one with the same plain refusal."""
    before = snapshot(manager.store.root)
    questions = (
        manager.versions, manager.active, manager.rollback, manager.history, manager.prune,
        lambda head: heads.find(manager.store, head), lambda head: manager.promote(head, 1),
        lambda head: manager.pin(head, 1), lambda head: manager.unpin(head, 1),
        lambda head: manager.prune(head, dry_run=True),
    )  # fmt: skip
    for ask in questions:
        with pytest.raises(NotFoundError, match=r"has no such head\. There is none yet\.$"):
            ask("owl")
    with pytest.raises(NotFoundError, match=r"There is none yet\.$"):
        manager.compare("owl", 1, 2)
    assert manager.verify().is_sound
    assert manager.repair().findings == ()
    assert snapshot(manager.store.root) == before


def test_manager_of_a_path(tmp_path, manager):
    """A manager takes a store or its path, says where it is, and makes no store of its own."""
    assert VersionManager(str(manager.store.root)).store.root == manager.store.root
    assert repr(manager) == f"VersionManager({str(manager.store.root)!r})"
    with pytest.raises(StoreError, match="there is no such folder"):
        VersionManager(tmp_path / "none")
    assert not (tmp_path / "none").exists()


# Creating


def test_create(manager):
    """A created version has all its facts and weights, and is not active by that."""
    tensors = some_tensors()
    record = a_record(tensors, notes="first", unknown={"later": [1]})
    version = manager.create("owl", tensors, record, attachments={"parity.json": b"{}"})
    assert (version.head, version.number, version.record) == ("owl", 1, record)
    assert sorted(version.files) == ["model.safetensors", "parity.json", "record.json"]
    assert heads.find(manager.store, "owl@1") == version
    assert heads.find(manager.store, HeadRef("owl", 1)) == version
    assert manager.versions("owl") == [version]
    assert heads.tensors(manager.store, version) == dict(sorted(tensors.items()))
    assert manager.store.head("owl").pointer() == pointers.NOTHING
    for ask in (manager.active, lambda head: heads.find(manager.store, head)):
        with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active") as caught:
            ask("owl")
        assert caught.value.remedy == "Promote one: 'hydra-detect promote owl 1'."


def test_create_from_arrays(manager):
    """Plain arrays and torch tensors are taken as well as raw ones."""
    torch = pytest.importorskip("torch")
    arrays = {"a": np.arange(3, dtype=np.float32), "b": torch.tensor([1, 2])}
    raw = {name: RawTensor.of(np.asarray(value)) for name, value in arrays.items()}
    version = manager.create("owl", arrays, a_record(raw))
    assert heads.tensors(manager.store, version) == raw


def test_create_does_not_move_the_pointer(filled):
    """A new version leaves the active one where it is."""
    before = filled.store.head("owl").pointer()
    assert create(filled).number == 3
    assert filled.store.head("owl").pointer() == before
    assert filled.active("owl").number == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(filled, bad):
    """Weights with NaN or infinity are refused by name before anything is written."""
    tensors = {**some_tensors(), "bad": RawTensor.of(np.array([1, bad], dtype=np.float32))}
    before = snapshot(filled.store.root)
    for head in ("owl", "new"):
        with pytest.raises(CorruptError, match="NaN or infinity in 1 of 3 tensors: bad"):
            filled.create(head, tensors, a_record(tensors))
    assert snapshot(filled.store.root) == before


@pytest.mark.parametrize(
    "changed", [some_tensors(1), {"box.weight": some_tensors()["box.weight"]}, some_tensors() | {"more": 1.0}]
)
def test_record_of_other_weights(filled, changed):
    """A record that names other weights than those given is refused before anything is written."""
    before = snapshot(filled.store.root)
    with pytest.raises(CorruptError, match=r"the record names tensors .* and these have"):
        filled.create("owl", changed, a_record(some_tensors()))
    assert snapshot(filled.store.root) == before


@pytest.mark.parametrize(("tensors", "match"), [({}, "it has no tensors"), ({1: 1.0}, "a name that is no text")])
def test_weights_that_are_none(filled, tensors, match):
    """A head without tensors, or with one that has no name, is refused before anything is written."""
    before = snapshot(filled.store.root)
    with pytest.raises(RecordError, match=match):
        filled.create("owl", tensors, a_record(some_tensors()))
    assert snapshot(filled.store.root) == before


@pytest.mark.parametrize("name", [layout.RECORD, layout.TENSORS, layout.MANIFEST])
def test_attachments_replace_nothing(filled, name):
    """An attachment cannot take the place of the weights, the record or the manifest."""
    tensors = some_tensors()
    before = snapshot(filled.store.root)
    with pytest.raises(NameInvalidError, match=name):
        filled.create("owl", tensors, a_record(tensors), attachments={name: b"{}"})
    assert snapshot(filled.store.root) == before


def test_record_that_no_one_could_read(filled):
    """A record too large to be read again is refused before anything is written."""
    tensors = some_tensors()
    before = snapshot(filled.store.root)
    with pytest.raises(RecordError, match="more than the 1048576"):
        filled.create("owl", tensors, a_record(tensors, notes="x" * (1 << 20)))
    assert snapshot(filled.store.root) == before


# Finding


def test_unknown_heads(filled):
    """A miss says which names come near, or which there are."""
    with pytest.raises(NotFoundError, match=r"cannot find head 'owk': .* Did you mean 'owl'\?$"):
        filled.versions("owk")
    with pytest.raises(NotFoundError, match=r"There are: fox, owl\.$"):
        filled.active("zebra")


def test_unknown_versions(filled):
    """A missing number says which numbers there are."""
    asks = (
        lambda: heads.find(filled.store, "owl@3"), lambda: filled.promote("owl", 3), lambda: filled.pin("owl", 3),
        lambda: filled.unpin("owl", 3), lambda: filled.compare("owl", 1, 3),
    )  # fmt: skip
    for ask in asks:
        with pytest.raises(NotFoundError, match=r"'owl' has no version 3\. There are versions 1, 2\.$"):
            ask()
    assert filled.active("owl").number == 1


def test_order_beyond_nine(manager):
    """Versions are ordered as numbers, past 9 too."""
    numbers = [create(manager, seed=seed).number for seed in range(12)]
    assert numbers == list(range(1, 13))
    versions = manager.versions("owl")
    assert [version.number for version in versions] == numbers
    assert [heads.tensors(manager.store, version)["box.count"] for version in versions] == [
        RawTensor.of(np.array(seed, dtype=np.int64)) for seed in range(12)
    ]
    manager.promote("owl", 9)
    manager.promote("owl", 10)
    assert manager.active("owl").number == 10


# Promoting


def test_promote(filled):
    """The promoted version is the active one, for every manager of the store, with the reason kept."""
    version = filled.promote("owl", 2, reason="better")
    find = functools.partial(heads.find, filled.store)
    assert version == find("owl@2") == filled.active("owl") == find("owl")
    assert VersionManager(filled.store.root).active("owl").number == 2
    pointer = filled.store.head("owl").pointer()
    assert (pointer.generation, pointer.previous, pointer.reason) == (2, 1, "better")
    assert pointer.manifest == version.manifest


def test_promoting_what_is_active_changes_nothing(filled):
    """The active version can be promoted again without a new generation, so the one before it stays known."""
    numbers = [version.number for version in filled.versions("owl")]
    filled.promote("owl", numbers[0])
    filled.promote("owl", numbers[1])
    before = filled.store.head("owl").pointer()
    assert filled.promote("owl", numbers[1]).number == numbers[1]
    assert filled.store.head("owl").pointer() == before
    assert (before.active, before.previous) == (numbers[1], numbers[0])


@pytest.mark.parametrize("number", [0, -1, "2", 2.0, True, None])
def test_what_is_no_number(filled, number):
    """What is no version number is never promoted, pinned, unpinned or compared; None does not mean the active one."""
    before = snapshot(filled.store.root / "heads")
    asks = (filled.promote, filled.pin, filled.unpin, lambda *ref: filled.compare(*ref, 1))
    for ask in asks:
        with pytest.raises(NameInvalidError, match=r"^cannot refer to a version of 'owl'") as caught:
            ask("owl", number)
        assert caught.value.remedy == "Give the version as a whole number from 1."
    assert snapshot(filled.store.root / "heads") == before


@pytest.mark.parametrize("path", [layout.TENSORS, layout.RECORD, layout.MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damaged_versions_are_not_promoted(filled, path, damage):
    """A version with a damaged or missing file is refused, and the active one stays and still works."""
    target = folder_of(filled, "owl", 2) / path
    if damage == "flip":
        flip(target, place=len(target.read_bytes()) // 2)
    elif damage == "cut":
        rewrite(target, target.read_bytes()[:-1])
    else:
        target.unlink()
    with pytest.raises(NotFoundError if damage == "gone" else CorruptError, match="cannot read "):
        filled.promote("owl", 2)
    active = filled.active("owl")
    assert active.number == 1
    assert len(heads.tensors(filled.store, active)) == 2
    assert leftovers(filled.store) == []


def test_weights_of_another_record_are_not_promoted(filled):
    """A version whose files prove themselves but whose weights are not those of the record is refused."""
    tensors, others = some_tensors(), some_tensors(5)
    contents = {
        layout.TENSORS: artifacts.encode_tensors(others),
        layout.RECORD: codec.encode(a_record(tensors)),
    }
    filled.store.head("owl").publish(contents, created_at=store_fixtures.AT)
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        filled.promote("owl", 3)
    assert filled.active("owl").number == 1


def test_active_version_that_was_exchanged(filled):
    """An active version whose folder now holds another one of the same number is found."""
    item = filled.store.layout.item(layout.HEADS, "owl")
    donor = VersionManager(Store.create(filled.store.root.parent / "other"))
    create(donor, seed=7)
    shutil.rmtree(item.version(1))
    shutil.copytree(folder_of(donor, "owl", 1), item.version(1))
    assert heads.find(filled.store, "owl@1").record.tensors == tensors_digest(some_tensors(7))
    for ask in (filled.active, lambda head: heads.find(filled.store, head)):
        with pytest.raises(CorruptError, match="version 1 is not the one that was promoted"):
            ask("owl")


def test_damaged_pointer_is_not_guessed(filled):
    """With a damaged pointer no version counts as active, rather than a wrong one; each is still there by number."""
    flip(filled.store.layout.item(layout.HEADS, "owl").pointer(1), place=20)
    before = snapshot(filled.store.root / "heads")
    asks = (
        filled.active, filled.rollback, filled.prune, lambda head: filled.promote(head, 2),
        lambda head: filled.pin(head, 1), lambda head: filled.unpin(head, 1),
    )  # fmt: skip
    for ask in asks:
        with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl'"):
            ask("owl")
    assert heads.find(filled.store, "owl@2").number == 2
    assert [version.number for version in filled.versions("owl")] == [1, 2]
    assert snapshot(filled.store.root / "heads") == before


def test_versions_do_not_change(filled):
    """A version read after many changes of the store is the one that was created."""
    first = heads.find(filled.store, "owl@1")
    before = snapshot(folder_of(filled, "owl", 1))
    for seed in range(3):
        filled.promote("owl", create(filled, seed=seed).number)
    assert heads.find(filled.store, "owl@1") == first
    assert snapshot(folder_of(filled, "owl", 1)) == before
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        first.number = 2
    assert isinstance(first, VersionRecord)


def test_records_of_a_later_version_are_read(filled):
    """A record with fields of a later version is read, and nothing of it is lost."""
    tensors = some_tensors()
    record = a_record(tensors, unknown={"colour": "red"})
    version = filled.create("owl", tensors, record)
    data = filled.store.read(filled.store.head("owl").manifest(version.number), layout.RECORD)
    assert codec.decode(HeadRecord, data, "it").unknown == {"colour": "red"}
    assert version.files[layout.RECORD][1] == files.sha256(data) != Digest("0" * 64)


class Histories(RuleBasedStateMachine):
    """A store against its model: for each head the seeds of its versions, and which is active."""

    refs = Bundle("refs")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.seeds: dict[str, list[int]] = {}
        self.active: dict[str, int] = {}

    @initialize()
    def open(self):
        """Make the store."""
        self.manager = VersionManager(Store.create(self.folder))

    @rule()
    def reopen(self):
        """Go on with a new manager, as another process would."""
        self.manager = VersionManager(self.folder)

    @rule(target=refs, head=st.sampled_from(["owl", "fox"]), seed=st.integers(0, 99))
    def create(self, head, seed):
        """Create a version."""
        version = create(self.manager, head, seed)
        self.seeds.setdefault(head, []).append(seed)
        assert version.number == len(self.seeds[head])
        return head, version.number

    @rule(ref=refs)
    def promote(self, ref):
        """Promote any version that was ever created."""
        head, number = ref
        assert self.manager.promote(head, number).number == number
        self.active[head] = number

    @rule(head=st.sampled_from(["owl", "fox"]), beyond=st.integers(1, 3))
    def promote_nothing(self, head, beyond):
        """Promote a version that does not exist."""
        with pytest.raises(NotFoundError, match="cannot "):
            self.manager.promote(head, len(self.seeds.get(head, [])) + beyond)

    @rule(head=st.sampled_from(["owl", "fox"]))
    def create_broken(self, head):
        """Create a version from weights with NaN."""
        tensors = {"a": RawTensor.of(np.float32("nan"))}
        with pytest.raises(CorruptError, match="NaN"):
            self.manager.create(head, tensors, a_record(tensors))

    @invariant()
    def store_is_the_model(self):
        """Names, versions, weights and active versions are those of the model, and nothing lies about."""
        assert self.manager.store.names(layout.HEADS) == sorted(self.seeds)
        for head, seeds in self.seeds.items():
            versions = self.manager.versions(head)
            assert [version.number for version in versions] == list(range(1, len(seeds) + 1))
            assert [version.record.tensors for version in versions] == [
                tensors_digest(some_tensors(seed)) for seed in seeds
            ]
            assert self.manager.store.head(head).pointer().active == self.active.get(head)
            if head in self.active:
                active = self.manager.active(head)
                weights = heads.tensors(self.manager.store, active)
                assert weights == dict(sorted(some_tensors(seeds[active.number - 1]).items()))
        assert leftovers(self.manager.store) == []

    def teardown(self):
        """Remove the store."""
        shutil.rmtree(self.folder)


@pytest.fixture
def _quick_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


TestHistories = pytest.mark.usefixtures("_quick_disk")(Histories.TestCase)
TestHistories.settings = settings(max_examples=20, stateful_step_count=12, deadline=None)
