"""`HeadRegistry`: the heads of a store by name, and whether they fit a backbone.

A mapping from validated names to facts; it loads no weights and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.errors import IncompatibleError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.storage import backbones, index, layout
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.records import VersionRecord


@attrs.frozen(kw_only=True)
class HeadInfo:
    """A head at a glance.

    Args:
        name: Its name.
        active: Number of the active version, None if none was ever promoted.
        versions: Numbers of all versions, ascending.
        class_names: Classes of the active version, or of the newest where none is active.
        backbone: Name of the backbone it was made on.
        backbone_digest: Canonical digest of that backbone's tensors.
        nbytes: Bytes on disk of its weights.
        created_at: When that version was made, UTC.

    """

    name: str
    active: int | None
    versions: tuple[int, ...]
    class_names: tuple[str, ...]
    backbone: str
    backbone_digest: Digest
    nbytes: int
    created_at: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> HeadInfo:
        """Read what `to_dict` returns.

        Raises:
            RecordError: If a field is missing or of the wrong kind.

        """
        return codec.from_dict(cls, value, "the summary of a head")


class HeadRegistry:
    """The heads in a store.

    Iterating gives names; `registry["owl"]` gives the active version, `registry["owl@3"]` that one.

    Args:
        store: A store, or the path of one that exists.

    """

    def __init__(self, store: str | os.PathLike[str] | Store) -> None:
        self.store = Store.open(store)
        self.manager = VersionManager(self.store)

    def __repr__(self) -> str:
        return f"HeadRegistry({str(self.store.root)!r}, {len(self)} heads)"

    def __iter__(self) -> Iterator[str]:
        return iter(self.store.names(layout.HEADS))

    def __len__(self) -> int:
        return len(self.store.names(layout.HEADS))

    def __contains__(self, name: object) -> bool:
        return name in self.store.names(layout.HEADS)

    def __getitem__(self, ref: str | HeadRef) -> VersionRecord:
        """Return the active version of a head, or the one that the reference names.

        Raises:
            NotFoundError: If there is none; the message says which names come near.

        """
        return self.manager.get(ref)

    def info(self, name: str) -> HeadInfo:
        """Return one head at a glance, read from disk.

        Raises:
            NotFoundError: If there is no such head; the message says which names come near.

        """
        active = self.manager.active_number(name)
        numbers = self.store.numbers(layout.HEADS, name)
        shown = self.manager.get(HeadRef(name, active or numbers[-1]))
        return HeadInfo(
            name=name,
            active=active,
            versions=tuple(numbers),
            class_names=shown.record.class_names,
            backbone=shown.record.backbone_name,
            backbone_digest=shown.record.backbone.digest,
            nbytes=shown.files[layout.TENSORS][0],
            created_at=shown.created_at,
        )

    def infos(self) -> list[HeadInfo]:
        """Return all heads at a glance, sorted by name, through the index where it is up to date."""
        return index.summaries(self.store, read=self.info, plain=HeadInfo.to_dict, restore=HeadInfo.from_dict)

    def backbones(self) -> list[str]:
        """Return the names of the backbones in the store."""
        return backbones.names(self.store)

    def fitting(self, backbone: Digest | BackboneContract) -> list[str]:
        """Return the heads whose active version was made for this backbone.

        Args:
            backbone: Its tensors' digest; or its whole contract, which compares settings too.

        """
        names = [info.name for info in self.infos() if info.active is not None]
        if isinstance(backbone, Digest):
            return [name for name in names if self[name].record.backbone.digest == backbone]
        return [name for name in names if not backbone.differences(self[name].record.backbone)]


def check_fits(version: VersionRecord, contract: BackboneContract) -> None:
    """See that a head belongs to a backbone.

    Raises:
        IncompatibleError: Naming every fact in which the two differ.

    """
    differences = contract.differences(version.record.backbone)
    if differences:
        raise IncompatibleError(
            f"run {version.head}@{version.number} on this backbone",
            f"it was made for another one (backbone at hand against the head's): {'; '.join(differences)}",
            f"Use the backbone it was made on, there called {version.record.backbone_name!r}.",
            differences=differences,
        )
