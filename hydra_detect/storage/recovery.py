"""Clearing away what dead processes left, and taking away versions that nobody may use any more.

Recovery decides nothing: it only finishes what a pointer says, and empties what has no name yet. So it may be
stopped at any point and run any number of times. It belongs to writing: whoever writes next does it, readers never.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import files, owners

if TYPE_CHECKING:
    from pathlib import Path

    from hydra_detect.storage.disk import Disk
    from hydra_detect.storage.items import Item


def recover(item: Item) -> None:
    """Clear away what was left behind at one backbone or head, and in the store's own staging folder.

    Raises:
        StoreError: If the system refuses to list what is staged, or the disk does not confirm that versions were taken
            away, which is needed before they are deleted.

    """
    place = item.place
    asked = f"clear away what was left behind at {item.name!r}"
    with files.explained(asked):
        folders = (place.root.parent, place.root, place.versions)
        if any(files.kind_of(folder, asked) == files.LINK for folder in folders):
            return  # what lies behind a link is not the store's
        for folder in (item.store.layout.staging, place.staging):
            for path in abandoned(folder):
                sweep(item.disk, path, folder)
        numbers = unfinished(item)
        if numbers:
            # Whoever wrote that they are gone may have been killed before he could sync it: a power loss must not
            # bring back a state that names them, once their files are deleted.
            item.disk.sync_folder(place.pointers)
        for number in numbers:
            take_away(item, number)


def abandoned(folder: Path) -> list[Path]:
    """Return what lies in a staging folder and belongs to nobody who is still at work."""
    asked = f"list {folder}"
    if files.kind_of(folder, asked) != files.FOLDER:
        return []
    with files.reading(asked):
        return sorted(path for path in folder.iterdir() if owners.is_abandoned(path))


def unfinished(item: Item) -> list[int]:
    """Return the numbers of versions that were taken away and whose folders are still in their place."""
    try:
        gone = item.pointer().gone
    except HydraDetectError:  # damaged or refused: without knowing what is gone nothing may be deleted
        return []
    return [number for number in item.place.version_numbers() if number in gone]


def take_away(item: Item, number: int) -> bool:
    """Delete the folder of a version that the pointer calls gone; return whether it is out of its place.

    One that cannot be moved now, because a reader on Windows holds it, is left for the next recovery.
    """
    with contextlib.suppress(OSError, HydraDetectError):
        files.ensure_folder(item.disk, item.place.staging, f"delete {item.name}@{number}")
        return sweep(item.disk, item.place.version(number), item.place.staging)
    return False


def sweep(disk: Disk, path: Path, staging: Path) -> bool:
    """Delete a file or folder: out of its place in one rename, then file by file; return whether it is out.

    Nobody can see half of it, not even an owner who is alive after all: his next step fails instead.
    """
    aside = staging / owners.staging_name()
    try:
        disk.rename(path, aside)
    except OSError:  # somebody else is at it, or has it open on Windows
        return False
    files.discard(disk, aside)
    return True
