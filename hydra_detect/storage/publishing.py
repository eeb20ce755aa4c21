"""The one gate through which a version of a head comes into a store: what is in a store was checked on this way in."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra_detect import codec
from hydra_detect.errors import ConflictError, HydraDetectError, NameInvalidError, NotFoundError, listed
from hydra_detect.records import utc_now
from hydra_detect.storage import artifacts, backbones, changes, heads, layout, pointers, references

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.records import HeadRecord, VersionRecord
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Change, Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_MOST_TRIES = 10  # of a reference that is renamed again and again meanwhile


def publish(
    store: Store,
    head: str,
    record: HeadRecord,
    weights: Mapping[str, RawTensor],
    *,
    attachments: Mapping[str, bytes],
    actor: str = "",
) -> VersionRecord:
    """Publish a version of a head, not active yet.

    Raises:
        CorruptError: If a tensor holds NaN or infinity, or the digest in the record is another.
        IncompatibleError: If the store has no backbone that the head was made on, or the reference of a compact head
            was made on another.
        NotFoundError: If the store does not have the reference of a compact head.
        ConflictError: If that was taken away meanwhile, or cannot be written to; then the version is taken away again.
        NameInvalidError: If an attachment has a name that is not allowed.
        RecordError: If record or weights could not be read again.
        StoreError: If the disk is full or not writable; nothing is left behind.

    """
    item, asked, actor = store.head(head), f"create a version of {head!r}", changes.by(actor)
    own = {
        layout.TENSORS: artifacts.encode_weights(weights, record.tensors, asked),
        layout.RECORD: codec.encode(record),
    }
    taken = own.keys() & attachments.keys()
    if taken:
        raise NameInvalidError(asked, f"attachments would replace {listed(taken)}", "Name them otherwise.")
    backbones.check_holds(store, record.backbone, asked)
    if record.compact:
        references.find(store, record, asked)
    manifest = item.publish({**own, **attachments}, created_at=utc_now(), actor=actor)
    version = heads.version_record(manifest, record)
    if record.compact:
        _lean_on(store, version, asked, actor)
    return version


def _lean_on(store: Store, version: VersionRecord, asked: str, actor: str) -> None:
    """Say at its reference that a compact version leans on it; if that cannot be, take the version away again.

    A pruning that looked before the version was there builds on a state that is another one from here on.
    """
    try:
        _say_so(store, version, asked, actor)
    except HydraDetectError as error:
        is_gone, item = isinstance(error, NotFoundError), store.head(version.head)
        reason = f"its reference {'was taken away meanwhile' if is_gone else 'could not be written to'}"
        change = changes.change(pointers.PRUNED, actor=actor, reason=reason)
        item.settled(lambda before: changes.take_away(item, before, [version.number], after={}, change=change))
        if is_gone:
            raise ConflictError(asked, reason, "Choose another reference.") from None
        raise


def _say_so(store: Store, version: VersionRecord, asked: str, actor: str) -> None:
    for _ in range(_MOST_TRIES):
        reference = references.find(store, version.record, asked)
        change = changes.change(
            pointers.REFERENCED,
            actor=actor,
            version=reference.number,
            manifest=reference.manifest,
            other=str(version.ref),
        )
        item = store.head(reference.head)

        def step(before: Pointer, item: Item = item, change: Change = change) -> None:
            item.manifest(change.version or 0)  # whoever took it away has changed the state by now
            item.swap(before, {}, change)

        with contextlib.suppress(NotFoundError):  # under another name by now, or gone: that `find` will say
            item.settled(step)
            return
    raise ConflictError(asked, f"its reference was renamed {_MOST_TRIES} times meanwhile", "Try again later.")
