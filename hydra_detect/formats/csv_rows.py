"""CSV: one row per labelled box, under a header: image,x1,y1,x2,y2,label and, if wanted, group.

Columns of the same meaning are read under the names that other programs give them (filename, xmin, ..., class), in
upper or lower case; a picture's width and height, and the row's number that pandas writes, are passed over.

Corners are ours: continuous pixels, x to the right, y downwards. A row that names only an image says that nothing is
to be found in it. Law: `labels_from_csv(labels_to_csv(truths))` gives boxes, labels, pictures and groups back bit for
bit, in order; the size of a picture is not written.
"""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

from hydra_detect.errors import InputError, listed, near_matches
from hydra_detect.formats.labels import PictureLabels, upright
from hydra_detect.formats.rows import shortest, wrong

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hydra_detect.detections import GroundTruth
    from hydra_detect.formats.labels import Box

_ASKED = "read labels from CSV"
_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS = ("image", *_CORNERS, "label")
_GROUP = "group"
_ALSO = {"filename": "image", "file_name": "image", "class": "label", "xmin": "x1", "ymin": "y1", "xmax": "x2",
         "ymax": "y2", "x_min": "x1", "y_min": "y1", "x_max": "x2", "y_max": "y2"}  # fmt: skip
_PASSED_OVER = ("", "width", "height")
_OTHER_DELIMITERS = (";", "\t", "|")


def labels_from_csv(text: str) -> list[PictureLabels]:
    """Read the labels of all pictures, and judge nothing but their form.

    Args:
        text: With a header of the columns image, x1, y1, x2, y2, label and perhaps group, in any order; as to other
            names see this module.

    Returns:
        One entry per picture, in order of first appearance.

    Raises:
        InputError: Naming the column or the line that is malformed.

    """
    by_image: dict[str, list[tuple[str, dict[str, str]]]] = {}
    for place, row in _rows(text):
        if not row["image"]:
            raise wrong(_ASKED, f"{place} names no image")
        by_image.setdefault(row["image"], []).append((place, row))
    return [_picture(name, rows) for name, rows in by_image.items()]


def labels_to_csv(truths: Iterable[GroundTruth], *, groups: Sequence[str] | None = None) -> str:
    """Return the rows; `labels_from_csv` reads them.

    Args:
        truths: One per picture; `source` is written as image.
        groups: The group of each, for a column of that name.

    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS if groups is None else (*_COLUMNS, _GROUP))
    for number, truth in enumerate(truths):
        group = [] if groups is None else [groups[number]]
        boxes = [map(shortest, box) for box in truth.boxes.tolist()]
        for box, label in zip(boxes, truth.label_names, strict=True):
            writer.writerow([truth.source, *map(repr, box), label, *group])
        if not len(truth):
            writer.writerow([truth.source, "", "", "", "", "", *group])
    return text.getvalue()


def _picture(name: str, rows: Sequence[tuple[str, dict[str, str]]]) -> PictureLabels:
    groups = {row.get(_GROUP, "") for _place, row in rows}
    if len(groups) > 1:
        raise wrong(_ASKED, f"the rows of {name!r} name the groups {listed(map(repr, groups))}")
    labelled = [(place, row) for place, row in rows if any(row[column] for column in _COLUMNS[1:])]
    return PictureLabels(
        name=name,
        boxes=[_box(row, place) for place, row in labelled],
        label_names=[_label(row, place) for place, row in labelled],
        group=groups.pop() or None,
    )


def _rows(text: str) -> list[tuple[str, dict[str, str]]]:
    """Return each row with its place, blank ones left out."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(f"line {reader.line_num}", row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise wrong(_ASKED, f"line {reader.line_num} is no CSV ({error})") from None
    if not lines:
        raise wrong(_ASKED, f"it has no header of {','.join(_COLUMNS)}")
    header = [_column(cell) for cell in lines[0][1]]
    _check_header(header)
    for place, row in lines[1:]:
        if len(row) != len(header):
            raise wrong(_ASKED, f"{place} has {len(row)} values and not {len(header)}")
    return [(place, dict(zip(header, (cell.strip() for cell in row), strict=True))) for place, row in lines[1:]]


def _column(cell: str) -> str:
    name = cell.strip().lower()
    return _ALSO.get(name, name)


def _check_header(header: Sequence[str]) -> None:
    missing = sorted(set(_COLUMNS) - set(header))
    strange = sorted(set(header) - {*_COLUMNS, _GROUP, *_PASSED_OVER})
    if len(header) == 1 and any(delimiter in header[0] for delimiter in _OTHER_DELIMITERS):
        raise InputError(_ASKED, f"its header {header[0]!r:.120} has no comma", "Save it with commas between values.")
    if missing:
        remedy = f"Give the header {','.join(_COLUMNS)}."
        raise InputError(_ASKED, f"its header {','.join(header)!r:.120} lacks {listed(missing)}", remedy)
    if strange:  # a group that is misspelt, and passed over, would let recordings come apart
        found = f"it has the column {strange[0]!r:.60}"
        raise InputError(_ASKED, found, f"{near_matches(strange[0], (*_COLUMNS, _GROUP))} Leave others out.")
    if len({*header} - {*_PASSED_OVER}) < len([name for name in header if name not in _PASSED_OVER]):
        raise wrong(_ASKED, "its header names a column twice")


def _box(row: dict[str, str], place: str) -> Box:
    x1, y1, x2, y2 = (_number(row[corner], f"{corner!r} of {place}") for corner in _CORNERS)
    return upright((x1, y1, x2, y2), asked=_ASKED, place=f"the box of {place}")


def _number(text: str, place: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise wrong(_ASKED, f"{place} is {text!r:.60} and not a finite number")
    return number


def _label(row: dict[str, str], place: str) -> str:
    if not row["label"]:
        raise wrong(_ASKED, f"{place} has a box without a label")
    return row["label"]
