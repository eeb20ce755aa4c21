"""The lock of a backbone or head: it orders writers, and is not what makes them safe.

The operating system's own lock, which it gives back when its holder ends, however he ends. Where a file system has
none, writers go on without: then one of two that are at it together has to begin anew, and nothing else changes.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from typing import TYPE_CHECKING

import filelock

from hydra_detect.errors import ConflictError, StoreError
from hydra_detect.storage import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60.0
"""How long to wait for a lock that another process holds."""

_POLL_SECONDS = 0.005
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
_HELD = "Look whether what you asked for was done; others wait until this process ends."

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def held(path: Path, asked: str, *, seconds: float | None = None) -> Iterator[None]:
    """Hold a lock. The same thread may hold it more than once.

    Args:
        path: Its file.
        asked: For what, as a phrase.
        seconds: How long to wait for it; a minute if left out.

    Raises:
        ConflictError: If another process holds it for longer.
        StoreError: If the system refuses.

    """
    # Preserved: a lock file that its holder unlinks is no lock. That also keeps filelock from falling back to a file
    # that merely exists, which would lock for ever once its writer was killed.
    lock = filelock.FileLock(path, is_singleton=True, preserve_lock_file=True, poll_interval=_POLL_SECONDS)
    with files.explained(asked):
        is_held = _acquired(lock, path, asked, SECONDS if seconds is None else seconds)
    try:
        yield  # outside `explained`: an error of the work under the lock is no error of the lock
    finally:
        if is_held:
            with files.explained(f"unlock {path.name}", _HELD):
                lock.release()


def _acquired(lock: filelock.BaseFileLock, path: Path, asked: str, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout:
        found = f"another process has held {path} for {seconds:.0f} s"
        raise ConflictError(asked, found, "Try again later.") from None
    except NotImplementedError as error:  # a RuntimeError, of a system without any
        _LOG.debug("no lock at %s: %s", path, error)
        return False
    except RuntimeError as error:  # an unlocking failed before, and left it unknown who holds it
        raise StoreError(asked, f"{path} is in no known state: {error}", "Start this process anew.") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _LOG.debug("no lock at %s: %s", path, error)
        return False
    return True
