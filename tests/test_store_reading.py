"""Reading: everything is checked, each flipped bit is found, and nothing is ever written."""

import errno
import io
import os
import shutil

import pytest
import store_fixtures
from store_fixtures import (
    AT,
    CONTENTS,
    flip,
    point,
    publish,
    rewrite,
    snapshot,
    some_tensors,
)

from hydra_detect.errors import CorruptError, NotFoundError, RecordError, StoreError
from hydra_detect.names import Digest
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, backbones, heads, layout, sealed
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

# The state


def test_damaged_pointer(store):
    """Every flipped bit and every truncation of the newest pointer is found; it is never taken for another."""
    publish(store)
    point(store, 1, 0)
    path = store.head("owl").place.pointer(1)
    data = path.read_bytes()
    for place in range(len(data)):
        for broken in (data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]):
            rewrite(path, broken)
            with pytest.raises(CorruptError, match="cannot read generation 1 of the pointer of 'owl': "):
                store.head("owl").pointer()


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"format": 0}, CorruptError), ({"format": True}, CorruptError), ({"format": ...}, CorruptError),
        ({"format": 2}, RecordError), ({"generation": 2}, CorruptError), ({"generation": 0}, RecordError),
        ({"of": "heads/fox"}, CorruptError), ({"of": ...}, CorruptError), ({"active": "1"}, RecordError),
        ({"change": {"what": "lost", "at": AT}}, RecordError), ({"change": None}, RecordError),
    ],
    ids=str,
)  # fmt: skip
def test_state_of_a_stranger(store, changes, kind):
    """A state whose seal is right is damaged if it belongs elsewhere, and not understood if it says something else."""
    publish(store)
    point(store, 1, 0)
    path = store.head("owl").place.pointer(1)
    document = sealed.unseal(path.read_bytes(), "it") | changes
    rewrite(path, sealed.seal({key: value for key, value in document.items() if value is not ...}))
    with pytest.raises(kind, match="cannot read generation 1 of the pointer of 'owl': "):
        store.head("owl").pointer()


def test_versions_are_there_whatever_the_state_is(store):
    """With the state damaged or not understood the versions are listed and read all the same."""
    publish(store)
    publish(store)
    point(store, 1, 0)
    flip(store.head("owl").place.pointer(1), 30)
    assert store.names(layout.HEADS) == ["owl"]
    assert store.head("owl").numbers() == [1, 2]
    assert store.head("owl").manifest(2).number == 2


# Reading


@pytest.mark.parametrize("path", ["a.bin", "b.json", layout.MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "missing", "link", "folder", "fifo"])
def test_damage_is_found(store, tmp_path, path, damage):
    """A flipped bit, a lost or added byte, a missing file, and what is no file are found when it is read."""
    manifest = publish(store)
    target = store.head("owl").place.version(1) / path
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
    kind, item = NotFoundError if damage == "missing" else CorruptError, store.head("owl")
    for look in (item.read, item.check):
        with pytest.raises(kind, match="cannot read "):
            look(item.manifest(1), path)
        if path != layout.MANIFEST:
            with pytest.raises(kind, match=f"cannot read {path} of owl@1: "):
                look(manifest, path)


def test_reading_and_checking(filled):
    """A file is read whole, or only checked, by a version's manifest or by its record: both list the same."""
    item, version = filled.store.head("owl"), heads.find(filled.store, "owl@1")
    manifest = item.manifest(1)
    assert manifest.files == version.files
    for listing in (manifest, version):
        for path in (layout.TENSORS, layout.RECORD):
            data = item.read(listing, path)
            assert data == (item.place.version(1) / path).read_bytes()
            assert item.check(listing, path) == len(data) == listing.files[path][0]


@pytest.fixture
def counted(monkeypatch):
    """Give a list that collects how many bytes are read of files."""
    found = []

    class Counting(io.FileIO):
        def readinto(self, buffer):
            found.append(super().readinto(buffer))
            return found[-1]

        def readall(self):
            found.append(len(data := super().readall()))
            return data

    monkeypatch.setattr(os, "fdopen", lambda *given, **named: io.BufferedReader(Counting(*given, **named)))
    return found


@pytest.mark.parametrize("size", [0, 299, 301, 1 << 30])
def test_a_wrong_size_costs_no_reading(store, counted, size):
    """A file that is not as long as the manifest says is refused before a byte of it is read, however long it is."""
    manifest, item = publish(store), store.head("owl")
    path = item.place.version(1) / "a.bin"
    path.chmod(0o644)
    os.truncate(path, size)
    counted.clear()
    for look in (item.read, item.check):
        with pytest.raises(CorruptError, match=f"a.bin has {size} bytes and the manifest says 300") as caught:
            look(manifest, "a.bin")
        assert caught.value.asked == "read a.bin of owl@1"
    assert counted == []
    assert item.check(manifest, "b.json") == sum(counted) == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE])
def test_a_version_that_the_system_refuses(store, monkeypatch, number):
    """What may not be read, or a network file system lost sight of, is told as that; it is no damage."""
    manifest, item = publish(store), store.head("owl")

    def refuse(_path, *_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    for look in (lambda: item.manifest(1), lambda: item.read(manifest, "a.bin"), lambda: item.check(manifest, "a.bin")):
        with pytest.raises(StoreError, match="cannot read ") as caught:
            look()
        assert type(caught.value) is StoreError
        assert "write" not in caught.value.remedy


def test_only_listed_files_are_read(store):
    """A file or link that someone added to a version is not read, and harms nothing."""
    manifest = publish(store)
    folder = store.head("owl").place.version(1)
    (folder / "evil").write_bytes(b"x")
    (folder / "link").symlink_to("/etc/passwd")
    item = store.head("owl")
    for path in ("evil", "link", layout.MANIFEST, "../000001/a.bin"):
        for look in (item.read, item.check):
            with pytest.raises(CorruptError, match=f"cannot read {path} of owl@1: the manifest lists only a.bin, b"):
                look(manifest, path)
    assert item.read(manifest, "a.bin") == CONTENTS["a.bin"]


def test_a_version_in_the_place_of_another(store):
    """A version that was moved into the folder of another one is found."""
    publish(store)
    publish(store, contents={"a.bin": b"other"})
    place = store.head("owl").place
    shutil.rmtree(place.version(1))
    place.version(2).rename(place.version(1))
    with pytest.raises(CorruptError, match="it speaks of another version"):
        store.head("owl").manifest(1)


def test_read_tensors(filled):
    """Weights are checked against their record's digest, and for NaN, although every file proves itself."""
    item, version = filled.store.head("owl"), heads.find(filled.store, "owl@1")
    data = item.read(version, layout.TENSORS)
    assert artifacts.decode_weights(data, version.record.tensors, "it") == dict(sorted(some_tensors().items()))
    with pytest.raises(CorruptError, match="their digest is not the one in the record"):
        artifacts.decode_weights(data, Digest("0" * 64), "it")
    tensors = {"a": RawTensor("F32", (1,), b"\0\0\xc0\x7f")}
    bad = publish(filled.store, "bad", {layout.TENSORS: artifacts.encode_tensors(tensors)})
    with pytest.raises(CorruptError, match="NaN or infinity in 1 of 1 tensors: a"):
        artifacts.decode_weights(filled.store.head("bad").read(bad, layout.TENSORS), Digest("0" * 64), "it")


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
        HeadRegistry(again).status(name)
        again.head(name).pointer()
    for name in backbones.names(again):
        backbones.tensors(again, backbones.find(again, name))
    with pytest.raises(NotFoundError, match="no such head"):
        heads.find(again, "zebra")
    assert reader.verify(depth="full").is_sound
    assert reader.prune("owl", keep=1, dry_run=True).is_dry_run
    assert HeadRegistry(again).remove("owl", dry_run=True) == [1, 2]
    assert HeadRegistry(again).usage().total > 0
    assert snapshot(filled.store.root) == before
