"""Heads in a store: many versions under a name, each read whole and checked before it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect import codec
from hydra_detect.errors import CorruptError, NotFoundError, listed_numbers, near_matches
from hydra_detect.names import HeadRef
from hydra_detect.records import HeadRecord, VersionRecord
from hydra_detect.storage import artifacts, layout, manifests, pointers

if TYPE_CHECKING:
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.manifests import Manifest
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor


def names(store: Store) -> list[str]:
    """Return the names of the heads in a store, sorted."""
    return store.names(layout.HEADS)


def there(store: Store, head: str) -> Item:
    """Return a head that has versions.

    Raises:
        NotFoundError: If there is no such head; the message says what became of it, or which come near.

    """
    item = store.head(head)
    if item.numbers():
        return item
    asked, change = f"find head {head!r}", item.pointer().change
    if change and change.what in {pointers.RENAMED, pointers.REMOVED}:
        other = f" to {change.other!r}" if change.other else ""
        remedy = f"Use {change.other!r}." if change.other else f"'hydra-detect history {head}' tells its story."
        raise NotFoundError(asked, f"it was {change.what}{other} by {change.actor} at {change.at}", remedy)
    raise NotFoundError(asked, f"the store {store.root} has no such head", near_matches(head, names(store)))


def find(store: Store, ref: str | HeadRef) -> VersionRecord:
    """Return one version: `owl@3`, or for `owl` the active one.

    Raises:
        NotFoundError: If there is no such head or version, or none is active.
        CorruptError: If its pointer, record or manifest is damaged, or the active version is not the one promoted.

    """
    ref = HeadRef.parse(ref)
    item = store.head(ref.name)
    if ref.version is not None:
        return _find(item, ref.version)
    return item.steady(lambda state: _active(item, state))


def load(store: Store, ref: str | HeadRef) -> tuple[VersionRecord, dict[str, RawTensor]]:
    """Return one version and its weights, as of one moment: if it is pruned meanwhile, the one active by then.

    Raises:
        NotFoundError: If there is no such head or version, or none is active.
        CorruptError: If any of it is damaged.

    """
    ref = HeadRef.parse(ref)
    item = store.head(ref.name)
    if ref.version is not None:
        return _loaded(item, _find(item, ref.version))
    return item.steady(lambda state: _loaded(item, _active(item, state)))


def _loaded(item: Item, version: VersionRecord) -> tuple[VersionRecord, dict[str, RawTensor]]:
    return version, tensors(item.store, version)


def _find(item: Item, number: int) -> VersionRecord:
    try:
        manifest = item.manifest(number)
    except NotFoundError:
        there(item.store, item.name)  # which says what became of the head, if anything did
        raise
    manifests.listed_size(manifest, layout.TENSORS, f"read {item.name}@{number}")
    data = item.read(manifest, layout.RECORD)
    return version_record(manifest, codec.decode(HeadRecord, data, f"the record of {item.name}@{number}"))


def _active(item: Item, state: Pointer) -> VersionRecord:
    if state.active is None:
        numbers = there(item.store, item.name).numbers()
        raise NotFoundError(
            f"find the active version of {item.name!r}",
            f"none of its versions ({listed_numbers(numbers)}) is active",
            f"Promote one: 'hydra-detect promote {item.name} {numbers[-1]}'.",
        )
    version = _find(item, state.active)
    check_is_active(version, state)
    return version


def check_is_active(version: VersionRecord, state: Pointer) -> None:
    """See that a version is the one that was promoted, not another in its place.

    Raises:
        CorruptError: If its manifest has another digest.

    """
    if not state.is_active(version.number, version.manifest):
        raise CorruptError(
            f"find the active version of {version.head!r}",
            f"version {version.number} is not the one that was promoted: its manifest has another digest",
            "Restore the version from a copy, or see 'hydra-detect store verify --repair'.",
        )


def tensors(store: Store, version: VersionRecord) -> dict[str, RawTensor]:
    """Read the weights of a version, checked byte for byte and against the record's digest.

    Raises:
        NotFoundError: If the version was pruned.
        CorruptError: If they are not what was published.

    """
    data = store.head(version.head).read(version, layout.TENSORS)
    return artifacts.decode_weights(data, version.record.tensors, f"the weights of {version.head}@{version.number}")


def whole(item: Item, number: int) -> VersionRecord:
    """Return a version after checking each of its files, byte for byte, and that it is what the history speaks of.

    Raises:
        NotFoundError: If there is no such version.
        CorruptError: If any of it is damaged, or another stands in its place.

    """
    version = _find(item, number)
    check_known(item, version)
    for path in version.files:
        item.check(version, path)
    return version


def previous(item: Item, state: Pointer) -> VersionRecord:
    """Return the version that a rollback leads to, after checking that it is the one that was active then.

    Raises:
        NotFoundError: If no version was active before.
        CorruptError: If it is damaged; the message says which one lies further back.

    """
    asked = f"roll back {item.name!r}"
    if state.previous is None:
        found = f"no version is known that was active before version {state.active}"
        found = found if state.active else "none of its versions is active"
        remedy = f"'hydra-detect versions {item.name}' shows what there is to promote."
        raise NotFoundError(asked, found, remedy)
    try:
        return whole(item, state.previous)
    except CorruptError as error:
        further = [number for number in state.earlier if number != state.previous][-1:]
        remedy = f"'hydra-detect promote {item.name} {further[0]}' goes further back; " if further else ""
        remedy += "'hydra-detect store verify --repair' sets the damaged one aside."
        raise CorruptError(asked, f"{error.asked}: {error.found}", remedy) from None


def check_known(item: Item, version: VersionRecord) -> None:
    """See that a version is the one that the history speaks of, if it speaks of it.

    Raises:
        CorruptError: If another stands in its place.

    """
    if pointers.last_digest(item.place, version.number) not in {None, version.manifest}:
        remedy = "Restore the version from a copy, or see 'hydra-detect store verify --repair'."
        raise CorruptError(f"read {version.head}@{version.number}", pointers.EXCHANGED, remedy)


def check_same(item: Item, version: VersionRecord) -> None:
    """See that a version is still there, and is still the one that was checked.

    Raises:
        NotFoundError: If it was taken away meanwhile.
        CorruptError: If another stands in its place.

    """
    if item.manifest(version.number).digest != version.manifest:
        found = "its manifest was exchanged while it was checked"
        raise CorruptError(f"read {version.head}@{version.number}", found, "See who else writes into the store.")


def version_record(manifest: Manifest, record: HeadRecord) -> VersionRecord:
    """Return what is known of a published version."""
    return VersionRecord(
        head=manifest.name,
        number=manifest.number,
        created_at=manifest.created_at,
        actor=manifest.actor,
        parent=manifest.parent,
        manifest=manifest.digest,
        files=manifest.files,
        record=record,
    )
