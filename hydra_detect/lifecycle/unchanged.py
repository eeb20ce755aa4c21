"""Proof that a training changed nothing but its own head: digests before and after, of bytes, not of promises."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from hydra_detect.codec import Record
from hydra_detect.errors import NotFoundError, TrainingError
from hydra_detect.names import Digest, HeadRef
from hydra_detect.nets.state import raw_tensors
from hydra_detect.storage import files, heads
from hydra_detect.tensors import tensors_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.nets.backbones import Backbone
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store


@attrs.frozen(kw_only=True)
class Unchanged(Record):
    """What was seen to be the same before and after a training.

    Args:
        backbone: Digest of the backbone's weights and buffers in memory.
        heads: Versions of the other heads, all of them, each file of which was hashed again.

    """

    backbone: Digest
    heads: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Before:
    """What has to stay as it is."""

    backbone: Digest
    others: Mapping[HeadRef, VersionRecord]


def look(store: Store, head: str, backbone: Backbone) -> Before:
    """Note the digest of the backbone, and every version of every other head, hashed once.

    Raises:
        CorruptError: If an active one is damaged already: nobody shall learn for hours to hear of it. One that nobody
            uses may be; it is not looked at again.

    """
    others = {}
    for name in heads.names(store):
        item = store.head(name)
        for number in item.numbers() if name != head else ():
            with contextlib.nullcontext() if number == item.pointer().active else files.unless_damaged():
                version = heads.find(store, HeadRef(name, number))
                _check_files(store, version)
                others[version.ref] = version
    return Before(backbone=digest_of(backbone), others=others)


def check(store: Store, before: Before, backbone: Backbone) -> Unchanged:
    """See that all of it is as it was.

    Raises:
        TrainingError: If the backbone is not.
        CorruptError: If a file of another head is not.

    """
    now = digest_of(backbone)
    if now != before.backbone:
        raise TrainingError(
            "finish the training",
            f"the frozen backbone changed: its digest was {before.backbone.short} and is {now.short}",
            "Report this: it is a defect of ours, or of a loss or augmentation of yours. No version was made.",
        )
    seen = []
    for ref, version in before.others.items():
        try:
            _check_files(store, version)
        except NotFoundError:  # pruned or removed meanwhile by somebody else, which is his right
            continue
        seen.append(str(ref))
    return Unchanged(backbone=now, heads=tuple(seen))


def _check_files(store: Store, version: VersionRecord) -> None:
    for name in version.files:
        store.head(version.head).check(version, name)


def digest_of(backbone: Backbone) -> Digest:
    """Return the digest of a backbone's weights and buffers as they are in memory."""
    return tensors_digest(raw_tensors(backbone.network.state_dict()))
