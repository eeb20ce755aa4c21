"""The steps that change a disk: one method, one system call.

Everything this library does to a store is a sequence of these steps, and nothing else changes one. So a test can stop
the sequence at each of them, lose what was not synced, and look at what a crash would have left.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # each absent where it means nothing
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOTTY}  # of network file systems, for folders

FULL, FAST = "full", "fast"
"""Durability: what is acknowledged survives a power loss, or only the end of the process."""


@attrs.frozen
class Disk:
    """The steps, with the durability that a store was opened with.

    Args:
        durability: `FULL` waits for the disk at each sync; `FAST` leaves that to the system, so that a power loss may
            take what was acknowledged. Neither lets a killed process leave anything half-seen.

    """

    durability: str = attrs.field(default=FULL, validator=attrs.validators.in_((FULL, FAST)))

    def make_folder(self, path: Path) -> None:
        """Create one folder; its mode is the umask's."""
        path.mkdir()

    def create(self, path: Path, mode: int) -> int:
        """Create an empty file where nothing stands, no link either, and return its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _AS_IT_IS, mode)

    def write(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        """Wait until a file's content is on the disk; an I/O error is final, since a second try may lie."""
        if self.durability == FAST:
            return
        try:
            import fcntl

            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]  # macOS: fsync stops at the drive
        except (ImportError, AttributeError):
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            os.fsync(descriptor)  # a network share on macOS

    def sync_folder(self, path: Path) -> None:
        """Wait until the entries of a folder are on the disk; a file system that cannot is taken at its word."""
        if os.name == "nt":  # Windows has no handle for it; NTFS journals the entries itself
            return
        descriptor = os.open(path, os.O_RDONLY | _AS_IT_IS)
        try:
            self.sync(descriptor)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        finally:
            os.close(descriptor)

    def link(self, path: Path, target: Path) -> None:
        """Give a file a second name, unless the name is taken."""
        os.link(path, target)

    def rename(self, path: Path, target: Path) -> None:
        """Move a file or folder; on POSIX an existing file or empty folder at `target` is replaced."""
        path.rename(target)

    def replace(self, path: Path, target: Path) -> None:
        """Move a file over another: for what is derived, and for nothing else."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Take a file's name away."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()
