"""The store: one pointer that only one writer can move, readers that check everything and never write, locks."""

import errno
import os
import shutil
import threading

import filelock
import pytest
import store_fixtures
from store_fixtures import (
    AT,
    CONTENTS,
    WatchedDisk,
    failing,
    flip,
    leftovers,
    on_disk,
    point,
    publish,
    rewrite,
    snapshot,
    some_tensors,
)

from hydra_detect.errors import ConflictError, CorruptError, NotFoundError, StoreError
from hydra_detect.names import Digest
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, backbones, heads, layout, pointers, sealed
from hydra_detect.storage import store as store_module
from hydra_detect.storage.pointers import Pointer
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

# Pointing


def test_point(store):
    """The pointer says which version is active, which was before, and why; each change is a generation."""
    manifests = [publish(store), publish(store)]
    first = point(store, 2, 0)
    assert first == Pointer(
        generation=1, event="promoted", version=2, active=2, manifest=manifests[1].digest, high=2, at=AT, reason="test"
    )
    second = point(store, 1, 1)
    assert (second.generation, second.active, second.previous) == (2, 1, 2)
    assert store.head("owl").pointer() == Store.open(store.root).head("owl").pointer() == second
    assert leftovers(store) == []


@pytest.mark.parametrize("expected", [0, 2, 5])
def test_point_compares(store, expected):
    """Who expects another generation than there is changes nothing."""
    publish(store)
    point(store, 1, 0)
    before = snapshot(store.root)
    with pytest.raises(ConflictError, match="another process changed it first"):
        point(store, 1, expected)
    assert snapshot(store.root) == before


def test_point_at_nothing(store):
    """A version that is not there cannot become active; those that are there are named."""
    manager = VersionManager(store)
    with pytest.raises(NotFoundError, match=r"has no such head\. There is none yet\.$"):
        manager.promote("owl", 1)
    publish(store)
    publish(store)
    with pytest.raises(NotFoundError, match=r"'owl' has no version 3\. There are versions 1, 2\."):
        manager.promote("owl", 3)
    assert store.head("owl").pointer() == pointers.NOTHING


def test_two_writers_expect_the_same(store):
    """Of two that swap from the same generation exactly one wins, even if both looked before either wrote."""
    publish(store)
    publish(store)
    inside, outcome = threading.Barrier(2), []
    together = on_disk(store, WatchedDisk(lambda step, *_: inside.wait(timeout=10) if step == "link" else None))

    def swap(number):
        try:
            outcome.append(point(together, number, 0).active)
        except ConflictError as error:
            outcome.append(error)

    threads = [threading.Thread(target=swap, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [item for item in outcome if isinstance(item, int)]
    assert (len(outcome), len(won)) == (2, 1)
    assert store.head("owl").pointer().active == won[0]
    assert leftovers(store) == []


@pytest.mark.parametrize("step", ["create", "write", "sync", "link"])
def test_point_on_a_full_disk(store, step):
    """A pointer that could not be written leaves the old one, and nothing in staging."""
    publish(store)
    publish(store)
    before = point(store, 1, 0)
    disk, calls = failing(step, 1, errno.ENOSPC)
    with pytest.raises(StoreError, match="Free some space and run it again; nothing was changed"):
        point(on_disk(store, disk), 2, 1)
    assert len(calls) == 1
    assert store.head("owl").pointer() == before
    assert leftovers(store) == []
    assert point(store, 2, 1).active == 2


def test_damaged_pointer(store):
    """Every flipped bit and every truncation of the newest pointer is found; it is never taken for another."""
    publish(store)
    point(store, 1, 0)
    path = store.layout.item(layout.HEADS, "owl").pointer(1)
    data = path.read_bytes()
    for place in range(len(data)):
        for broken in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            rewrite(path, broken)
            with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl': "):
                store.head("owl").pointer()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 0}, {"format": True}, {"generation": 2}, {"generation": "1"}, {"generation": 0}, {"active": "1"},
        {"active": 0}, {"active": 1.0}, {"active": True}, {"earlier": "1"}, {"earlier": ["1"]}, {"earlier": [0]},
        {"manifest": "x"}, {"manifest": 5}, {"at": 5}, {"reason": None}, {"event": "lost"}, {"event": None},
        {"pins": {}}, {"pins": [1]}, {"pins": [{}]},
        {"pins": [{"version": 0}]}, {"gone": [1.5]}, {"taken": [{"version": 0}]}, {"high": -1},
        {"high": None}, {"version": "1"}, {"format": ...}, {"generation": ...}, {"event": ...},
    ],
    ids=str,
)  # fmt: skip
def test_pointer_of_a_stranger(store, changes):
    """A pointer whose seal is right and whose content is not is refused as damaged."""
    publish(store)
    point(store, 1, 0)
    path = store.layout.item(layout.HEADS, "owl").pointer(1)
    document = sealed.unseal(path.read_bytes(), "it") | changes
    rewrite(path, sealed.seal({key: value for key, value in document.items() if value is not ...}))
    with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl': "):
        store.head("owl").pointer()


# Reading


@pytest.mark.parametrize("path", ["a.bin", "b.json", layout.MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "missing", "link", "folder", "fifo"])
def test_damage_is_found(store, tmp_path, path, damage):
    """A flipped bit, a lost or added byte, a missing file, and what is no file are found when it is read."""
    manifest = publish(store)
    target = store.layout.item(layout.HEADS, "owl").version(1) / path
    data = target.read_bytes()
    (tmp_path / "copy").write_bytes(data)
    target.chmod(0o644)
    if damage == "flip":
        flip(target)
    elif damage in {"cut", "grow"}:
        rewrite(target, data[:-1] if damage == "cut" else data + b"\0")
    else:
        target.unlink()
        make = {"link": lambda: target.symlink_to(tmp_path / "copy"), "folder": target.mkdir}
        make.get(damage, lambda: os.mkfifo(target) if damage == "fifo" else None)()
    kind = NotFoundError if damage == "missing" else CorruptError
    with pytest.raises(kind, match="cannot read "):
        store.read(store.head("owl").manifest(1), path)
    if path != layout.MANIFEST:
        with pytest.raises(kind, match=f"cannot read {path} of owl@1"):
            store.read(manifest, path)


def test_only_listed_files_are_read(store):
    """A file or link that someone added to a version is not read, and harms nothing."""
    manifest = publish(store)
    folder = store.layout.item(layout.HEADS, "owl").version(1)
    (folder / "evil").write_bytes(b"x")
    (folder / "link").symlink_to("/etc/passwd")
    for path in ("evil", "link"):
        with (
            pytest.raises(CorruptError, match="the manifest lists only")
            if path == "evil"
            else pytest.raises(CorruptError, match="is no regular file")
        ):
            store.read(manifest, path)
    assert store.read(manifest, "a.bin") == CONTENTS["a.bin"]


def test_a_version_in_the_place_of_another(store):
    """A version that was moved into the folder of another one is found."""
    publish(store)
    publish(store, contents={"a.bin": b"other"})
    item = store.layout.item(layout.HEADS, "owl")
    shutil.rmtree(item.version(1))
    item.version(2).rename(item.version(1))
    with pytest.raises(CorruptError, match="it speaks of another version"):
        store.head("owl").manifest(1)


def test_read_tensors(filled):
    """Weights are checked against their record's digest, and for NaN, although every file proves itself."""
    store = filled.store
    version = heads.find(filled.store, "owl@1")
    manifest = store.head("owl").manifest(1)
    data = store.read(manifest, layout.TENSORS)
    assert artifacts.decode_weights(data, version.record.tensors, "it") == dict(sorted(some_tensors().items()))
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        artifacts.decode_weights(data, Digest("0" * 64), "it")
    tensors = {"a": artifacts.RawTensor("F32", (1,), b"\0\0\xc0\x7f")}
    bad = publish(store, "bad", {layout.TENSORS: artifacts.encode_tensors(tensors)})
    with pytest.raises(CorruptError, match="NaN or infinity in 1 of 1 tensors: a"):
        artifacts.decode_weights(store.read(bad, layout.TENSORS), Digest("0" * 64), "it")


def test_reading_never_writes(filled):
    """Opening a store and reading all of it changes no byte, no time and no name."""
    before = snapshot(filled.store.root)
    again = Store.open(filled.store.root)
    reader = VersionManager(again)
    for name in again.names(layout.HEADS):
        for version in reader.versions(name):
            heads.tensors(again, version)
        reader.history(name)
        HeadRegistry(again).info(name)
        again.pointer(layout.HEADS, name)
    for name in backbones.names(again):
        backbones.tensors(again, backbones.find(again, name))
    with pytest.raises(NotFoundError, match="no such head"):
        heads.find(again, "zebra")
    assert reader.verify(depth="full").is_sound
    assert reader.prune("owl", keep=1, dry_run=True).is_dry_run
    assert snapshot(filled.store.root) == before


def test_names_ignore_what_is_not_ours(filled):
    """Files, foreign folders and heads without a version are not listed."""
    heads = filled.store.layout.kind(layout.HEADS)
    (heads / "README.txt").touch()
    (heads / "zebra").touch()
    for folder in ("Owl", "con", ".git", "a b", "empty", "wolf/claims", "lynx/versions", "bear/versions/tmp"):
        (heads / folder).mkdir(parents=True)
    assert filled.store.names(layout.HEADS) == ["fox", "owl"]
    assert filled.store.names(layout.BACKBONES) == ["demo"]


# Locks


def test_lock_is_held_by_one(store, monkeypatch):
    """Who cannot get a lock in time is told which file it is; when it is free again, all is well."""
    monkeypatch.setattr(store_module, "_LOCK_SECONDS", 0.05)
    path = store.layout.lock(layout.HEADS, "owl")
    got = []

    def try_it():
        try:
            with store.head("owl").changing():
                got.append("locked")
        except ConflictError as error:
            got.append(error)

    with store.head("owl").changing(), store.head("fox").changing():
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert isinstance(got[0], ConflictError)
    assert f"another process has held {path} for 0 s" in str(got[0])
    try_it()
    assert got[1] == "locked"
    assert path.is_file()


def test_errors_under_a_lock_are_not_those_of_the_lock(store):
    """What fails under a lock passes through as it is, and the lock is free again."""

    def work(error):
        with store.head("owl").changing():
            raise error

    with pytest.raises(FileNotFoundError, match="lost"):
        work(FileNotFoundError("lost"))
    with pytest.raises(filelock.Timeout, match="other"):
        work(filelock.Timeout("other"))
    with filelock.FileLock(store.layout.lock(layout.HEADS, "owl"), timeout=0) as lock:
        assert lock.is_locked


def test_lock_that_is_a_link(store, tmp_path):
    """A lock that someone replaced by a link is not followed."""
    path = store.layout.lock(layout.HEADS, "owl")
    path.parent.mkdir()
    (tmp_path / "precious").write_bytes(b"x")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="cannot lock 'owl'"), store.head("owl").changing():
        pass
    assert (tmp_path / "precious").read_bytes() == b"x"
