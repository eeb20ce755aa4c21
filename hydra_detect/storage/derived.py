"""Files of a store that are a help and no more: whole or not there, and nothing is lost with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import files, owners

if TYPE_CHECKING:
    from pathlib import Path

    from hydra_detect.storage.store import Store


def keep(store: Store, target: Path, data: bytes, asked: str) -> None:
    """Write a file in place of the one that is there, if the store can be written; it is written aside, then renamed.

    A store that cannot be written, or not by this version, goes without it.
    """
    aside = store.layout.staging / owners.staging_name()
    with contextlib.suppress(OSError, HydraDetectError):
        store.check_writable(asked)
        try:
            files.make_branch(store.disk, store.root, store.layout.staging, target.parent)
            files.write_new(store.disk, aside, data)
            store.disk.replace(aside, target)
        finally:
            files.discard(store.disk, aside)
