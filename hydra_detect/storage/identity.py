"""STORE.json: the file that makes a folder a store, and says who may read it and write to it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_detect import codec
from hydra_detect.errors import CorruptError, NotFoundError, StoreError
from hydra_detect.storage import files

if TYPE_CHECKING:
    from hydra_detect.storage.layout import StoreLayout

FORMAT = 1
_LIMITS = ("min_reader", "min_writer")


def new() -> bytes:
    """Return the text of a new identity."""
    return codec.dumps({"format": FORMAT, "min_reader": 1, "min_writer": 1, "store_id": str(uuid.uuid4())})


def absolute(root: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a store's folder, links that lead to it followed; within a store none is.

    Raises:
        StoreError: If no file system could have such a path, or the system refuses to say where it leads.

    """
    asked = f"open the store {str(root)!a:.200}"
    try:
        is_path = b"\0" not in os.fsencode(root)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise StoreError(asked, "that is no path", "Check the path.")
    with files.reading(asked):
        return Path(os.path.realpath(Path(root).absolute()))


def min_writer(where: StoreLayout) -> int:
    """Read the identity of a store and return the least format that may write to it.

    Raises:
        StoreError: If there is none, or it was made by a newer version.
        CorruptError: If it is damaged.

    """
    asked = f"open the store {where.root}"
    try:
        data = files.read_whole(where.identity, limit=codec.MAX_JSON_BYTES, asked=asked)
    except NotFoundError:
        is_there = files.exists(where.root, asked)
        found = "the folder holds no STORE.json" if is_there else "there is no such folder"
        raise StoreError(asked, found, "Check the path; 'hydra-detect split' makes a new store.") from None
    identity = codec.loads(data, str(where.identity))
    reader, writer = (identity.get(key) if isinstance(identity, dict) else None for key in _LIMITS)
    if type(reader) is not int or type(writer) is not int or min(reader, writer) < 1:
        raise CorruptError(asked, "STORE.json is not one of ours", "Restore it from a copy.")
    if reader > FORMAT:
        raise StoreError(
            asked,
            f"it needs a reader of format {reader} and this version of hydra-detect reads {FORMAT}",
            "Upgrade hydra-detect; nothing was changed.",
            format=reader,
        )
    return writer
