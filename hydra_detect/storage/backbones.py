"""Backbones in a store: published once under a name, never replaced.

A backbone has one content for ever, because every head beside it was made for exactly these weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.errors import (
    ConflictError,
    HydraDetectError,
    IncompatibleError,
    NotFoundError,
    listed,
    near_matches,
)
from hydra_detect.records import BackboneRecord, utc_now
from hydra_detect.storage import artifacts, changes, files, layout, manifests, pointers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.manifests import Manifest
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_BEGUN = "Run it again, which finishes it: so far the backbone has been written, and is not yet the one of its name."


@attrs.frozen
class StoredBackbone:
    """A backbone as it lies in a store: its facts, and the manifest that proves its files.

    `is_new` is true only where it was published just now.
    """

    name: str
    record: BackboneRecord
    manifest: Manifest
    is_new: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors' file on disk."""
        return self.manifest.files[layout.TENSORS][0]


def names(store: Store) -> list[str]:
    """Return the names of the backbones in a store, sorted."""
    return store.names(layout.BACKBONES)


def only(store: Store) -> str:
    """Return the name of a store's one backbone.

    Raises:
        NotFoundError: If there is none, or it is not clear which is meant.

    """
    there = names(store)
    if len(there) == 1:
        return there[0]
    found = f"the store has several: {listed(there)}" if there else "the store has none"
    remedy = "Say which one with backbone=NAME (--backbone NAME)." if there else "Split an original into it first."
    raise NotFoundError("choose the backbone", found, remedy)


def find(store: Store, name: str) -> StoredBackbone:
    """Return a backbone by name.

    Raises:
        NotFoundError: If there is none; the message says which come near.
        CorruptError: If its pointer, manifest or record is damaged.

    """
    item = store.backbone(name)
    found, asked = _active(item, item.pointer()), f"find backbone {name!r}"
    if found:
        return found
    if item.numbers():
        problem = "it was written, and its name not given to it: whoever did so was stopped"
        raise NotFoundError(asked, problem, "Put it into the store again, which finishes it.")
    raise NotFoundError(asked, f"the store {store.root} has no such backbone", near_matches(name, names(store)))


def _active(item: Item, state: Pointer) -> StoredBackbone | None:
    return None if state.active is None else _find(item, state.active)


def _find(item: Item, number: int) -> StoredBackbone:
    manifest = item.manifest(number)
    manifests.listed_size(manifest, layout.TENSORS, f"read backbone {item.name!r}")
    data = item.read(manifest, layout.RECORD)
    return StoredBackbone(
        item.name, codec.decode(BackboneRecord, data, f"the record of backbone {item.name!r}"), manifest
    )


def tensors(store: Store, backbone: StoredBackbone) -> dict[str, RawTensor]:
    """Read the weights of a backbone.

    Raises:
        CorruptError: If they are not what was published.

    """
    data = store.backbone(backbone.name).read(backbone.manifest, layout.TENSORS)
    return artifacts.decode_weights(data, backbone.record.contract.digest, f"the weights of backbone {backbone.name!r}")


def check_holds(store: Store, contract: BackboneContract, asked: str) -> None:
    """See that a store has a backbone that a head was made on, weights and settings.

    Raises:
        IncompatibleError: If it has none; the message says in what those that it has differ.
        CorruptError: If it has none, and one that cannot be read.

    """
    differences, unread = [], None
    for name in names(store):
        try:
            own = find(store, name).record.contract.differences(contract)
        except NotFoundError:  # published, and not yet made the one of its name
            continue
        except HydraDetectError as error:
            unread = error
            continue
        if not own:
            return
        differences.append(f"{name} ({'; '.join(own)})")
    if unread:
        raise unread
    found = (
        f"the store's differ from it (stored against given): {listed(differences)}" if differences else "it has none"
    )
    raise IncompatibleError(
        asked, f"the store has no backbone that it was made on: {found}", "Put that backbone into the store first."
    )


def is_taken(store: Store, name: str) -> bool:
    """Whether a name belongs to a backbone, be it a damaged one; what is published and not yet named has none."""
    with files.unless_damaged():
        return store.backbone(name).pointer().active is not None
    return True


def check_free(store: Store, name: str, record: BackboneRecord) -> StoredBackbone | None:
    """Return the backbone of this name if it is the same one, None if the name is free.

    Raises:
        ConflictError: If the name belongs to another backbone; the message says in what they differ.

    """
    item = store.backbone(name)
    return _same(item, item.pointer(), record)


def _same(item: Item, state: Pointer, record: BackboneRecord) -> StoredBackbone | None:
    present = _active(item, state)
    differences = present.record.contract.differences(record.contract) if present else ()
    if differences:
        raise ConflictError(
            f"put this backbone into the store as {item.name!r}",
            f"that name belongs to another one (stored against given): {'; '.join(differences)}",
            "Give this one a name of its own (--backbone NAME), or the settings of the stored one if only they differ.",
            differences=differences,
        )
    return present


def publish(store: Store, name: str, record: BackboneRecord, weights: Mapping[str, RawTensor]) -> StoredBackbone:
    """Put a backbone into the store, or return the equal one that is there.

    Raises:
        ConflictError: If the name belongs to another backbone.
        CorruptError: If the weights are not finite, or not those that the record names; or the equal one is damaged.
        StoreError: If the disk is full or not writable.

    """
    item = store.backbone(name)
    tensors_file = artifacts.encode_weights(weights, record.tensors, f"put backbone {name!r} into the store")
    contents = {layout.TENSORS: tensors_file, layout.RECORD: codec.encode(record)}

    def step(before: Pointer) -> StoredBackbone:
        present = _same(item, before, record)
        if present:
            for path in present.manifest.files:
                item.check(present.manifest, path)
            item.confirm()
            return present
        # A call that was stopped between its two steps is finished, not repeated.
        manifest = _published(item, record) or item.publish(contents, created_at=utc_now(), actor=changes.by(""))
        number, digest = manifest.number, manifest.digest
        change = changes.change(pointers.PROMOTED, version=number, manifest=digest, reason="first of its name")
        with files.begun(_BEGUN):
            item.swap(before, {"active": number, "manifest": digest}, change)
        return StoredBackbone(name, record, manifest, is_new=True)

    return item.settled(step)


def _published(item: Item, record: BackboneRecord) -> Manifest | None:
    """Return a version that is whole and holds this backbone, if there is one already."""
    for number in item.numbers():
        with files.unless_damaged():
            found = _find(item, number)
            if not found.record.contract.differences(record.contract):
                tensors(item.store, found)
                return found.manifest
    return None
