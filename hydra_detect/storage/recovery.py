"""Clearing away what dead processes left, and taking away versions that nobody may use any more.

Recovery decides nothing: it only finishes what a pointer says, and empties what has no name yet. So it may be
stopped at any point and run any number of times.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import files, owners, pointers

if TYPE_CHECKING:
    from pathlib import Path

    from hydra_detect.storage.disk import Disk
    from hydra_detect.storage.layout import ItemLayout, StoreLayout


def recover(disk: Disk, where: StoreLayout, item: ItemLayout) -> None:
    """Clear away what was left behind at one backbone or head, and in the store's own staging folder."""
    if any(folder.is_symlink() for folder in (item.root.parent, item.root, item.versions)):
        return  # what lies behind a link is not the store's
    for folder in (where.staging, item.staging):
        for path in abandoned(folder):
            files.discard(disk, path)
    for number in unfinished(item):
        take_away(disk, where, item, number)


def abandoned(folder: Path) -> list[Path]:
    """Return what lies in a staging folder and belongs to nobody who is still at work."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    with files.explained(f"list {folder}"):
        return sorted(path for path in folder.iterdir() if owners.is_abandoned(path))


def unfinished(item: ItemLayout) -> list[int]:
    """Return the numbers of versions that were taken away and whose folders are still in their place."""
    try:
        gone = pointers.newest(item, item.root.name).gone
    except HydraDetectError:  # without knowing what is gone nothing may be deleted
        return []
    return [number for number in item.version_numbers() if number in gone]


def take_away(disk: Disk, where: StoreLayout, item: ItemLayout, number: int) -> None:
    """Delete the folder of a version that the pointer calls gone: out of its place in one rename, then file by file.

    One that cannot be moved now, because a reader on Windows holds it, is left for the next recovery.
    """
    aside = item.staging / owners.staging_name()
    with contextlib.suppress(OSError, HydraDetectError):
        files.make_branch(disk, where.root, item.staging)
        disk.rename(item.version(number), aside)
        files.discard(disk, aside)
