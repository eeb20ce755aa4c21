"""Changing the state of a head: read it, build the next, swap; and again if another process was faster."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from hydra_detect.errors import ConflictError, InputError, NotFoundError, StaleError, listed
from hydra_detect.records import utc_now
from hydra_detect.storage import layout, recovery
from hydra_detect.storage.pointers import PRUNED, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store

_MOST_TAKEN = 1000  # of one generation, which has to stay below the size of a record
_MOST_CHARACTERS = 1000
_MOST_TRIES = 100  # beyond this many lost races in a row something else is wrong

T = TypeVar("T")


def settled(store: Store, head: str, step: Callable[[Pointer], T]) -> T:
    """Run a step on the present state of a head until no other process gets in between; the lock makes that at once.

    Raises:
        StaleError: If others get in between a hundred times in a row.

    """
    with store.changing(layout.HEADS, head):
        return steady(store, head, step)


def steady(store: Store, head: str, look: Callable[[Pointer], T]) -> T:
    """Look at the present state of a head, again and again until no other process changed it meanwhile.

    That is right without a lock, too: `Store.swap` refuses what was built on an old state, and a version that is not
    found counts as missing only if the state that was looked at is still the present one.
    """
    for _ in range(_MOST_TRIES - 1):
        before = store.pointer(layout.HEADS, head)
        try:
            return look(before)
        except StaleError:
            continue
        except NotFoundError:
            if _is_present(store, head, before):
                raise
    return look(store.pointer(layout.HEADS, head))


def check_present(store: Store, head: str, before: Pointer) -> None:
    """See that a head is still in the state that was looked at.

    Raises:
        StaleError: If another process changed it.

    """
    if not _is_present(store, head, before):
        raise StaleError(f"change {head!r}", "another process changed it first", "Look again, then repeat it.")


def _is_present(store: Store, head: str, before: Pointer) -> bool:
    return store.pointer(layout.HEADS, head).generation == before.generation


def note(store: Store, head: str, before: Pointer, after: Mapping[str, Any], *, actor: str, reason: str) -> Pointer:
    """Swap in the next state of a head, with the time, who and why.

    Raises:
        InputError: If the reason is no text, or too long for a history.
        StaleError: If another process changed the head first.

    """
    check_text(reason, "reason")
    return store.swap(layout.HEADS, head, before, {**after, "at": utc_now(), "actor": actor, "reason": reason})


def check_text(text: str, what: str) -> None:
    """See that a text can stand in a history: it is read again with every state of the head.

    Raises:
        InputError: If it is no text, too long, or cannot be written.

    """
    if isinstance(text, str) and len(text) <= _MOST_CHARACTERS:
        with contextlib.suppress(UnicodeEncodeError):
            text.encode()
            return
    found = f"the {what} is {text!a:.60}"
    raise InputError("write to the history", found, f"Give a text of at most {_MOST_CHARACTERS} characters.")


def take_away(
    store: Store,
    head: str,
    before: Pointer,
    numbers: Iterable[int],
    *,
    after: Mapping[str, Any],
    actor: str,
    reason: str,
) -> None:
    """Take versions away: first out of the pointer, so that nobody can come to rely on them; then off the disk.

    Raises:
        CorruptError: If a manifest is damaged; such a version is evidence, and stays.
        StaleError: If another process changed the head meanwhile; then nothing was taken away.

    """
    numbers = sorted(numbers, key=lambda number: number == before.active)  # the active one with the last
    for first in range(0, len(numbers), _MOST_TAKEN):
        batch = tuple(sorted(numbers[first : first + _MOST_TAKEN]))
        is_last = first + _MOST_TAKEN >= len(numbers)
        remembered = tuple(_remember(store, head, number) for number in batch)
        change = {**before.without(batch), "gone": batch, "taken": remembered}
        change |= after if is_last else {"event": PRUNED}
        before = note(store, head, before, change, actor=actor, reason=reason)
    item = store.layout.item(layout.HEADS, head)
    for number in numbers:
        recovery.take_away(store.disk, store.layout, item, number)


def check_unpinned(asked: str, before: Pointer) -> None:
    """See that nobody relies on a version of this head by its name and number.

    Raises:
        ConflictError: Naming the pinned versions, and why they are.

    """
    if before.pins:
        pins = listed(f"{pin.version}{f' ({pin.reason})' if pin.reason else ''}" for pin in before.pins)
        raise ConflictError(
            asked, f"something relies on it: versions are pinned: {pins}", "Unpin them first, if nothing needs them."
        )


def _remember(store: Store, head: str, number: int) -> Taken:
    manifest = store.manifest(layout.HEADS, head, number)
    return Taken(version=number, created_at=manifest.created_at, actor=manifest.actor, manifest=manifest.digest)
