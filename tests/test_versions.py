"""Versions: created once, read back as they were, and a state that survives reopening."""

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
from store_fixtures import (
    a_backbone,
    a_contract,
    a_record,
    create,
    flip,
    leftovers,
    snapshot,
    some_tensors,
    with_backbone,
)

from hydra_detect import codec
from hydra_detect.contracts import Preprocessing
from hydra_detect.errors import (
    CorruptError,
    IncompatibleError,
    InputError,
    NameInvalidError,
    NotFoundError,
    RecordError,
    StoreError,
)
from hydra_detect.names import Digest, HeadRef
from hydra_detect.records import HeadRecord, VersionRecord
from hydra_detect.storage import backbones, files, heads, layout, pointers
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


NO_TENSORS, NO_NAME = r"it has no tensors\. Give the weights of the head by name", "a tensor has a name that is no text"


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({}, NO_TENSORS), (None, NO_TENSORS), ([], NO_TENSORS), ([("a", 1.0)], NO_TENSORS), ("a", NO_TENSORS),
        (5, NO_TENSORS), ({1: 1.0}, NO_NAME), ({b"a": 1.0}, NO_NAME), ({"a": 1.0, None: 1.0}, NO_NAME),
        ({"a": "text"}, r"its dtype is <U4"), ({"a": None}, "its dtype is object"), ({"a": 1j}, "its dtype is complex"),
        ({"a": [[1.0], [1.0, 2.0]]}, "inhomogeneous"),
    ],
    ids=str,
)  # fmt: skip
def test_weights_that_are_none(filled, tensors, match):
    """What are no tensors by name is refused before anything is written."""
    before = snapshot(filled.store.root)
    with pytest.raises(RecordError, match=match):
        filled.create("owl", tensors, a_record(some_tensors()))
    assert snapshot(filled.store.root) == before


@pytest.mark.parametrize("record", [None, {}, "record", 5, HeadRecord, a_backbone()[1]], ids=lambda it: repr(it)[:20])
def test_records_that_are_none(filled, record):
    """What is no record of a head is refused before anything is written."""
    before = snapshot(filled.store.root)
    with pytest.raises(
        RecordError, match=r"^cannot create a version of 'owl': its record is .*\. Give a HeadRecord\.$"
    ):
        filled.create("owl", some_tensors(), record)
    assert snapshot(filled.store.root) == before


@pytest.mark.parametrize(
    "data", ["text", None, 5, ["x"], bytearray(b"x"), memoryview(b"x")], ids=lambda data: type(data).__name__
)
def test_attachments_are_bytes(filled, data):
    """An attachment that is anything but bytes is refused by name before anything is written."""
    tensors, before = some_tensors(), snapshot(filled.store.root)
    with pytest.raises(InputError, match=r"attachments are no bytes: more, note\.txt\. Encode them first\.$"):
        filled.create("owl", tensors, a_record(tensors), attachments={"a": b"", "note.txt": data, "more": data})
    assert snapshot(filled.store.root) == before


def test_a_head_needs_its_backbone(store):
    """A store that lacks the backbone of a head, or has it with other settings, does not take the head."""
    manager, tensors = VersionManager(store), some_tensors()
    with pytest.raises(IncompatibleError, match=r"no backbone that it was made on: it has none\.") as caught:
        manager.create("owl", tensors, a_record(tensors))
    assert caught.value.remedy == "Put that backbone into the store first."
    assert manager.store.names(layout.HEADS) == []
    with_backbone(store)
    before = snapshot(store.root)
    for contract, match in (
        (a_contract("7"), r"demo \(digest is \w+ against 777777777777\)"),
        (a_contract(preprocessing=Preprocessing(min_size=640)), r"demo \(preprocessing\.min_size is 800 against 640\)"),
    ):
        with pytest.raises(IncompatibleError, match=match):
            manager.create("owl", tensors, a_record(tensors, backbone=contract))
    assert snapshot(store.root) == before
    assert manager.create("owl", tensors, a_record(tensors)).number == 1


def test_a_head_finds_its_backbone_among_several(filled):
    """A head goes by the backbone's weights and settings, not by its name; a damaged one beside it is no matter."""
    others, record = a_backbone(seed=5)
    backbones.publish(filled.store, "bear", record, others)  # read before "demo" is
    tensors = some_tensors(3)
    assert filled.create("owl", tensors, a_record(tensors, backbone=record.contract)).number == 3
    flip(filled.store.layout.item(layout.BACKBONES, "bear").pointer(1), 30)
    assert filled.create("owl", tensors, a_record(tensors)).number == 4
    with pytest.raises(CorruptError, match="generation 1 of the pointer of 'bear'"):
        filled.create("owl", tensors, a_record(tensors, backbone=record.contract))


def test_facts_of_a_version(filled):
    """A version knows who made it and which version was active then, for ever."""
    first, third = heads.find(filled.store, "owl@1"), create(VersionManager(filled.store, actor="ada"), seed=2)
    assert (first.parent, third.parent, third.actor) == (None, 1, "ada")
    filled.promote("owl", 3)
    assert heads.find(filled.store, "owl@3") == third


@pytest.mark.parametrize("attachments", [[], ["a"], "a", 0, 5, b"a", ("a", b"a")], ids=repr)
def test_attachments_are_a_mapping(filled, attachments):
    """Attachments are files by name; anything else, however empty, is a mistake."""
    tensors = some_tensors()
    with pytest.raises(InputError, match=r"attachments are .* Give a mapping of file names to bytes"):
        filled.create("owl", tensors, a_record(tensors), attachments=attachments)
    assert filled.store.head("owl").numbers() == [1, 2]


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


# What does not change


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
    data = filled.store.head("owl").read(version, layout.RECORD)
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
