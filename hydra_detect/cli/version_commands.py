"""The commands about versions of a head: list, promote, roll back, pin, prune, rename, remove. None loads torch."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from hydra_detect.cli import output
from hydra_detect.cli.options import JsonOption, ReasonOption, StoreOption, store_folder
from hydra_detect.errors import InputError
from hydra_detect.registry import HeadRegistry
from hydra_detect.retention import DEFAULT_KEEP
from hydra_detect.storage import layout
from hydra_detect.versions import VersionManager


def versions(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """List the versions of a head: which is active, which a rollback would make active, which are pinned."""
    manager = VersionManager(store_folder(store))
    found = manager.versions(head)
    pointer = manager.store.pointer(layout.HEADS, head)
    if json:
        output.say(output.as_json([output.version_facts(version, pointer) for version in found]))
    else:
        output.say(output.versions_table(found, pointer))
    return 0


def promote(
    head: str, number: int, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False
) -> int:
    """Make a version the active one, after reading and checking all of it."""
    manager = VersionManager(store_folder(store))
    return _say_active(manager, manager.promote(head, number, reason=reason).head, json=json)


def rollback(head: str, /, *, store: StoreOption = None, reason: ReasonOption = "", json: JsonOption = False) -> int:
    """Make the version active again that was active before; again and again, as far as the history goes."""
    manager = VersionManager(store_folder(store))
    return _say_active(manager, manager.rollback(head, reason=reason).head, json=json)


def history(head: str, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Show what happened to a head: when, what, by whom, why; also to one that was removed."""
    events = VersionManager(store_folder(store)).history(head)
    if json:
        output.say(output.as_json([event.to_dict() for event in events]))
    else:
        output.say("\n".join(map(str, events)))
    return 0


def compare(head: str, a: int, b: int, /, *, store: StoreOption = None, json: JsonOption = False) -> int:
    """Compare two versions of a head: claims, sizes, settings, and how far the weights of each layer moved."""
    found = VersionManager(store_folder(store)).compare(head, a, b)
    output.say(output.as_json(found.to_dict()) if json else str(found))
    return 0


def pin(head: str, number: int, /, *, store: StoreOption = None, reason: ReasonOption = "") -> int:
    """Keep a version whatever retention says."""
    output.say(f"{VersionManager(store_folder(store)).pin(head, number, reason=reason)} is pinned")
    return 0


def unpin(head: str, number: int, /, *, store: StoreOption = None, reason: ReasonOption = "") -> int:
    """Let retention judge a version again."""
    output.say(f"{VersionManager(store_folder(store)).unpin(head, number, reason=reason)} is not pinned")
    return 0


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
    names = list(HeadRegistry(manager.store)) if every else [head]
    reports = [manager.prune(name, keep=keep, dry_run=dry_run, reason=reason) for name in names]
    if json:
        output.say(output.as_json([report.to_dict() for report in reports]))
    else:
        output.say("\n".join(map(str, reports)))
    return 0


def rename(head: str, new: str, /, *, store: StoreOption = None, reason: ReasonOption = "") -> int:
    """Give a head another name; the old name keeps its history and can never be used again."""
    HeadRegistry(store_folder(store)).rename(head, new, reason=reason)
    output.say(f"{head} is now {new}")
    return 0


def remove(head: str, /, *, store: StoreOption = None, reason: ReasonOption = "") -> int:
    """Delete all versions of a head; its history stays."""
    HeadRegistry(store_folder(store)).remove(head, reason=reason)
    output.say(f"{head} was removed")
    return 0


def _say_active(manager: VersionManager, head: str, *, json: bool) -> int:
    active, pointer = manager.active(head), manager.store.pointer(layout.HEADS, head)
    if json:
        output.say(output.as_json(output.version_facts(active, pointer)))
    else:
        before = f"; before it {pointer.previous} was" if pointer.previous else ""
        output.say(f"{active} is active{before}")
    return 0


COMMANDS = (versions, promote, rollback, history, compare, pin, unpin, prune, rename, remove)
