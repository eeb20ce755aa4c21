"""Repairing a store: set damage aside, go back to what is sound, and say so in the history.

Nothing is deleted but what is derived or was never named: damaged versions, pointers and strangers' files go to a
`quarantine` folder. What is whole and only cannot be used or understood here is left alone. A repair may be stopped at
any point and run again.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import (
    MOST_LISTED,
    ConflictError,
    HydraDetectError,
    NotFoundError,
    StaleError,
    listed,
    listed_numbers,
)
from hydra_detect.names import HeadRef
from hydra_detect.storage import changes, files, findings, heads, layout, owners, pointers, references
from hydra_detect.storage.pointers import Taken

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from hydra_detect.storage.check import Checker
    from hydra_detect.storage.findings import CheckReport, Finding
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store

_LONGEST_NAME = 40  # of what is set aside: with whose and when behind it, no longer than a file name may be
_AGAIN = "Run it again; what was mended stays mended."


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
    report = checker.run()
    if not report.findings:
        return report
    with files.begun(_AGAIN), files.explained(asked, _AGAIN):
        mended = _mend_all(store, report.findings, checker, actor)
    return attrs.evolve(checker.run(), mended=tuple(mended))


def _mend_all(store: Store, found: Sequence[Finding], checker: Checker, actor: str) -> list[str]:
    mended, failures = _mend_top(store, [finding for finding in found if not finding.name]), []
    for kind, name in dict.fromkeys((finding.kind, finding.name) for finding in found if finding.name):
        before = [finding for finding in found if (finding.kind, finding.name) == (kind, name)]
        try:
            mended += _mend_item(store.item(kind, name), before, checker, actor)
        except (OSError, HydraDetectError) as error:  # what cannot be mended keeps nothing else from being mended
            failures.append(error)
    if failures:
        raise failures[0]
    return mended


def _mend_top(store: Store, found: Sequence[Finding]) -> list[str]:
    mended = []
    for finding in found:
        if finding.what == findings.PLACE:
            mended += _set_place_aside(store, store.root / finding.path)
        elif finding.what in {findings.INDEX, findings.LEFTOVER}:
            files.discard(store.disk, store.root / finding.path)
            mended += _removed(store, [finding])
    return mended


def _removed(store: Store, found: Sequence[Finding]) -> list[str]:
    """Say of what is not there any more that it was removed."""
    return [
        f"{one.path} was removed" for one in found if not files.exists(store.root / one.path, f"look at {one.path}")
    ]


def _set_place_aside(store: Store, path: Path) -> list[str]:
    """Set aside what stands in a place of the store's, unless that is by now what should stand there."""
    right = files.FILE if path.parent == store.root / "locks" else files.FOLDER
    if files.kind_of(path, f"look at {path}") in {right, files.NOTHING}:
        return []
    return [_set_aside(store, path, store.layout.quarantine)]


def _mend_item(item: Item, before: Sequence[Finding], checker: Checker, actor: str) -> list[str]:
    """Mend one backbone or head, by what is found there once nobody else can change it.

    The state comes first, as everywhere: once it names a damaged version no more, that may leave its place.
    """
    store, place = item.store, item.place
    with item.changing():  # which clears leftovers and finishes what was begun
        found = checker.look_at(item)
        mended = _removed(store, _of(before, findings.LEFTOVER, findings.UNFINISHED))
        if _of(found, findings.REFUSED):
            return mended  # what cannot be read may be sound: nothing is decided without it
        displaced, strays = _of(found, findings.PLACE), [one for one in found if _ends_the_numbers(one)]
        mended += _set_all_aside(store, displaced, store.layout.quarantine)
        if files.kind_of(place.root, f"look at {place.root}") != files.FOLDER:
            return mended
        mended += _set_all_aside(store, strays, place.quarantine)
        if displaced or strays:
            found = checker.look_at(item)  # what lay behind a link is not here any more
            if _of(found, findings.REFUSED):
                return mended
        kept = _leant_on(item, found)
        found = [one for one in found if one.what != findings.VERSION or one.number not in kept]
        mended += [f"{item.kind}/{item.name}: version {number} was left: {reason}" for number, reason in kept.items()]
        if _of(found, findings.VERSION, findings.POINTER, findings.STATE, findings.GAP):
            mended += _mend_state(item, actor, found)
        for number in _numbers(found, findings.VERSION):
            mended.append(_set_aside(store, place.version(number), place.quarantine))
        mended += _set_all_aside(store, _of(found, findings.EXTRA, findings.POINTER), place.quarantine)
        mended += [_claim_again(item, number) for number in _numbers(found, findings.CLAIM)]
    return mended


def _leant_on(item: Item, found: Sequence[Finding]) -> dict[int, str]:
    """Return the damaged versions that stay: something leans on them, and of what that needs nothing is damaged."""
    damaged = _numbers(found, findings.VERSION) if item.kind == layout.HEADS else []
    leaning, kept = references.dependents(item.store) if damaged else {}, {}
    for number in damaged:
        with files.unless_damaged(), contextlib.suppress(NotFoundError):
            version, _tensors = heads.load(item.store, HeadRef(item.name, number))
            heads.check_known(item, version)
            if version.record.tensors in leaning:
                kept[number] = f"its weights are whole, and needed by {listed(leaning[version.record.tensors])}"
    return kept


def _of(found: Sequence[Finding], *what: str) -> list[Finding]:
    return [one for one in found if one.what in what]


def _numbers(found: Sequence[Finding], what: str) -> list[int]:
    return [one.number or 0 for one in found if one.what == what]


def _ends_the_numbers(finding: Finding) -> bool:
    """Whether this is a generation that none can follow: nobody ever wrote so many, so it is somebody's stray file."""
    return (finding.what, finding.number) == (findings.POINTER, layout.HIGHEST)


def _claim_again(item: Item, number: int) -> str:
    files.make_branch(item.disk, item.store.root, item.place.claims)
    with contextlib.suppress(FileExistsError):
        files.claim(item.disk, item.place.claim(number))
    return f"number {number} of {item.name} was claimed again"


def _mend_state(item: Item, actor: str, found: Sequence[Finding]) -> list[str]:
    """Write a new generation that names only what is there; none if the newest is whole and true already."""
    generations, known = item.place.pointer_generations(), pointers.intact(item.place)
    last = known[-1] if known else pointers.NOTHING
    damaged, unread = _numbers(found, findings.VERSION), _numbers(found, findings.POINTER)
    taken = [_remember(item, number) for number in damaged if number not in _remembered(known)]
    there = [number for number in generations if number not in unread]
    lost = pointers.missing(there, known, until=max(unread, default=0))
    after = _sound_state(item, known, found)
    is_true = all(getattr(last, field) == value for field, value in after.items())
    if generations and is_true and not lost and not taken:
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
        item.swap(last, after, change, newest=newest)
    except StaleError as error:
        raise ConflictError(f"repair {item.name!r}", error.found, "Run the repair again.") from None
    return [f"{item.kind}/{item.name}: {reason}"]


def _remembered(known: Iterable[Pointer]) -> set[int]:
    """Return the versions that the history remembers already: a repair that was stopped said so before it ended."""
    return {taken.version for state in known if state.change for taken in state.change.taken}


def _remember(item: Item, number: int) -> Taken:
    """Return what history is to remember of a version that is set aside, as far as it can be read."""
    with files.unless_damaged():
        return changes.remember(item, number)
    return Taken(version=number)


def _sound_state(item: Item, known: Sequence[Pointer], found: Sequence[Finding]) -> dict[str, Any]:
    """Return the state that comes nearest to the last one with what can still be read, and used if there is such."""
    last, damaged = known[-1] if known else pointers.NOTHING, _numbers(found, findings.VERSION)
    numbers = [number for number in item.place.version_numbers() if number not in {*last.gone, *damaged}]
    digests = {number: item.manifest(number).digest for number in numbers}
    earlier = [number for number in last.earlier if number in digests]
    active = last.active if last.active in digests else None
    if active is None:
        choices = earlier if last.active else []
        if not last.active and item.kind == layout.BACKBONES:  # unlike a head it had one, and the last it can only be
            choices = sorted(digests)
        active = _best(choices, found)
        if active in earlier:
            del earlier[len(earlier) - 1 - earlier[::-1].index(active) :]
    return {
        "active": active,
        "manifest": digests[active] if active else None,
        "earlier": pointers.steps_back(earlier, active),
        "pins": tuple(pin for pin in last.pins if pin.version in digests),
    }


def _best(choices: Sequence[int], found: Sequence[Finding]) -> int | None:
    """Return the last version that is of use here; one that only lacks backbone or reference if need be."""
    usable = [number for number in choices if number not in _numbers(found, findings.CONTENT)]
    without = [one.number for one in _of(found, *findings.LINKS)]
    at_home = [number for number in usable if number not in without]
    return [None, *usable, *at_home][-1]


def _reason(
    last: Pointer,
    after: Mapping[str, Any],
    *,
    newest: int,
    damaged: Sequence[int],
    lost: Sequence[tuple[int, int]],
) -> str:
    """Say what was wrong and what is so now: this is all that people will know of it."""
    active = after["active"]
    now = f"version {active} is active again" if active else "none is active: promote one"
    spans = [pointers.spanned(*span) for span in lost[-MOST_LISTED:]]
    passed_over = {*last.earlier}.difference(after["earlier"], damaged, [active])
    reasons = []
    if damaged:
        reasons.append(f"set aside as damaged: {_named(damaged)}")
    if lost:
        more = f" and {len(lost) - len(spans)} more" if len(lost) > len(spans) else ""
        reasons.append(f"damaged or missing: {', '.join(spans)}{more}")
    if last.generation < newest or not newest:
        before = f"as of generation {last.generation}, " if last.generation else ""
        if last.active not in {None, active}:
            before = f"version {last.active}, active as of generation {last.generation}, is damaged or missing; "
        reasons.append(f"what was active last is not known; {before}{now}")
    elif last.active != active:
        reasons.append(f"version {last.active} is damaged or missing; {now}" if last.active else now)
    if passed_over:
        reasons.append(f"no longer to be rolled back to: {_named(passed_over)}")
    if last.pins != after["pins"]:
        pins = dict.fromkeys(str(pin) for pin in last.pins if pin not in after["pins"])
        reasons.append(f"no longer pinned: {listed(pins)}")
    return "; ".join(reasons)[: changes.MOST_CHARACTERS]


def _named(numbers: Collection[int]) -> str:
    return f"version{'s' * (len(numbers) > 1)} {listed_numbers(numbers)}"


def _set_all_aside(store: Store, found: Sequence[Finding], quarantine: Path) -> list[str]:
    return [_set_aside(store, store.root / finding.path, quarantine) for finding in found]


def _set_aside(store: Store, path: Path, quarantine: Path) -> str:
    """Move something to a quarantine folder under a name of its own; say what was done."""
    where = path.relative_to(store.root).as_posix()
    if not files.exists(path, f"set {where} aside"):
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
