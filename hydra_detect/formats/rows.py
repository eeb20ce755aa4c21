"""Rows: one detection as plain Python values, the step between columns of numpy and every format.

Owns the checks of what a stranger wrote: each error names the place and what is wrong there. Knows no format.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import numpy as np

from hydra_detect.detections import Detections, Timing
from hydra_detect.errors import InputError
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T", str, int, float)

_WORDS = {str: "text", int: "a whole number", float: "a finite number"}
_INT64_END = 1 << 63


@attrs.frozen(kw_only=True)
class Row:
    """One detection.

    Args:
        box: (x1, y1, x2, y2) in pixels; each is a float32 value, held as Python's float.
        score: In [0, 1], likewise.
        label: Class name.
        label_id: Class index within the head, from 1.
        head: Name of the head.
        version: Version number of the head.

    """

    box: tuple[float, float, float, float]
    score: float
    label: str
    label_id: int
    head: str = ""
    version: int = 0


def rows_of(detections: Detections) -> Iterator[Row]:
    """Yield the detections one by one, in order."""
    columns = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.label_names.tolist(),
        detections.labels.tolist(),
        detections.heads.tolist(),
        detections.head_versions.tolist(),
        strict=True,
    )
    for box, score, label, label_id, head, version in columns:
        yield Row(box=tuple(box), score=score, label=label, label_id=label_id, head=head, version=version)


def detections_of(
    rows: Iterable[Row],
    *,
    image_size: tuple[int, int],
    source: str | None = None,
    timing: Timing | None = None,
) -> Detections:
    """Gather rows into Detections.

    Raises:
        InputError: If a box is turned inside out or not finite as float32, or a score is outside [0, 1].

    """
    gathered = list(rows)
    return Detections(
        boxes=[row.box for row in gathered],
        scores=[row.score for row in gathered],
        labels=[row.label_id for row in gathered],
        label_names=[row.label for row in gathered],
        heads=[row.head for row in gathered],
        head_versions=[row.version for row in gathered],
        image_size=image_size,
        source=source,
        timing=timing or Timing(),
    )


def shortest(value: float) -> float:
    """Return the float with the fewest digits that reads back as the same float32.

    The float32 next to 0.1 prints as 0.10000000149011612; 0.1 says the same in a third of the space.
    """
    single = np.float32(value)
    short = float(str(single))
    return short if np.float32(short) == single else value


def need(row: Any, key: str, kind: type[T], *, asked: str, place: str) -> T:
    """Return `row[key]`, which must be of this kind: str, int or float.

    Raises:
        InputError: If `row` is no mapping, lacks the key, or holds something else there.

    """
    return as_kind(must_have(row, key, asked=asked, place=place), kind, asked=asked, place=f"'{key}' of {place}")


def must_have(row: Any, key: str, *, asked: str, place: str) -> Any:
    """Return `row[key]`.

    Raises:
        InputError: If `row` is no mapping or lacks the key.

    """
    if not isinstance(row, Mapping):
        raise wrong(asked, f"{place} is {shown(row)} and not an object with named values")
    if key not in row:
        raise wrong(asked, f"{place} has no '{key}'")
    return row[key]


def as_kind(value: Any, kind: type[T], *, asked: str, place: str) -> T:
    """Return `value` as str, int or float, without guessing: True is no number and 1.5 no whole one.

    Raises:
        InputError: If it is of another kind, not finite, or a whole number beyond 64 bits.

    """
    if _holds(value, kind):
        return kind(value)
    raise wrong(asked, f"{place} is {shown(value)} and not {_WORDS[kind]}")


def _holds(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if kind is str:
        return isinstance(value, str)
    if kind is int:
        return isinstance(value, numbers.Integral) and -_INT64_END <= int(value) < _INT64_END
    try:
        return isinstance(value, numbers.Real) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def as_numbers(value: Any, count: int, *, asked: str, place: str) -> list[float]:
    """Return a list of so many finite numbers.

    Raises:
        InputError: If it is no list or tuple of that length, or one is no number.

    """
    if not isinstance(value, list | tuple) or len(value) != count:
        raise wrong(asked, f"{place} is {shown(value)} and not a list of {count} numbers")
    return [as_kind(item, float, asked=asked, place=f"number {index} of {place}") for index, item in enumerate(value)]


def as_size(height: Any, width: Any, *, asked: str, place: str) -> tuple[int, int] | None:
    """Return a picture's (height, width), which may be written as 480.0; None, which is unknown, if a side is None.

    Raises:
        InputError: If a side is anything but a whole number or None.

    """
    sides = []
    for key, value in (("height", height), ("width", width)):
        if value is not None:
            whole = int(value) if isinstance(value, float) and value.is_integer() else value
            sides.append(as_kind(whole, int, asked=asked, place=f"'{key}' of {place}"))
    return None if len(sides) < 2 else (sides[0], sides[1])  # noqa: PLR2004  both


def as_list(value: Any, *, asked: str, place: str) -> list[Any]:
    """Return `value`, which must be a list or tuple.

    Raises:
        InputError: If it is something else.

    """
    if not isinstance(value, list | tuple):
        raise wrong(asked, f"{place} is {shown(value)} and not a list")
    return list(value)


def wrong(asked: str, found: str) -> InputError:
    """Return the error for text or values that are not what the format says."""
    return InputError(asked, found, "Correct that place; nothing was read.")
