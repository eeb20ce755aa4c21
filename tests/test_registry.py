"""The registry: heads by name, at a glance, and what they fit."""

import attrs
import pytest
import store_fixtures
from store_fixtures import a_backbone, a_contract, create, flip, snapshot, some_tensors
from version_fixtures import look_between

from hydra_detect.contracts import Level, Preprocessing
from hydra_detect.errors import ConflictError, CorruptError, IncompatibleError, NotFoundError, StoreError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.overview import HeadInfo
from hydra_detect.records import BackboneRecord
from hydra_detect.registry import HeadRegistry, check_fits
from hydra_detect.storage import backbones, files, heads, layout, usage

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled


@pytest.fixture
def registry(filled):
    """Give the registry of the filled store."""
    return HeadRegistry(filled.store, actor="ada")


# As a mapping


def test_empty_store(store):
    """A store without heads is an ordinary, empty registry, and is not written to."""
    registry = HeadRegistry(store)
    before = snapshot(store.root)
    assert (list(registry), len(registry), registry.infos(), registry.backbones()) == ([], 0, [], [])
    assert registry.fitting(a_contract()) == registry.fitting(Digest("0" * 64)) == []
    assert "owl" not in registry
    with pytest.raises(NotFoundError, match=r"has no such head\. There is none yet\.$"):
        registry["owl"]
    assert snapshot(store.root) == before


def test_mapping(registry, filled):
    """Iterating gives names, `in` asks for one, and brackets give the active version or the one named."""
    assert list(registry) == ["fox", "owl"]
    assert len(registry) == 2
    assert registry["owl"] == heads.find(filled.store, "owl@1")
    assert registry["owl@2"] == registry[HeadRef("owl", 2)] == heads.find(filled.store, "owl@2")
    assert registry.backbones() == ["demo"]
    assert repr(registry) == f"HeadRegistry({str(filled.store.root)!r}, 2 heads)"


def test_what_is_in_it(registry, filled):
    """A name is in it while the head has versions, a reference while there is that version, what is no name never."""
    assert all(ref in registry for ref in ("owl", "fox", "owl@1", "owl@2", HeadRef("owl"), HeadRef("owl", 2)))
    nothing = ("zebra", "owl@3", "fox@2", HeadRef("owl", 3), "owl@0", "OWL", "", "..", "owl@", 5, None, ["owl"], b"owl")
    assert not any(ref in registry for ref in nothing)
    create(filled, seed=5)
    filled.promote("owl", 3)
    filled.prune("owl", keep=1)
    assert [number for number in range(1, 5) if HeadRef("owl", number) in registry] == [1, 3]
    assert "demo" not in registry  # a backbone is no head
    registry.remove("owl")
    assert not any(ref in registry for ref in ("owl", "owl@1"))


def test_misses(registry):
    """A miss says which names come near, and a head without an active version how to get one."""
    for ask in (registry.__getitem__, registry.info):
        with pytest.raises(NotFoundError, match=r"cannot find head 'owl2': .* Did you mean 'owl'\?$"):
            ask("owl2")
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active") as caught:
        registry["fox"]
    assert caught.value.remedy == "Promote one: 'hydra-detect promote fox 1'."


def test_registry_of_nothing(tmp_path):
    """Asking for the registry of a missing store makes none."""
    with pytest.raises(StoreError, match="there is no such folder"):
        HeadRegistry(tmp_path / "none")
    assert snapshot(tmp_path) == {}


# At a glance


def test_info(registry, filled):
    """A head at a glance shows its active version, and its newest where none is active."""
    tensors, record = a_backbone()
    version = heads.find(filled.store, "owl@1")
    assert registry.info("owl") == HeadInfo(
        head="owl", active=1, versions=(1, 2), class_names=("owl", "red fox"), backbone="demo",
        backbone_digest=record.contract.digest, nbytes=version.files[layout.TENSORS][0], created_at=version.created_at,
    )  # fmt: skip
    assert (registry.info("fox").active, registry.info("fox").versions) == (None, (1,))
    create(filled, "fox", class_names=("fox",))
    assert registry.info("fox").class_names == ("fox",)
    assert backbones.tensors(filled.store, backbones.find(filled.store, "demo")) == dict(sorted(tensors.items()))


# What each version is to its head


def marks(status):
    """Return the versions of a head by what they are: {number: (active, previous, pinned for)}."""
    return {one.number: (one.is_active, one.is_previous, one.pinned_for) for one in status.versions}


def test_status(registry, filled):
    """Each version is told with its record, whether it is active or the one before, and for what it is pinned."""
    filled.promote("owl", 2)
    create(filled, seed=5)
    for number, reason in ((1, "paper"), (3, ""), (1, "audit")):
        filled.pin("owl", number, reason=reason)
    status = registry.status("owl")
    assert (status.head, status.active, status.previous, status.problem, status.is_whole) == ("owl", 2, 1, "", True)
    assert marks(status) == {1: (False, True, ("paper", "audit")), 2: (True, False, ()), 3: (False, False, ("",))}
    assert [version.record for version in status.versions] == filled.versions("owl")
    assert {version.problem for version in status.versions} == {""}


def test_status_of_a_head_that_was_never_promoted(registry):
    """Of a head without an active version none is, and none was before."""
    status = registry.status("fox")
    assert (status.active, status.previous, status.is_whole) == (None, None, True)
    assert marks(status) == {1: (False, False, ())}


@pytest.mark.parametrize("path", [layout.RECORD, layout.MANIFEST])
def test_status_with_a_damaged_version(registry, filled, path):
    """A version that cannot be read has its number and its problem, keeps its marks, and hides no other."""
    filled.promote("owl", 2)
    filled.pin("owl", 1, reason="paper")
    flip(filled.store.layout.item(layout.HEADS, "owl").version(1) / path, 30)
    status = registry.status("owl")
    assert (status.active, status.previous, status.problem, status.is_whole) == (2, 1, "", False)
    assert marks(status) == {1: (False, True, ("paper",)), 2: (True, False, ())}
    damaged, whole = status.versions
    with pytest.raises(CorruptError, match=r"cannot read .*owl@1") as caught:
        heads.find(filled.store, "owl@1")
    assert (damaged.record, damaged.problem) == (None, caught.value.found)
    assert (whole.record, whole.problem) == (heads.find(filled.store, "owl@2"), "")


def test_status_with_a_damaged_pointer(registry, filled):
    """Where the state cannot be read no version is called active or not, and all are listed with their records."""
    flip(filled.store.layout.item(layout.HEADS, "owl").pointer(1), 30)
    status = registry.status("owl")
    assert (status.active, status.previous, status.is_whole) == (None, None, False)
    with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl'") as caught:
        filled.store.head("owl").pointer()
    assert status.problem == caught.value.found
    assert marks(status) == {1: (None, None, ()), 2: (None, None, ())}
    assert [version.record for version in status.versions] == filled.versions("owl")


def test_status_of_what_is_gone(registry, filled):
    """A version that was pruned is not listed, and a head that was removed is a miss that says so."""
    create(filled, seed=5)
    filled.promote("owl", 3)
    filled.prune("owl", keep=1)
    assert marks(registry.status("owl")) == {1: (False, True, ()), 3: (True, False, ())}
    registry.remove("owl")
    with pytest.raises(NotFoundError, match=r"cannot find head 'owl': it was removed by ada at 20.* tells its story"):
        registry.status("owl")


def test_usage(registry, filled):
    """What takes the disk is measured by item and version, and is what the files have."""
    found = registry.usage()
    assert found == usage.usage(filled.store)
    owl = filled.store.layout.item(layout.HEADS, "owl")
    (measured,) = [item for item in found.items if item.name == "owl"]
    assert measured.versions == {number: files.nbytes(owl.version(number)) for number in (1, 2)}
    assert (measured.active, measured.history) == (1, files.nbytes(owl.pointers))
    assert found.total == files.nbytes(filled.store.root) > 0


# Removing


def test_a_dry_run_removes_nothing(registry, filled):
    """A dry run names the versions that would go, refuses what a removal would refuse, and changes nothing."""
    before = snapshot(filled.store.root)
    assert registry.remove("owl", dry_run=True) == [1, 2]
    assert snapshot(filled.store.root) == before
    filled.pin("owl", 2, reason="paper")
    before = snapshot(filled.store.root)
    for dry_run in (True, False):
        with pytest.raises(ConflictError, match=r"versions are pinned: 2 \(paper\)"):
            registry.remove("owl", dry_run=dry_run)
        with pytest.raises(NotFoundError, match="has no such head"):
            registry.remove("wolf", dry_run=dry_run)
    assert snapshot(filled.store.root) == before
    filled.unpin("owl", 2)
    assert registry.remove("owl") == [1, 2]
    assert list(registry) == ["fox"]
    flip(filled.store.layout.item(layout.HEADS, "fox").version(1) / layout.MANIFEST, 40)
    for dry_run in (True, False):  # nothing could be remembered of it
        with pytest.raises(CorruptError, match="the manifest of fox@1"):
            registry.remove("fox", dry_run=dry_run)


# Fitting


def put(store, name, record, tensors):
    """Put another backbone into a store; return its contract."""
    return backbones.publish(store, name, record, tensors).record.contract


def test_fitting(registry, filled):
    """Heads whose active version was made for a backbone fit it: by digest its weights, by contract all of it."""
    contract = a_contract()
    assert registry.fitting(contract) == registry.fitting(contract.digest) == ["owl"]
    filled.promote("fox", 1)
    smaller = attrs.evolve(contract, preprocessing=Preprocessing(min_size=640))
    put(filled.store, "small", BackboneRecord(contract=smaller), some_tensors())
    tensors, record = a_backbone(seed=7)
    other = put(filled.store, "other", record, tensors)
    for head, seed, own in (("lynx", 4, other), ("wolf", 5, smaller)):
        create(filled, head, seed, backbone=own)
        assert head not in registry.fitting(own)  # nothing of it is active yet
        filled.promote(head, 1)
    assert registry.fitting(contract) == ["fox", "owl"]
    assert registry.fitting(smaller) == ["wolf"]
    assert registry.fitting(contract.digest) == ["fox", "owl", "wolf"]
    assert registry.fitting(other) == registry.fitting(other.digest) == ["lynx"]
    assert registry.fitting(Digest("f" * 64)) == []


def test_fitting_goes_by_the_active_version(registry, filled):
    """A head moves to another backbone when a version made for it is promoted, not before."""
    tensors, record = a_backbone(seed=7)
    contract, other = a_contract(), put(filled.store, "other", record, tensors)
    create(filled, "owl", 6, backbone=other)
    assert (registry.fitting(contract), registry.fitting(other)) == (["owl"], [])
    filled.promote("owl", 3)
    assert (registry.fitting(contract), registry.fitting(other)) == ([], ["owl"])


def test_fitting_names_heads_that_cannot_be_read(registry, filled):
    """A head that cannot be read is among those that fit any backbone, so that whoever loads it hears why not."""
    flip(filled.store.layout.item(layout.HEADS, "owl").pointer(1), 30)
    for backbone in (a_backbone()[1].contract, a_contract("7"), Digest("f" * 64)):
        assert registry.fitting(backbone) == ["owl"]


def test_check_fits(registry):
    """A head fits the backbone it was made for."""
    version = registry["owl"]
    check_fits(version, version.record.backbone)
    check_fits(version, attrs.evolve(version.record.backbone, unknown={"later": 1}))


def test_check_fits_lists_differences(registry):
    """The refusal names every fact that differs, as text and as facts, and the backbone that would do."""
    version = registry["owl"]
    levels = (Level(name="0", channels=256, stride=4), Level(name="pool", channels=64, stride=8))
    other = attrs.evolve(a_contract("9"), preprocessing=Preprocessing(max_size=2000), levels=levels)
    with pytest.raises(IncompatibleError, match="cannot run owl@1 on this backbone") as caught:
        check_fits(version, other)
    short = version.record.backbone.digest.short
    assert caught.value.facts["differences"] == (
        f"digest is 999999999999 against {short}",
        "preprocessing.max_size is 2000 against 1333",
        "levels[1].channels is 64 against 256",
    )
    assert all(phrase in caught.value.found for phrase in caught.value.facts["differences"])
    assert caught.value.remedy == "Use the backbone it was made on, there called 'demo'."


def test_a_head_that_cannot_be_read_is_listed_all_the_same(registry, filled):
    """A damaged head is listed with its name, its versions and its problem, and hides no other."""
    before = registry.infos()
    flip(filled.store.layout.item(layout.HEADS, "owl").pointer(1), 30)
    fox, owl = registry.infos()
    assert fox == before[0]
    with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl'") as caught:
        registry.info("owl")
    assert owl == HeadInfo(head="owl", active=None, versions=(1, 2), problem=caught.value.found)


def test_a_damaged_version_that_is_not_active_hides_no_head(registry, filled):
    """Listing heads goes on when a version that is not in use is damaged."""
    create(filled, "owl", seed=5)
    newest = filled.versions("owl")[-1].number
    before = registry.infos()
    flip(filled.store.layout.item(layout.HEADS, "owl").version(newest) / layout.MANIFEST, 40)
    assert registry.infos() == before


def test_a_head_that_is_removed_while_it_is_looked_at(manager, monkeypatch):
    """A head that goes away between two looks is not there: an error of ours, whichever look it was."""
    create(manager)
    done = look_between(monkeypatch, "there", lambda: HeadRegistry(manager.store).remove("owl"))
    with pytest.raises(NotFoundError, match="'owl'"):
        HeadRegistry(manager.store).info("owl")
    assert done
