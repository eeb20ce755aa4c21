"""YOLO: lines of `class cx cy width height score`, all but the class as fractions of the picture.

The class is a number from 0 in a list of names that travels apart from the lines. Law: `from_yolo(to_yolo(d, ...))`
gives class names and scores back as they were, and corners to within one unit in the last place of float32 or 2**-49
of the box's farthest corner, whichever is more: fractions carry all digits of float64. Heads and label ids are not
written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hydra_detect.errors import InputError, near_matches
from hydra_detect.formats.rows import Row, detections_of, rows_of, shortest, wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.detections import Detections

_ASKED = "read YOLO lines"
_COLUMNS = "class cx cy width height score"


def class_names_of(d: Detections) -> tuple[str, ...]:
    """Return the names of the classes that were found, sorted: the numbering that `to_yolo` uses unasked."""
    return tuple(sorted(set(d.label_names.tolist())))


def to_yolo(d: Detections, *, class_names: Sequence[str] | None = None) -> str:
    """Return one line per box, each ended by a newline; no boxes give an empty text.

    Args:
        d: Detections of one picture.
        class_names: The name of class 0, 1, ...; `class_names_of(d)` by default.

    Raises:
        InputError: If the picture's size is unknown or has no area, or a class is not among the names.

    """
    height, width = _sides(d.image_size, "write YOLO lines")
    names = class_names_of(d) if class_names is None else _distinct(class_names, "write YOLO lines")
    numbers = {name: number for number, name in enumerate(names)}
    lines = []
    for row in rows_of(d):
        if row.label not in numbers:
            found = f"the class {row.label!r} is not among the class names"
            raise InputError("write YOLO lines", found, near_matches(row.label, numbers))
        x1, y1, x2, y2 = row.box
        place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(" ".join([str(numbers[row.label]), *map(repr, place), repr(shortest(row.score))]) + "\n")
    return "".join(lines)


def from_yolo(
    text: str,
    *,
    image_size: tuple[int, int],
    class_names: Sequence[str],
    head: str = "",
    version: int = 0,
    source: str | None = None,
) -> Detections:
    """Read what `to_yolo` wrote; blank lines are passed over.

    Args:
        text: Lines of `class cx cy width height score`.
        image_size: (height, width) in pixels.
        class_names: The name of class 0, 1, ...; a box of class 0 gets label id 1, as label ids count from 1.
        head: Name of the head to state, which the lines do not tell.
        version: Its version.
        source: Path or name of the picture.

    Raises:
        InputError: Naming the first line that is malformed.

    """
    names = _distinct(class_names, _ASKED)
    sides = _sides(image_size, _ASKED)
    lines = [(f"line {number}", line.split()) for number, line in enumerate(text.split("\n"), start=1)]
    rows = [_row(words, place, sides, names) for place, words in lines if words]
    rows = [Row(box=r.box, score=r.score, label=r.label, label_id=r.label_id, head=head, version=version) for r in rows]
    return detections_of(rows, image_size=image_size, source=source)


def _row(words: list[str], place: str, sides: tuple[int, int], names: Sequence[str]) -> Row:
    if len(words) != len(_COLUMNS.split()):
        raise wrong(_ASKED, f"{place} has {len(words)} values and not the {len(_COLUMNS.split())} of '{_COLUMNS}'")
    try:
        number, (cx, cy, width, height, score) = int(words[0]), map(float, words[1:])
    except ValueError as error:
        raise wrong(_ASKED, f"{place} holds something that is no number ({str(error)[:80]})") from None
    if not 0 <= number < len(names):
        raise wrong(_ASKED, f"{place} is of class {number}, and there are names for {len(names)} classes")
    if not all(map(math.isfinite, (cx, cy, width, height))) or width < 0 or height < 0:
        raise wrong(_ASKED, f"{place} has a negative or infinite size")
    across, down = sides[1], sides[0]
    box = (
        (cx - width / 2) * across,
        (cy - height / 2) * down,
        (cx + width / 2) * across,
        (cy + height / 2) * down,
    )
    return Row(box=box, score=score, label=names[number], label_id=number + 1)


def _sides(image_size: tuple[int, int], asked: str) -> tuple[int, int]:
    height, width = image_size
    if height <= 0 or width <= 0:
        found = f"the picture's size is {height} x {width}, and YOLO's fractions need both sides"
        raise InputError(asked, found, "Give image_size as (height, width) in pixels.")
    return height, width


def _distinct(class_names: Sequence[str], asked: str) -> tuple[str, ...]:
    names = tuple(class_names)
    if isinstance(class_names, str) or len(set(names)) != len(names):
        found = "class_names is one text or names a class twice"
        raise InputError(asked, found, "Give a list of different names, that of class 0 first.")
    return names
