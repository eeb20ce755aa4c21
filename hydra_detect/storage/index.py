"""The derived index of heads: a summary that is cheap to read and never believed against the pointers.

`registry.json` spares reading every record when a store holds hundreds of heads. An entry counts only while the
head's newest pointer and manifest and its version numbers are the ones it was made from; everything else is read anew
and, where the store can be written, written back. Deleting the file loses nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import derived, files, layout, pointers, sealed

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra_detect.storage.store import Store

FORMAT = 1
MAX_BYTES = codec.MAX_JSON_BYTES

T = TypeVar("T")


def summaries(
    store: Store,
    *,
    read: Callable[[str], T],
    plain: Callable[[T], dict[str, Any] | None],
    restore: Callable[[Any], T],
) -> list[T]:
    """Return a summary of each head, sorted by name: from the index where it is current, else from disk.

    Args:
        store: The store.
        read: Reads one head from disk; called only for heads whose entry is missing, out of date or malformed.
        plain: Turns a summary into JSON values, or None for one that must be read anew each time.
        restore: Turns them back, or raises a HydraDetectError.

    """
    known = _load(store)
    found: dict[str, T] = {}
    entries: dict[str, dict[str, Any]] = {}
    for name in store.names(layout.HEADS):
        try:
            stamp = _stamp(store, name)
        except HydraDetectError:  # it may not be looked into, or is changing just now: `read` knows what to say
            found[name] = read(name)
            continue
        summary = _current(known.get(name), stamp, restore)
        found[name] = read(name) if summary is None else summary
        values = plain(found[name])
        if values is not None:
            entries[name] = {"stamp": stamp, "summary": values}
    if entries != known:
        _save(store, entries)
    return list(found.values())


def _current(entry: Any, stamp: list[str], restore: Callable[[Any], T]) -> T | None:
    if not isinstance(entry, dict) or entry.get("stamp") != stamp:
        return None
    try:
        return restore(entry.get("summary"))
    except HydraDetectError:  # written by another version, or by hand
        return None


def _stamp(store: Store, name: str) -> list[str]:
    """Return what a summary was made from: newest pointer and manifest, byte for byte, and the version numbers.

    Numbers alone could be those of a new head in the place of an old one. The bytes are compared, not believed: a
    damaged file gives another stamp, and whoever reads the head then finds out.

    Raises:
        HydraDetectError: If one of them cannot be read.

    """
    item = store.head(name)
    generations, numbers = item.place.pointer_generations(), item.numbers()
    proofs = [
        *((item.place.pointer(generation), pointers.MAX_BYTES) for generation in generations[-1:]),
        *((item.place.version(number) / layout.MANIFEST, codec.MAX_JSON_BYTES) for number in numbers[-1:]),
    ]
    texts = [files.read_whole(path, limit=limit, asked="read the index of heads") for path, limit in proofs]
    return [*(str(files.sha256(text)) for text in texts), *map(str, numbers)]


def _load(store: Store) -> dict[str, Any]:
    try:
        data = files.read_whole(store.layout.index, limit=codec.MAX_JSON_BYTES, asked="read the index of heads")
        document = sealed.unseal(data, "the index of heads")
    except HydraDetectError:  # missing or damaged: it is derived, so it is made anew
        return {}
    heads = document.get("heads")
    return heads if document.get("format") == FORMAT and isinstance(heads, dict) else {}


def _save(store: Store, entries: dict[str, dict[str, Any]]) -> None:
    data = sealed.seal({"format": FORMAT, "heads": entries})
    if len(data) > MAX_BYTES:
        return  # it could not be read again
    derived.keep(store, store.layout.index, data, "write the index of heads")
