"""The pointer: the one record that changes, as a sequence of generations that are themselves written once.

Each generation is a file that holds the whole state after one change: which version is active, which were before, what
is pinned, what was taken away; and the change itself, with when, who and why. The highest number counts, and only one
writer can create it. So the state, its undo and its history are one thing, and cannot disagree.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators as check

from hydra_detect import codec, fields
from hydra_detect.errors import CorruptError, NotFoundError, RecordError
from hydra_detect.names import Digest, shown
from hydra_detect.storage import files, sealed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hydra_detect.storage.layout import ItemLayout

FORMAT = 1
MAX_BYTES = 16 << 20
"""Of one generation: a pruning remembers each version that it takes away, in some 200 bytes."""
MOST_EARLIER = 1000
"""How many promotions back a rollback can go: each generation lists them."""

PROMOTED, ROLLED_BACK, PINNED, UNPINNED = "promoted", "rolled back", "pinned", "unpinned"
PRUNED, REMOVED, RENAMED, REPAIRED, REFERENCED = "pruned", "removed", "renamed", "repaired", "referenced"
EVENTS = (PROMOTED, ROLLED_BACK, PINNED, UNPINNED, PRUNED, REMOVED, RENAMED, REPAIRED, REFERENCED)

EXCHANGED = "it is not the one that the history speaks of: its manifest has another digest"
_NOT_OURS = "It is whole: upgrade hydra-detect; if no newer version wrote it, move it to the quarantine folder."
_REMEMBERED_BYTES = 64 << 10
_NUMBER = check.ge(1)
_NUMBERS = fields.each(_NUMBER)


@attrs.frozen(kw_only=True)
class Pin(codec.Record):
    """A version that is kept whatever retention says, and why; one version may have several."""

    version: int = attrs.field(validator=_NUMBER)
    reason: str = ""
    actor: str = ""

    def __str__(self) -> str:
        """Number and reason."""
        return f"{self.version}{f' ({self.reason})' if self.reason else ''}"


@attrs.frozen(kw_only=True)
class Taken(codec.Record):
    """What is remembered of a version that was taken away; of a damaged one perhaps its number alone."""

    version: int = attrs.field(validator=_NUMBER)
    created_at: str = ""
    actor: str = ""
    manifest: Digest | None = None


@attrs.frozen(kw_only=True)
class Change(codec.Record):
    """What happened, of which a generation is the outcome.

    Args:
        what: One of `EVENTS`.
        version: The version that it happened to, where it was one.
        manifest: SHA-256 of that version's manifest, where it could be read.
        taken: The versions that were taken away.
        lost: Generations that a repair found missing or damaged, as (first, last).
        other: The other name, of a renaming; what the version was pinned for, of an unpinning; the compact version
            that leans on it, of a reference.
        at: When, ISO 8601 in UTC.
        actor: Who.
        reason: Why.

    """

    what: str = attrs.field(validator=check.in_(EVENTS))
    version: int | None = attrs.field(default=None, validator=check.optional(_NUMBER))
    manifest: Digest | None = None
    taken: tuple[Taken, ...] = attrs.field(default=(), converter=tuple)
    lost: tuple[tuple[int, int], ...] = attrs.field(default=(), converter=fields.integer_rows)
    other: str = ""
    at: str
    actor: str = ""
    reason: str = ""


@attrs.frozen(kw_only=True)
class Pointer(codec.Record):
    """One generation: the state of a head or backbone, and the change that led to it.

    Args:
        generation: From 1; 0 is the state before anything happened, and has no file.
        active: The active version.
        manifest: SHA-256 of its manifest.
        earlier: The versions that were active before it and can be rolled back to, the latest last.
        pins: Why which versions are kept.
        gone: Versions that were taken away and whose files may still have been there.
        high: The highest number ever given out, as far as was known.
        change: What happened; None for generation 0.

    """

    generation: int = attrs.field(validator=check.ge(0))
    active: int | None = attrs.field(default=None, validator=check.optional(_NUMBER))
    manifest: Digest | None = None
    earlier: tuple[int, ...] = attrs.field(default=(), converter=fields.integers, validator=_NUMBERS)
    pins: tuple[Pin, ...] = attrs.field(default=(), converter=tuple)
    gone: tuple[int, ...] = attrs.field(default=(), converter=fields.integers, validator=_NUMBERS)
    high: int = attrs.field(default=0, validator=check.ge(0))
    change: Change | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a generation that does not say what happened."""
        if (self.generation == 0) != (self.change is None):
            raise RecordError(
                f"make generation {self.generation} of a pointer", "what happened is missing", "Give the change."
            )

    @property
    def previous(self) -> int | None:
        """The version that a rollback would make active."""
        return self.earlier[-1] if self.earlier else None

    @property
    def pinned(self) -> tuple[int, ...]:
        """Numbers of the pinned versions, in the order in which they were pinned first."""
        return tuple(dict.fromkeys(pin.version for pin in self.pins))

    @property
    def digests(self) -> dict[int, Digest]:
        """Digests of the manifests of the versions that it speaks of: what happened to which, and the active one."""
        named = [(self.active, self.manifest)]
        if self.change:
            named.insert(0, (self.change.version, self.change.manifest))
        return {number: digest for number, digest in named if number and digest}

    def is_active(self, number: int, manifest: Digest) -> bool:
        """Whether a version is the active one, and its manifest the one that was promoted."""
        return (self.active, self.manifest) == (number, manifest)

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


NOTHING = Pointer(generation=0)
"""The state before anything happened."""


def newest(place: ItemLayout) -> Pointer:
    """Return the state of a head or backbone: `NOTHING` if nothing ever happened to it.

    Raises:
        CorruptError: If the newest generation is damaged. The one before is no answer: it may name a version that
            was rolled back from for good reason.
        RecordError: If it is whole, and says what this version of the library does not know.

    """
    generations = place.pointer_generations()
    try:
        return read(place, generations[-1]) if generations else NOTHING
    except NotFoundError:
        if place.pointer_generations() == generations:
            raise
        return newest(place)  # the last was moved away by hand since they were listed


def read(place: ItemLayout, generation: int) -> Pointer:
    """Read one generation.

    Raises:
        NotFoundError: If it is not there.
        CorruptError: If it is damaged, or of another head or backbone.
        RecordError: If it is whole, and says what this version of the library does not know.

    """
    what = _what(place, generation)
    data = files.read_whole(place.pointer(generation), limit=MAX_BYTES, asked=f"read {what}")
    return (_parsed_before if len(data) <= _REMEMBERED_BYTES else parse)(place, data, generation)


def _what(place: ItemLayout, generation: int) -> str:
    return f"generation {generation} of the pointer of {place.root.name!r}"


def _owner(place: ItemLayout) -> str:
    """Return whose state a generation is, as it says itself: "heads/owl"."""
    return f"{place.root.parent.name}/{place.root.name}"


def parse(place: ItemLayout, data: bytes, generation: int) -> Pointer:
    """Read the text of a generation, as `read` does."""
    what = _what(place, generation)
    document = sealed.unseal(data, what, limit=MAX_BYTES)
    sealed.check_format(document, FORMAT, what)
    owner = document.pop("of", None)
    del document["format"]
    try:
        pointer = codec.from_dict(Pointer, document, what)
    except RecordError as error:  # its seal is right: it is what somebody wrote
        raise RecordError(error.asked, error.found, _NOT_OURS) from None
    remedy = "Restore it from a copy, or see 'hydra-detect store verify --repair'."
    if pointer.generation != generation or generation < 1:
        raise CorruptError(f"read {what}", "it is another generation", remedy)
    if owner != _owner(place):
        raise CorruptError(f"read {what}", f"it is one of {shown(owner)}", remedy)
    return pointer


# The file is read whenever somebody asks, a dozen times in one operation; only the same bytes are not parsed again.
_parsed_before = functools.lru_cache(maxsize=64)(parse)


def text(place: ItemLayout, pointer: Pointer) -> bytes:
    """Return the sealed text of a generation.

    Raises:
        RecordError: If it could not be read again: a reason that is no text, or texts that are too long.

    """
    data = sealed.seal({"format": FORMAT, "of": _owner(place), **codec.to_dict(pointer)})
    try:
        parse(place, data, pointer.generation)
    except (CorruptError, RecordError) as error:
        remedy = "Nothing was changed: give reason and actor as texts, and short ones."
        raise RecordError(f"write {_what(place, pointer.generation)}", error.found, remedy) from None
    return data


def intact(place: ItemLayout) -> list[Pointer]:
    """Return all generations that can be read, oldest first.

    Raises:
        StoreError: If the system refuses to read one.

    """
    found = []
    for generation in place.pointer_generations():
        with files.unless_damaged():  # the others are history all the same
            found.append(read(place, generation))
    return found


def digests_of(known: Iterable[Pointer]) -> dict[int, Digest]:
    """Return the digests of the manifests of all versions that generations speak of, the last of each."""
    return {number: digest for state in known for number, digest in state.digests.items()}


def last_digest(place: ItemLayout, number: int) -> Digest | None:
    """Return the digest of a version's manifest as the history last had it; None if it does not speak of it.

    Raises:
        StoreError: If the system refuses to read a generation.

    """
    for generation in reversed(place.pointer_generations()):
        with files.unless_damaged():  # what came before it is still true
            state = read(place, generation)
            if number in state.digests:
                return state.digests[number]
            if number > state.high:  # it was not there yet
                return None
    return None


def missing(generations: Iterable[int], known: Iterable[Pointer], *, until: int = 0) -> list[tuple[int, int]]:
    """Return the spans (first, last) of generations that are not there, but for those that a repair has written off.

    Args:
        generations: The numbers of those that are there, ascending.
        known: Those of them that can be read.
        until: The highest number that there ever was, if it is beyond them.

    """
    there = sorted({0, *generations})
    ends = itertools.pairwise([*there, max(until, there[-1]) + 1])
    spans = [(low + 1, high - 1) for low, high in ends if low + 1 < high]
    for state in known:
        for lost in state.change.lost if state.change else ():
            spans = [part for span in spans for part in _outside(span, lost)]
    return spans


def _outside(span: tuple[int, int], lost: tuple[int, int]) -> list[tuple[int, int]]:
    """Return what is left of a span on both sides of another."""
    sides = (span[0], min(span[1], lost[0] - 1)), (max(span[0], lost[1] + 1), span[1])
    return [(first, last) for first, last in sides if first <= last]


def spanned(first: int, last: int) -> str:
    """Return a span of generations in words."""
    return f"generation {first}" if first == last else f"generations {first} to {last}"
