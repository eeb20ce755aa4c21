"""Bundles: what is exported is what lay in the store, whole or not at all, and what is added is what was exported."""

import subprocess
import sys
import zipfile

import attrs
import bundle_fixtures
import pytest
import store_fixtures
from bundle_fixtures import BESIDE, FORMS, POLICY, files_of, trained
from store_fixtures import AT, a_backbone, a_record, create, flip, snapshot, some_tensors, with_backbone
from test_heads import Replacing

from hydra_detect import codec
from hydra_detect.bundles import manifest
from hydra_detect.bundles.bundle import load_bundle
from hydra_detect.bundles.export import export_bundle
from hydra_detect.environment import libraries
from hydra_detect.errors import ConflictError, CorruptError, NameInvalidError, NotFoundError, StoreError
from hydra_detect.names import HeadRef
from hydra_detect.records import OperatingPolicy
from hydra_detect.storage import artifacts, backbones, heads, layout
from hydra_detect.storage.items import Item
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
owls, place = bundle_fixtures.owls, bundle_fixtures.place


@pytest.fixture
def other(tmp_path):
    """Give the manager of another, empty store."""
    return VersionManager(Store.create(tmp_path / "other"))


# Empty first


def test_nothing_to_export(manager, place):
    """A store without heads has no bundle to give, nor has a head of which no version is active; nothing is begun."""
    for ref in ("owl", "owl@1"):
        with pytest.raises(NotFoundError, match="has no such head"):
            export_bundle(manager.store, ref, place / "owl.zip")
    create(manager)
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active"):
        export_bundle(manager.store, "owl", place / "owl.zip")
    assert list(place.iterdir()) == []


def test_nothing_to_load(place):
    """Where there is no bundle the error says that, and of an empty file or folder what it is not."""
    with pytest.raises(NotFoundError, match="there is no such file or folder"):
        load_bundle(place / "owl.zip")
    with pytest.raises(CorruptError, match=r"it lacks backbone/model\.safetensors, .*bundle\.json, head/model"):
        load_bundle(place)
    (place / "owl.zip").touch()
    with pytest.raises(CorruptError, match="not followed by just their directory"):
        load_bundle(place / "owl.zip")


# There and back


@pytest.mark.parametrize("form", FORMS)
def test_round_trip(owls, other, place, form):
    """A version that went through a bundle has the same weights, facts and files, is not active, and says whence."""
    version = heads.find(owls.store, "owl")
    info = export_bundle(owls.store, "owl", place / form)
    bundle = load_bundle(place / form)
    assert (bundle.head, bundle.version, bundle.policy) == ("owl", 3, POLICY)
    assert (bundle.origin.manifest, bundle.origin.actor) == (version.manifest, version.actor)
    assert (bundle.origin, bundle.digest) == (info.origin, info.digest)
    added = bundle.add_to(other.store, actor="ada")
    assert (added.ref, added.actor) == (HeadRef("owl", 1), "ada")
    assert heads.tensors(other.store, added) == dict(sorted(some_tensors(3).items()))
    assert tensors_digest(heads.tensors(other.store, added)) == version.record.tensors
    came = f"owl@3 of the bundle {bundle.digest}, made {version.created_at} by {version.actor}"
    assert added.record == attrs.evolve(version.record, notes=f"third try; {came}")
    assert {name: other.store.head("owl").read(added, name) for name in BESIDE} == BESIDE
    assert added.files.keys() == {layout.TENSORS, layout.RECORD, *BESIDE}  # the original, a pickle, stayed behind
    assert other.store.head("owl").pointer().active is None
    kept, new = (backbones.find(each.store, "demo") for each in (owls, other))
    assert backbones.tensors(other.store, new) == backbones.tensors(owls.store, kept)
    assert (new.record, new.manifest.files) == (kept.record, kept.manifest.files)
    assert other.verify(depth="full").is_sound
    assert other.promote("owl", 1).number == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_plain_version(manager, place, form):
    """A version without policy and files beside it is a bundle too, used at the score its settings say."""
    create(manager)
    info = export_bundle(manager.store, HeadRef("owl", 1), str(place / form))
    bundle = load_bundle(str(place / form))
    assert bundle.files == {}
    assert bundle.policy == OperatingPolicy(score_threshold=0.05)
    assert bundle.record.operating_policy is None
    assert bundle.origin.files.keys() == manifest.REQUIRED - {manifest.MANIFEST}
    assert str(bundle) == f"owl@1 (2 classes) on backbone 'demo', bundle {info.digest.short}"


def test_the_files_are_those_of_the_store(manager, place):
    """Each file of a bundle is byte for byte that of the store, also where another program wrote it."""
    tensors = some_tensors()
    plain = artifacts.encode_tensors(tensors)
    length = int.from_bytes(plain[:8], "little")
    header = b'{"__metadata__":{"format":"np"},' + plain[9 : 8 + length]
    foreign = len(header).to_bytes(8, "little") + header + plain[8 + length :]
    record = codec.encode(a_record(tensors, unknown={"later": 1}))
    manager.store.head("owl").publish({layout.TENSORS: foreign, layout.RECORD: record}, created_at=AT)
    export_bundle(manager.store, "owl@1", place / "owl")
    found = files_of(place / "owl")
    assert (found[manifest.HEAD_TENSORS], found[manifest.HEAD_RECORD]) == (foreign, record)
    own = manager.store.layout.item(layout.BACKBONES, "demo").version(1)
    assert found[manifest.BACKBONE_TENSORS] == (own / layout.TENSORS).read_bytes()
    assert load_bundle(place / "owl").record.unknown == {"later": 1}


def test_one_version_is_one_bundle(owls, place):
    """Equal content is equal bytes whenever it is written, as a zip file or a folder, and any program unpacks it."""
    infos = [export_bundle(owls.store, "owl@3", place / name) for name in ("a.zip", "b.ZIP", "c")]
    assert len({info.digest for info in infos}) == 1
    assert (place / "a.zip").read_bytes() == (place / "b.ZIP").read_bytes()
    with zipfile.ZipFile(place / "a.zip") as theirs:
        assert theirs.testzip() is None
        assert {name: theirs.read(name) for name in theirs.namelist()} == files_of(place / "c")
        assert {entry.date_time for entry in theirs.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in theirs.infolist()} == {zipfile.ZIP_STORED}
        theirs.extractall(place / "unpacked")
    assert load_bundle(place / "unpacked") == load_bundle(place / "a.zip")


def test_what_is_said_of_a_bundle(owls, place):
    """Both sides say in a line what they hold, and the manifest which libraries wrote it."""
    info = export_bundle(owls.store, "owl", place / "owl.zip")
    assert str(info) == f"owl@3 with backbone 'demo' is in {place / 'owl.zip'} (0.01 MB; {info.digest})"
    assert info.to_dict() == {
        "path": str(place / "owl.zip"), "head": "owl", "version": 3, "backbone": "demo", "digest": str(info.digest),
        "nbytes": info.nbytes, "files": sorted(info.origin.files),
    }  # fmt: skip
    listed = sum(size for size, _digest in info.origin.files.values())
    assert info.nbytes == listed + len(manifest.text(info.origin))
    assert info.origin.libraries == libraries()
    assert str(load_bundle(place / "owl.zip")).endswith(f"; beside it {', '.join(sorted(BESIDE))}")


def test_a_version_that_is_pruned_while_it_is_read(owls, place, monkeypatch):
    """The bundle of a head is that of one version, whatever becomes active, and is pruned, while its files are read."""
    monkeypatch.setattr(Item, "read", Replacing(owls, times=3).as_method())
    info = export_bundle(owls.store, "owl", place / "owl.zip")
    assert info.origin.number == owls.active("owl").number > 3
    assert load_bundle(place / "owl.zip").record == owls.active("owl").record


# Adding


def test_a_backbone_is_shared(owls, other, place):
    """A store that has the backbone, under whatever name, gets no second one, and the head goes by the name here."""
    tensors, record = a_backbone()
    backbones.publish(other.store, "retina", record, tensors)
    export_bundle(owls.store, "owl", place / "owl.zip")
    bundle = load_bundle(place / "owl.zip")
    assert bundle.add_to(other.store, head="strix").record.backbone_name == "retina"
    assert backbones.names(other.store) == ["retina"]
    assert bundle.add_to(str(other.store.root), head="strix", backbone="demo").record.backbone_name == "demo"
    assert bundle.add_to(other.store, head="strix").ref == HeadRef("strix", 2)  # it is there, on the likelier "demo"
    assert backbones.names(other.store) == ["demo", "retina"]
    export_bundle(other.store, "strix@1", place / "strix.zip")
    again = load_bundle(place / "strix.zip")
    assert (again.origin.backbone, again.record.tensors) == ("retina", bundle.record.tensors)
    assert f"; strix@1 of the bundle {again.digest}" in again.add_to(other.store).record.notes


def test_a_name_that_belongs_to_another_backbone(owls, other, place):
    """Another backbone of that name is left alone, and a name of its own helps."""
    tensors, record = a_backbone(seed=7)
    backbones.publish(other.store, "demo", record, tensors)
    export_bundle(owls.store, "owl", place / "owl.zip")
    bundle, before = load_bundle(place / "owl.zip"), snapshot(other.store.root / "backbones")
    for name in (None, "demo"):
        with pytest.raises(ConflictError, match="that name belongs to another one"):
            bundle.add_to(other.store, backbone=name)
    assert heads.names(other.store) == []
    assert snapshot(other.store.root / "backbones" / "demo" / "versions") == {
        name.removeprefix("demo/versions/"): facts for name, facts in before.items() if name[:14] == "demo/versions/"
    }
    assert bundle.add_to(other.store, backbone="ours").record.backbone_name == "ours"


def test_what_cannot_be_added(owls, other, place):
    """A name that is not allowed is refused before anything is written; a damaged backbone is not built upon."""
    export_bundle(owls.store, "owl", place / "owl.zip")
    bundle, before = load_bundle(place / "owl.zip"), snapshot(other.store.root)
    with pytest.raises(NameInvalidError, match=r"use '\.\./owl' as a head name"):
        bundle.add_to(other.store, head="../owl")
    with pytest.raises(NameInvalidError, match="use 'A' as a backbone name"):
        bundle.add_to(other.store, backbone="A")
    with pytest.raises(StoreError, match="there is no such folder"):
        bundle.add_to(place / "none")
    assert snapshot(other.store.root) == before
    with_backbone(other.store)
    flip(other.store.layout.item(layout.BACKBONES, "demo").version(1) / layout.TENSORS)
    with pytest.raises(CorruptError, match=r"read model\.safetensors of demo@1"):
        bundle.add_to(other.store)
    assert heads.names(other.store) == []


def test_words_of_a_stranger(owls, other, place):
    """Who made a version may call himself anything, and breaks no line by that."""
    trained(VersionManager(owls.store, actor="eve\n\x1b[31mowl@9"), notes="")
    export_bundle(owls.store, "owl@4", place / "owl.zip")
    notes = load_bundle(place / "owl.zip").add_to(other.store).record.notes
    assert notes.endswith(" by eve  [31mowl@9")
    assert notes.startswith("owl@4 of the bundle sha256:")


def test_no_torch():
    """Neither exporting nor loading brings torch in."""
    script = "import sys, hydra_detect.bundles.export; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
