"""Usage: what takes the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping  # noqa: TC003  the codec reads annotations as it runs
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError, NameInvalidError
from hydra_detect.storage import files, layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hydra_detect.storage.store import Store


@attrs.frozen(kw_only=True)
class ItemUsage:
    """Bytes of one backbone or head.

    Args:
        kind: "backbones" or "heads".
        name: Its name.
        active: The active version.
        versions: Bytes by version number.
        staging: Bytes of what is being written, or was left by a process that died.
        quarantine: Bytes of what a repair set aside.

    """

    kind: str
    name: str
    active: int | None
    versions: Mapping[int, int]
    staging: int
    quarantine: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.versions.values()) + self.staging + self.quarantine


@attrs.frozen(kw_only=True)
class Usage:
    """Bytes of a store by backbone and head; a file with two names counts under each."""

    items: tuple[ItemUsage, ...]

    @property
    def total(self) -> int:
        """All of it."""
        return sum(item.total for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return {**plain, "total": self.total}


def usage(store: Store) -> Usage:
    """Measure what takes the disk; what vanishes meanwhile counts nothing."""
    items = []
    for kind in (layout.BACKBONES, layout.HEADS):
        for name in _names(store.layout, kind):
            item = store.layout.item(kind, name)
            try:
                active = store.pointer(kind, name).active
            except HydraDetectError:  # damage is for `storage.check` to report
                active = None
            found = ItemUsage(
                kind=kind,
                name=name,
                active=active,
                versions={number: _nbytes(item.version(number)) for number in store.numbers(kind, name)},
                staging=_nbytes(item.staging),
                quarantine=_nbytes(item.quarantine),
            )
            if found.versions or found.total:
                items.append(found)
    return Usage(items=tuple(items))


def _names(where: layout.StoreLayout, kind: str) -> Iterator[str]:
    """Yield every name below which something could lie, also where no version is left of it."""
    folder = where.kind(kind)
    with files.explained(f"list {folder}"):
        names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208  names alone
    for name in names:
        with contextlib.suppress(NameInvalidError):  # a folder of another name is not ours
            where.item(kind, name)
            yield name


def _nbytes(folder: Path) -> int:
    total = 0
    for place, _folders, names in os.walk(folder):  # which passes over what was taken away meanwhile
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_size
    return total
