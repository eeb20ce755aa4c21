"""Bytes from disk: plain files only, of the size that they have to have, and errors that say what to do."""

import errno
import io
import os
import socket
from pathlib import Path

import pytest
from store_fixtures import failing_with, open_descriptors

from hydra_detect.errors import CorruptError, NotFoundError, StoreError
from hydra_detect.storage import files

READERS = (files.read_whole, files.hash_whole)
TO_READ = "See to the file system, and whether you have the right to read there."


@pytest.fixture
def counted(monkeypatch):
    """Give a list that collects how many bytes each read of a file brings."""
    found = []

    class Counting(io.FileIO):
        def readinto(self, buffer):
            found.append(super().readinto(buffer))
            return found[-1]

        def readall(self):
            data = super().readall()
            found.append(len(data))
            return data

    monkeypatch.setattr(os, "fdopen", lambda *given, **named: io.BufferedReader(Counting(*given, **named)))
    return found


@pytest.mark.parametrize("size", [0, 1, 10])
def test_read_whole(tmp_path, size):
    """A regular file is read whole, up to the limit itself."""
    (tmp_path / "a").write_bytes(b"x" * size)
    assert files.read_whole(tmp_path / "a", limit=10, asked="read it") == b"x" * size


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 19])
def test_hash_whole(tmp_path, size):
    """Size and SHA-256 of a file are those of its content, whatever the pieces it is read in."""
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert files.hash_whole(tmp_path / "a", limit=size, asked="read it") == (size, files.sha256(data))


def test_read_whole_of_nothing(tmp_path):
    """A missing file, and a path through a file, are told apart."""
    with pytest.raises(NotFoundError, match=r"cannot read it: .*a does not exist"):
        files.read_whole(tmp_path / "a", limit=10, asked="read it")
    (tmp_path / "file").touch()
    with pytest.raises(CorruptError, match=r"cannot read it: .*a is no regular file"):
        files.read_whole(tmp_path / "file" / "a", limit=10, asked="read it")


def test_read_whole_refuses_what_is_no_plain_file(tmp_path):
    """A folder, link, FIFO, socket or device is refused at once, without waiting and without a leak."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        before = open_descriptors()
        paths = [tmp_path / name for name in ("folder", "link", "loop", "fifo", "socket")]
        for path in [*paths, Path("/dev/zero")]:
            for reader in READERS:
                with pytest.raises(CorruptError, match="is no regular file"):
                    reader(path, limit=10, asked="read it")
        assert open_descriptors() == before


def test_read_whole_refuses_large_files(tmp_path):
    """A file beyond the limit is refused by its size, before a byte is read; both numbers are told."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    for reader in READERS:
        with pytest.raises(CorruptError, match="has 1099511627776 bytes, the limit is 10"):
            reader(tmp_path / "large", limit=10, asked="read it")


@pytest.mark.parametrize("size", [0, 4, 6, 1 << 40])
def test_a_wrong_size_is_refused_before_a_byte_is_read(tmp_path, counted, size):
    """A file of another size than it has to have is refused by that alone, with both numbers: it costs no reading."""
    (tmp_path / "a").write_bytes(b"12345")
    for reader in READERS:
        with pytest.raises(CorruptError, match=f"a has 5 bytes and the manifest says {size}"):
            reader(tmp_path / "a", limit=10, asked="read it", size=size)
    assert counted == []
    assert files.read_whole(tmp_path / "a", limit=10, asked="read it", size=5) == b"12345"
    assert files.hash_whole(tmp_path / "a", limit=10, asked="read it", size=5) == (5, files.sha256(b"12345"))
    assert sum(counted) == 10


def test_an_empty_file_has_a_size_too(tmp_path):
    """Nothing is a size: a file that has to be empty, and is not, is refused."""
    (tmp_path / "empty").touch()
    (tmp_path / "a").write_bytes(b"x")
    for reader in READERS:
        reader(tmp_path / "empty", limit=10, asked="read it", size=0)
        with pytest.raises(CorruptError, match="a has 1 bytes and the manifest says 0"):
            reader(tmp_path / "a", limit=10, asked="read it", size=0)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    """What is read is told as it is, however large the file was when it was opened."""
    (tmp_path / "a").write_bytes(b"123")
    facts = os.stat_result((0o100644, 0, 0, 1, 0, 0, 1 << 21, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _descriptor: facts)
    assert files.read_whole(tmp_path / "a", limit=1 << 21, asked="read it") == b"123"
    assert files.hash_whole(tmp_path / "a", limit=1 << 21, asked="read it") == (3, files.sha256(b"123"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ESTALE])
def test_a_file_that_another_machine_deleted(tmp_path, monkeypatch, number):
    """A file that is gone is not found, also where a network file system says so in words of its own."""
    monkeypatch.setattr(os, "open", failing_with(number))
    for reader in READERS:
        with pytest.raises(NotFoundError, match=r"cannot read it: .*a does not exist\. Check the path, or restore it"):
            reader(tmp_path / "a", limit=10, asked="read it")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch, number):
    """What the system refuses to open is no damage and not missing, and the remedy is one for reading."""
    (tmp_path / "a").write_bytes(b"x")
    monkeypatch.setattr(os, "open", failing_with(number))
    for reader in READERS:
        with pytest.raises(StoreError, match=f"cannot read it: {os.strerror(number)}") as caught:
            reader(tmp_path / "a", limit=10, asked="read it")
        assert (type(caught.value), caught.value.remedy) == (StoreError, TO_READ)
        assert caught.value.facts == {"errno": number}


def test_a_disk_that_fails_while_it_is_read(tmp_path, monkeypatch):
    """An error in the middle of a file is the system's, and not a shorter file; no descriptor stays open."""
    (tmp_path / "a").write_bytes(b"x")

    class Broken(io.FileIO):
        readinto = readall = failing_with(errno.EIO)

    before = open_descriptors()
    monkeypatch.setattr(os, "fdopen", lambda *given, **named: io.BufferedReader(Broken(*given, **named)))
    for reader in READERS:
        with pytest.raises(StoreError, match="cannot read it: Input/output error") as caught:
            reader(tmp_path / "a", limit=10, asked="read it")
        assert (caught.value.remedy, caught.value.facts) == (TO_READ, {"errno": errno.EIO})
    assert open_descriptors() == before


@pytest.mark.parametrize("step", ["fstat", "read"])
def test_a_file_that_another_machine_deletes_while_it_is_read(tmp_path, monkeypatch, step):
    """On a network file system a file may be gone at each step after it was opened; that is no error of the disk."""

    def vanish(*_arguments):
        (tmp_path / "a").unlink()
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    class Stale(io.FileIO):
        readinto = readall = vanish

    before = open_descriptors()
    with monkeypatch.context() as patch:
        if step == "fstat":
            patch.setattr(os, "fstat", vanish)
        else:
            patch.setattr(os, "fdopen", lambda *given, **named: io.BufferedReader(Stale(*given, **named)))
        for reader in READERS:
            (tmp_path / "a").write_bytes(b"x")
            with pytest.raises(NotFoundError, match=r"cannot read it: .*a does not exist"):
                reader(tmp_path / "a", limit=10, asked="read it")
    assert open_descriptors() == before


def test_exists(tmp_path, monkeypatch):
    """A link that leads nowhere stands there too; where the system does not say, nobody knows."""
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    found = {name: files.exists(tmp_path / name, "look") for name in ("a", "link", "none", "a/b")}
    assert found == {"a": True, "link": True, "none": False, "a/b": False}
    monkeypatch.setattr(type(tmp_path), "lstat", failing_with(errno.EACCES))
    with pytest.raises(StoreError, match="cannot look: Permission denied"):
        files.exists(tmp_path / "a", "look")


def test_names_in(tmp_path, monkeypatch):
    """The names in a folder are told; where there is none, none are, and a refusal is not that."""
    (tmp_path / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "link")
    assert sorted(files.names_in(tmp_path, "list it")) == ["a", "link"]
    assert [files.names_in(tmp_path / name, "list it") for name in ("a", "none", "link")] == [[], [], []]
    monkeypatch.setattr(os, "listdir", failing_with(errno.EACCES))
    with pytest.raises(StoreError, match="cannot list it: Permission denied") as caught:
        files.names_in(tmp_path, "list it")
    assert caught.value.remedy == TO_READ


@pytest.mark.parametrize("kind", ["folder", "link", "fifo", "missing", "longer", "shorter"])
def test_check_size(tmp_path, kind):
    """Without opening a file it is seen that it is one, and as long as it has to be."""
    path = tmp_path / "a"
    make = {"folder": path.mkdir, "link": lambda: path.symlink_to(tmp_path / "b"), "fifo": lambda: os.mkfifo(path)}
    make |= {"longer": lambda: path.write_bytes(b"1234"), "shorter": lambda: path.write_bytes(b"12")}
    (tmp_path / "b").write_bytes(b"123")
    files.check_size(tmp_path / "b", 3, asked="look")
    make.get(kind, lambda: None)()
    error, found = {
        "missing": (NotFoundError, "a does not exist"),
        "longer": (CorruptError, "a has 4 bytes and the manifest says 3"),
        "shorter": (CorruptError, "a has 2 bytes and the manifest says 3"),
    }.get(kind, (CorruptError, "a is no regular file"))
    with pytest.raises(error, match=f"cannot look: .*{found}"):
        files.check_size(path, 3, asked="look")


def test_nbytes(tmp_path):
    """Bytes are those of all files below a folder; a link is what it is itself, and some names can be left out."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"x" * 10)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * 5)
    (tmp_path / "a" / "b" / "one").write_bytes(b"x" * 3)
    assert files.nbytes(tmp_path / "a") == 18
    assert files.nbytes(tmp_path / "a", "one") == 5
    (tmp_path / "a" / "link").symlink_to(tmp_path / "large")
    (tmp_path / "large").write_bytes(b"x" * 10_000)
    assert files.nbytes(tmp_path / "a") == 18 + len(str(tmp_path / "large"))
    assert files.nbytes(tmp_path / "none") == 0
