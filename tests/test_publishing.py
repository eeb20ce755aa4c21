"""Publishing: what does not belong into a store does not come in, and what a compact head leans on stays."""

import functools
import shutil
from collections import Counter

import attrs
import numpy as np
import pytest
import store_fixtures
from engine_fixtures import mixed
from store_fixtures import a_backbone, a_contract, a_record, create, snapshot, some_tensors

from hydra_detect.contracts import Preprocessing
from hydra_detect.errors import (
    ConflictError,
    CorruptError,
    IncompatibleError,
    InputError,
    NotFoundError,
    RecordError,
    StoreError,
)
from hydra_detect.names import Digest
from hydra_detect.records import CompactForm
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, changes, heads, layout, pointers, publishing, references
from hydra_detect.storage.items import Item
from hydra_detect.tensors import RawTensor, tensors_digest
from hydra_detect.versions import VersionManager

store, manager = store_fixtures.store, store_fixtures.manager


def test_publish(manager):
    """A version that is published says who made it, when, from which one, and what it holds; it is not active yet."""
    for seed, parent in ((0, None), (1, 1)):
        tensors = some_tensors(seed)
        made = publishing.publish(
            manager.store, "owl", a_record(tensors), tensors, attachments={"notes.txt": b"fine"}, actor="ada"
        )
        assert (made.head, made.number, made.actor, made.parent) == ("owl", seed + 1, "ada", parent)
        assert sorted(made.files) == [layout.TENSORS, "notes.txt", layout.RECORD]
        assert made == heads.find(manager.store, f"owl@{seed + 1}")
        assert manager.store.head("owl").pointer().active == parent
        manager.promote("owl", 1)


def gate(store, record, weights, **facts):
    """Try to publish a version of a new head."""
    publishing.publish(store, "wolf", record, weights, **{"attachments": {}} | facts)


WEIGHTS = some_tensors()
NAN = {"a": RawTensor.of(np.array([1, np.nan], dtype=np.float32)), "b": RawTensor.of(np.float32(1))}
INFINITE = {"a": RawTensor.of(np.array([np.inf, 1], dtype=np.float64))}
SMALLER = a_contract(preprocessing=Preprocessing(min_size=640))
REFUSALS = {
    "NaN": (a_record(NAN), NAN, CorruptError, "a version of 'wolf': NaN or infinity in 1 of 2 tensors: a"),
    "infinity": (a_record(INFINITE), INFINITE, CorruptError, "NaN or infinity in 1 of 1 tensors: a"),
    "other weights": (a_record(WEIGHTS), some_tensors(1), CorruptError, r"the record names tensors .* and these have"),
    "fewer weights": (a_record(WEIGHTS), {}, CorruptError, r"the record names tensors .* and these have"),
    "other backbone": (
        a_record(WEIGHTS, backbone=a_contract("1")), WEIGHTS, IncompatibleError,
        r"the store has no backbone that it was made on: .* demo \(digest is .* against 111111111111\)",
    ),
    "other settings": (
        a_record(WEIGHTS, backbone=SMALLER), WEIGHTS, IncompatibleError,
        r"demo \(preprocessing\.min_size is 800 against 640\)",
    ),
    "long notes": (
        a_record(WEIGHTS, notes="x" * (1 << 20)), WEIGHTS, RecordError, "more than the 1048576 that it may have"
    ),
    "many axes": (
        a_record({"a": RawTensor("U8", (1,) * 9, b"x")}), {"a": RawTensor("U8", (1,) * 9, b"x")}, RecordError,
        "an entry that an artifact cannot hold",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("record", "weights", "kind", "found"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_pass_the_gate(manager, record, weights, kind, found):
    """What could not be used is not published: the reason is told, and the head and its number are not there."""
    before = snapshot(manager.store.root)
    with pytest.raises(kind, match=found):
        gate(manager.store, record, weights)
    assert snapshot(manager.store.root) == before


@pytest.mark.parametrize(
    ("facts", "kind", "found"),
    [
        ({"actor": 5}, InputError, "the actor is 5"),
        ({"actor": "x" * 1001}, InputError, "Give a text of at most 1000 characters"),
        ({"attachments": {"../a": b""}}, ValueError, "name a file"),
        ({"attachments": {"RECORD.json": b""}}, ValueError, r"RECORD\.json is record\.json in other letters"),
        ({"attachments": {"record.json": b"{}"}}, ValueError, r"attachments would replace record\.json"),
    ],
    ids=["actor", "long actor", "path", "case", "record"],
)
def test_what_else_does_not_pass_the_gate(manager, facts, kind, found):
    """An actor that is no text, and a file that would lie elsewhere, are refused before anything is written."""
    before = snapshot(manager.store.root)
    with pytest.raises(kind, match=found):
        gate(manager.store, a_record(WEIGHTS), WEIGHTS, **facts)
    assert snapshot(manager.store.root) == before


def test_a_head_comes_after_its_backbone(store):
    """A head whose backbone the store has not is refused, and welcome once the backbone is there."""
    with pytest.raises(IncompatibleError, match=r"it has none\. Put that backbone into the store first\.$"):
        gate(store, a_record(WEIGHTS), WEIGHTS)
    assert snapshot(store.root).keys() == {"STORE.json", "tmp"}
    tensors, record = a_backbone()
    backbones.publish(store, "any-name", record, tensors)
    gate(store, a_record(WEIGHTS), WEIGHTS)
    assert heads.there(store, "wolf").numbers() == [1]


def test_what_a_later_version_wrote_goes_with_the_record(manager):
    """A field that a later version added to a record is kept by publishing and by reading it."""
    record = attrs.evolve(a_record(WEIGHTS), unknown={"later": [1]})
    gate(manager.store, record, WEIGHTS)
    assert heads.find(manager.store, "wolf@1").record == record
    assert tensors_digest(heads.load(manager.store, "wolf@1")[1]) == record.tensors


# What compact heads lean on

NOTE = {"note.txt": b"heard at night"}


def leaning(manager, on, head="fox", seed=7, **changes):
    """Publish a compact version that leans on another version."""
    tensors = some_tensors(seed)
    form = CompactForm(**{"reference": on.record.tensors, "reference_ref": str(on.ref), "ranks": {"fc6": 8}} | changes)
    return manager.create(head, tensors, a_record(tensors, compact=form))


def last_change(manager, head):
    """Return what happened to a head last."""
    return manager.history(head)[-1]


def test_a_compact_head_and_its_reference(manager):
    """A compact version says what it leans on, and the history of that says so, too."""
    owl = create(manager)
    fox = leaning(manager, owl)
    assert fox.record.kind == "compact-head"
    assert str(fox.record.compact) == "compact, rank 8 of owl@1"
    assert references.find(manager.store, fox.record, "use it") == owl
    event = last_change(manager, "owl")
    assert (event.what, event.versions, event.other) == (pointers.REFERENCED, (1,), "fox@1")
    assert "referenced owl@1 by fox@1" in str(event)


def test_no_reference(manager):
    """A compact version whose reference is not there, or is another by now, is refused, and nothing is written."""
    owl = create(manager)
    before = snapshot(manager.store.root)
    with pytest.raises(NotFoundError, match=r"its reference eel@4 .* is not in the store\. Restore it from a copy"):
        leaning(manager, owl, reference=Digest("1" * 64), reference_ref="eel@4")
    with pytest.raises(NotFoundError, match=r"it leans on tensors 111111111111, and owl@1 has"):
        leaning(manager, owl, reference=Digest("1" * 64))
    assert snapshot(manager.store.root) == before


def test_a_compact_head_is_no_reference(manager):
    """A compact version is not what another can lean on, whatever its tensors."""
    fox = leaning(manager, create(manager))
    with pytest.raises(NotFoundError, match="it leans on tensors"):
        leaning(manager, fox, head="eel")


def test_a_reference_of_another_backbone(manager):
    """A compact version whose reference was made for another backbone is refused: the differences are named."""
    owl = create(manager)
    other = a_contract(preprocessing=Preprocessing(min_size=640))
    record = a_record(
        some_tensors(5),
        backbone=other,
        compact=CompactForm(reference=owl.record.tensors, reference_ref="owl@1", ranks={"fc6": 8}),
    )
    with pytest.raises(IncompatibleError, match=r"preprocessing\.min_size is 640 against 800"):
        references.find(manager.store, record, "use it")


def test_a_reference_is_found_under_another_name(manager):
    """What a compact head leans on is known by its weights: a renamed head, or a version with the same ones, serves."""
    owl = create(manager)
    fox = leaning(manager, owl)
    HeadRegistry(manager.store).rename("owl", "wolf")
    assert str(references.find(manager.store, fox.record, "use it").ref) == "wolf@1"
    again = leaning(manager, owl, head="eel")
    assert last_change(manager, "wolf").other == str(again.ref)


def test_a_reference_is_not_pruned(manager):
    """What something leans on stays; once nothing does, it goes."""
    owl = create(manager)
    leaning(manager, owl)
    leaning(manager, owl)
    for seed in (1, 2, 3):
        create(manager, seed=seed)
    report = manager.prune("owl", keep=1)
    assert dict(report.kept) == {1: "fox@1, fox@2 lean on it", 4: "it is the last"}
    assert sorted(report.removed) == [2, 3]
    manager.prune("fox", keep=1)
    assert manager.prune("owl", keep=1).kept[1] == "fox@2 leans on it"
    HeadRegistry(manager.store).remove("fox")
    assert sorted(manager.prune("owl", keep=1).removed) == [1]


def test_what_leans_on_a_reference_and_goes_with_it_keeps_nothing(manager):
    """A version and the compact one of the same head that leans on it are pruned together."""
    leaning(manager, create(manager), head="owl")
    create(manager, seed=2)
    assert sorted(manager.prune("owl", keep=1).removed) == [1, 2]


def test_a_head_that_others_lean_on_is_not_removed(manager):
    """Removing what others lean on is refused, naming them; what leans on a version of its own head is no obstacle."""
    owl = create(manager)
    leaning(manager, owl, head="owl")
    leaning(manager, owl)
    registry = HeadRegistry(manager.store)
    with pytest.raises(ConflictError, match=r"remove head 'owl': owl@1: fox@1 leans on it\. Remove those first"):
        registry.remove("owl", dry_run=True)
    registry.remove("fox")
    assert registry.remove("owl") == [1, 2]


def test_what_cannot_be_read_may_lean_on_it(manager):
    """A reference stays though what leans on it cannot be read: history says so. Nothing else is held up."""
    owl = create(manager)
    fox = leaning(manager, owl)
    create(manager, seed=1)
    record = manager.store.head("fox").place.version(fox.number) / layout.RECORD
    store_fixtures.rewrite(record, b"{}")
    create(manager, "eel", seed=2)
    create(manager, "eel", seed=3)
    assert sorted(manager.prune("eel", keep=1).removed) == [1]
    kept = manager.prune("owl", keep=1).kept
    assert kept[1] == "fox@1 leans on it"


def test_what_the_system_refuses_to_read_may_lean_on_it(manager, monkeypatch):
    """Where a record may not be read just now nothing is pruned or removed: nobody knows what it leans on."""
    owl = create(manager)
    leaning(manager, owl)
    create(manager, seed=1)
    find = heads.find

    def refused(store, ref):
        if str(ref) == "fox@1":
            raise StoreError("read fox@1", "Permission denied", "Make it readable.")
        return find(store, ref)

    with monkeypatch.context() as patch:
        patch.setattr(heads, "find", refused)
        with pytest.raises(StoreError, match="Permission denied"):
            manager.prune("owl", keep=1)
        with pytest.raises(StoreError, match="Permission denied"):
            HeadRegistry(manager.store).remove("owl")
    assert manager.store.head("owl").numbers() == [1, 2]


def test_what_leans_on_what_cannot_be_read(manager):
    """What history says that something leans on stays, though its record cannot be read; others go as ever."""
    owl = create(manager)
    leaning(manager, owl)
    for seed in (1, 2, 3):
        create(manager, seed=seed)
    for number in (1, 2):
        store_fixtures.rewrite(manager.store.head("owl").place.version(number) / layout.RECORD, b"{}")
    assert sorted(manager.prune("owl", keep=1).removed) == [2, 3]


class Pruning:
    """Another process that takes a reference away at the last moment: when what leans on it is published already."""

    def __init__(self, manager, number):
        self.manager, self.number, self.publish = VersionManager(manager.store.root), number, Item.publish

    def as_method(self):
        """Return what takes the place of `Item.publish`."""

        def publish(item, contents, **facts):
            hidden = references.needed
            references.needed = lambda *_args, **_options: {}  # as of before the compact version was there
            try:
                if item.name == "fox":
                    self.manager.prune("owl", keep=1)
            finally:
                references.needed = hidden
            return self.publish(item, contents, **facts)

        return publish


def test_a_reference_that_goes_meanwhile(manager, monkeypatch):
    """If the reference is pruned while a compact version is published, that is taken away again, and said so."""
    owl = create(manager)
    create(manager, seed=1)
    monkeypatch.setattr(Item, "publish", Pruning(manager, 1).as_method())
    with pytest.raises(ConflictError, match="its reference was taken away meanwhile"):
        leaning(manager, owl)
    assert manager.store.head("fox").numbers() == []
    assert last_change(manager, "fox").reason == "its reference was taken away meanwhile"


def test_a_pruning_that_was_planned_before(manager):
    """A pruning that looked before a head leant on the version looks again: the state is another by then."""
    owl = create(manager)
    create(manager, seed=1)
    item = manager.store.head("owl")
    before = item.pointer()
    leaning(manager, owl)
    change = changes.change(pointers.PRUNED)
    with pytest.raises(ConflictError, match="another process changed it first"):
        changes.take_away(item, before, [1], after={}, change=change)


def aside(manager, ref):
    """Take the folder of a version out of a store by hand; return its place and where it lies now."""
    head, number = ref.split("@")
    place = manager.store.head(head).place.version(int(number))
    return place, shutil.move(place, manager.store.root.parent / f"aside-{head}")


def test_a_reference_that_was_put_back_is_kept(manager):
    """However a reference came back, from a copy, as another version or head, it is kept as long as it is needed."""
    owl = create(manager)
    fox = leaning(manager, owl)
    place, copy = aside(manager, "owl@1")
    shutil.move(copy, place)
    for seed in (1, 2, 3):
        create(manager, seed=seed)
    assert manager.prune("owl", keep=1).kept == {1: "fox@1 leans on it", 4: "it is the last"}
    aside(manager, "owl@1")
    again = create(manager, head="eel")
    assert references.find(manager.store, fox.record, "use it") == again
    with pytest.raises(ConflictError, match="eel@1: fox@1 leans on it"):
        HeadRegistry(manager.store).remove("eel")


def test_a_renaming_that_was_cut_off_forgets_no_reference(manager, monkeypatch):
    """A head that is leant on while its renaming was cut off is leant on under its new name."""
    owl, rename = create(manager), functools.partial(HeadRegistry(manager.store).rename, "owl", "eagle")
    with monkeypatch.context() as patch:
        patch.setattr(changes, "take_away", lambda *_args, **_facts: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rename()
    leaning(manager, owl)
    rename()
    create(manager, "eagle", seed=1)
    assert manager.prune("eagle", keep=1).kept[1] == "fox@1 leans on it"


def test_a_renaming_while_a_reference_is_looked_for(manager, monkeypatch):
    """A head that gets another name just then is found under that."""
    owl = create(manager)
    fox, find = leaning(manager, owl), heads.find

    def renamed_first(store, ref):
        monkeypatch.setattr(heads, "find", find)
        HeadRegistry(manager.store).rename("owl", "eagle")
        return find(store, ref)

    monkeypatch.setattr(heads, "find", renamed_first)
    assert str(references.find(manager.store, fox.record, "use it").ref) == "eagle@1"


def test_of_two_equal_weights_the_one_of_the_backbone(manager):
    """Where heads of two backbones have equal weights, the one of the right backbone serves."""
    owl = create(manager)
    fox, other = leaning(manager, owl), a_backbone(5)
    backbones.publish(manager.store, "other", other[1], other[0])
    weights = some_tensors(0)
    manager.create("ape", weights, a_record(weights, backbone=other[1].contract))
    manager.create("zebra", weights, a_record(weights))
    aside(manager, "owl@1")
    assert str(references.find(manager.store, fox.record, "use it").ref) == "zebra@1"


def test_what_lost_its_reference_does_not_become_active(manager):
    """Neither promotion nor rollback makes a version active that cannot run; what was active stays."""
    owl = create(manager)
    leaning(manager, owl)
    create(manager, "fox", seed=3)
    manager.promote("fox", 1)
    manager.promote("fox", 2)
    aside(manager, "owl@1")
    for act in (lambda: manager.promote("fox", 1), lambda: manager.rollback("fox")):
        with pytest.raises(NotFoundError, match=r"its reference owl@1 .* is not in the store"):
            act()
    assert manager.active("fox").number == 2


def test_a_repair_leaves_what_something_needs(manager):
    """A version whose weights are whole stays while something leans on it; one that nothing needs is set aside."""
    owl = create(manager)
    fox = leaning(manager, owl)
    noted = [manager.create("owl", some_tensors(n), a_record(some_tensors(n)), attachments=NOTE) for n in (4, 5)]
    leaning(manager, noted[0], seed=8)
    for version in noted:
        store_fixtures.flip(manager.store.head("owl").place.version(version.number) / "note.txt")
    report = manager.repair()
    assert manager.store.head("owl").numbers() == [1, 2]
    assert "heads/owl: version 2 was left: its weights are whole, and needed by fox@2" in report.mended
    assert {finding.number for finding in report.findings} == {2}
    references.load(manager.store, fox.record, "use it")
    manager.prune("fox", keep=1)
    HeadRegistry(manager.store).remove("fox")
    assert manager.repair().is_sound
    assert manager.store.head("owl").numbers() == [1]


def test_a_check_reads_a_reference_once(monkeypatch):
    """However many versions lean on it: once for itself, and once for all that lean on it, whose networks it makes."""
    manager = VersionManager(mixed().root)
    read, original = [], Item.read

    def reading(item, version, name):
        read.append((item.name, version.number, name))
        return original(item, version, name)

    monkeypatch.setattr(Item, "read", reading)
    assert manager.verify(depth="deep").is_sound
    weights = Counter(head for head, _number, name in read if name == layout.TENSORS)
    assert {name: weights[name] for name in ("bat", "eel", "fox", "owl")} == {"bat": 1, "eel": 1, "fox": 1, "owl": 2}


def test_a_missing_reference_is_found_by_a_check(manager):
    """A check names a compact version whose reference is gone, as unusable, and a repair leaves it where it is."""
    owl = create(manager)
    leaning(manager, owl)
    manager.promote("fox", 1)
    folder = manager.store.head("owl").place.version(1)
    folder.rename(folder.with_name("000009"))  # by hand
    report = manager.verify()
    found = [finding for finding in report.findings if finding.name == "fox"]
    assert [(one.what, one.severity) for one in found] == [("reference", "unusable")]
    assert "its reference owl@1" in found[0].problem
    manager.repair()
    assert manager.active("fox").number == 1
