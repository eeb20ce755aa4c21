"""The derived index: cheap to read, made anew at will, and never believed against the disk."""

import errno
import os
import shutil

import pytest
import store_fixtures
from store_fixtures import AT, create, failing, flip, leftovers, on_disk, rewrite, snapshot

from hydra_detect import codec
from hydra_detect.registry import HeadInfo, HeadRegistry
from hydra_detect.storage import index, layout, sealed
from hydra_detect.storage.pointers import PINNED, Change, Pin
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled


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
    assert [info.head for info in first] == list(registry)


def test_index_follows_every_change(registry, reads):
    """After a change by another manager just the heads that changed are read again, and the listing is right."""
    other = VersionManager(registry.store.root)
    changes = {
        "promote": (lambda: other.promote("owl", 2), ["owl"]),
        "promote the first": (lambda: other.promote("fox", 1), ["fox"]),
        "create": (lambda: create(other, "owl", 3), ["owl"]),
        "new head": (lambda: create(other, "lynx"), ["lynx"]),
        "promote back": (lambda: other.promote("owl", 1), ["owl"]),
        "roll back": (lambda: other.rollback("owl"), ["owl"]),
        "pin": (lambda: other.pin("owl", 1), ["owl"]),
        "prune": (lambda: other.prune("owl", keep=1), []),
        "unpin": (lambda: other.unpin("owl", 1), ["owl"]),
        "prune again": (
            lambda: (other.promote("owl", 3), create(other, "owl", 4), other.prune("owl", keep=1)),
            ["owl"],
        ),
        "rename": (lambda: registry.rename("fox", "vixen"), ["vixen"]),
        "remove": (lambda: registry.remove("lynx"), []),
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
    assert [info.head for info in registry.infos()] == ["owl"]
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


@pytest.mark.parametrize("summary", [None, 5, "owl", [], {}, {"head": "owl"}], ids=str)
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
    assert leftovers(registry.store) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("step", ["make_folder", "create", "write", "sync", "replace"])
def test_store_that_cannot_be_written(registry, step, number):
    """A store that cannot be written is listed as ever, at whatever step of the index that shows, and gets none."""
    disk, calls = failing(step, 1, number)
    before = {name: facts[3] for name, facts in snapshot(registry.store.root).items()}
    assert HeadRegistry(on_disk(registry.store, disk)).infos() == truth(registry)
    assert len(calls) == 1
    assert {name: facts[3] for name, facts in snapshot(registry.store.root).items()} == before


def test_heads_that_cannot_be_read(registry, filled, reads):
    """A head that cannot be read is listed with the reason, hides no other, and is read anew each time."""
    expected = registry.info("fox")
    path = filled.store.layout.item(layout.HEADS, "owl").version(1) / layout.MANIFEST
    flip(path, 40)
    for _ in range(2):
        reads.clear()
        fox, owl = HeadRegistry(registry.store.root).infos()
        assert (fox, owl.head, owl.active, owl.versions, owl.class_names) == (expected, "owl", None, (1, 2), ())
        assert owl.problem == "its digest does not match its content"
        assert "owl" in reads
        assert sorted(entries(registry)) == ["fox"]
    flip(path, 40)
    assert registry.infos() == truth(registry)
    assert sorted(entries(registry)) == ["fox", "owl"]


def test_heads_that_may_not_be_listed(registry, reads, monkeypatch):
    """A head that the system refuses to list is listed with the reason, hides no other, and is not in the index."""
    registry.infos()
    listed, folder = os.listdir, registry.store.head("owl").place.versions

    def refuse(path):
        if path == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return listed(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        for _ in range(2):
            reads.clear()
            fox, owl = HeadRegistry(registry.store.root).infos()
            assert (fox.problem, owl.problem, owl.versions) == ("", "Permission denied", ())
            assert reads == ["owl"]
            assert sorted(entries(registry)) == ["fox"]
    assert registry.infos() == truth(registry)
    assert sorted(entries(registry)) == ["fox", "owl"]


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


def test_a_head_that_replaced_another_is_not_mistaken_for_it(registry, filled):
    """A head that was removed by hand and made anew has its own facts, though all its numbers are the same."""
    (before,) = [info for info in registry.infos() if info.head == "owl"]
    shutil.rmtree(registry.store.root / "heads" / "owl")
    for _ in range(2):
        create(filled, "owl", class_names=("another",))
    filled.promote("owl", 1)
    (info,) = [info for info in registry.infos() if info.head == "owl"]
    assert (info.versions, info.active) == (before.versions, before.active) == ((1, 2), 1)
    assert info.class_names == ("another",)
    assert info == registry.info("owl")


def test_a_version_that_was_lost_is_not_listed(registry, filled):
    """A version that went without a word changes neither state nor newest version, and is not listed all the same."""
    filled.promote("owl", 2)
    registry.infos()
    shutil.rmtree(registry.store.head("owl").place.version(1))
    (info,) = [info for info in registry.infos() if info.head == "owl"]
    assert (info.versions, info.active) == ((2,), 2)


def test_a_state_that_was_damaged_since_is_not_believed(registry):
    """A state that was damaged after the index was made is found: the head is listed with the reason."""
    registry.infos()
    flip(registry.store.head("owl").place.pointer(1), 30)
    (info,) = [info for info in registry.infos() if info.head == "owl"]
    assert (info.active, info.versions) == (None, (1, 2))
    assert info.problem


def test_a_state_that_is_larger_than_a_record(registry, filled, reads):
    """Of a head with a thousand pins a change is seen as of any other: its state is compared however large it is."""
    item = registry.store.head("owl")
    pins = tuple(Pin(version=1, reason=f"{number:04}{'x' * 990}") for number in range(1100))
    item.swap(item.pointer(), {"pins": pins}, Change(what=PINNED, at=AT))
    assert item.place.pointer(2).stat().st_size > codec.MAX_JSON_BYTES
    assert [info.active for info in registry.infos()] == [None, 1]
    filled.promote("owl", 2)
    assert [info.active for info in registry.infos()] == [None, 2]
    reads.clear()
    assert [info.active for info in registry.infos()] == [None, 2]
    assert reads == []
