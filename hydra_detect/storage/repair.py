"""Repairing a store: set damage aside, go back to what is sound, and say so in the history.

Nothing is deleted but what is derived or was never named: damaged versions, pointers and strangers' files go to a
`quarantine` folder. What is whole and only cannot be used or understood here is left alone. A repair may be stopped at
any point and run again.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import ConflictError, HydraDetectError, StaleError
from hydra_detect.storage import changes, files, findings, layout, owners, pointers
from hydra_detect.storage.pointers import Taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from hydra_detect.storage.check import Checker
    from hydra_detect.storage.findings import CheckReport, Finding
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store

_LONGEST_NAME = 40  # of what is set aside: with whose and when behind it, no longer than a file name may be
_AGAIN = "Run it again; what was mended stays mended."
_STATE = frozenset([findings.VERSION, findings.POINTER, findings.STATE, findings.GAP])


def repair(store: Store, checker: Checker, *, actor: str = "") -> CheckReport:
    """Check a store, mend what is wrong, and check again.

    Args:
        store: The store.
        checker: Who looks at it.
        actor: Who repairs, for the history.

    Returns:
        What is left, and what was mended.

    Raises:
        ConflictError: If another process changes a head while it is repaired.
        StoreError: If the disk is full or not writable.

    """
    asked = f"repair the store {store.root}"
    store.check_writable(asked)
    found = checker.run().findings
    if not found:
        return checker.run()
    with files.begun(_AGAIN), files.explained(asked, _AGAIN):
        mended = _mend_top(store, [finding for finding in found if not finding.name])
        for kind, name in dict.fromkeys((finding.kind, finding.name) for finding in found if finding.name):
            before = [finding for finding in found if (finding.kind, finding.name) == (kind, name)]
            mended += _mend_item(store.item(kind, name), before, checker, actor)
    return attrs.evolve(checker.run(), mended=tuple(mended))


def _mend_top(store: Store, found: Sequence[Finding]) -> list[str]:
    mended = []
    for finding in found:
        if finding.what == findings.PLACE:
            mended.append(_set_aside(store, store.root / finding.path, store.layout.quarantine))
        elif finding.what in {findings.INDEX, findings.LEFTOVER}:
            files.discard(store.disk, store.root / finding.path)
            mended.append(f"{finding.path} was removed")
    return mended


def _mend_item(item: Item, before: Sequence[Finding], checker: Checker, actor: str) -> list[str]:
    """Mend one backbone or head, by what is found there once nobody else can change it.

    The state comes first, as everywhere: once it names a damaged version no more, that may leave its place.
    """
    with item.changing():  # which clears leftovers and finishes what was begun
        found = checker.look_at(item)
        by_what = {what: [one for one in found if one.what == what] for what in {one.what for one in found}}
        if findings.REFUSED in by_what:
            return []  # what cannot be read may be sound: nothing is decided without it
        swept = [one for one in before if one.what in {findings.LEFTOVER, findings.UNFINISHED} and one not in found]
        mended = [f"{one.path} was removed" for one in swept]
        mended += _set_all_aside(item.store, by_what.get(findings.PLACE, []), item.store.layout.quarantine)
        if item.place.root.is_symlink() or not item.place.root.is_dir():
            return mended
        damaged = [one.number or 0 for one in by_what.get(findings.VERSION, [])]
        if _STATE.intersection(by_what):
            lost = [one.number or 0 for one in by_what.get(findings.POINTER, [])]
            mended += _mend_state(item, actor, damaged=damaged, unread=lost)
        mended += [_set_aside(item.store, item.place.version(number), item.place.quarantine) for number in damaged]
        for what in (findings.EXTRA, findings.POINTER):
            mended += _set_all_aside(item.store, by_what.get(what, []), item.place.quarantine)
        mended += [_claim_again(item, one.number or 0) for one in by_what.get(findings.CLAIM, [])]
    return mended


def _claim_again(item: Item, number: int) -> str:
    files.make_branch(item.disk, item.store.root, item.place.claims)
    with contextlib.suppress(FileExistsError):
        files.claim(item.disk, item.place.claim(number))
    return f"number {number} of {item.name} was claimed again"


def _mend_state(item: Item, actor: str, *, damaged: Sequence[int], unread: Sequence[int]) -> list[str]:
    """Write a new generation that names only what is there; none if the newest is whole and true already."""
    generations, known = item.place.pointer_generations(), pointers.intact(item.place)
    last = known[-1] if known else pointers.NOTHING
    taken = [_remember(item, number) for number in damaged if number not in _remembered(known)]
    there = [number for number in generations if number not in unread]
    lost = pointers.missing(there, known, until=max(unread, default=0))
    after = _sound_state(item, last, damaged)
    is_true = all(getattr(last, field) == value for field, value in after.items())
    if is_true and not lost and not taken:
        return []
    newest = max([0, *generations])
    reason = _reason(last, after, newest=newest, damaged=damaged, lost=lost)
    change = changes.change(
        pointers.REPAIRED,
        actor=actor,
        reason=reason,
        version=after["active"],
        manifest=after["manifest"],
        taken=tuple(taken),
        lost=tuple(lost),
    )
    try:
        item.swap(attrs.evolve(last, generation=newest), after, change)
    except StaleError as error:
        raise ConflictError(f"repair {item.name!r}", error.found, "Run the repair again.") from None
    return [f"{item.kind}/{item.name}: {reason}"]


def _remembered(known: Iterable[Pointer]) -> set[int]:
    """Return the versions that the history remembers already: a repair that was stopped said so before it ended."""
    return {taken.version for state in known if state.change for taken in state.change.taken}


def _remember(item: Item, number: int) -> Taken:
    """Return what history is to remember of a version that is set aside, as far as it can be read."""
    try:
        return changes.remember(item, number)
    except HydraDetectError:
        return Taken(version=number)


def _sound_state(item: Item, last: Pointer, damaged: Sequence[int]) -> dict[str, Any]:
    """Return the state that comes nearest to the last one with what can still be read."""
    digests = {}
    for number in item.place.version_numbers():
        if number not in last.gone and number not in damaged:
            digests[number] = item.manifest(number).digest
    earlier = [number for number in last.earlier if number in digests]
    active = last.active if last.active in digests else None
    if active and not last.is_active(active, digests[active]):
        active = None
    if active is None and last.active is not None and earlier:
        active = earlier.pop()
    if active is None and item.kind == layout.BACKBONES and digests:  # all its versions are the same weights
        active = max(digests)
    return {
        "active": active,
        "manifest": digests[active] if active else None,
        "earlier": pointers.steps_back(earlier, active),
        "pins": tuple(pin for pin in last.pins if pin.version in digests),
    }


def _reason(
    last: Pointer,
    after: Mapping[str, Any],
    *,
    newest: int,
    damaged: Sequence[int],
    lost: Iterable[tuple[int, int]],
) -> str:
    """Say what was wrong and what is so now: this is all that people will know of it."""
    active = after["active"]
    now = f"version {active} is active again" if active else "none is active: promote one"
    reasons = [f"set aside as damaged: version {number}" for number in damaged]
    reasons += [f"damaged or missing: {pointers.spanned(first, last_one)}" for first, last_one in lost]
    if last.generation < newest:
        reasons.append(f"what was active last is not known; as of generation {last.generation}, {now}")
    elif last.active != active:
        reasons.append(f"version {last.active} is damaged or missing; {now}" if last.active else now)
    reasons += [f"no longer pinned: version {pin}" for pin in last.pins if pin not in after["pins"]]
    return "; ".join(reasons)[: changes.MOST_CHARACTERS] or "what was damaged or missing is no longer named"


def _set_all_aside(store: Store, found: Sequence[Finding], quarantine: Path) -> list[str]:
    return [_set_aside(store, store.root / finding.path, quarantine) for finding in found]


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
