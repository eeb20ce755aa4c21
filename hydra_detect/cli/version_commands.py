"""The commands about versions of a head: list, promote, roll back, pin, prune, rename, remove. None loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hydra_detect.cli import output
from hydra_detect.cli.options import (
    PARTIAL,
    Integer,
    JsonOption,
    ReasonOption,
    StoreOption,
    WholeNumber,
    code_of,
    store_folder,
)
from hydra_detect.errors import HydraDetectError, InputError, listed_numbers
from hydra_detect.history import DAMAGED
from hydra_detect.registry import HeadRegistry
from hydra_detect.retention import DEFAULT_KEEP
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra_detect.records import VersionRecord

DryRun = Annotated[bool, Parameter(negative=(), help="say what would go, and do nothing")]


def versions(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """List the versions of a head: which is active, which a rollback would make active, which are pinned.

    Exit code 1 if one of them cannot be read; the others are listed all the same.
    """
    status = HeadRegistry(store_folder(store)).status(head)
    output.say(output.as_json(status.to_dict()) if json else output.versions_table(status))
    return 0 if status.is_whole else PARTIAL


def promote(
    head: str,
    number: WholeNumber,
    /,
    *,
    store: StoreOption = None,
    instead_of: Annotated[Integer | None, Parameter(help="the version that must still be active; 0: none")] = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Make a version the active one, after checking each of its files."""
    manager = VersionManager(store_folder(store))

    def act() -> VersionRecord:
        return manager.promote(head, number, instead_of=instead_of, reason=reason)

    return _activate(manager, head, act, json=json)


def rollback(head: str, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False) -> int:
    """Make the version active again that was active before; again and again, over the last 1,000 promotions."""
    manager = VersionManager(store_folder(store))
    return _activate(manager, head, lambda: manager.rollback(head, reason=reason), json=json)


def history(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Show what happened to a head: when, what, by whom, why; also to one that was removed.

    Exit code 1 if a part of it cannot be read.
    """
    events = VersionManager(store_folder(store)).history(head)
    code = PARTIAL if any(event.what == DAMAGED for event in events) else 0
    if json:
        output.say(output.as_json([event.to_dict() for event in events]))
    else:
        output.say("\n".join(map(str, events)))
    return code


def compare(
    head: str, a: WholeNumber, b: WholeNumber, /, *, store: StoreOption = None, json: JsonOption = False
) -> int:
    """Compare two versions of a head: claims, sizes, settings, and how far the weights of each layer moved."""
    found = VersionManager(store_folder(store)).compare(head, a, b)
    output.say(output.as_json(found.to_dict()) if json else str(found))
    return 0


def pin(
    head: str,
    number: WholeNumber,
    /,
    *,
    store: StoreOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Keep a version whatever retention says; once for each reason."""
    VersionManager(store_folder(store)).pin(head, number, reason=reason)
    return _say_done({"head": head, "version": number, "pinned_for": reason}, f"{head}@{number} is pinned", json=json)


def unpin(
    head: str,
    number: WholeNumber,
    /,
    *,
    pinned_for: Annotated[str | None, Parameter(help="the reason it was pinned for, if there are several")] = None,
    store: StoreOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Let retention judge a version again."""
    manager = VersionManager(store_folder(store))
    manager.unpin(head, number, pinned_for=pinned_for, reason=reason)
    left = [pin.reason for pin in manager.store.head(head).pointer().pins if pin.version == number]
    text = f"{head}@{number} is still pinned ({len(left)})" if left else f"{head}@{number} is not pinned"
    return _say_done({"head": head, "version": number, "still_pinned_for": left}, text, json=json)


def prune(
    head: str = "",
    /,
    *,
    every: Annotated[bool, Parameter(name="--all", negative=(), help="prune every head")] = False,
    keep: WholeNumber = DEFAULT_KEEP,
    dry_run: DryRun = False,
    store: StoreOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Take old versions away: all but the last ones, the active, the previous, the pinned and the leant on.

    Parameters
    ----------
    head
        Head to prune; or --all.
    keep
        How many of the highest numbers stay.

    """
    manager = VersionManager(store_folder(store))
    if bool(head) == every:
        found = "both a head and --all were given" if head else "no head was named"
        raise InputError("prune", found, "Name a head, or give --all.")
    code, reports = 0, []
    for name in list(HeadRegistry(manager.store)) if every else [head]:
        try:
            reports.append(manager.prune(name, keep=keep, dry_run=dry_run, reason=reason))
        except HydraDetectError as error:  # one head holds up no other, and what was done is said
            if not every:
                raise
            output.complain(error, json=json)
            code = max(code, code_of(error))
        else:
            if not json:
                output.say(str(reports[-1]))
    if json:
        output.say(output.as_json([report.to_dict() for report in reports]))
    return code


def rename(
    head: str, new: str, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False
) -> int:
    """Give a head another name for ever; the old name keeps its history, and no head can be renamed to it."""
    HeadRegistry(store_folder(store)).rename(head, new, reason=reason)
    return _say_done({"head": new, "was": head}, f"{head} is now {new}", json=json)


def remove(
    head: str,
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="do it: there is no way back")] = False,
    dry_run: DryRun = False,
    store: StoreOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Delete all versions of a head, the active one too; its history stays. A pin protects it, or what leans on it."""
    registry = HeadRegistry(store_folder(store))
    numbers = registry.remove(head, reason=reason, dry_run=dry_run or not yes)
    which = f"{head} ({len(numbers)} version{'s' * (len(numbers) > 1)}: {listed_numbers(numbers)})"
    if not (yes or dry_run):
        raise InputError(f"remove {head!r}", f"it would delete {which} for ever", "Give --yes; --dry-run only looks.")
    text = f"would remove {which}" if dry_run else f"removed {which}"
    return _say_done({"head": head, "versions": numbers, "dry_run": dry_run}, text, json=json)


def _say_done(facts: dict[str, Any], text: str, *, json: bool) -> int:
    output.say(output.as_json(facts) if json else text)
    return 0


def _activate(manager: VersionManager, head: str, act: Callable[[], VersionRecord], *, json: bool) -> int:
    """Make a version active, and say what that changed."""
    before = manager.store.head(head).pointer()
    version = act()
    now = manager.store.head(head).pointer()  # between the two somebody else may have changed it too
    facts = {"head": head, "version": version.number, "digest": str(version.manifest)}
    facts |= {"changed": now.generation != before.generation, "was_active": before.active}
    if now.generation == before.generation:
        text = f"{version} was active already; nothing was changed"
    elif now.active != version.number:
        text = f"{version} was made active, and by now {head}@{now.active} is"
    else:
        was, leads_to = before.active, now.previous
        text = f"{version} is active" + (f"; before it, {head}@{was} was" if was not in {None, now.active} else "")
        text += f"; a rollback leads to {head}@{leads_to}" if leads_to not in {None, was} else ""
    return _say_done({**facts, "active": now.active, "previous": now.previous}, text, json=json)


COMMANDS = (versions, promote, rollback, history, compare, pin, unpin, prune, rename, remove)
