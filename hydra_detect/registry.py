"""`HeadRegistry`: the heads of a store by name, and whether they fit a backbone.

A mapping from validated names to facts; it loads no weights and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError, IncompatibleError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.storage import backbones, heads, index, layout, renaming
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
        problem: What keeps the head from being read, if anything does; then nothing but its name and versions is
            known.

    """

    name: str
    active: int | None
    versions: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    backbone: str = ""
    backbone_digest: Digest | None = None
    nbytes: int = 0
    created_at: str = ""
    problem: str = ""

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
        return heads.find(self.store, ref)

    def info(self, name: str) -> HeadInfo:
        """Return one head at a glance, read from disk.

        Raises:
            NotFoundError: If there is no such head; the message says which names come near.

        """
        numbers = heads.numbers(self.store, name)
        pointer = self.store.pointer(layout.HEADS, name)
        shown = heads.find(self.store, HeadRef(name) if pointer.active else HeadRef(name, numbers[-1]))
        return HeadInfo(
            name=name,
            active=shown.number if pointer.active else None,
            versions=tuple(numbers),
            class_names=shown.record.class_names,
            backbone=shown.record.backbone_name,
            backbone_digest=shown.record.backbone.digest,
            nbytes=shown.files[layout.TENSORS][0],
            created_at=shown.created_at,
        )

    def infos(self) -> list[HeadInfo]:
        """Return all heads at a glance, sorted by name, through the index where it is up to date.

        A head that cannot be read hides no other: its `problem` says why.
        """

        def read(name: str) -> HeadInfo:
            try:
                return self.info(name)
            except HydraDetectError as error:
                versions = tuple(self.store.numbers(layout.HEADS, name))
                return HeadInfo(name=name, active=None, versions=versions, problem=error.found)

        def plain(info: HeadInfo) -> dict[str, Any] | None:
            return None if info.problem else info.to_dict()

        return index.summaries(self.store, read=read, plain=plain, restore=HeadInfo.from_dict)

    def rename(self, name: str, new: str, *, reason: str = "") -> None:
        """Give a head another name: versions, numbers, what is active and what can be rolled back to stay.

        A name is used once: the old one keeps its history and its numbers, no head can be renamed to it, and a head
        that is made anew under it goes on counting. A detector that runs the head goes on doing so, and has to load
        it under its new name to follow it further.

        Raises:
            NotFoundError: If there is no such head.
            NameInvalidError: If the new name is not allowed.
            ConflictError: If the new name was ever used, or a version is pinned.
            CorruptError: If a version is damaged: see `VersionManager.repair`.

        """
        renaming.rename(self.store, name, new, actor=self.manager.actor, reason=reason)

    def remove(self, name: str, *, reason: str = "") -> None:
        """Delete all versions of a head; its history stays, and its numbers are never given out again.

        Raises:
            NotFoundError: If there is no such head.
            ConflictError: If a version is pinned.
            CorruptError: If a version's manifest is damaged: evidence is never deleted.

        """
        renaming.remove(self.store, name, actor=self.manager.actor, reason=reason)

    def backbones(self) -> list[str]:
        """Return the names of the backbones in the store."""
        return backbones.names(self.store)

    def fitting(self, backbone: Digest | BackboneContract) -> list[str]:
        """Return the heads whose active version was made for this backbone; one that cannot be read is among them.

        Whether that one fits cannot be known, and leaving it out would hide its failure.

        Args:
            backbone: Its tensors' digest; or its whole contract, which compares settings too.

        """
        infos = [info for info in self.infos() if info.active is not None or info.problem]
        return [info.name for info in infos if info.problem or self._fits(info.name, backbone)]

    def _fits(self, name: str, backbone: Digest | BackboneContract) -> bool:
        own = self[name].record.backbone
        return own.digest == backbone if isinstance(backbone, Digest) else not backbone.differences(own)


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
