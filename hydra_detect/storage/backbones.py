"""Backbones in a store: published once under a name, never replaced.

A backbone has one version for ever, because every head beside it was made for exactly these weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.errors import ConflictError, NotFoundError, listed, near_matches
from hydra_detect.names import check_name
from hydra_detect.records import BackboneRecord, utc_now
from hydra_detect.storage import artifacts, layout, owners, pointers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.storage.artifacts import Manifest
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor


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
    remedy = "Say which one with backbone=NAME." if there else "Split an original into it first."
    raise NotFoundError("choose the backbone", found, remedy)


def find(store: Store, name: str) -> StoredBackbone:
    """Return a backbone by name.

    Raises:
        NotFoundError: If there is none; the message says which come near.
        CorruptError: If its pointer, manifest or record is damaged.

    """
    check_name(name, "backbone")
    pointer = store.pointer(layout.BACKBONES, name)
    if pointer.active is None:
        raise NotFoundError(
            f"find backbone {name!r}",
            f"the store {store.root} has no such backbone",
            near_matches(name, names(store)),
        )
    manifest = store.manifest(layout.BACKBONES, name, pointer.active)
    record = codec.decode(BackboneRecord, store.read(manifest, layout.RECORD), f"the record of backbone {name!r}")
    artifacts.check_lists(manifest, layout.TENSORS)
    return StoredBackbone(name, record, manifest)


def tensors(store: Store, backbone: StoredBackbone) -> dict[str, RawTensor]:
    """Read the weights of a backbone.

    Raises:
        CorruptError: If they are not what was published.

    """
    data = store.read(backbone.manifest, layout.TENSORS)
    return artifacts.decode_weights(data, backbone.record.contract.digest, f"the weights of backbone {backbone.name!r}")


def check_free(store: Store, name: str, record: BackboneRecord) -> StoredBackbone | None:
    """Return the backbone of this name if it is the same one, None if the name is free.

    Raises:
        ConflictError: If the name belongs to another backbone; the message says in what they differ.

    """
    if store.pointer(layout.BACKBONES, name).active is None:
        return None
    present = find(store, name)
    differences = present.record.contract.differences(record.contract)
    if differences:
        raise ConflictError(
            f"put this backbone into the store as {name!r}",
            f"that name belongs to another one (stored against given): {'; '.join(differences)}",
            "Give this one a name of its own (--backbone NAME), or the settings of the stored one if only they differ.",
            differences=differences,
        )
    return present


def publish(store: Store, name: str, record: BackboneRecord, weights: Mapping[str, RawTensor]) -> StoredBackbone:
    """Put a backbone into the store, or return the equal one that is there.

    Raises:
        ConflictError: If the name belongs to another backbone.
        StoreError: If the disk is full or not writable; nothing is left behind.

    """
    check_name(name, "backbone")
    with store.changing(layout.BACKBONES, name):
        present = check_free(store, name, record)
        if present:
            return present
        contents = {layout.TENSORS: artifacts.encode_tensors(weights), layout.RECORD: codec.encode(record)}
        who = owners.actor()
        manifest = store.publish(layout.BACKBONES, name, contents, created_at=utc_now(), actor=who)
        first = {"event": pointers.PROMOTED, "version": manifest.version, "active": manifest.version}
        facts = {"manifest": manifest.digest, "at": utc_now(), "actor": who, "reason": "first of its name"}
        store.swap(layout.BACKBONES, name, store.pointer(layout.BACKBONES, name), {**first, **facts})
    return StoredBackbone(name, record, manifest, is_new=True)
