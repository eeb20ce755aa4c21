"""Heads in a store: many versions under a name, each read whole and checked before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect import codec
from hydra_detect.errors import ConflictError, CorruptError, NotFoundError, near_matches
from hydra_detect.names import HeadRef, check_name
from hydra_detect.records import HeadRecord, VersionRecord, utc_now
from hydra_detect.storage import artifacts, layout, owners

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.storage.artifacts import Manifest
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_MOST_TRIES = 20  # a reader that a prune overtakes looks again; more than this many prunes in a row is no accident


def names(store: Store) -> list[str]:
    """Return the names of the heads in a store, sorted."""
    return store.names(layout.HEADS)


def numbers(store: Store, head: str) -> list[int]:
    """Return the numbers of a head's versions, ascending.

    Raises:
        NotFoundError: If there is no such head; the message says which come near.

    """
    check_name(head)
    found = store.numbers(layout.HEADS, head)
    if not found:
        raise NotFoundError(
            f"find head {head!r}", f"the store {store.root} has no such head", near_matches(head, names(store))
        )
    return found


def find(store: Store, ref: str | HeadRef) -> VersionRecord:
    """Return one version: `owl@3`, or for `owl` the active one.

    Raises:
        NotFoundError: If there is no such head or version, or none is active.
        CorruptError: If its pointer, record or manifest is damaged, or the active version is not the one promoted.

    """
    ref = HeadRef.parse(ref)
    if ref.version is not None:
        return _find(store, ref.name, ref.version)
    for _ in range(_MOST_TRIES):
        pointer = store.pointer(layout.HEADS, ref.name)
        try:
            return _active(store, ref.name, pointer.active, pointer.manifest)
        except NotFoundError:
            # Taken away between the two looks: then the pointer has moved, and the new one counts.
            if store.pointer(layout.HEADS, ref.name).generation == pointer.generation:
                raise
    raise _restless(ref)


def load(store: Store, ref: str | HeadRef) -> tuple[VersionRecord, dict[str, RawTensor]]:
    """Return one version and its weights, as of one moment: if it is pruned meanwhile, the one active by then.

    Raises:
        NotFoundError: If there is no such head or version, or none is active.
        CorruptError: If any of it is damaged.

    """
    ref = HeadRef.parse(ref)
    for _ in range(_MOST_TRIES):
        version = find(store, ref)
        try:
            return version, tensors(store, version)
        except NotFoundError:
            if ref.version is not None or find(store, ref) == version:
                raise
    raise _restless(ref)


def _restless(ref: HeadRef) -> ConflictError:
    return ConflictError(f"read {ref}", f"it was replaced {_MOST_TRIES} times meanwhile", "Try again later.")


def _find(store: Store, head: str, number: int) -> VersionRecord:
    manifest = store.manifest(layout.HEADS, head, number)
    artifacts.check_lists(manifest, layout.TENSORS)
    data = store.read(manifest, layout.RECORD)
    return version_record(manifest, codec.decode(HeadRecord, data, f"the record of {head}@{number}"))


def _active(store: Store, head: str, number: int | None, promoted: object) -> VersionRecord:
    asked = f"find the active version of {head!r}"
    if number is None:
        there = numbers(store, head)
        raise NotFoundError(
            asked,
            f"none of its versions ({', '.join(map(str, there))}) is active",
            f"Promote one: 'hydra-detect promote {head} {there[-1]}'.",
        )
    version = _find(store, head, number)
    if version.manifest != promoted:
        raise CorruptError(
            asked,
            f"version {number} is not the one that was promoted: its manifest has another digest",
            "Restore the version from a copy, or see 'hydra-detect store verify --repair'.",
        )
    return version


def tensors(store: Store, version: VersionRecord) -> dict[str, RawTensor]:
    """Read the weights of a version, checked byte for byte and against the record's digest.

    Raises:
        NotFoundError: If the version was pruned.
        CorruptError: If they are not what was published.

    """
    manifest = store.manifest(layout.HEADS, version.head, version.number)
    data = store.read(manifest, layout.TENSORS)
    return artifacts.decode_weights(data, version.record.tensors, f"the weights of {version.head}@{version.number}")


def publish(store: Store, head: str, record: HeadRecord, contents: Mapping[str, bytes], *, actor: str) -> VersionRecord:
    """Publish a version of a head, not active yet.

    Raises:
        StoreError: If the disk is full or not writable; nothing is left behind.

    """
    check_name(head)
    whole = {layout.RECORD: codec.encode(record), **contents}
    manifest = store.publish(layout.HEADS, head, whole, created_at=utc_now(), actor=actor or owners.actor())
    return version_record(manifest, record)


def version_record(manifest: Manifest, record: HeadRecord) -> VersionRecord:
    """Return what is known of a published version."""
    return VersionRecord(
        head=manifest.name,
        number=manifest.version,
        created_at=manifest.created_at,
        actor=manifest.actor,
        manifest=manifest.digest,
        files=manifest.files,
        record=record,
    )
