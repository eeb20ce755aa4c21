"""Bytes on disk: written once and whole, read as plain files only, and documents that prove themselves."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from record_strategies import json_values, names, texts, unknowns, versions
from store_fixtures import WatchedDisk, failing, open_descriptors, snapshot

from hydra_detect import codec
from hydra_detect.errors import ConflictError, CorruptError, NameInvalidError, NotFoundError, StoreError
from hydra_detect.storage import files, layout, sealed
from hydra_detect.storage.disk import Disk

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from hydra_detect.errors import StoreError
from hydra_detect.storage import files
from hydra_detect.storage.disk import Disk

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    with files.explained("write a file"):
        files.write_new(Disk(), Path(sys.argv[1]), b"x" * 200)
except StoreError as error:
    print(error.facts["errno"], error)
"""
DISK = Disk()
DOCUMENT = {"format": 1, "name": "owl", "files": {"a": [3, "é"]}, "ratio": 0.5, "none": None}


def test_write_new(tmp_path):
    """A new file holds its bytes, with the mode that was asked for."""
    path = tmp_path / "a"
    files.write_new(DISK, path, b"owl", mode=0o444)
    files.write_new(DISK, tmp_path / "empty", b"")
    assert path.read_bytes() == b"owl"
    assert (tmp_path / "empty").read_bytes() == b""
    assert path.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_modes_follow_the_umask(tmp_path, umask):
    """The umask is respected: never widened, and not narrowed either."""
    before = os.umask(umask)
    try:
        files.write_new(DISK, tmp_path / "a", b"")
        files.write_new(DISK, tmp_path / "b", b"", mode=0o444)
        files.make_folder(DISK, tmp_path / "c" / "d")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "b", "c", "c/d")]
    assert modes == [0o666 & ~umask, 0o444 & ~umask, 0o777 & ~umask, 0o777 & ~umask]


def test_write_new_replaces_nothing(tmp_path):
    """Whatever stands at the path stays, a link that leads elsewhere or nowhere among it."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = snapshot(tmp_path)
    for name in ("file", "folder", "link", "dangling"):
        with pytest.raises(FileExistsError, match=name):
            files.write_new(DISK, tmp_path / name, b"new")
    assert snapshot(tmp_path) == before


def test_put_if_absent(tmp_path):
    """The finished file gets its name once; the second one is refused and the first stays."""
    for name, data in (("one", b"1"), ("two", b"2")):
        files.write_new(DISK, tmp_path / name, data)
    files.put_if_absent(DISK, tmp_path / "one", tmp_path / "target")
    with pytest.raises(FileExistsError, match="target"):
        files.put_if_absent(DISK, tmp_path / "two", tmp_path / "target")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"1", "target": b"1", "two": b"2"}


def test_make_folder(tmp_path):
    """A folder is made with its parents, and one that exists is left alone."""
    files.make_folder(DISK, tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "b" / "c" / "file").touch()
    before = snapshot(tmp_path)
    files.make_folder(DISK, tmp_path / "a" / "b" / "c")
    assert snapshot(tmp_path) == before
    assert "a/b/c/file" in before


def test_make_folder_syncs_what_another_process_made(tmp_path):
    """The parent is synced also where the folder appeared meanwhile: whoever made it may have died before it could."""
    synced = []

    def look(step, path, *_arguments):
        if step == "make_folder":
            path.mkdir()
        elif step == "sync_folder":
            synced.append(path)

    files.make_folder(WatchedDisk(look), tmp_path / "a")
    assert synced == [tmp_path]


def test_make_branch(tmp_path):
    """Every folder from the root down is made, and each parent is synced, whoever made the folder in it."""
    synced = []
    disk = WatchedDisk(lambda step, path, *_: synced.append(path) if step == "sync_folder" else None)
    for _ in range(2):
        files.make_branch(disk, tmp_path, tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()
        assert synced == [tmp_path, tmp_path / "a"]
        synced.clear()
    files.make_branch(disk, tmp_path, tmp_path)
    assert synced == []


@pytest.mark.parametrize("kind", ["link", "dangling", "file", "fifo"])
def test_make_branch_never_leaves_the_store(tmp_path, kind):
    """A link or a file in the place of a folder is refused, and nothing is made behind it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "outside").mkdir()
    place = tmp_path / "store" / "a"
    make = {
        "link": lambda: place.symlink_to(tmp_path / "outside"),
        "dangling": lambda: place.symlink_to(tmp_path / "nowhere"),
        "file": place.touch,
        "fifo": lambda: os.mkfifo(place),
    }
    make[kind]()
    before = snapshot(tmp_path)
    with pytest.raises(CorruptError, match=r"cannot write to .*/b: .*/a is no folder\. Move it away"):
        files.make_branch(DISK, tmp_path / "store", place / "b")
    assert snapshot(tmp_path) == before


def test_check_folder(tmp_path):
    """A folder passes, a missing one and what is no folder are told apart."""
    files.check_folder(tmp_path, "look")
    with pytest.raises(NotFoundError, match=r"cannot look: .*none does not exist"):
        files.check_folder(tmp_path / "none", "look")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CorruptError, match=r"cannot look: .*link is no folder"):
        files.check_folder(tmp_path / "link", "look")


def test_claim(tmp_path):
    """A claim is an empty file that only one can make."""
    files.claim(DISK, tmp_path / "000001")
    with pytest.raises(FileExistsError, match="000001"):
        files.claim(DISK, tmp_path / "000001")
    assert (tmp_path / "000001").read_bytes() == b""


def test_discard(tmp_path):
    """A file, a link and a whole folder are deleted; what a link leads to is not, and what is gone is no error."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    before = snapshot(tmp_path)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "folder" / "deep" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "folder" / "deep" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("folder", "link", "none"):
        files.discard(DISK, tmp_path / name)
    after = snapshot(tmp_path)
    assert list(after) == ["precious", "precious/file"]
    assert after == before


@pytest.mark.parametrize("step", ["unlink", "remove_folder"])
def test_discard_leaves_what_cannot_be_deleted(tmp_path, step):
    """What cannot be deleted now stays for later, without an error."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    disk, calls = failing(step, 1, errno.EACCES)
    files.discard(disk, tmp_path / "folder")
    assert len(calls) == 1
    assert (tmp_path / "folder").is_dir()
    files.discard(DISK, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("step", ["create", "write", "sync"])
def test_write_new_leaks_nothing(tmp_path, step):
    """Whichever step of writing fails, the error of the system comes through and no descriptor stays open."""
    before = open_descriptors()
    disk, _calls = failing(step, 1, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        files.write_new(disk, tmp_path / "a", b"owl")
    assert open_descriptors() == before


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
            for reader in (files.read_whole, files.hash_whole):
                with pytest.raises(CorruptError, match="is no regular file"):
                    reader(path, limit=10, asked="read it")
        assert open_descriptors() == before


def test_read_whole_refuses_large_files(tmp_path):
    """A file beyond the limit is refused by its size, before a byte is read; both numbers are told."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    for reader in (files.read_whole, files.hash_whole):
        with pytest.raises(CorruptError, match="has 1099511627776 bytes, the limit is 10"):
            reader(tmp_path / "large", limit=10, asked="read it")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space and run it again; nothing was changed."),
        (errno.EDQUOT, "Free some of your quota and run it again; nothing was changed."),
        (errno.EACCES, "Ask for write permission, or name another folder."),
        (errno.EROFS, "The file system is read-only: name another folder."),
        (errno.EIO, "Nothing was changed; see to the file system and run it again."),
    ],
)
def test_explained(number, remedy):
    """An error of the system becomes one of ours: what was going on, where, and what to do."""

    def fail():
        with files.explained("publish"):
            raise OSError(number, os.strerror(number), "/store/a")

    with pytest.raises(StoreError, match=r"^cannot publish: ") as caught:
        fail()
    assert (caught.value.found, caught.value.remedy) == (f"{os.strerror(number)} (/store/a)", remedy)
    assert caught.value.facts == {"errno": number}


def test_explained_with_a_remedy_of_its_own():
    """Once something may have changed, the remedy says so, whatever the error is."""

    def fail():
        with files.explained("publish", files.UNCERTAIN):
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(StoreError, match="The change can be seen, but a power loss could undo it"):
        fail()


def test_explained_leaves_other_errors_alone():
    """What is no error of the system passes through as it is."""

    def fail():
        with files.explained("publish"):
            raise ConflictError("a", "b", "c")

    with pytest.raises(ConflictError, match="cannot a: b"):
        fail()


def test_a_disk_that_is_full(tmp_path):
    """A write that the system really cuts short is told as such."""
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a")], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith(f"{errno.EFBIG} cannot write a file: File too large")
    assert run.stdout.strip().endswith("Nothing was changed; see to the file system and run it again.")


@given(unknowns)
def test_sealed_round_trip(document):
    """A sealed document opens to what was sealed, and is one canonical text."""
    data = sealed.seal(document)
    assert sealed.unseal(data, "it") == document
    assert sealed.seal(dict(reversed(document.items()))) == data


def test_every_flipped_bit_of_a_seal_is_found():
    """No bit of a sealed document can change unseen, those in white space and in the seal included."""
    data = sealed.seal(DOCUMENT)
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises(CorruptError, match="cannot read the pointer: "):
                sealed.unseal(bytes(broken), "the pointer")


def test_every_truncation_of_a_seal_is_found():
    """A sealed document that is cut short or extended anywhere is refused."""
    data = sealed.seal(DOCUMENT)
    for broken in [*(data[:size] for size in range(len(data))), data + b"\n", data + b"\0", b" " + data, data * 2]:
        with pytest.raises(CorruptError, match="cannot read the pointer: "):
            sealed.unseal(broken, "the pointer")


@given(json_values)
def test_only_seals_are_unsealed(value):
    """JSON that was not sealed is refused, whatever it holds."""
    with pytest.raises(CorruptError, match="cannot read it: "):
        sealed.unseal(codec.dumps(value), "it")


@given(names, versions)
def test_every_path_lies_in_the_store(name, number):
    """All paths of an item lie in its own folder, and are those that the layout documents."""
    root = Path("/store")
    item = layout.StoreLayout(root).item(layout.HEADS, name)
    folder = root / "heads" / name
    assert item.root == folder
    assert item.claim(number) == folder / "claims" / f"{number:06}"
    assert item.version(number) == folder / "versions" / f"{number:06}"
    assert item.pointer(number) == folder / "pointer" / f"{number:08}.json"
    assert item.staging == folder / "tmp"
    assert layout.StoreLayout(root).lock(layout.HEADS, name) == root / "locks" / f"heads.{name}.lock"


@given(texts)
def test_no_path_for_other_names(text):
    """There is no path at all for what is no name."""
    place = layout.StoreLayout(Path("/store"))
    try:
        assert place.item(layout.HEADS, text).root.parent == Path("/store/heads")
    except NameInvalidError:
        with pytest.raises(NameInvalidError, match="as a head name"):
            place.lock(layout.HEADS, text)


def test_numbers_are_those_of_our_own_names(tmp_path):
    """Only names that the layout itself gives count as numbers, and they are ordered as numbers."""
    item = layout.ItemLayout(tmp_path)
    assert (item.version_numbers(), item.claimed_numbers(), item.pointer_generations()) == ([], [], [])
    ours = ["000002", "000010", "000009", "999999", "1000000"]
    odd = ["000000", "1", "0000003", "000004.tmp", "000005 ", "٠٠٠٠٠٦", "-00007", "tmp", ".000008"]
    for name in [*ours, *odd]:
        (item.versions / name).mkdir(parents=True)
    assert item.version_numbers() == [2, 9, 10, 999_999, 1_000_000]
    item.pointers.mkdir()
    for name in ["00000009.json", "00000010.json", "00000000.json", "000000011.json", "00000012", "00000013.json~"]:
        (item.pointers / name).touch()
    assert item.pointer_generations() == [9, 10]
