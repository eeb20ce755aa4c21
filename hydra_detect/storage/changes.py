"""Changes of a head's state: what is written of them, and versions that are taken away."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import ConflictError, InputError, NotFoundError, listed
from hydra_detect.records import utc_now
from hydra_detect.storage import owners, recovery
from hydra_detect.storage.pointers import Change, Taken

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hydra_detect.names import HeadRef
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Pin, Pointer

MOST_CHARACTERS = 1000
"""Of a reason or an actor."""


def change(what: str, *, actor: str = "", reason: str = "", **facts: Any) -> Change:
    """Return a change that happens now.

    Args:
        what: One of `pointers.EVENTS`.
        actor: Who; left out, $HYDRA_DETECT_ACTOR, or user@host.
        reason: Why.
        facts: Further fields of `Change`.

    Raises:
        InputError: If actor or reason is no text, or too long for a history.

    """
    return Change(what=what, at=utc_now(), actor=by(actor), reason=checked(reason, "reason"), **facts)


def by(actor: str) -> str:
    """Return who is at work, as history will name him: the one given, else $HYDRA_DETECT_ACTOR, else user@host.

    Raises:
        InputError: As `checked`.

    """
    return checked(actor or owners.actor(), "actor")


def checked(text: str, what: str) -> str:
    """Return a text if it can stand in a history: it is read again with every state of the head.

    Raises:
        InputError: If it is no text, too long, or cannot be written.

    """
    if isinstance(text, str) and len(text) <= MOST_CHARACTERS:
        with contextlib.suppress(UnicodeEncodeError):
            text.encode()
            return text
    found = f"the {what} is {text!a:.60}"
    raise InputError("write to the history", found, f"Give a text of at most {MOST_CHARACTERS} characters.")


def take_away(
    item: Item, before: Pointer, numbers: Collection[int], *, after: Mapping[str, Any], change: Change
) -> list[int]:
    """Take versions away: first out of the state, so that nobody can come to rely on them; then off the disk.

    Args:
        item: The head.
        before: The state that was looked at.
        numbers: The versions.
        after: What else changes in the state.
        change: What is written of it; what is remembered of the versions is added here.

    Returns:
        Those whose files could not be moved yet; whoever writes next deletes them.

    Raises:
        CorruptError: If a manifest is damaged: of such a version nothing could be remembered.
        StaleError: If another process changed the head meanwhile; then nothing was taken away.

    """
    taken: Any = tuple(remember(item, number) for number in sorted(numbers))  # attrs takes the converter for its type
    state = {**before.without(numbers), "gone": tuple(sorted(numbers)), **after}
    item.swap(before, state, attrs.evolve(change, taken=taken))
    return [number for number in sorted(numbers) if not recovery.take_away(item, number)]


def remember(item: Item, number: int) -> Taken:
    """Return what history is to remember of a version once it is taken away.

    Raises:
        CorruptError: If its manifest is damaged.

    """
    manifest = item.manifest(number)
    return Taken(version=number, created_at=manifest.created_at, actor=manifest.actor, manifest=manifest.digest)


def check_unpinned(asked: str, before: Pointer) -> None:
    """See that nobody relies on a version of this head by its name and number.

    Raises:
        ConflictError: Naming the pinned versions, and why they are.

    """
    if before.pins:
        found = f"something relies on it: versions are pinned: {listed(map(str, before.pins))}"
        raise ConflictError(asked, found, "Unpin them first, if nothing needs them.")


def check_active(asked: str, before: Pointer, expected: int | None) -> None:
    """See that the version that is expected to be active is; 0 for none, None for whatever is.

    Raises:
        ConflictError: Naming the one that is.

    """
    if expected not in {None, before.active or 0}:
        found = f"version {before.active} is active" if before.active else "no version is active"
        wanted = f"version {expected}" if expected else "none"
        remedy = "Compare with what is active now, then decide again."
        raise ConflictError(asked, f"{found} and not {wanted}", remedy, active=before.active)


def pin_of(state: Pointer, ref: HeadRef, pinned_for: str | None) -> Pin | None:
    """Return the pin of a version that is meant; None if the version is not pinned.

    Args:
        state: The state.
        ref: The version.
        pinned_for: The reason of the pin; None where there is one alone.

    Raises:
        NotFoundError: If it is pinned, and not for that.
        ConflictError: If it is pinned for several reasons, and none was named.

    """
    there = [pin for pin in state.pins if pin.version == ref.version]
    meant = [pin for pin in there if pinned_for in {None, pin.reason}]
    reasons = listed(repr(pin.reason) for pin in there)
    if there and not meant:
        found = f"it is not pinned for {pinned_for!r:.80}, but for: {reasons}"
        raise NotFoundError(f"unpin {ref}", found, "Name one of these.")
    if len(meant) > 1:
        remedy = "Say which with pinned_for (--pinned-for)."
        raise ConflictError(f"unpin {ref}", f"it is pinned for several reasons: {reasons}", remedy)
    return meant[0] if meant else None
