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

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # absent on Windows
_REMEDIES = {
    errno.ENOSPC: "Free some space and run it again; nothing was changed.",
    errno.EDQUOT: "Free some of your quota and run it again; nothing was changed.",
    errno.EACCES: "Ask for write permission, or name another folder.",
    errno.EROFS: "The file system is read-only: name another folder.",
}
_REMEDY = "Nothing was changed; see to the file system and run it again."
_PIECE = 1 << 20
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
    """Create a folder and its parents; one that exists is left alone.

    Every parent up to the first that was there before us is synced, also where another process made the folder a
    moment ago: it may have been killed before it could.
    """
    if path.is_dir() and not path.is_symlink():
        return
    if path != path.parent:
        make_folder(disk, path.parent)
    with contextlib.suppress(FileExistsError):
        disk.make_folder(path)
    disk.sync_folder(path.parent)


def make_branch(disk: Disk, root: Path, path: Path) -> None:
    """Create the folders from `root` down to `path` and make each of their entries durable.

    All are synced, whoever made them: a version is not safe in a folder whose own entry could be lost.

    Raises:
        CorruptError: If one of them is a link or a file, which would lead out of the store.

    """
    for part in path.relative_to(root).parts:
        here = root / part
        with contextlib.suppress(FileExistsError):
            disk.make_folder(here)
        check_folder(here, f"write to {path}")
        disk.sync_folder(root)
        root = here


def check_folder(path: Path, asked: str) -> None:
    """See that a path is a folder and no link to one.

    Raises:
        NotFoundError: If it is not there.
        CorruptError: If it is something else.

    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise NotFoundError(asked, f"{path} does not exist", "Check the path, or restore it from a copy.") from None
    if not stat.S_ISDIR(mode):
        raise CorruptError(
            asked, f"{path} is no folder", "Move it away; 'hydra-detect store verify --repair' does."
        ) from None


def put_if_absent(disk: Disk, temporary: Path, target: Path) -> None:
    """Give a finished file its final name, unless the name is taken: the commit point of a compare-and-swap.

    The folder is not synced: that is the caller's, who knows what to say if it fails.

    Raises:
        FileExistsError: If another writer was first.

    """
    if os.name == "nt":
        disk.rename(temporary, target)  # refuses an existing target on Windows, unlike on POSIX
    else:
        try:
            disk.link(temporary, target)
        except FileExistsError:
            # A network file system may repeat a request whose answer was lost, and then find its own work.
            if not temporary.samefile(target):
                raise


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
    """Return the bytes of all files below a folder but those of some names; of what vanishes meanwhile, none."""
    total = 0
    for place, _folders, names in os.walk(folder):
        for name in set(names).difference(without):
            with contextlib.suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_size
    return total


def read_whole(path: Path, *, limit: int, asked: str) -> bytes:
    """Read a regular file into one buffer.

    Raises:
        NotFoundError: If there is none.
        CorruptError: If it is a link, a folder or a device, or larger than `limit` bytes.
        StoreError: If the system refuses.

    """
    with _opened(path, limit=limit, asked=asked) as (file, size):
        return file.read(size)


def hash_whole(path: Path, *, limit: int, asked: str) -> tuple[int, Digest]:
    """Return size and SHA-256 of a regular file, read piece by piece: in half the time, and without its memory.

    Raises:
        NotFoundError: If there is none.
        CorruptError: If it is a link, a folder or a device, or larger than `limit` bytes.
        StoreError: If the system refuses.

    """
    total, piece, read = hashlib.sha256(), memoryview(bytearray(_PIECE)), 0
    with _opened(path, limit=limit, asked=asked) as (file, size):
        while read < size and (count := file.readinto(piece[: size - read])):
            total.update(piece[:count])
            read += count
    return read, Digest(total.hexdigest())


@contextlib.contextmanager
def _opened(path: Path, *, limit: int, asked: str) -> Iterator[tuple[BufferedReader, int]]:
    """Open a regular file that is no larger than `limit`; give it and its size."""
    remedy = "Restore it from a copy; nothing was changed."
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))  # a FIFO must not block
    except FileNotFoundError:
        raise NotFoundError(asked, f"{path} does not exist", "Check the path, or restore it from a copy.") from None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR}:
            raise CorruptError(asked, f"{path} is no regular file", remedy) from None
        with explained(asked):
            raise
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)  # fdopen refuses a folder without closing it
        raise CorruptError(asked, f"{path} is no regular file", remedy)
    with os.fdopen(descriptor, "rb") as file:
        if facts.st_size > limit:
            raise CorruptError(asked, f"{path} has {facts.st_size} bytes, the limit is {limit}", remedy)
        with explained(asked):
            yield file, facts.st_size
