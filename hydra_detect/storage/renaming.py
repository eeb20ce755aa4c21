"""Renaming and removing a head.

A name is used once: what `owl@3` meant it means for ever, so a renamed or removed head leaves its name, its numbers
and its history behind. The versions get new manifests under the new name, since a manifest names its own place; the
files themselves are linked, not copied.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import attrs

from hydra_detect.errors import ConflictError, CorruptError, StaleError
from hydra_detect.names import check_name
from hydra_detect.records import utc_now
from hydra_detect.storage import artifacts, changes, files, heads, layout, owners, pointers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra_detect.names import Digest
    from hydra_detect.storage.layout import ItemLayout
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store


def remove(store: Store, head: str, *, actor: str, reason: str = "") -> None:
    """Take all versions of a head away; its history stays, and its numbers are never given out again.

    Raises:
        NotFoundError: If there is no such head.
        ConflictError: If a version is pinned.
        CorruptError: If a manifest is damaged: evidence is never deleted.

    """

    def step(before: Pointer) -> None:
        numbers = heads.numbers(store, head)
        changes.check_unpinned(f"remove head {head!r}", before)
        after = {"event": pointers.REMOVED, "active": None, "manifest": None}
        changes.take_away(store, head, before, numbers, after=after, actor=actor, reason=reason)

    heads.numbers(store, head)
    changes.settled(store, head, step)


def rename(store: Store, head: str, new: str, *, actor: str, reason: str = "") -> None:
    """Give a head another name: versions, numbers, what is active and what can be rolled back to stay as they are.

    Called again after a crash, it finishes what it began.

    Raises:
        NotFoundError: If there is no such head.
        ConflictError: If the new name was ever used, a version is pinned, or another process changed the head
            meanwhile; then both names have it, and the message says so.
        CorruptError: If a manifest is damaged.

    """
    asked = f"rename head {check_name(head)!r} to {check_name(new)!r}"
    heads.numbers(store, head)
    with store.changing(layout.HEADS, head):
        before = store.pointer(layout.HEADS, head)
        changes.check_unpinned(asked, before)
        numbers = heads.numbers(store, head)
        if before.active:  # what is not the version that was promoted would become so under the new name
            heads.find(store, head)
        if not _is_begun(store, head, new, before, numbers):
            _publish(store, head, new, before, actor=actor, reason=reason, asked=asked)
        for number in numbers:  # nothing is taken away before it was seen whole where it went
            _check_arrived(store, head, new, number)
        after = {"event": pointers.RENAMED, "active": None, "manifest": None, "other": new}
        try:
            with files.begun(f"Run it again, which finishes it: so far {new!r} is there as well."):
                changes.take_away(store, head, before, numbers, after=after, actor=actor, reason=reason)
        except StaleError:
            found = f"another process changed {head!r} meanwhile; {new!r} is what it was before"
            raise ConflictError(asked, found, f"Remove one of the two: {head!r} is the later one.") from None


def _check_arrived(store: Store, head: str, new: str, number: int) -> None:
    """See that a version lies under its new name as it lies under the old one.

    Raises:
        NotFoundError: If it is not there.
        CorruptError: If files are missing or have other sizes.

    """
    arrived, left = (store.manifest(layout.HEADS, name, number) for name in (new, head))
    folder = store.layout.item(layout.HEADS, new).version(number)
    sizes = {path: (folder / path).stat().st_size for path in arrived.files if (folder / path).is_file()}
    if arrived.files != left.files or sizes != {path: size for path, (size, _digest) in left.files.items()}:
        raise CorruptError(
            f"rename head {head!r} to {new!r}",
            f"{new}@{number} is not whole",
            f"Remove {new!r}; {head!r} is as it was.",
        )


def _is_begun(store: Store, head: str, new: str, before: Pointer, numbers: Sequence[int]) -> bool:
    """Whether an earlier call was stopped between its two steps, and everything is under the new name as well.

    A version that was published under the old name since is not, and must not be taken away.
    """
    there = store.pointer(layout.HEADS, new)
    if (there.generation, there.event, there.other) != (1, pointers.RENAMED, head):
        return False
    if (there.active, there.earlier) != (before.active, before.earlier):
        return False
    if not set(numbers) <= set(store.numbers(layout.HEADS, new)):
        return False
    pairs = ([store.manifest(layout.HEADS, name, number) for name in (head, new)] for number in numbers)
    return all((one.created_at, one.files) == (other.created_at, other.files) for one, other in pairs)


def _publish(store: Store, head: str, new: str, before: Pointer, *, actor: str, reason: str, asked: str) -> None:
    """Make the whole head under its new name aside, then put it in place with one rename."""
    source, target = (store.layout.item(layout.HEADS, name) for name in (head, new))
    taken = ConflictError(
        asked, f"the name {new!r} is in use, or was: its numbers mean its own versions for ever", "Choose another name."
    )
    if os.path.lexists(target.root):
        raise taken
    stage = layout.ItemLayout(store.layout.staging / owners.staging_name())
    with files.explained(asked):
        for folder in (store.layout.staging, target.root.parent):
            files.make_branch(store.disk, store.root, folder)
        try:
            digests = _stage(store, head, new, stage)
            first = attrs.evolve(
                before,
                generation=1,
                event=pointers.RENAMED,
                version=None,
                manifest=digests[before.active] if before.active else None,
                gone=(),
                taken=(),
                other=head,
                at=utc_now(),
                actor=actor,
                reason=reason,
            )
            text = pointers.text(first, of=pointers.owner_of(target))
            files.write_new(store.disk, stage.pointer(1), text, mode=0o444)
            for folder in (stage.versions, stage.pointers, stage.root):
                store.disk.sync_folder(folder)
            for number in source.claimed_numbers():
                files.claim(store.disk, stage.claim(number))
            _put(store, stage, target, taken)
        finally:
            files.discard(store.disk, stage.root)


def _put(store: Store, stage: ItemLayout, target: ItemLayout, taken: ConflictError) -> None:
    """Give a finished head its place, unless somebody took it meanwhile."""
    if os.path.lexists(target.root):  # POSIX would replace an empty folder
        raise taken
    try:
        store.disk.rename(stage.root, target.root)  # synced before the next step, as every folder above a pointer
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            raise taken from None
        raise


def _stage(store: Store, head: str, new: str, stage: ItemLayout) -> dict[int, Digest]:
    """Write the folders of the versions under the new name; return the digests of their manifests."""
    for folder in (stage.root, stage.claims, stage.versions, stage.pointers):
        store.disk.make_folder(folder)
    digests = {}
    for number in heads.numbers(store, head):
        manifest = store.manifest(layout.HEADS, head, number)
        folder = stage.version(number)
        store.disk.make_folder(folder)
        for path in manifest.files:
            _link(store, store.layout.item(layout.HEADS, head).version(number) / path, folder / path)
        text = artifacts.make_manifest(
            layout.HEADS,
            new,
            number,
            listing=manifest.files,
            created_at=manifest.created_at,
            actor=manifest.actor,
        )
        files.write_new(store.disk, folder / layout.MANIFEST, text, mode=0o444)
        store.disk.sync_folder(folder)
        digests[number] = files.sha256(text)
    return digests


def _link(store: Store, path: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        store.disk.link(path, target)
    except OSError:
        data = files.read_whole(path, limit=artifacts.MAX_TENSORS_BYTES, asked=f"copy {path}")
        files.write_new(store.disk, target, data, mode=0o444)
