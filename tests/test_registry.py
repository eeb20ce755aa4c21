"""The registry: heads by name, what they fit, and an index that is never believed against the disk."""

import errno
import json
import shutil

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, labels, names, versions
from store_fixtures import a_backbone, a_contract, create, flip, leftovers, rewrite, snapshot

from hydra_detect import codec
from hydra_detect.contracts import Level, Preprocessing
from hydra_detect.errors import IncompatibleError, NotFoundError, RecordError, StoreError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.registry import HeadInfo, HeadRegistry, check_fits
from hydra_detect.storage import backbones, files, index, layout, sealed
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

infos = st.builds(
    HeadInfo,
    name=names,
    active=st.none() | versions,
    versions=st.lists(versions, max_size=3).map(tuple),
    class_names=st.lists(labels, max_size=3).map(tuple),
    backbone=names,
    backbone_digest=digests,
    nbytes=st.integers(0, 1 << 40),
    created_at=st.just(store_fixtures.AT),
)


@pytest.fixture
def registry(filled):
    """Give the registry of the filled store."""
    return HeadRegistry(filled.store)


@pytest.fixture
def reads(monkeypatch):
    """Give a list that collects the names of the heads that are read from disk for a summary."""
    found, info = [], HeadRegistry.info

    def counted(self, name):
        found.append(name)
        return info(self, name)

    monkeypatch.setattr(HeadRegistry, "info", counted)
    return found


def truth(registry):
    """Return the summaries as the disk has them."""
    return [registry.info(name) for name in registry]


def entries(registry):
    """Return the entries of the index on disk."""
    return sealed.unseal(registry.store.layout.index.read_bytes(), "it")["heads"]


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
    assert "owl" in registry
    assert not any(name in registry for name in ("zebra", "owl@1", "", "..", 5, None))
    assert registry["owl"] == filled.get("owl@1")
    assert registry["owl@2"] == registry[HeadRef("owl", 2)] == filled.get("owl@2")
    assert registry.backbones() == ["demo"]
    assert repr(registry) == f"HeadRegistry({str(filled.store.root)!r}, 2 heads)"


def test_misses(registry):
    """A miss says which names come near, and a head without an active version how to get one."""
    for ask in (registry.__getitem__, registry.info):
        with pytest.raises(NotFoundError, match=r"cannot find head 'owl2': .* Did you mean 'owl'\?$"):
            ask("owl2")
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) was ever promoted\. Promote one: "):
        registry["fox"]


def test_registry_of_nothing(tmp_path):
    """Asking for the registry of a missing store makes none."""
    with pytest.raises(StoreError, match="there is no such folder"):
        HeadRegistry(tmp_path / "none")
    assert snapshot(tmp_path) == {}


# At a glance


def test_info(registry, filled):
    """A head at a glance shows its active version, and its newest where none is active."""
    tensors, record = a_backbone()
    version = filled.get("owl@1")
    assert registry.info("owl") == HeadInfo(
        name="owl", active=1, versions=(1, 2), class_names=("owl", "red fox"), backbone="demo",
        backbone_digest=record.contract.digest, nbytes=version.files[layout.TENSORS][0], created_at=version.created_at,
    )  # fmt: skip
    assert (registry.info("fox").active, registry.info("fox").versions) == (None, (1,))
    create(filled, "fox", class_names=("fox",))
    assert registry.info("fox").class_names == ("fox",)
    assert backbones.tensors(filled.store, backbones.find(filled.store, "demo")) == dict(sorted(tensors.items()))


@given(infos)
def test_info_round_trip(info):
    """A summary reads back as itself from plain JSON values."""
    assert HeadInfo.from_dict(json.loads(codec.dumps(info.to_dict()))) == info


@pytest.mark.parametrize(
    "changes",
    [
        {"name": 5}, {"active": "1"}, {"active": True}, {"versions": "12"}, {"versions": ["1"]}, {"versions": {"1": 1}},
        {"class_names": "owl"}, {"class_names": [None]}, {"backbone_digest": "x"}, {"nbytes": 1.5}, {"created_at": ...},
        {"backbone": None},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_summaries(changes):
    """A summary with a field that is missing or of the wrong kind is refused by the field's name."""
    info = HeadInfo(
        name="owl", active=1, versions=(1,), class_names=("owl",), backbone="demo", backbone_digest=Digest("0" * 64),
        nbytes=1, created_at="",
    )  # fmt: skip
    value = {key: item for key, item in (info.to_dict() | changes).items() if item is not ...}
    with pytest.raises(RecordError, match="cannot read the summary of a head: ") as caught:
        HeadInfo.from_dict(value)
    assert next(iter(changes)) in caught.value.found or "as a digest" in caught.value.found


# The index


def test_index_is_made_and_used(registry, reads):
    """The first listing reads every head and writes the index; the second one reads no head."""
    first = registry.infos()
    assert sorted(reads) == ["fox", "owl"]
    assert sorted(entries(registry)) == ["fox", "owl"]
    before = snapshot(registry.store.root)
    reads.clear()
    assert HeadRegistry(registry.store.root).infos() == first
    assert reads == []
    assert snapshot(registry.store.root) == before
    assert [info.name for info in first] == list(registry)


def test_index_follows_every_change(registry, reads):
    """After a change by another manager just the heads that changed are read again, and the listing is right."""
    other = VersionManager(registry.store.root)
    changes = {
        "promote": (lambda: other.promote("owl", 2), ["owl"]),
        "promote the first": (lambda: other.promote("fox", 1), ["fox"]),
        "create": (lambda: create(other, "owl", 3), ["owl"]),
        "new head": (lambda: create(other, "lynx"), ["lynx"]),
        "promote back": (lambda: other.promote("owl", 1), ["owl"]),
        "nothing": (lambda: None, []),
    }
    registry.infos()
    for change, expected in changes.values():
        change()
        reads.clear()
        found = registry.infos()
        assert reads == expected
        assert found == truth(registry)


def test_index_forgets(registry):
    """A head that is gone is gone from the listing and from the index."""
    registry.infos()
    item = registry.store.layout.item(layout.HEADS, "fox")
    item.root.rename(registry.store.root / "elsewhere")
    assert [info.name for info in registry.infos()] == ["owl"]
    assert sorted(entries(registry)) == ["owl"]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"null", b"[]", b"{}", b"\0" * 50, b"\xff", b"[" * 200_000, b"1" * 10_000, b" " * (2 << 20),
        b'{"format": 1, "heads": {}}', sealed.seal({}), sealed.seal({"format": 2, "heads": {}}),
        sealed.seal({"format": 1}), sealed.seal({"format": 1, "heads": []}), sealed.seal({"format": 1, "heads": None}),
        sealed.seal({"format": 1, "heads": {"owl": None, "fox": [], "zebra": {}}}),
        sealed.seal({"format": 1, "heads": {"../x": {"stamp": [1, 1, 2], "summary": {}}}}),
    ],
    ids=lambda data: ascii(data[:60]),
)  # fmt: skip
def test_damaged_index(registry, data):
    """A damaged, foreign or newer index is made anew, and the listing is that of the disk."""
    path = registry.store.layout.index
    path.write_bytes(data)
    assert registry.infos() == truth(registry)
    assert sorted(entries(registry)) == ["fox", "owl"]
    assert leftovers(registry.store) == []


def test_every_flipped_bit_of_the_index(registry):
    """No flipped bit of the index ever shows in the listing."""
    expected = registry.infos()
    path = registry.store.layout.index
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        rewrite(path, data)
        flip(path, place, place % 8)
        assert registry.infos() == expected
    assert path.read_bytes() == data


@pytest.mark.parametrize("summary", [None, 5, "owl", [], {}, {"name": "owl"}], ids=str)
def test_malformed_entries(registry, reads, summary):
    """An entry with the right stamp and a malformed summary is read anew; the others are used."""
    registry.infos()
    heads = entries(registry)
    heads["owl"]["summary"] = summary
    rewrite(registry.store.layout.index, sealed.seal({"format": 1, "heads": heads}))
    reads.clear()
    found = registry.infos()
    assert reads == ["owl"]
    assert found == truth(registry)
    assert entries(registry)["owl"]["summary"]["class_names"] == ["owl", "red fox"]


@pytest.mark.parametrize(
    "changes",
    [{"active": "1"}, {"versions": "12"}, {"class_names": {"a": 1}}, {"backbone_digest": 5}, {"nbytes": True}],
)
def test_wrong_kinds_in_entries(registry, changes):
    """A value of the wrong kind inside an entry is never shown."""
    registry.infos()
    heads = entries(registry)
    heads["owl"]["summary"] |= changes
    rewrite(registry.store.layout.index, sealed.seal({"format": 1, "heads": heads}))
    assert registry.infos() == truth(registry)


def test_stale_stamps(registry):
    """An entry made from another state of the head is not believed, whatever it says."""
    registry.infos()
    heads = entries(registry)
    for stamp in (None, [], [0, 1, 2], [1, 1], [1, 2, 1], [1, 1, 2, 3], "1", {"1": 1}):
        heads["owl"]["stamp"] = stamp
        heads["owl"]["summary"]["class_names"] = ["a lie"]
        rewrite(registry.store.layout.index, sealed.seal({"format": 1, "heads": heads}))
        assert registry.infos() == truth(registry)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_index_that_is_no_file(registry, tmp_path, kind):
    """A folder or link in the place of the index is not followed, and the listing is right."""
    path = registry.store.layout.index
    (tmp_path / "precious").write_bytes(b"x")
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "precious")
    assert registry.infos() == truth(registry)
    assert (tmp_path / "precious").read_bytes() == b"x"
    assert not list(registry.store.root.glob(".registry-*"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_store_that_cannot_be_written(registry, monkeypatch, number):
    """A store that cannot be written is listed as ever, and stays as it was."""

    def refuse(*_arguments, **_options):
        raise OSError(number, "no")

    before = snapshot(registry.store.root)
    monkeypatch.setattr(files, "write_new", refuse)
    assert registry.infos() == truth(registry)
    assert snapshot(registry.store.root) == before


def test_store_of_a_newer_writer(registry):
    """A store that only newer versions may write gets no index from this one."""
    identity = {"format": 2, "min_reader": 1, "min_writer": 2, "store_id": "x"}
    rewrite(registry.store.layout.identity, codec.dumps(identity))
    before = snapshot(registry.store.root)
    assert HeadRegistry(registry.store.root).infos() == truth(registry)
    assert snapshot(registry.store.root) == before


def test_index_that_would_be_too_large(registry, monkeypatch):
    """An index that could not be read again is not written."""
    monkeypatch.setattr(index, "MAX_BYTES", 100)
    summaries = index.summaries(
        registry.store, read=lambda name: {"name": name * 100}, plain=dict, restore=HeadInfo.from_dict
    )
    assert [summary["name"][:3] for summary in summaries] == ["fox", "owl"]
    assert not registry.store.layout.index.exists()


# Fitting


def test_fitting(registry, filled):
    """Heads whose active version was made for a backbone fit it: by digest its weights, by contract all of it."""
    contract = a_backbone()[1].contract
    assert registry.fitting(contract) == registry.fitting(contract.digest) == ["owl"]
    filled.promote("fox", 1)
    create(filled, "lynx", 4)
    filled.promote("lynx", 1)
    smaller = attrs.evolve(contract, preprocessing=Preprocessing(min_size=640))
    create(filled, "wolf", 5, backbone=smaller)
    filled.promote("wolf", 1)
    assert registry.fitting(contract) == ["fox", "owl"]
    assert registry.fitting(smaller) == ["wolf"]
    assert registry.fitting(contract.digest) == ["fox", "owl", "wolf"]
    assert registry.fitting(a_contract()) == ["lynx"]
    assert registry.fitting(Digest("f" * 64)) == []


def test_fitting_goes_by_the_active_version(registry, filled):
    """A head moves to another backbone when a version made for it is promoted, not before."""
    contract, other = a_backbone()[1].contract, a_contract("7")
    create(filled, "owl", 6, backbone=other)
    assert (registry.fitting(contract), registry.fitting(other)) == (["owl"], [])
    filled.promote("owl", 3)
    assert (registry.fitting(contract), registry.fitting(other)) == ([], ["owl"])


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


def test_a_head_that_replaced_another_is_not_mistaken_for_it(registry, filled):
    """A head that was removed by hand and made anew has its own facts, though its numbers are the same."""
    registry.infos()
    root = registry.store.root
    shutil.rmtree(root / "heads" / "owl")
    create(filled, "owl", class_names=("another",))
    filled.promote("owl", 1)
    (info,) = [item for item in registry.infos() if item.name == "owl"]
    assert info.class_names == ("another",)
    assert info == registry.info("owl")


def test_a_damaged_version_that_is_not_active_hides_no_head(registry, filled):
    """Listing heads goes on when a version that is not in use is damaged."""
    create(filled, "owl", seed=5)
    newest = filled.versions("owl")[-1].number
    before = registry.infos()
    flip(filled.store.layout.item(layout.HEADS, "owl").version(newest) / layout.MANIFEST, 40)
    assert registry.infos() == before
