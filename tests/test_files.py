"""Bytes to disk: written once and whole, under a name that one alone can take, in folders that are durable."""

import errno
import os
import subprocess
import sys

import pytest
from store_fixtures import WatchedDisk, failing, failing_with, open_descriptors, snapshot

from hydra_detect.errors import ConflictError, CorruptError, NotFoundError, StoreError
from hydra_detect.storage import files
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


def noting(*steps):
    """Return a disk, and a list that collects the steps of these kinds with the name of what they are taken on."""
    taken = []
    disk = WatchedDisk(
        lambda step, path, *_: taken.append((step, getattr(path, "name", ""))) if step in steps else None
    )
    return disk, taken


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


def test_put_new(tmp_path):
    """The finished file gets its name once: who comes second is told so, and the first one's file stays."""
    target, aside = tmp_path / "target", tmp_path / "aside"
    assert files.put_new(DISK, b"1", target, aside=aside, mode=0o444)
    before = snapshot(tmp_path)
    assert before["target"][0] & 0o222 == 0
    assert before["target"][2] == 1  # the name it was written under is gone
    assert not files.put_new(DISK, b"2", target, aside=aside)
    assert snapshot(tmp_path) == before
    assert target.read_bytes() == b"1"


def test_put_new_names_only_what_is_whole_and_durable(tmp_path):
    """The name is given to a file that was written and synced under another one, and to nothing less."""
    disk, taken = noting("create", "write", "sync", "link", "unlink", "rename", "replace")
    files.put_new(disk, b"owl", tmp_path / "target", aside=tmp_path / "aside")
    assert taken == [("create", "aside"), ("write", ""), ("sync", ""), ("link", "aside"), ("unlink", "aside")]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_put_new_replaces_nothing(tmp_path, kind):
    """Whatever has the name keeps it, a link that leads nowhere too, and nothing is left aside."""
    target = tmp_path / "target"
    make = {
        "file": lambda: target.write_bytes(b"old"),
        "folder": target.mkdir,
        "link": lambda: target.symlink_to(tmp_path),
        "dangling": lambda: target.symlink_to(tmp_path / "nowhere"),
    }
    make[kind]()
    before = snapshot(tmp_path)
    assert not files.put_new(DISK, b"new", target, aside=tmp_path / "aside")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("theirs", "expected"), [(False, True), (True, False)])
def test_put_new_whose_request_was_repeated(tmp_path, theirs, expected):
    """A network file system that finds its own link on asking again has done it; one that finds another's has not."""
    target, aside = tmp_path / "target", tmp_path / "aside"

    def look(step, *_arguments):
        if step == "link":
            target.write_bytes(b"owl") if theirs else target.hardlink_to(aside)

    assert files.put_new(WatchedDisk(look), b"owl", target, aside=aside) == expected
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert target.read_bytes() == b"owl"


@pytest.mark.parametrize("step", ["create", "write", "sync", "link"])
def test_put_new_that_fails(tmp_path, step):
    """Whichever step fails, the error of the system comes through, and neither the name nor anything aside is there."""
    before = open_descriptors()
    disk, calls = failing(step, 1, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left on device"):
        files.put_new(disk, b"owl", tmp_path / "target", aside=tmp_path / "aside")
    assert len(calls) == 1
    assert snapshot(tmp_path) == {}
    assert open_descriptors() == before


def test_make_folder(tmp_path):
    """A folder is made with its parents, and one that exists is left alone."""
    files.make_folder(DISK, tmp_path / "a" / "b" / "c")
    (tmp_path / "a" / "b" / "c" / "file").touch()
    before = snapshot(tmp_path)
    files.make_folder(DISK, tmp_path / "a" / "b" / "c")
    assert snapshot(tmp_path) == before
    assert "a/b/c/file" in before


def test_make_folder_syncs_what_another_process_made(tmp_path):
    """Every folder above it is synced, also where all were there: whoever made them may have died before he could."""
    disk, taken = noting("sync_folder", "make_folder")
    (tmp_path / "a").mkdir()
    files.make_folder(disk, tmp_path / "a" / "b")
    above = [("sync_folder", path.name) for path in (tmp_path / "a", *(tmp_path / "a").parents)]
    assert taken == [("make_folder", "b"), *above]
    taken.clear()
    files.make_folder(disk, tmp_path / "a" / "b")
    assert taken == above


def test_make_folder_at_the_same_moment(tmp_path):
    """A folder that another process makes at the last moment is as good as one made here."""

    def look(step, path, *_arguments):
        if step == "make_folder":
            path.mkdir()

    files.make_folder(WatchedDisk(look), tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_make_folder_below_folders_of_others(tmp_path, number):
    """A folder far above that may only be passed through is somebody else's to sync; any other error is one."""

    def look(step, path, *_arguments):
        if step == "sync_folder" and path == closed:
            raise OSError(number, os.strerror(number))

    closed = tmp_path.parent
    if number == errno.EACCES:
        files.make_folder(WatchedDisk(look), tmp_path / "a")
        assert (tmp_path / "a").is_dir()
        closed = tmp_path  # the one in which it stands
    with pytest.raises(OSError, match=os.strerror(number)):
        files.make_folder(WatchedDisk(look), tmp_path / "a")


def test_make_branch(tmp_path):
    """Every folder from the root down is made, and each parent is synced once, whoever made the folders in it."""
    disk, taken = noting("sync_folder")
    expected = [("sync_folder", name) for name in (tmp_path.name, "a", "c")]
    for _ in range(2):
        files.make_branch(disk, tmp_path, *(tmp_path / path for path in ("a/b", "a/d", "c/e")))
        assert all((tmp_path / path).is_dir() for path in ("a/b", "a/d", "c/e"))
        assert taken == expected
        taken.clear()
    files.make_branch(disk, tmp_path, tmp_path)
    assert taken == [("sync_folder", tmp_path.name)]


def test_make_branch_syncs_what_it_has_made(tmp_path):
    """A folder is synced once all that is to stand in it stands there, and the upper ones before the lower ones."""
    there = []

    def look(step, path, *_arguments):
        if step == "sync_folder":
            there.append(sorted(entry.name for entry in path.iterdir()))

    files.make_branch(WatchedDisk(look), tmp_path, tmp_path / "a" / "b", tmp_path / "a" / "c", tmp_path / "d")
    assert there == [["a", "d"], ["b", "c"]]


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


def test_ensure_folder(tmp_path):
    """A folder is there afterwards, made or not, without a wait for the disk; anything else in its place is damage."""
    disk, taken = noting("sync_folder", "make_folder")
    for _ in range(2):
        files.ensure_folder(disk, tmp_path / "a", "look")
    assert taken == [("make_folder", "a")] * 2
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for name in ("file", "link"):
        with pytest.raises(CorruptError, match=f"cannot look: .*{name} is no folder"):
            files.ensure_folder(DISK, tmp_path / name, "look")


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


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOSPC])
def test_reading(number):
    """What cannot be read is told with a remedy for reading: nobody is sent to ask for the right to write."""

    def fail():
        with files.reading("look"):
            raise OSError(number, "no")

    with pytest.raises(StoreError, match="cannot look: no") as caught:
        fail()
    assert caught.value.remedy == "See to the file system, and whether you have the right to read there."
    assert files.is_refusal(caught.value)


def begun(error):
    """Let an error happen once something was changed; return what comes of it."""
    with pytest.raises(StoreError, match=r"^cannot ") as caught, files.begun("Run it again."):
        raise error
    return caught.value


def test_begun():
    """Once something was changed, an error of the system no longer says that nothing was; what it found stays."""
    error = begun(StoreError("a", "b", "Nothing was changed.", errno=errno.ENOSPC))
    assert (error.asked, error.found, error.remedy) == ("a", "b", "Run it again.")
    assert error.facts == {"errno": errno.ENOSPC}


@pytest.mark.parametrize(
    "error",
    [
        StoreError("a", "b", files.UNCERTAIN, errno=errno.EIO),
        ConflictError("a", "b", "Look again."),
        CorruptError("a", "b", "c"),
    ],
    ids=["uncertain", "conflict", "corrupt"],
)
def test_begun_leaves_other_errors_alone(error):
    """What no system refused, and what tells already how far it came, passes through as it is."""
    assert begun(error) is error
    assert files.is_refusal(error) == ("errno" in error.facts)


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


@pytest.mark.parametrize(
    "error", [CorruptError("a", "b", "c"), NotFoundError("a", "b", "c"), StoreError("a", "b", "c")]
)
def test_unless_damaged(error):
    """What is damaged or missing ends the block, and no more."""
    passed = []
    with files.unless_damaged():
        passed.append(1)
        raise error
    assert passed == [1]


@pytest.mark.parametrize("error", [StoreError("a", "b", "c", errno=errno.EIO), OSError(errno.EIO, "b"), KeyError("a")])
def test_unless_damaged_passes_over_no_refusal(error):
    """A refusal of the system proves no damage, and what is none of ours says nothing about a store."""
    with pytest.raises(type(error)), files.unless_damaged():
        raise error


def test_kind_of(tmp_path, monkeypatch):
    """What stands at a path is told without following links; where the system does not say, nobody knows."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    found = {name: files.kind_of(tmp_path / name, "look") for name in ("file", ".", "link", "fifo", "none", "file/in")}
    assert list(found.values()) == [
        files.FILE, files.FOLDER, files.LINK, files.OTHER, files.NOTHING, files.NOTHING
    ]  # fmt: skip
    monkeypatch.setattr(type(tmp_path), "lstat", failing_with(errno.EIO))
    with pytest.raises(StoreError, match="cannot look: Input/output error"):
        files.kind_of(tmp_path / "none", "look")


@pytest.mark.parametrize("step", ["scandir", "lstat"])
def test_what_may_not_be_measured(tmp_path, monkeypatch, step):
    """What the system refuses to measure is not measured as nothing; what vanished is."""
    (tmp_path / "a").write_bytes(b"123")
    assert (files.nbytes(tmp_path), files.nbytes(tmp_path, "a"), files.nbytes(tmp_path / "none")) == (3, 0, 0)
    monkeypatch.setattr(os, step, failing_with(errno.ENOENT))
    assert files.nbytes(tmp_path) == 0
    monkeypatch.setattr(os, step, failing_with(errno.EIO))
    with pytest.raises(StoreError, match=r"cannot measure .*: Input/output error"):
        files.nbytes(tmp_path)
