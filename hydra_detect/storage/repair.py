"""Repairing a store: set damage aside, go back to what is sound, and say so in the history.

Nothing is deleted but what is derived or was never named: damaged versions, pointers and strangers' files go to a
`quarantine` folder. A repair may be stopped at any point and run again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import ConflictError, HydraDetectError, StaleError
from hydra_detect.records import utc_now
from hydra_detect.storage import check, files, layout, owners, pointers
from hydra_detect.storage.pointers import Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hydra_detect.records import BackboneRecord, HeadRecord
    from hydra_detect.storage.check import CheckReport, Finding
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_LONGEST_NAME = 40  # of what is set aside: with whose and when behind it, no longer than a file name may be
_AGAIN = "Run it again; what was mended stays mended."
_STATE = frozenset([check.VERSION, check.POINTER, check.STATE, check.GAP])


def repair(
    store: Store,
    found: CheckReport,
    *,
    actor: str,
    build: Callable[[BackboneRecord | HeadRecord, Mapping[str, RawTensor]], object] | None = None,
) -> CheckReport:
    """Mend what a check found, and check again.

    Args:
        store: The store.
        found: The report of `check.check`.
        actor: Who repairs, for the history.
        build: As for `check.check`.

    Returns:
        What is left, and what was mended.

    Raises:
        ConflictError: If another process changes a head while it is repaired.
        StoreError: If the disk is full or not writable.

    """
    store.check_writable(f"repair the store {store.root}")
    if not found.findings:
        return found
    mended = []
    with files.begun(_AGAIN), files.explained(f"repair the store {store.root}", _AGAIN):
        for finding in found.findings:
            if not finding.name:
                mended += _mend_top(store, finding)
        belonging = [finding for finding in found.findings if finding.name]
        for (kind, name), group in itertools.groupby(belonging, key=lambda finding: (finding.kind, finding.name)):
            mended += _mend_item(store, kind, name, list(group), actor)
    after = check.check(store, depth=found.depth, build=build)
    return attrs.evolve(after, mended=tuple(mended))


def _mend_top(store: Store, finding: Finding) -> list[str]:
    path = store.root / finding.path
    if finding.what == check.LEFTOVER or (finding.what == check.INDEX and path.is_file()):
        files.discard(store.disk, path)
        return [f"{finding.path} was removed"]
    if finding.what in {check.PLACE, check.INDEX}:
        return [_set_aside(store, path, store.layout.quarantine)]
    return []


def _mend_item(store: Store, kind: str, name: str, findings: Sequence[Finding], actor: str) -> list[str]:
    """Mend one backbone or head: places first, then versions, then the pointer, damaged generations last."""
    if any(finding.what == check.REFUSED for finding in findings):
        return []  # what cannot be read may be sound: nothing is decided without it
    item = store.layout.item(kind, name)
    by_what = {what: [finding for finding in findings if finding.what == what] for what in _all(findings)}
    places = by_what.get(check.PLACE, [])
    mended = [_set_aside(store, store.root / finding.path, store.layout.quarantine) for finding in places]
    if item.root.is_symlink() or not item.root.is_dir():
        return mended
    with store.changing(kind, name):  # which clears leftovers and finishes what was begun
        mended += [f"{f.path} was removed" for f in findings if f.what in {check.LEFTOVER, check.UNFINISHED}]
        for finding in by_what.get(check.EXTRA, []):
            mended.append(_set_aside(store, store.root / finding.path, item.quarantine))
        damaged = [finding.number or 0 for finding in by_what.get(check.VERSION, [])]
        taken = tuple(_remember(store, kind, name, number) for number in damaged)
        mended += [_set_aside(store, item.version(number), item.quarantine) for number in damaged]
        for finding in by_what.get(check.CLAIM, []):
            files.make_branch(store.disk, store.root, item.claims)
            with contextlib.suppress(FileExistsError):
                files.claim(store.disk, item.claim(finding.number or 0))
            mended.append(f"{finding.path} was claimed again")
        if _STATE.intersection(by_what):
            lost = len([*by_what.get(check.POINTER, []), *by_what.get(check.GAP, [])])
            mended += _mend_pointer(store, kind, name, actor, lost=lost, taken=taken)
        for finding in by_what.get(check.POINTER, []):
            mended.append(_set_aside(store, store.root / finding.path, item.quarantine))
    return mended


def _all(findings: Sequence[Finding]) -> set[str]:
    return {finding.what for finding in findings}


def _remember(store: Store, kind: str, name: str, number: int) -> Taken:
    """Return what history is to remember of a version that is set aside, as far as it can be read."""
    try:
        manifest = store.manifest(kind, name, number)
    except HydraDetectError:
        return Taken(version=number)
    return Taken(version=number, created_at=manifest.created_at, actor=manifest.actor, manifest=manifest.digest)


def _mend_pointer(store: Store, kind: str, name: str, actor: str, *, lost: int, taken: tuple[Taken, ...]) -> list[str]:
    """Write a new generation that names only what is there; none if the newest is whole and true already."""
    item = store.layout.item(kind, name)
    known = pointers.intact(item, name)
    generations = item.pointer_generations()
    if not generations and not taken:
        return []
    last = known[-1] if known else pointers.NOTHING
    after = _sound_state(store, kind, name, last)
    if not lost and not taken and all(getattr(last, field) == value for field, value in after.items()):
        return []
    reason = _reason(last, after, lost=lost, taken=taken)
    before = attrs.evolve(last, generation=max([0, *generations]))
    facts = {"event": pointers.REPAIRED, "version": after["active"], "at": utc_now(), "actor": actor, "reason": reason}
    try:
        store.swap(kind, name, before, {**after, **facts, "taken": taken})
    except StaleError as error:
        raise ConflictError(f"repair {name!r}", error.found, "Run the repair again.") from None
    return [f"{kind}/{name}: {reason}"]


def _sound_state(store: Store, kind: str, name: str, last: Pointer) -> dict[str, Any]:
    """Return the state that comes nearest to the last one with what can still be read."""
    item = store.layout.item(kind, name)
    digests = {}
    for number in item.version_numbers():
        if number not in last.gone:
            try:
                digests[number] = store.manifest(kind, name, number).digest
            except HydraDetectError as error:
                if files.is_refusal(error):
                    raise
    earlier = [number for number in last.earlier if number in digests]
    active = last.active if last.active in digests else None
    if active and digests[active] != last.manifest:
        active = None
    if active is None and last.active is not None and earlier:
        active = earlier.pop()
    if active is None and kind == layout.BACKBONES and digests:  # all its versions are the same weights
        active = max(digests)
    return {
        "active": active,
        "manifest": digests[active] if active else None,
        "earlier": pointers.steps_back(earlier, active),
        "pins": tuple(pin for pin in last.pins if pin.version in digests),
    }


def _reason(last: Pointer, after: Mapping[str, Any], *, lost: int, taken: tuple[Taken, ...]) -> str:
    reasons = [f"set aside as damaged: version {version.version}" for version in taken]
    reasons += [f"generations of the pointer damaged or missing: {lost}"] if lost else []
    if last.active != after["active"]:
        now = f"version {after['active']} is active again" if after["active"] else "none is active: promote one"
        reasons.append(f"version {last.active} is damaged or missing; {now}" if last.active else now)
    return "; ".join(reasons) or "what was damaged or missing is no longer named"


def _set_aside(store: Store, path: Path, quarantine: Path) -> str:
    """Move something to a quarantine folder under a name of its own; say what was done."""
    where = path.relative_to(store.root).as_posix()
    if not os.path.lexists(path):
        return f"{where} was gone already"
    aside = f"{path.name[:_LONGEST_NAME]}.{owners.staging_name()}"
    if path == quarantine:  # what stands in its place cannot go into it
        target = path.with_name(aside)
    else:
        files.make_branch(store.disk, store.root, quarantine)
        target = quarantine / aside
    store.disk.rename(path, target)
    store.disk.sync_folder(target.parent)  # a rename is one thing: where it arrived, it has also left
    return f"{where} was moved to {target.relative_to(store.root).as_posix()}"
