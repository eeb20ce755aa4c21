"""YOLO: lines of `class cx cy width height score`, all but the class as fractions of the picture.

The class is a number from 0 in a list of names that travels apart from the lines. Law: `from_yolo(to_yolo(d, ...))`
gives class names and scores back as they were, and corners to within one unit in the last place of float32 or 2**-49
of the box's farthest corner, whichever is more: fractions carry all digits of float64. Heads and label ids are not
written. Lines of labels have no score, and come back as closely.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hydra_detect.errors import InputError, near_matches
from hydra_detect.formats.labels import PictureLabels
from hydra_detect.formats.rows import Row, detections_of, rows_of, shortest, wrong
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.detections import Detections, GroundTruth
    from hydra_detect.formats.labels import Box

_ASKED = "read YOLO lines"
_ASKED_TO_WRITE = "write YOLO lines"
_COLUMNS = "class cx cy width height score"
_LABEL_COLUMNS = "class cx cy width height"


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
    sides = _sides(d.image_size, _ASKED_TO_WRITE)
    names = class_names_of(d) if class_names is None else _distinct(class_names, _ASKED_TO_WRITE)
    numbers = {name: number for number, name in enumerate(names)}
    lines = [[*_words(row.label, row.box, sides, numbers), repr(shortest(row.score))] for row in rows_of(d)]
    return "".join(" ".join(words) + "\n" for words in lines)


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


def labels_from_yolo(text: str, *, class_names: Sequence[str], name: str | None = None) -> PictureLabels:
    """Read the labels of one picture, and judge nothing but their form; blank lines are passed over.

    Args:
        text: Lines of `class cx cy width height`.
        class_names: The name of class 0, 1, ...
        name: Of the picture's file, which the lines do not tell.

    Raises:
        InputError: Naming the first line that is malformed.

    """
    names = _distinct(class_names, _ASKED)
    lines = [(f"line {number}", line.split()) for number, line in enumerate(text.split("\n"), start=1)]
    read = [_numbers(words, place, _LABEL_COLUMNS, names) for place, words in lines if words]
    boxes = [_corners(*place[:4]) for _number, place in read]
    labels = [names[number] for number, _place in read]
    return PictureLabels(name=name, boxes=boxes, label_names=labels, are_fractions=True)


def labels_to_yolo(truth: GroundTruth, *, class_names: Sequence[str]) -> str:
    """Return one line of `class cx cy width height` per box, each ended by a newline.

    Raises:
        InputError: If the picture's size has no area, or a class is not among the names.

    """
    sides = _sides(truth.image_size, _ASKED_TO_WRITE)
    numbers = {name: number for number, name in enumerate(_distinct(class_names, _ASKED_TO_WRITE))}
    rows = zip(truth.label_names, truth.boxes.tolist(), strict=True)
    return "".join(" ".join(_words(label, box, sides, numbers)) + "\n" for label, box in rows)


def _row(words: list[str], place: str, sides: tuple[int, int], names: Sequence[str]) -> Row:
    number, (cx, cy, width, height, score) = _numbers(words, place, _COLUMNS, names)
    x1, y1, x2, y2 = _corners(cx, cy, width, height)
    box = (x1 * sides[1], y1 * sides[0], x2 * sides[1], y2 * sides[0])
    return Row(box=box, score=score, label=names[number], label_id=number + 1)


def _numbers(words: list[str], place: str, columns: str, names: Sequence[str]) -> tuple[int, list[float]]:
    """Return the class and the numbers after it."""
    count = len(columns.split())
    if columns == _LABEL_COLUMNS and len(words) > count and len(words) % 2:
        found = f"{place} has {len(words)} values: a polygon, as labels for segmentation have it, and not '{columns}'"
        raise InputError(_ASKED, found, "Polygons are not read: export the labels for detection, as boxes.")
    if len(words) != count:
        raise wrong(_ASKED, f"{place} has {len(words)} values and not the {count} of '{columns}'")
    try:
        number, *numbers = map(float, words)  # a class may be written as 0.0
    except ValueError as error:
        raise wrong(_ASKED, f"{place} holds something that is no number ({str(error)[:80]})") from None
    if not number.is_integer():
        raise wrong(_ASKED, f"{place} is of class {shown(words[0])}, which is no whole number")
    if not 0 <= number < len(names):
        raise wrong(_ASKED, f"{place} is of class {words[0]:.80}, and there are names for {len(names)} classes")
    if not all(map(math.isfinite, numbers[:4])):
        raise wrong(_ASKED, f"{place} has a place or size that is no finite number")
    if numbers[2] < 0 or numbers[3] < 0:
        raise wrong(_ASKED, f"{place} has a negative width or height")
    return int(number), numbers


def _corners(cx: float, cy: float, width: float, height: float) -> Box:
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def _words(label: str, box: Sequence[float], sides: tuple[int, int], numbers: Mapping[str, int]) -> list[str]:
    if label not in numbers:
        found = f"the class {label!r} is not among the class names"
        raise InputError(_ASKED_TO_WRITE, found, near_matches(label, numbers))
    (x1, y1, x2, y2), (height, width) = box, sides
    place = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return [str(numbers[label]), *map(repr, place)]


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
