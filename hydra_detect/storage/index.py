"""The derived index of heads: a summary that is cheap to read and never believed against the pointers.

`registry.json` spares reading every record when a store holds hundreds of heads. An entry counts only while the
head's pointer generation and version numbers are the ones it was made from; everything else is read anew and, where
the store can be written, written back. Deleting the file loses nothing.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import files, layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra_detect.storage.store import Store

FORMAT = 1


def summaries(store: Store, summarise: Callable[[str], dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a plain summary of each head, sorted by name: from the index where it is current, else from disk.

    Args:
        store: The store.
        summarise: Reads one head from disk; called only for heads whose entry is missing or out of date.

    """
    known = _load(store)
    entries: dict[str, dict[str, Any]] = {}
    for name in store.names(layout.HEADS):
        stamp = _stamp(store, name)
        entry = known.get(name)
        if not isinstance(entry, dict) or entry.get("stamp") != stamp or not isinstance(entry.get("summary"), dict):
            entry = {"stamp": stamp, "summary": summarise(name)}
        entries[name] = entry
    if entries != known:
        _save(store, entries)
    return {name: entry["summary"] for name, entry in entries.items()}


def _stamp(store: Store, name: str) -> list[int]:
    item = store.layout.item(layout.HEADS, name)
    return [(item.pointer_generations() or [0])[-1], *item.version_numbers()]


def _load(store: Store) -> dict[str, Any]:
    try:
        data = files.read_whole(store.layout.index, limit=codec.MAX_JSON_BYTES, asked="read the index of heads")
        document = codec.loads(data, "the index of heads")
    except HydraDetectError:  # missing or damaged: it is derived, so it is made anew
        return {}
    if (
        not isinstance(document, dict)
        or document.get("format") != FORMAT
        or not isinstance(document.get("heads"), dict)
    ):
        return {}
    heads: dict[str, Any] = document["heads"]
    return heads


def _save(store: Store, entries: dict[str, dict[str, Any]]) -> None:
    temporary = store.root / f".registry-{uuid.uuid4()}"
    with contextlib.suppress(OSError):  # a read-only store has no index, and needs none
        try:
            files.write_new(temporary, codec.dumps({"format": FORMAT, "heads": entries}))
            os.replace(temporary, store.layout.index)  # noqa: PTH105  the one file that may be replaced: it is derived
        finally:
            temporary.unlink(missing_ok=True)
