"""Usage: what takes the disk."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import HydraDetectError, NameInvalidError
from hydra_detect.storage import files, layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hydra_detect.storage.store import Store


@attrs.frozen(kw_only=True)
class ItemUsage:
    """Bytes of one backbone or head.

    Args:
        kind: "backbones" or "heads".
        name: Its name.
        active: The active version; None if there is none, or the state cannot be read.
        versions: Bytes by version number, those that were taken away and not deleted yet among them.
        history: Bytes of claims and of the generations of the pointer.
        staging: Bytes of what is being written, or was left by a process that died.
        quarantine: Bytes of what a repair set aside.

    """

    kind: str
    name: str
    active: int | None
    versions: Mapping[int, int]
    history: int
    staging: int
    quarantine: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.versions.values()) + self.history + self.staging + self.quarantine

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        versions = [{"version": number, "nbytes": size} for number, size in self.versions.items()]
        return {
            "kind": self.kind,
            "name": self.name,
            "active": self.active,
            "versions": versions,
            "history": self.history,
            "staging": self.staging,
            "quarantine": self.quarantine,
            "total": self.total,
        }


@attrs.frozen(kw_only=True)
class Usage:
    """Bytes of a store by backbone and head, and what belongs to none; a file with two names counts under each.

    Args:
        items: The backbones and heads, by kind and name.
        staging: Bytes of what is being written beside them, or was left by a process that died.
        quarantine: Bytes of what a repair set aside beside them.
        others: Bytes of the store's own small files, and of whatever else lies in it.

    """

    items: tuple[ItemUsage, ...]
    staging: int = 0
    quarantine: int = 0
    others: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(item.total for item in self.items) + self.staging + self.quarantine + self.others

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "items": [item.to_dict() for item in self.items],
            "staging": self.staging,
            "quarantine": self.quarantine,
            "others": self.others,
            "total": self.total,
        }


def usage(store: Store) -> Usage:
    """Measure what takes the disk; what vanishes meanwhile counts nothing."""
    items = []
    for kind in (layout.BACKBONES, layout.HEADS):
        for name in _names(store.layout, kind):
            item = store.item(kind, name)
            place = item.place
            try:
                active = item.pointer().active
            except HydraDetectError:  # damage is for `storage.check` to report
                active = None
            found = ItemUsage(
                kind=kind,
                name=name,
                active=active,
                versions={number: files.nbytes(place.version(number)) for number in place.version_numbers()},
                history=files.nbytes(place.claims) + files.nbytes(place.pointers),
                staging=files.nbytes(place.staging),
                quarantine=files.nbytes(place.quarantine),
            )
            if found.versions or found.total:
                items.append(found)
    top = store.layout
    known = Usage(items=tuple(items), staging=files.nbytes(top.staging), quarantine=files.nbytes(top.quarantine))
    return attrs.evolve(known, others=max(0, files.nbytes(store.root) - known.total))  # less what vanished meanwhile


def _names(where: layout.StoreLayout, kind: str) -> Iterator[str]:
    """Yield every name below which something could lie, also where no version is left of it."""
    folder = where.kind(kind)
    for name in sorted(files.names_in(folder, f"list {folder}")):
        with contextlib.suppress(NameInvalidError):  # a folder of another name is not ours
            where.item(kind, name)
            yield name
