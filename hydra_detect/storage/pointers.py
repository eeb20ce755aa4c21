"""The pointer: the one record that changes, as a sequence of generations that are themselves written once.

Each generation is a file that holds the whole state after one event: which version is active, which were before, what
is pinned, what was taken away. The highest number counts, and only one writer can create it. So the state, its undo
and its history are one thing, and cannot disagree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators as check

from hydra_detect import codec, fields
from hydra_detect.errors import CorruptError, HydraDetectError, RecordError
from hydra_detect.names import Digest
from hydra_detect.storage import files, sealed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from hydra_detect.storage.layout import ItemLayout

FORMAT = 1
MOST_EARLIER = 256
"""How many promotions back a rollback can go."""

PROMOTED, ROLLED_BACK, PINNED, UNPINNED = "promoted", "rolled back", "pinned", "unpinned"
PRUNED, REMOVED, RENAMED, REPAIRED = "pruned", "removed", "renamed", "repaired"
EVENTS = (PROMOTED, ROLLED_BACK, PINNED, UNPINNED, PRUNED, REMOVED, RENAMED, REPAIRED)

_NUMBER = check.ge(1)
_NUMBERS = fields.each(_NUMBER)


@attrs.frozen(kw_only=True)
class Pin(codec.Record):
    """A version that is kept whatever retention says, and why."""

    version: int = attrs.field(validator=_NUMBER)
    reason: str = ""


@attrs.frozen(kw_only=True)
class Taken(codec.Record):
    """What is remembered of a version that was taken away; of a damaged one perhaps its number alone."""

    version: int = attrs.field(validator=_NUMBER)
    created_at: str = ""
    actor: str = ""
    manifest: Digest | None = None


@attrs.frozen(kw_only=True)
class Pointer(codec.Record):
    """One generation: the state of a head or backbone after one event.

    Args:
        generation: From 1; 0 is the state before anything happened, and has no file.
        event: What happened, one of `EVENTS`.
        version: The version that it happened to, where it was one.
        active: The active version.
        earlier: The versions that were active before it and can be rolled back to, the latest last.
        manifest: SHA-256 of the active version's manifest.
        pins: Versions that retention keeps.
        gone: Versions that were taken away and whose files may still have been there.
        taken: Those that this event took away.
        high: The highest number ever given out, as far as was known.
        other: The other name, of a renaming.
        at: When, ISO 8601 in UTC.
        actor: Who.
        reason: Why.

    """

    generation: int = attrs.field(validator=check.ge(0))
    event: str = attrs.field(validator=check.in_(EVENTS))
    version: int | None = attrs.field(default=None, validator=check.optional(_NUMBER))
    active: int | None = attrs.field(default=None, validator=check.optional(_NUMBER))
    earlier: tuple[int, ...] = attrs.field(default=(), converter=fields.integers, validator=_NUMBERS)
    manifest: Digest | None = None
    pins: tuple[Pin, ...] = attrs.field(default=(), converter=tuple)
    gone: tuple[int, ...] = attrs.field(default=(), converter=fields.integers, validator=_NUMBERS)
    taken: tuple[Taken, ...] = attrs.field(default=(), converter=tuple)
    high: int = attrs.field(default=0, validator=check.ge(0))
    other: str = ""
    at: str = ""
    actor: str = ""
    reason: str = ""

    @property
    def previous(self) -> int | None:
        """The version that a rollback would make active."""
        return self.earlier[-1] if self.earlier else None

    @property
    def pinned(self) -> tuple[int, ...]:
        """Numbers of the pinned versions."""
        return tuple(pin.version for pin in self.pins)

    def without(self, numbers: Collection[int]) -> dict[str, Any]:
        """Return the fields that change when versions can no longer be gone back to."""
        return {
            "earlier": steps_back([number for number in self.earlier if number not in numbers], self.active),
            "pins": tuple(pin for pin in self.pins if pin.version not in numbers),
        }


def steps_back(earlier: Sequence[int], active: int | None) -> tuple[int, ...]:
    """Return the versions to roll back to, each a step: none follows itself, and the last is not the active one."""
    following = [*earlier[1:], active]
    steps = [number for number, next_one in zip(earlier, following, strict=False) if number != next_one]
    return tuple(steps[-MOST_EARLIER:])


NOTHING = Pointer(generation=0, event=PROMOTED)
"""The state before anything happened."""


def newest(item: ItemLayout, name: str) -> Pointer:
    """Return the state of a head or backbone: `NOTHING` if nothing ever happened to it.

    Raises:
        CorruptError: If the newest generation is damaged. The one before is no answer: it may name a version that
            was rolled back from for good reason.
        RecordError: If it has a newer format.

    """
    generations = item.pointer_generations()
    return read(item, name, generations[-1]) if generations else NOTHING


def read(item: ItemLayout, name: str, generation: int) -> Pointer:
    """Read one generation.

    Raises:
        NotFoundError: If it is not there.
        CorruptError: If it is damaged.
        RecordError: If it has a newer format.

    """
    what = f"generation {generation} of the pointer of {name!r}"
    data = files.read_whole(item.pointer(generation), limit=codec.MAX_JSON_BYTES, asked=f"read {what}")
    return parse(data, generation, what, of=owner_of(item))


def owner_of(item: ItemLayout) -> str:
    """Return whose state a generation is, as it says itself: "heads/owl"."""
    return f"{item.root.parent.name}/{item.root.name}"


def parse(data: bytes, generation: int, what: str, *, of: str = "") -> Pointer:
    """Read the text of a generation.

    Args:
        data: The text.
        generation: Its number.
        what: What it is, for the error.
        of: Whose state it has to be.

    Raises:
        CorruptError: If it is not what was written for this generation, or for this head or backbone.
        RecordError: If it has a newer format.

    """
    document = sealed.unseal(data, what)
    sealed.check_format(document, FORMAT, what)
    remedy = "Restore it from a copy, or see 'hydra-detect store verify --repair'."
    facts = {key: value for key, value in document.items() if key not in {"format", "of"}}
    try:
        pointer = codec.from_dict(Pointer, facts, what)
    except RecordError as error:
        raise CorruptError(error.asked, error.found, remedy) from None
    if pointer.generation != generation or generation < 1:
        raise CorruptError(f"read {what}", "it is another generation", remedy)
    if document.get("of") != of:
        raise CorruptError(f"read {what}", f"it is one of {document.get('of')!r:.100}", remedy)
    return pointer


def text(pointer: Pointer, *, of: str = "") -> bytes:
    """Return the sealed text of a generation.

    Args:
        pointer: The state.
        of: Whose it is.

    Raises:
        RecordError: If it could not be read again: a reason that is no text, or texts that are too long.

    """
    facts: Mapping[str, Any] = codec.to_dict(pointer)
    data = sealed.seal({"format": FORMAT, "of": of, **facts})
    what = f"generation {pointer.generation} of a pointer"
    try:
        parse(data, pointer.generation, what, of=of)
    except CorruptError as error:
        remedy = "Nothing was changed: give reason and actor as texts, and short ones."
        raise RecordError(f"write {what}", error.found, remedy) from None
    return data


def intact(item: ItemLayout, name: str) -> list[Pointer]:
    """Return all generations that are whole, oldest first.

    Raises:
        StoreError: If the system refuses to read one.

    """
    found = []
    for generation in item.pointer_generations():
        try:
            found.append(read(item, name, generation))
        except HydraDetectError as error:  # `storage.check` reports damage; the others are history all the same
            if files.is_refusal(error):
                raise
    return found
