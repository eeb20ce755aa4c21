"""The steps that change a disk: each does one thing, replaces nothing by accident and follows no link."""

import errno
import os

import attrs
import pytest
from store_fixtures import STEPS, open_descriptors, snapshot

from hydra_detect.storage import disk as disk_module
from hydra_detect.storage.disk import FAST, FULL, Disk


@pytest.fixture
def synced(monkeypatch):
    """Give a list that collects what is synced: the inode of each descriptor that the system is asked to wait for."""
    found = []
    monkeypatch.setattr("os.fsync", lambda descriptor: found.append(os.fstat(descriptor).st_ino))
    return found


def test_steps():
    """The steps are all that there is, so that a test that stops at each of them misses none."""
    assert {name for name in vars(Disk) if name[0] != "_"} - {"durability"} == set(STEPS)
    assert Disk() == Disk(FULL)


@pytest.mark.parametrize("durability", ["", "none", "FULL", None, True, 1])
def test_unknown_durability(durability):
    """A durability that there is not is refused by its field, rather than taken for one that waits less."""
    with pytest.raises(ValueError, match="'durability' must be in"):
        Disk(durability)


def test_durability_does_not_change():
    """Nobody lowers the durability of a store that is open."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Disk().durability = FAST


def test_full_waits_and_fast_does_not(tmp_path, synced):
    """With full durability a file and a folder are synced, each by its own descriptor; with fast neither is."""
    for durability, expected in ((FULL, [(tmp_path / "a").stat, tmp_path.stat]), (FAST, [])):
        disk = Disk(durability)
        (tmp_path / "a").touch()
        descriptor = os.open(tmp_path / "a", os.O_WRONLY)
        disk.sync(descriptor)
        os.close(descriptor)
        disk.sync_folder(tmp_path)
        assert synced == [facts().st_ino for facts in expected]
        synced.clear()


def test_full_is_the_strongest_sync_of_the_system(tmp_path, synced, monkeypatch):
    """Where the system has a sync that reaches behind the drive's cache, that one is used, and no weaker one."""
    import fcntl

    asked = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _descriptor, command: asked.append(command))
    Disk().sync_folder(tmp_path)
    assert (asked, synced) == ([51], [])


def test_create(tmp_path):
    """A new file is empty, has the mode that was asked for less the umask, and is open for writing."""
    before = os.umask(0o027)
    try:
        descriptor = Disk().create(tmp_path / "a", 0o666)
    finally:
        os.umask(before)
    os.write(descriptor, b"owl")
    os.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"owl"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_create_replaces_nothing(tmp_path, kind):
    """Where anything stands nothing is created, not even through a link that leads nowhere."""
    make = {
        "file": lambda path: path.write_bytes(b"old"),
        "folder": lambda path: path.mkdir(),
        "link": lambda path: path.symlink_to(tmp_path),
        "dangling": lambda path: path.symlink_to(tmp_path / "nowhere"),
    }
    make[kind](tmp_path / "a")
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match="a"):
        Disk().create(tmp_path / "a", 0o666)
    assert snapshot(tmp_path) == before


def test_write_goes_on_after_a_short_write(tmp_path, monkeypatch):
    """A write that the system takes in pieces is finished, in order, and the data is not copied for it."""
    write, sizes = os.write, []

    def short(descriptor, data):
        assert isinstance(data, memoryview)
        sizes.append(len(data))
        return write(descriptor, data[:7])

    descriptor = Disk().create(tmp_path / "a", 0o666)
    with monkeypatch.context() as patch:
        patch.setattr("os.write", short)
        Disk().write(descriptor, bytes(range(20)))
        Disk().write(descriptor, memoryview(b""))
    os.close(descriptor)
    assert (tmp_path / "a").read_bytes() == bytes(range(20))
    assert sizes == [20, 13, 6]


@pytest.mark.parametrize("number", sorted(disk_module._UNSUPPORTED))
def test_folders_that_cannot_be_synced(tmp_path, monkeypatch, number):
    """A network file system that cannot sync a folder is taken at its word, once."""
    called = []

    def fail(descriptor):
        called.append(descriptor)
        raise OSError(number, "no")

    monkeypatch.setattr("os.fsync", fail)
    Disk().sync_folder(tmp_path)
    assert len(called) == 1
    with pytest.raises(OSError, match="no"):  # a file that cannot be synced is not safe anywhere
        Disk().sync(0)


def test_sync_errors_are_not_swallowed_and_not_tried_again(tmp_path, monkeypatch):
    """An input/output error while syncing is final, since a second try may lie; no descriptor is left open by it."""
    called = []

    def fail(descriptor):
        called.append(descriptor)
        raise OSError(errno.EIO, "broken disk")

    before = open_descriptors()
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="broken disk"):
        Disk().sync_folder(tmp_path)
    assert len(called) == 1
    assert open_descriptors() == before


def test_sync_folder_follows_no_link(tmp_path):
    """A link in the place of a folder is an error, not a sync of something else."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"link"):
        Disk().sync_folder(tmp_path / "link")


def test_link_is_refused_where_the_name_is_taken(tmp_path):
    """A second name is given only if it is free: of two that want it, one gets it."""
    disk = Disk()
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    disk.link(tmp_path / "a", tmp_path / "name")
    with pytest.raises(FileExistsError, match="name"):
        disk.link(tmp_path / "b", tmp_path / "name")
    assert (tmp_path / "name").read_bytes() == b"a"
    assert (tmp_path / "name").samefile(tmp_path / "a")


def test_rename_never_replaces_a_folder_that_holds_something(tmp_path):
    """A version that is there is not replaced by another one: the move is refused and both stay."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    before = snapshot(tmp_path)
    with pytest.raises(OSError, match="b") as caught:
        Disk().rename(tmp_path / "a", tmp_path / "b")
    assert caught.value.errno in {errno.ENOTEMPTY, errno.EEXIST}
    assert snapshot(tmp_path) == before
    Disk().rename(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c" / "file").read_bytes() == b"a"


def test_replace_leaves_readers_what_they_hold(tmp_path):
    """Who has opened the old file reads the old bytes to the end."""
    (tmp_path / "a").write_bytes(b"new")
    (tmp_path / "b").write_bytes(b"old")
    with (tmp_path / "b").open("rb") as held:
        Disk().replace(tmp_path / "a", tmp_path / "b")
        assert held.read() == b"old"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"new"}


def test_deleting(tmp_path):
    """A link is deleted and not what it leads to, and a folder only when it is empty."""
    disk = Disk()
    disk.make_folder(tmp_path / "folder")
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    disk.unlink(tmp_path / "link")
    assert list(snapshot(tmp_path)) == ["folder", "folder/file"]
    with pytest.raises(OSError, match="folder"):
        disk.remove_folder(tmp_path / "folder")
    disk.unlink(tmp_path / "folder" / "file")
    disk.remove_folder(tmp_path / "folder")
    assert snapshot(tmp_path) == {}
