"""`VersionManager`: which versions of a head there are, which one is active, and how that changes.

A version is created once and never changes; the one mutable fact is which version is active. Owns no bytes on disk
(that is `storage`) and no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra_detect import codec
from hydra_detect.errors import CorruptError, NameInvalidError, NotFoundError, listed, near_matches
from hydra_detect.names import HeadRef, check_name
from hydra_detect.records import HeadRecord, VersionRecord, utc_now
from hydra_detect.storage import artifacts, layout
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, check_finite, tensors_digest

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from hydra_detect.storage.artifacts import Manifest


class VersionManager:
    """The versions of the heads in a store.

    Args:
        store: A store, or the path of one that exists.

    """

    def __init__(self, store: str | os.PathLike[str] | Store) -> None:
        self.store = Store.open(store)

    def __repr__(self) -> str:
        return f"VersionManager({str(self.store.root)!r})"

    def create(
        self,
        head: str,
        tensors: Mapping[str, Any],
        record: HeadRecord,
        *,
        attachments: Mapping[str, bytes] | None = None,
    ) -> VersionRecord:
        """Publish a new version of a head. It does not become active by this: see `promote`.

        Args:
            head: Name of the head.
            tensors: Tensor names to `RawTensor`, numpy arrays or CPU tensors.
            record: The facts; its digest must be that of `tensors`.
            attachments: Further small files to keep beside it, such as the parity report.

        Raises:
            NameInvalidError: If the head or an attachment has a name that is not allowed.
            CorruptError: If a tensor holds NaN or infinity, or the digest in the record is another.
            StoreError: If the disk is full or not writable; nothing is left behind.

        """
        check_name(head)
        asked = f"create a version of {head!r}"
        own = {layout.TENSORS, layout.RECORD}.intersection(attachments or {})
        if own:
            raise NameInvalidError(asked, f"attachments would replace {listed(own)}", "Name them otherwise.")
        raw = {name: RawTensor.of(value) for name, value in tensors.items()}
        check_finite(raw, asked)
        if tensors_digest(raw) != record.tensors:
            raise CorruptError(
                asked,
                f"the record names tensors {record.tensors.short}... and these have {tensors_digest(raw).short}...",
                "Make the record from these tensors.",
            )
        contents = {
            layout.TENSORS: artifacts.encode_tensors(raw),
            layout.RECORD: codec.encode(record),
            **(attachments or {}),
        }
        manifest = self.store.publish(layout.HEADS, head, contents, created_at=utc_now())
        return _version_record(manifest, record)

    def versions(self, head: str) -> list[VersionRecord]:
        """Return all versions of a head, oldest first.

        Raises:
            NotFoundError: If there is no such head; the message says which come near.

        """
        return [self.get(HeadRef(head, number)) for number in self._numbers(head)]

    def get(self, ref: str | HeadRef) -> VersionRecord:
        """Return one version: `owl@3`, or for `owl` the active one.

        Raises:
            NotFoundError: If there is no such head or version, or none is active.
            CorruptError: If its record or manifest is damaged.

        """
        ref = HeadRef.parse(ref)
        if ref.version is None:
            return self.active(ref.name)
        self._numbers(ref.name)
        manifest = self.store.manifest(layout.HEADS, ref.name, ref.version)
        data = self.store.read(manifest, layout.RECORD)
        return _version_record(manifest, codec.decode(HeadRecord, data, f"the record of {ref}"))

    def active(self, head: str) -> VersionRecord:
        """Return the active version of a head.

        Raises:
            NotFoundError: If there is no such head, or none of its versions was ever promoted.
            CorruptError: If the pointer or the version it names is damaged.

        """
        numbers = self._numbers(head)
        pointer = self.store.pointer(layout.HEADS, head)
        if pointer is None:
            raise NotFoundError(
                f"find the active version of {head!r}",
                f"none of its versions ({', '.join(map(str, numbers))}) was ever promoted",
                f"Promote one: VersionManager(...).promote({head!r}, {numbers[-1]}).",
            )
        version = self.get(HeadRef(head, pointer.active))
        if version.manifest != pointer.manifest:
            raise CorruptError(
                f"find the active version of {head!r}",
                f"version {pointer.active} is not the one that was promoted: its manifest has another digest",
                "Restore the version from a copy.",
            )
        return version

    def active_number(self, head: str) -> int | None:
        """Return the number of the active version, or None if none was ever promoted."""
        self._numbers(head)
        pointer = self.store.pointer(layout.HEADS, head)
        return pointer.active if pointer else None

    def promote(self, head: str, number: int, *, reason: str = "") -> VersionRecord:
        """Make a version the active one: all of it is read and checked first, then one file changes the world.

        Promoting the version that is active already checks it and changes nothing, so that it stays clear which
        version was active before.

        Args:
            head: Name of the head.
            number: Number of the version.
            reason: Why, for the history.

        Raises:
            NotFoundError: If there is no such version.
            CorruptError: If any of its files is damaged; the active version stays.
            ConflictError: If another process promoted at the same moment.

        """
        self._numbers(head)
        pointer = self.store.pointer(layout.HEADS, head)
        version = self.get(HeadRef(head, number))
        self.tensors(version)
        if pointer and pointer.active == number:
            return version
        generation = pointer.generation if pointer else 0
        self.store.point(layout.HEADS, head, number, expected=generation, at=utc_now(), reason=reason)
        return version

    def tensors(self, version: VersionRecord) -> dict[str, RawTensor]:
        """Read the weights of a version, checked byte for byte and against the record's digest.

        Raises:
            CorruptError: If they are not what was published.

        """
        manifest = self.store.manifest(layout.HEADS, version.head, version.number)
        data = self.store.read(manifest, layout.TENSORS)
        return artifacts.decode_weights(data, version.record.tensors, f"the weights of {version.head}@{version.number}")

    def _numbers(self, head: str) -> list[int]:
        check_name(head)
        numbers = self.store.numbers(layout.HEADS, head)
        if not numbers:
            known = self.store.names(layout.HEADS)
            raise NotFoundError(
                f"find head {head!r}", f"the store {self.store.root} has no such head", near_matches(head, known)
            )
        return numbers


def _version_record(manifest: Manifest, record: HeadRecord) -> VersionRecord:
    return VersionRecord(
        head=manifest.name,
        number=manifest.version,
        created_at=manifest.created_at,
        manifest=manifest.digest,
        files=manifest.files,
        record=record,
    )
