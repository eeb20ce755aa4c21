"""Renaming and removing a head.

A name is used once: what `owl@3` meant it means for ever, so a renamed or removed head leaves its name, its numbers
and its history behind. The versions get new manifests under the new name, since a manifest names its own place; the
files themselves are linked, not copied.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import ConflictError, CorruptError, StaleError
from hydra_detect.names import check_name
from hydra_detect.storage import changes, files, heads, layout, manifests, owners, pointers, references

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra_detect.names import Digest
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.layout import ItemLayout
    from hydra_detect.storage.manifests import Manifest
    from hydra_detect.storage.pointers import Change, Pointer
    from hydra_detect.storage.store import Store

# Of file systems that have no links, or no more for this file; any other error is one.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def remove(store: Store, head: str, *, actor: str, reason: str = "", dry_run: bool = False) -> list[int]:
    """Take all versions of a head away; its history stays, and its numbers are never given out again.

    Returns:
        The numbers of its versions.

    Raises:
        NotFoundError: If there is no such head.
        ConflictError: If a version is pinned, or a compact head leans on one.
        CorruptError: If a manifest is damaged.

    """
    item = heads.there(store, head)

    def plan(before: Pointer) -> list[int]:
        changes.check_unpinned(f"remove head {head!r}", before)
        references.check_free(item, f"remove head {head!r}")
        return [changes.remember(item, number).version for number in heads.there(store, head).numbers()]

    def step(before: Pointer) -> list[int]:
        numbers = plan(before)
        change = changes.change(pointers.REMOVED, actor=actor, reason=reason)
        changes.take_away(item, before, numbers, after={"active": None, "manifest": None}, change=change)
        return numbers

    return item.steady(plan) if dry_run else item.settled(step)


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
    item, target = heads.there(store, head), store.head(new)
    change = changes.change(pointers.RENAMED, actor=actor, reason=reason, other=new)
    with item.changing():
        before = item.pointer()
        changes.check_unpinned(asked, before)
        numbers = heads.there(store, head).numbers()
        if before.active:  # what is not the version that was promoted would become so under the new name
            heads.find(store, head)
        if not _is_begun(item, target, before, numbers):
            _publish(item, target, before, attrs.evolve(change, other=head), asked=asked)
        try:
            with files.begun(f"Run it again, which finishes it: so far {new!r} is there as well."):
                for number in numbers:  # nothing is taken away before it was seen whole where it went
                    _check_arrived(item, target, number)
                changes.take_away(item, before, numbers, after={"active": None, "manifest": None}, change=change)
        except StaleError:
            found = f"another process changed {head!r} meanwhile; {new!r} is what it was before"
            raise ConflictError(asked, found, f"Remove one of the two: {head!r} is the later one.") from None


def _check_arrived(item: Item, target: Item, number: int) -> None:
    """See that a version lies under its new name as it lies under the old one.

    Raises:
        NotFoundError: If it is not there.
        CorruptError: If files are missing or have other sizes.

    """
    asked = f"rename head {item.name!r} to {target.name!r}"
    arrived, left = (one.manifest(number) for one in (target, item))
    with files.unless_damaged():
        for path, (size, _digest) in left.files.items():
            files.check_size(target.place.version(number) / path, size, asked=asked)
        if arrived.files == left.files:
            return
    remedy = f"Remove {target.name!r}; {item.name!r} is as it was."
    raise CorruptError(asked, f"{target.name}@{number} is not whole", remedy)


def _is_begun(item: Item, target: Item, before: Pointer, numbers: Sequence[int]) -> bool:
    """Whether an earlier call was stopped between its two steps, and everything is under the new name as well.

    A version that was published under the old name since is not, and must not be taken away.
    """
    there = target.pointer()
    change = there.change
    if not change or (there.generation, change.what, change.other) != (1, pointers.RENAMED, item.name):
        return False
    if (there.active, there.earlier) != (before.active, before.earlier) or not set(numbers) <= set(target.numbers()):
        return False
    return all(_facts(item.manifest(number)) == _facts(target.manifest(number)) for number in numbers)


def _facts(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest says beside its place."""
    return {
        "listing": manifest.files,
        "created_at": manifest.created_at,
        "actor": manifest.actor,
        "parent": manifest.parent,
        "unknown": manifest.unknown,
    }


def _publish(item: Item, target: Item, before: Pointer, change: Change, *, asked: str) -> None:
    """Make the whole head under its new name aside, then put it in place with one rename."""
    store, place = item.store, target.place
    if files.exists(place.root, asked):
        raise _taken(item, target, asked)
    stage = layout.ItemLayout(store.layout.staging / owners.staging_name())
    with files.explained(asked):
        files.make_branch(store.disk, store.root, store.layout.staging, place.root.parent)
        try:
            digests = _stage(item, target, stage)
            active = digests[before.active] if before.active else None
            # What was published or claimed since the last change is behind it too: history begins there.
            high = max([before.high, *item.place.claimed_numbers(), *digests])
            first = attrs.evolve(before, generation=1, manifest=active, gone=(), high=high, change=change)
            files.write_new(store.disk, stage.pointer(1), pointers.text(place, first), mode=0o444)
            for folder in (stage.versions, stage.pointers, stage.root):
                store.disk.sync_folder(folder)
            for number in item.place.claimed_numbers():
                files.claim(store.disk, stage.claim(number))
            if files.exists(place.root, asked) or not _put(store, stage, place):  # POSIX would replace an empty folder
                raise _taken(item, target, asked)
        finally:
            files.discard(store.disk, stage.root)


def _put(store: Store, stage: ItemLayout, place: ItemLayout) -> bool:
    """Give a finished head its place, unless somebody took it meanwhile; return whether it has it."""
    try:
        store.disk.rename(stage.root, place.root)  # synced with the next change, before its own commit point
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def _taken(item: Item, target: Item, asked: str) -> ConflictError:
    """Return the error that says that a name cannot be given to a head, and why."""
    place = target.place
    if place.claimed_numbers() or place.version_numbers() or place.pointer_generations():
        found = f"the name {target.name!r} is in use, or was: its numbers mean its own versions for ever"
        remedy = f"Choose another name; if a renaming of {item.name!r} was cut off, both names have it: remove one."
    else:  # of a creation that has not come so far yet, or never will
        found, remedy = f"{place.root} is there already", "If nobody is creating that head, move it away."
    return ConflictError(asked, found, remedy)


def _stage(item: Item, target: Item, stage: ItemLayout) -> dict[int, Digest]:
    """Write the folders of the versions under the new name; return the digests of their manifests."""
    disk = item.disk
    for folder in (stage.root, stage.claims, stage.versions, stage.pointers):
        disk.make_folder(folder)
    digests = {}
    for number in item.numbers():
        manifest = item.manifest(number)
        folder = stage.version(number)
        disk.make_folder(folder)
        for path in manifest.files:
            _link(item, manifest, path, folder / path)
        text = manifests.text(layout.HEADS, target.name, number, **_facts(manifest))
        files.write_new(disk, folder / layout.MANIFEST, text, mode=0o444)
        disk.sync_folder(folder)
        digests[number] = files.sha256(text)
    return digests


def _link(item: Item, manifest: Manifest, path: str, target: Path) -> None:
    """Link a file, or copy it where the file system has no links; what is damaged is not copied."""
    here, asked = item.place.version(manifest.number) / path, f"link {path} of {item.name}@{manifest.number}"
    files.check_size(here, manifest.files[path][0], asked=asked)  # before the new name is taken for ever
    try:
        item.disk.link(here, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        files.write_new(item.disk, target, item.read(manifest, path), mode=0o444)
