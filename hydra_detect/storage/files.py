"""Bytes to disk and back: write once, make durable, replace nothing.

Owns the order of write, sync and naming. Nothing here ever opens an existing file for writing, so a reader that
holds a file keeps its bytes, and a crash leaves either the old world or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from hydra_detect.errors import CorruptError, HydraDetectError, NotFoundError, StoreError
from hydra_detect.names import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path

    from hydra_detect.storage.disk import Disk

# Of a link not what it leads to, of a FIFO nothing to wait for, and no line ends of another kind: each where it exists.
_TO_READ_WHOLE = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
_REMEDIES = {
    errno.ENOSPC: "Free some space and run it again; nothing was changed.",
    errno.EDQUOT: "Free some of your quota and run it again; nothing was changed.",
    errno.EACCES: "Ask for write permission, or name another folder.",
    errno.EROFS: "The file system is read-only: name another folder.",
}
_REMEDY = "Nothing was changed; see to the file system and run it again."
_TO_READ = "See to the file system, and whether you have the right to read there."
_PIECE = 1 << 20
FILE, FOLDER, LINK, NOTHING, OTHER = "file", "folder", "link", "nothing", "other"
_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}
UNCERTAIN = "The change can be seen, but a power loss could undo it: see to the file system, then look again."
"""The remedy once the commit point is passed and the disk did not confirm it."""


@contextlib.contextmanager
def explained(asked: str, remedy: str = "") -> Iterator[None]:
    """Turn an operating-system error into a StoreError that says what was going on.

    Args:
        asked: What was being done, as a phrase.
        remedy: What to do; left out, it is for a moment at which nothing has been changed yet.

    """
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        where = f" ({error.filename})" if error.filename else ""
        found = f"{error.strerror or error}{where}"
        raise StoreError(asked, found, remedy or _REMEDIES.get(number, _REMEDY), errno=number) from error


def reading(asked: str) -> contextlib.AbstractContextManager[None]:
    """Return `explained` with the remedy for what cannot be read."""
    return explained(asked, _TO_READ)


@contextlib.contextmanager
def begun(remedy: str) -> Iterator[None]:
    """Give an error of the system another remedy, once something was changed: its own may say that nothing was."""
    try:
        yield
    except StoreError as error:
        if not is_refusal(error) or error.remedy == UNCERTAIN:
            raise
        raise StoreError(error.asked, error.found, remedy, **error.facts) from error


def is_refusal(error: HydraDetectError) -> bool:
    """Whether the system refused, for want of rights, descriptors or a sound disk: that proves no damage."""
    return "errno" in error.facts


class unless_damaged:  # noqa: N801  like `contextlib.suppress`, and a class as that: type checkers see that it swallows
    """Give up on a block at what is damaged, missing or of a newer format, which `storage.check` reports.

    What the system refuses is raised: it is none of these.
    """

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Return whether the error, if there is one, is passed over."""
        return isinstance(error, HydraDetectError) and not is_refusal(error)


def sha256(data: bytes | memoryview) -> Digest:
    """Return the SHA-256 of a buffer."""
    return Digest(hashlib.sha256(data).hexdigest())


def write_new(disk: Disk, path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Create a file, write it whole and make it durable; an existing file, or a link, is an error.

    Raises:
        FileExistsError: If anything stands at `path`.

    """
    descriptor = disk.create(path, mode)
    try:
        disk.write(descriptor, data)
        disk.sync(descriptor)
    finally:
        os.close(descriptor)


def claim(disk: Disk, path: Path) -> None:
    """Create an empty file, without waiting for the disk.

    Raises:
        FileExistsError: If anything stands at `path`.

    """
    os.close(disk.create(path, 0o666))


def make_folder(disk: Disk, path: Path) -> None:
    """Create a folder and those above it that are missing, and make all their entries durable.

    All, whoever made them: he may have been killed before he could. But for folders that this user may only pass
    through: nobody who works for him made them.
    """
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            with contextlib.suppress(FileExistsError):
                disk.make_folder(folder)
    for folder in path.parents:
        try:
            disk.sync_folder(folder)
        except PermissionError:
            if folder == path.parent:
                raise


def make_branch(disk: Disk, root: Path, *paths: Path) -> None:
    """Create folders below `root` and those on the way to them, and make all their entries durable.

    All are synced, whoever made them: a version is not safe in a folder whose own entry could be lost.

    Raises:
        CorruptError: If one of them is a link or a file, which would lead out of the store.

    """
    parents = {root: None}  # in order, each once
    for path in paths:
        here = root
        for part in path.relative_to(root).parts:
            parents[here] = None
            here = here / part
            ensure_folder(disk, here, f"write to {path}")
    for parent in parents:
        disk.sync_folder(parent)


def ensure_folder(disk: Disk, path: Path, asked: str) -> None:
    """Create a folder if it is not there, without waiting for the disk.

    Raises:
        CorruptError: If something else stands there.

    """
    with contextlib.suppress(FileExistsError):
        disk.make_folder(path)
    check_folder(path, asked)


def check_folder(path: Path, asked: str) -> None:
    """See that a path is a folder and no link to one.

    Raises:
        NotFoundError: If it is not there.
        CorruptError: If it is something else.

    """
    with _looking(path, asked):
        mode = path.lstat().st_mode
    if not stat.S_ISDIR(mode):
        raise CorruptError(asked, f"{path} is no folder", "Move it away; 'hydra-detect store verify --repair' does.")


def put_new(disk: Disk, data: bytes, target: Path, *, aside: Path, mode: int = 0o666) -> bool:
    """Write a file aside and give it its name, unless the name is taken: the commit point of a compare-and-swap.

    The folder of `target` is not synced: that is the caller's, who knows what to say if it fails.

    Args:
        disk: The disk.
        data: What the file is to hold.
        target: Its place.
        aside: Where it is written first, on the same file system.
        mode: Its mode, of which the umask takes away.

    Returns:
        Whether it was done; False if another writer was first.

    """
    try:
        write_new(disk, aside, data, mode=mode)
        if os.name == "nt":
            disk.rename(aside, target)  # refuses an existing target on Windows, unlike on POSIX
        else:
            disk.link(aside, target)
    except FileExistsError:
        # A network file system may repeat a request whose answer was lost, and then find its own work.
        with contextlib.suppress(FileNotFoundError):
            return aside.samefile(target)
        return False
    finally:
        discard(disk, aside)
    return True


def discard(disk: Disk, path: Path) -> None:
    """Delete a file, a link or a whole folder; what cannot be deleted now is left for the next recovery."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            for entry in list(path.iterdir()):
                discard(disk, entry)
            disk.remove_folder(path)
        else:
            disk.unlink(path)


def nbytes(folder: Path, *without: str) -> int:
    """Return the bytes of all files below a folder but those of some names; of what vanishes meanwhile, none.

    Raises:
        StoreError: If the system refuses to look at something.

    """

    def check(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    total = 0
    with reading(f"measure {folder}"):
        for place, _folders, names in os.walk(folder, onerror=check):
            for name in set(names).difference(without):
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(f"{place}/{name}").st_size
    return total


def check_size(path: Path, size: int, *, asked: str) -> None:
    """See that a file is there and of a size, without opening it.

    Raises:
        NotFoundError: If there is none.
        CorruptError: If it is a link, a folder or a device, or of another size.

    """
    with _looking(path, asked):
        facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise CorruptError(asked, f"{path} is no regular file", "Restore it from a copy.")
    if facts.st_size != size:
        found = f"{path} has {facts.st_size} bytes and the manifest says {size}"
        raise CorruptError(asked, found, "Restore it from a copy.")


def read_whole(path: Path, *, limit: int, asked: str, size: int | None = None) -> bytes:
    """Read a regular file into one buffer.

    Args:
        path: Its place.
        limit: How many bytes it may have at the most.
        asked: What is being done, for the error.
        size: How many bytes it has to have, where that is known: seen before one is read.

    Raises:
        NotFoundError: If there is none.
        CorruptError: If it is a link, a folder or a device, or of another size.
        StoreError: If the system refuses.

    """
    with _opened(path, limit=limit, asked=asked, size=size) as (file, nbytes):
        return file.read(nbytes)


def hash_whole(path: Path, *, limit: int, asked: str, size: int | None = None) -> tuple[int, Digest]:
    """Return size and SHA-256 of a regular file, read piece by piece: in half the time, and without its memory.

    Arguments and errors are those of `read_whole`.
    """
    total, piece, read = hashlib.sha256(), memoryview(bytearray(_PIECE)), 0
    with _opened(path, limit=limit, asked=asked, size=size) as (file, nbytes):
        while read < nbytes and (count := file.readinto(piece[: nbytes - read])):
            total.update(piece[:count])
            read += count
    return read, Digest(total.hexdigest())


@contextlib.contextmanager
def _opened(path: Path, *, limit: int, asked: str, size: int | None) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file of a size that it may have; give it and its size."""
    remedy = "Restore it from a copy; nothing was changed."
    with _looking(path, asked):
        try:
            descriptor = os.open(path, os.O_RDONLY | _TO_READ_WHOLE)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR}:
                raise CorruptError(asked, f"{path} is no regular file", remedy) from None
            raise
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise CorruptError(asked, f"{path} is no regular file", remedy)
            if facts.st_size > limit:
                raise CorruptError(asked, f"{path} has {facts.st_size} bytes, the limit is {limit}", remedy)
            if size not in {None, facts.st_size}:
                raise CorruptError(asked, f"{path} has {facts.st_size} bytes and the manifest says {size}", remedy)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file, facts.st_size
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _looking(path: Path, asked: str) -> Iterator[None]:
    """Turn the error of a system that looks for a file into one of ours: it is not there, or may not be read.

    A network file system says ESTALE of a file that another machine deleted, and of one that it lost sight of: only
    another look tells which.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT or (error.errno == errno.ESTALE and not exists(path, asked)):
            remedy = "Check the path, or restore it from a copy."
            raise NotFoundError(asked, f"{path} does not exist", remedy) from None
        with reading(asked):
            raise


def names_in(folder: Path, asked: str) -> list[str]:
    """Return the names of what lies in a folder, in no order; none where there is no folder.

    Raises:
        StoreError: If the system refuses to list it.

    """
    try:
        return os.listdir(folder)  # noqa: PTH208  names are all that is needed, a thousand times over
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:  # the last of links that lead in a circle
            return []
        with reading(asked):
            raise


def exists(path: Path, asked: str) -> bool:
    """Whether anything stands at a path, a link too.

    Raises:
        StoreError: If the system refuses to say, which is no answer.

    """
    return kind_of(path, asked) != NOTHING


def kind_of(path: Path, asked: str) -> str:
    """Return what stands at a path: FILE, FOLDER, LINK, NOTHING or OTHER.

    Unlike `Path.is_dir` and its like, which say no where the system refuses to answer, in some versions of Python.

    Raises:
        StoreError: If the system refuses to say.

    """
    with reading(asked):
        try:
            return _KINDS.get(stat.S_IFMT(path.lstat().st_mode), OTHER)
        except (FileNotFoundError, NotADirectoryError):
            return NOTHING
