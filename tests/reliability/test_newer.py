"""What a newer version of this library wrote is read where that is safe, refused by name where not, never damaged."""

import json

import pytest
import store_fixtures
from store_fixtures import AT, a_backbone, create, rewrite, snapshot

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError, RecordError, StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, files, findings, heads, layout, pointers, sealed
from hydra_detect.storage.pointers import Change
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

OWL = (layout.HEADS, "owl")
NEWER = {"labels": {"team": ["a", 1, None]}, "weight_decay": 0.5}
"""Fields that this version does not know."""


def declare(store, **limits):
    """Let STORE.json name other formats, with a field that this version does not know."""
    identity = json.loads(store.layout.identity.read_bytes())
    rewrite(store.layout.identity, codec.dumps({**identity, **limits, "compression": "zstd"}))


def lock(store):
    """Hold the lock of a head, as each change does."""
    with store.head("owl").changing():
        pass


WAYS_IN = {
    "create": lambda m: create(m, "owl", 3),
    "create another": lambda m: create(m, "hawk", 3),
    "promote": lambda m: m.promote("owl", 2),
    "promote the active one": lambda m: m.promote("owl", 1),
    "rollback": lambda m: m.rollback("owl"),
    "pin": lambda m: m.pin("owl", 1),
    "unpin": lambda m: m.unpin("owl", 2),
    "prune": lambda m: m.prune("owl", keep=1),
    "rename": lambda m: HeadRegistry(m.store).rename("fox", "strix"),
    "remove": lambda m: HeadRegistry(m.store).remove("fox"),
    "repair": lambda m: m.repair(),
    "publish a backbone": lambda m: backbones.publish(m.store, "other", a_backbone(5)[1], a_backbone(5)[0]),
    "publish": lambda m: m.store.head("owl").publish({"a.bin": b"a"}, created_at=AT),
    "swap": lambda m: m.store.head("owl").swap(m.store.head("owl").pointer(), {}, Change(what=pointers.PINNED, at=AT)),
    "lock": lambda m: lock(m.store),
}
"""Every way to change a store."""


@pytest.fixture
def newer(filled):
    """Give a function that opens the store of `filled` as one whose STORE.json names these limits."""
    filled.pin("owl", 2)
    filled.promote("owl", 2)
    filled.promote("owl", 1)

    def reopen(**limits):
        declare(filled.store, **limits)
        return VersionManager(Store.open(filled.store.root), actor="test")

    return reopen


def test_a_reader_of_a_later_format_is_needed(filled):
    """A store that asks for a newer reader is refused at each opening, with both numbers, and stays as it is."""
    declare(filled.store, format=2, min_reader=2, min_writer=2)
    before = snapshot(filled.store.root)
    for way in (Store.open, Store.create, Store.find, VersionManager, HeadRegistry):
        with pytest.raises(
            StoreError, match="needs a reader of format 2 and this version of hydra-detect reads 1"
        ) as e:
            way(filled.store.root)
        assert e.value.facts == {"format": 2}
        assert e.value.remedy == "Upgrade hydra-detect; nothing was changed."
    assert snapshot(filled.store.root) == before


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_a_writer_of_a_later_format_is_needed(newer, way):
    """A store that asks for a newer writer refuses each change, with both numbers, and stays as it is."""
    old = newer(format=2, min_writer=2)
    before = snapshot(old.store.root)
    with pytest.raises(
        StoreError, match="needs a writer of format 2 and this version of hydra-detect writes 1"
    ) as caught:
        way(old)
    assert caught.value.facts == {"format": 2}
    assert snapshot(old.store.root) == before


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_each_way_in_is_one(newer, way):
    """Each of those changes is no mistake by itself: where this version may write, it is made without an error."""
    old = newer(format=2)
    way(old)
    assert "damage" not in {finding.severity for finding in old.verify().findings}


def test_what_may_only_be_read_is_read(newer):
    """A store that asks for a newer writer is listed, loaded, checked, and told its history, and stays as it is."""
    old = newer(format=2, min_writer=2)
    before = snapshot(old.store.root)
    assert Store.create(old.store.root).names(layout.HEADS) == ["fox", "owl"]
    assert [(info.head, info.active) for info in HeadRegistry(old.store).infos()] == [("fox", None), ("owl", 1)]
    assert heads.load(old.store, "owl")[0].number == 1
    assert old.prune("owl", keep=1, dry_run=True).is_dry_run
    assert old.history("owl")[-1].what == "promoted"
    assert old.verify().is_sound
    assert snapshot(old.store.root) == before


# One artifact of a newer kind among others


def reseal(path, **changes):
    """Let a sealed file say something else, as another version could have written it."""
    rewrite(path, sealed.seal({**sealed.unseal(path.read_bytes(), "it"), **changes}))


def republish(manager, number, change):
    """Let version `number` of `owl` have another record, and a manifest that lists it, as if it had been made so."""
    folder = manager.store.head("owl").place.version(number)
    data = codec.dumps(change(json.loads((folder / layout.RECORD).read_bytes())))
    rewrite(folder / layout.RECORD, data)
    manifest = sealed.unseal((folder / layout.MANIFEST).read_bytes(), "it")
    reseal(folder / layout.MANIFEST, files={**manifest["files"], layout.RECORD: [len(data), str(files.sha256(data))]})


def newest(manager):
    """Return the path of the newest generation of `owl`."""
    item = manager.store.head("owl").place
    return item.pointer(item.pointer_generations()[-1])


def test_unknown_fields_of_a_pointer(filled):
    """Fields that this version does not know do not hinder reading, and the generations after it keep them."""
    reseal(newest(filled), **NEWER)
    assert filled.active("owl").number == 1
    assert filled.store.head("owl").pointer().unknown == NEWER
    filled.promote("owl", 2)
    filled.rollback("owl")
    assert filled.store.head("owl").pointer().unknown == NEWER
    assert filled.verify().findings == ()


def test_unknown_fields_of_a_record(filled):
    """A record with fields that this version does not know, deep inside too, is read and gives them back."""
    republish(filled, 2, lambda facts: {**facts, **NEWER, "settings": {**facts["settings"], "deep": [1]}})
    record = filled.promote("owl", 2).record
    assert record.unknown == NEWER
    assert record.settings.unknown == {"deep": [1]}
    assert filled.verify().findings == ()


def test_unknown_fields_of_a_manifest(filled):
    """A manifest with fields that this version does not know is read."""
    reseal(filled.store.head("owl").place.version(2) / layout.MANIFEST, **NEWER)
    assert filled.promote("owl", 2).number == 2
    assert filled.verify().findings == ()


PARTS = {
    "record": (
        lambda m: republish(m, 2, lambda facts: {**facts, "schema": 2, "settings": "elsewhere"}),
        "it has schema 2 and this version of hydra-detect reads up to 1",
        {"schema": 2},
    ),
    "manifest": (
        lambda m: reseal(m.store.head("owl").place.version(2) / layout.MANIFEST, format=2, files="elsewhere"),
        "its format is 2 and this version of hydra-detect reads 1",
        {"format": 2},
    ),
    "pointer": (
        lambda m: reseal(newest(m), format=2, earlier="elsewhere"),
        "its format is 2 and this version of hydra-detect reads 1",
        {"format": 2},
    ),
}
"""What a newer version could have written: how, how that is refused, and the facts of the error."""


@pytest.fixture(params=PARTS.values(), ids=PARTS)
def part(request, filled):
    """Let one part of `owl` be of a newer format; give the words and the facts with which it is refused."""
    make, found, facts = request.param
    make(filled)
    return found, facts


def test_a_newer_part_is_refused_by_name(filled, part):
    """A part of a newer format is called that, and not damaged: by whoever promotes, and by each reader of it."""
    found, facts = part
    for way in (lambda: filled.promote("owl", 2), lambda: filled.versions("owl") and filled.active("owl")):
        with pytest.raises(RecordError) as caught:
            way()
        assert caught.value.found == found
        assert caught.value.remedy == "Upgrade hydra-detect."
        assert caught.value.facts == facts


def test_a_newer_part_is_not_repaired(filled, part):
    """A check says that it could not read it, and a repair leaves the whole head as it is, whatever else is wrong."""
    claim = filled.store.head("owl").place.claim(1)
    claim.unlink()
    owl = filled.store.head("owl").place.root
    before = snapshot(owl)
    found, _facts = part
    for report in (filled.verify(), filled.repair()):
        assert not report.is_sound
        (refused,) = [finding for finding in report.findings if not finding.is_harmless]
        assert (refused.what, refused.name) == (findings.REFUSED, "owl")
        assert found in refused.problem
        assert str(report).splitlines()[-1].startswith("unclear: ")
        assert f"not read: {refused.path}: " in str(report)
    assert snapshot(owl) == before


def test_a_newer_part_hides_nothing_else(filled, part):
    """The other heads are read, checked and changed as ever; the head itself is listed with what is the matter."""
    found, _facts = part
    filled.promote("fox", 1)
    infos = {info.head: info for info in HeadRegistry(filled.store).infos()}
    assert infos["fox"].active == 1
    assert infos["owl"].versions == (1, 2)
    try:
        filled.active("owl")
    except HydraDetectError:
        assert found in infos["owl"].problem
    else:
        assert infos["owl"].active == 1
