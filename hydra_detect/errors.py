"""The error tree: every failure a user can meet, with its facts as fields.

Each error says three things: what was asked, what was found, and what to do. The fields survive pickling, so an
error raised in a worker process arrives whole. This module knows nothing else of the library.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_LISTED = 12
"""How many names an error lists before it only counts the rest."""


def listed(names: Iterable[str]) -> str:
    """Return names sorted and joined, the tail beyond `MOST_LISTED` only counted."""
    ordered = sorted(names)
    rest = len(ordered) - MOST_LISTED
    return ", ".join(ordered[:MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def listed_numbers(numbers: Iterable[int]) -> str:
    """Return whole numbers ascending and joined, the middle of a long list left out."""
    texts = [str(number) for number in sorted(numbers)]
    return ", ".join(texts if len(texts) <= MOST_LISTED else [*texts[:3], "...", *texts[3 - MOST_LISTED :]])


class HydraDetectError(Exception):
    """Base of all errors of this library.

    Args:
        asked: What the caller wanted, as a phrase ("load head 'owl'").
        found: What stood in the way ("the store has no such head").
        remedy: What the caller can do about it, as a sentence.
        facts: Further values for programs, kept under `facts`.

    """

    def __init__(self, asked: str, found: str, remedy: str, **facts: Any) -> None:
        super().__init__(asked, found, remedy)
        self.asked = asked
        self.found = found
        self.remedy = remedy
        self.facts: Mapping[str, Any] = facts

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the kind of error, what was asked, what was found, what to do, and plain facts."""
        plain = {name: value for name, value in self.facts.items() if isinstance(value, str | int | float | None)}
        return {
            "error": type(self).__name__,
            "asked": self.asked,
            "found": self.found,
            "remedy": self.remedy,
            "facts": plain,
        }

    def __str__(self) -> str:
        """Return the whole sentence."""
        return f"cannot {self.asked}: {self.found}. {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields: the keyword facts would otherwise be lost on the way back from a worker."""
        return _rebuild, (type(self), self.asked, self.found, self.remedy, dict(self.facts))


def _rebuild(kind: type[HydraDetectError], asked: str, found: str, remedy: str, facts: dict[str, Any]) -> Any:
    return kind(asked, found, remedy, **facts)


class NameInvalidError(HydraDetectError, ValueError):
    """A head, backbone or reference name that the library does not allow."""


class RecordError(HydraDetectError, ValueError):
    """A record, manifest or settings value that is malformed or of a newer schema."""


class StoreError(HydraDetectError):
    """A store that is missing, not a store, newer than this library, or not writable."""


class CorruptError(StoreError):
    """Bytes that are not what they have to be: another digest, size or format, or weights with NaN or infinity."""


class ConflictError(StoreError):
    """Another process changed the same thing first, or a name is taken by something else."""


class StaleError(ConflictError):
    """Another process changed a head between the look at it and the change: nothing was done."""


class NotFoundError(HydraDetectError, LookupError):
    """A head, version, backbone or file that does not exist."""


class IncompatibleError(HydraDetectError):
    """A head that belongs to another backbone than the one at hand."""


class CheckpointError(HydraDetectError):
    """A foreign checkpoint that cannot be read, recognised or split."""


class ParityError(HydraDetectError):
    """The rebuilt detector does not equal the original; `facts["report"]` holds the comparison."""


class TrainingError(HydraDetectError):
    """A training that cannot go on or came to nothing: a loss that is no number, a compact form that loses too much."""


class TrainingStoppedError(HydraDetectError):
    """A training that was stopped from outside; `facts["checkpoint"]` is what it goes on from, if that was kept."""


class InputError(HydraDetectError, ValueError):
    """A picture or another argument that cannot be used."""


class RoleError(HydraDetectError, ValueError):
    """Samples of one role that were given to the work of another: what was trained on cannot be measured with."""


class DeviceError(HydraDetectError, RuntimeError):
    """A device or dtype that this machine does not offer."""


class HubError(HydraDetectError):
    """The Hub refused, did not answer, or answered what no Hub may; `facts["status"]` is its HTTP status, if any."""


class ExtraMissingError(HydraDetectError, ImportError):
    """A feature that needs an optional dependency which is not installed."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the known names closest to `name`, or with all that there are."""
    names = sorted(known)
    if not names:
        return "There is none yet."
    folded = {candidate.casefold(): candidate for candidate in names}
    text = name.casefold() if isinstance(name, str) else ""  # whatever was asked for is answered
    close = [folded[key] for key in difflib.get_close_matches(text, list(folded), n=3)]
    if close:
        return f"Did you mean {' or '.join(repr(candidate) for candidate in close)}?"
    return f"There are: {listed(names)}."
