"""The commands about versions of a head: list, promote, roll back, pin, prune, rename, remove. None loads torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from hydra_detect.cli import output
from hydra_detect.cli.options import FAILED, USAGE, JsonOption, ReasonOption, StoreOption, store_folder
from hydra_detect.errors import HydraDetectError, InputError
from hydra_detect.history import UNREADABLE
from hydra_detect.names import HeadRef
from hydra_detect.registry import HeadRegistry
from hydra_detect.retention import DEFAULT_KEEP
from hydra_detect.storage import heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    from hydra_detect.records import VersionRecord


def versions(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """List the versions of a head: which is active, which a rollback would make active, which are pinned.

    Exit code 1 if one of them cannot be read; the others are listed all the same.
    """
    opened = Store.open(store_folder(store))
    pointer = opened.pointer(layout.HEADS, head)
    rows = []
    for number in heads.numbers(opened, head):
        try:
            rows.append(output.version_facts(heads.find(opened, HeadRef(head, number)), pointer))
        except HydraDetectError as error:
            rows.append({"head": head, "version": number, "problem": error.found})
    output.say(output.as_json(rows) if json else output.versions_table(rows))
    return FAILED if any("problem" in row for row in rows) else 0


def promote(
    head: str, number: int, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False
) -> int:
    """Make a version the active one, after reading and checking all of it."""
    manager = VersionManager(store_folder(store))
    return _say_active(manager, manager.promote(head, number, reason=reason), json=json)


def rollback(head: str, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False) -> int:
    """Make the version active again that was active before; again and again, as far as the history goes."""
    manager = VersionManager(store_folder(store))
    return _say_active(manager, manager.rollback(head, reason=reason), json=json)


def history(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Show what happened to a head: when, what, by whom, why; also to one that was removed.

    Exit code 1 if a part of it cannot be read.
    """
    events = VersionManager(store_folder(store)).history(head)
    code = FAILED if any(event.what == UNREADABLE for event in events) else 0
    if json:
        output.say(output.as_json([event.to_dict() for event in events]))
    else:
        output.say("\n".join(map(str, events)))
    return code


def compare(head: str, a: int, b: int, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Compare two versions of a head: claims, sizes, settings, and how far the weights of each layer moved."""
    found = VersionManager(store_folder(store)).compare(head, a, b)
    output.say(output.as_json(found.to_dict()) if json else str(found))
    return 0


def pin(
    head: str, number: int, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False
) -> int:
    """Keep a version whatever retention says."""
    VersionManager(store_folder(store)).pin(head, number, reason=reason)
    return _say_done({"head": head, "version": number, "pinned": True}, f"{head}@{number} is pinned", json=json)


def unpin(
    head: str, number: int, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False
) -> int:
    """Let retention judge a version again."""
    VersionManager(store_folder(store)).unpin(head, number, reason=reason)
    return _say_done({"head": head, "version": number, "pinned": False}, f"{head}@{number} is not pinned", json=json)


def prune(
    head: str = "",
    /,
    *,
    store: StoreOption = None,
    every: Annotated[bool, Parameter(name="--all", negative=(), help="prune every head")] = False,
    keep: int = DEFAULT_KEEP,
    dry_run: Annotated[bool, Parameter(negative=(), help="say what would go, and do nothing")] = False,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Take old versions away: all but the last ones, the active, the previous and the pinned.

    Parameters
    ----------
    head
        Head to prune; or --all.
    keep
        How many of the highest numbers stay.

    """
    manager = VersionManager(store_folder(store))
    if bool(head) == every:
        raise InputError(
            "prune", "no head was named" if not head else "a head and --all", "Name a head, or give --all."
        )
    code, reports = 0, []
    for name in list(HeadRegistry(manager.store)) if every else [head]:
        try:
            reports.append(manager.prune(name, keep=keep, dry_run=dry_run, reason=reason))
        except HydraDetectError as error:  # one head holds up no other, and what was done is said
            output.complain(error)
            code = USAGE
        else:
            if not json:
                output.say(str(reports[-1]))
    if json:
        output.say(output.as_json([report.to_dict() for report in reports]))
    return code


def rename(
    head: str, new: str, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False
) -> int:
    """Give a head another name; the old name keeps its history, and no head can be renamed to it."""
    HeadRegistry(store_folder(store)).rename(head, new, reason=reason)
    return _say_done({"head": new, "was": head}, f"{head} is now {new}", json=json)


def remove(
    head: str,
    /,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="do it; without this it is only said what would go")] = False,
    store: StoreOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> int:
    """Delete all versions of a head, the active one too; its history stays."""
    registry = HeadRegistry(store_folder(store))
    numbers = heads.numbers(registry.store, head)
    if yes:
        registry.remove(head, reason=reason)
    which = ", ".join(f"{head}@{number}" for number in numbers)
    text = f"removed {which}" if yes else f"would remove {which}; give --yes to do it"
    return _say_done({"head": head, "versions": numbers, "removed": yes}, text, json=json)


def _say_done(facts: dict[str, Any], text: str, *, json: bool) -> int:
    output.say(output.as_json(facts) if json else text)
    return 0


def _say_active(manager: VersionManager, version: VersionRecord, *, json: bool) -> int:
    pointer = manager.store.pointer(layout.HEADS, version.head)
    if json:
        output.say(output.as_json(output.version_facts(version, pointer)))
    else:
        before = f"; before it {pointer.previous} was" if pointer.previous else ""
        # Between the promotion and this look somebody else may have followed.
        output.say(f"{version} was made active" if pointer.active != version.number else f"{version} is active{before}")
    return 0


COMMANDS = (versions, promote, rollback, history, compare, pin, unpin, prune, rename, remove)
