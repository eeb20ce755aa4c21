"""Bytes to disk and back: write once, make durable, replace nothing.

Owns the order of write, fsync and rename. Nothing here ever opens an existing file for writing, so a reader that
holds a file keeps its bytes, and a crash leaves either the old world or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from hydra_detect.errors import CorruptError, NotFoundError, StoreError
from hydra_detect.names import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # absent on Windows
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # network file systems that cannot fsync a folder
_REMEDIES = {
    errno.ENOSPC: "Free some space and run it again; nothing was changed.",
    errno.EDQUOT: "Free some of your quota and run it again; nothing was changed.",
    errno.EACCES: "Ask for write permission, or name another folder.",
    errno.EROFS: "The file system is read-only: name another folder.",
}


@contextlib.contextmanager
def explained(asked: str) -> Iterator[None]:
    """Turn an operating-system error into a StoreError that says what was going on."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        remedy = _REMEDIES.get(number, "Nothing was changed; see to the file system and run it again.")
        where = f" ({error.filename})" if error.filename else ""
        raise StoreError(asked, f"{error.strerror or error}{where}", remedy, errno=number) from error


def sha256(data: bytes | memoryview) -> Digest:
    """Return the SHA-256 of a buffer."""
    return Digest(hashlib.sha256(data).hexdigest())


def write_new(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Create a file, write it whole and make it durable; an existing file, or a link, is an error.

    Raises:
        FileExistsError: If anything stands at `path`.

    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Make the entries of a folder durable; a file system that cannot is taken at its word, an I/O error is not."""
    if os.name == "nt":  # Windows has no handle for it; NTFS journals the entries itself
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, durably; one that exists is left alone."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    sync_folder(path.parent)


def put_if_absent(temporary: Path, target: Path) -> None:
    """Give a finished file its final name, unless the name is taken: the commit point of a compare-and-swap.

    Raises:
        FileExistsError: If another writer was first.

    """
    if os.name == "nt":
        temporary.rename(target)  # refuses an existing target on Windows, unlike on POSIX
    else:
        os.link(temporary, target)
        temporary.unlink()
    sync_folder(target.parent)


def read_whole(path: Path, *, limit: int, asked: str) -> bytes:
    """Read a regular file into one buffer.

    Raises:
        NotFoundError: If there is none.
        CorruptError: If it is a link, a folder or a device, or larger than `limit` bytes.
        StoreError: If the system refuses.

    """
    remedy = "Restore it from a copy; nothing was changed."
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0))  # a FIFO must not block
    except FileNotFoundError:
        raise NotFoundError(asked, f"{path} does not exist", "Check the path, or restore it from a copy.") from None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
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
            return file.read(facts.st_size)
