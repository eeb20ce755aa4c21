"""Pascal VOC: one XML annotation per picture.

Coordinates are ours, continuous from 0 and with fractions, in VOC's elements `xmin` ... `ymax`; `score`, `head`,
`version` and `label_id` stand beside them, where readers of plain VOC pass them over. Law: `from_voc(to_voc(d)) == d`
bit for bit, for every text XML can hold; text with control characters is refused. Documents with a DOCTYPE, which
could swell without bound, and those above 16 MiB are refused unread.
"""

from __future__ import annotations

import contextlib
import logging
import re
import xml.etree.ElementTree as ET
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.formats.labels import PictureLabels, upright
from hydra_detect.formats.rows import Row, as_kind, as_size, detections_of, rows_of, shortest, wrong
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hydra_detect.detections import Detections

logger = logging.getLogger(__name__)

MAX_BYTES = 16 << 20
_ASKED = "read a VOC annotation"
# What XML 1.0 cannot hold, and the carriage return, which every XML reader turns into a newline.
_UNFIT = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def to_voc(d: Detections) -> str:
    """Return the annotation as indented XML.

    Raises:
        InputError: If a name or the source holds a character that XML does not.

    """
    root = ET.Element("annotation")
    if d.source is not None:
        path = PurePosixPath(d.source.replace("\\", "/"))
        _put(root, "folder", path.parent.name)
        _put(root, "filename", path.name)
        _put(root, "path", d.source)
    _put_size(root, d.image_size)
    for row in rows_of(d):
        item = ET.SubElement(root, "object")
        _put(item, "name", row.label)
        _put(item, "head", row.head)
        _put(item, "version", str(row.version))
        _put(item, "label_id", str(row.label_id))
        _put(item, "score", repr(shortest(row.score)))
        _put_box(item, row.box)
    return _indented(root)


def from_voc(text: str) -> Detections:
    """Read what `to_voc` wrote; an object needs a `score`.

    Raises:
        InputError: If it is no VOC annotation, too large, has a DOCTYPE, or lacks something; the place is named.

    """
    root = _parse(text)
    source = root.findtext("path", root.findtext("filename"))
    rows = [_row(item, f"object {number}") for number, item in enumerate(root.findall("object"), start=1)]
    return detections_of(rows, image_size=_image_size(root), source=source)


def labels_from_voc(text: str, *, from_one: bool = False) -> PictureLabels:
    """Read the labels of one picture, and judge nothing but their form.

    Args:
        text: The annotation; an object needs `name` and `bndbox`. `name` of the result is the `filename`, and `group`
            an element of that name beside it, if there is one. A `size` that is absent or empty is unknown.
        from_one: Corners are pixels that are counted from 1, the last one included, as VOC's own devkit has them: a
            box over all of 64 x 48 pixels is (1, 1, 64, 48). By default they are the continuous ones of this library.

    Raises:
        InputError: As `from_voc`, and if a box is the wrong way round.

    """
    root = _parse(text)
    first = 1 if from_one else 0
    boxes, names = [], []
    for number, item in enumerate(root.findall("object"), start=1):
        place = f"object {number}"
        names.append(_text(item, "name", place).strip())
        x1, y1, x2, y2 = _box(item, place)
        boxes.append(upright((x1 - first, y1 - first, x2, y2), asked=_ASKED, place=f"'bndbox' of {place}"))
    return PictureLabels(
        name=root.findtext("filename"),
        boxes=boxes,
        label_names=names,
        image_size=_stated_size(root),
        group=root.findtext("group"),
    )


def labels_to_voc(truth: GroundTruth, *, group: str | None = None, from_one: bool = False) -> str:
    """Return labels as indented XML, `source` as `filename`; `labels_from_voc` reads them.

    Args:
        truth: The labels of one picture.
        group: What it must not come apart from.
        from_one: Write corners as pixels that are counted from 1; by default as they are, bit for bit.

    Raises:
        InputError: If a name holds a character that XML does not.

    """
    root = ET.Element("annotation")
    for name, text in (("filename", truth.source), ("group", group)):
        if text is not None:
            _put(root, name, text)
    _put_size(root, truth.image_size)
    first = 1 if from_one else 0
    for (x1, y1, x2, y2), name in zip(truth.boxes.tolist(), truth.label_names, strict=True):
        item = ET.SubElement(root, "object")
        _put(item, "name", name)
        _put_box(item, (x1 + first, y1 + first, x2, y2))
    return _indented(root)


def ground_truth_from_voc(text: str) -> GroundTruth:
    """Read the labels of one picture; `source` is the `filename`, without its folder.

    Objects without area are skipped and counted in a warning of this module's logger. A size that is not known is
    (0, 0).

    Raises:
        InputError: As `labels_from_voc`.

    """
    labels = labels_from_voc(text)
    solid = labels.with_area
    if len(solid.boxes) < len(labels.boxes):
        logger.warning("skipped %d VOC objects without area", len(labels.boxes) - len(solid.boxes))
    return GroundTruth(solid.boxes, solid.label_names, solid.image_size or (0, 0), solid.name)


def _put_size(root: ET.Element, image_size: tuple[int, int]) -> None:
    size = ET.SubElement(root, "size")
    for side, value in zip(("height", "width"), image_size, strict=True):
        _put(size, side, str(value))
    _put(size, "depth", "3")  # VOC wants the channels; the heads see colour, whatever the file was


def _put_box(item: ET.Element, corners: Iterable[float]) -> None:
    box = ET.SubElement(item, "bndbox")
    for name, corner in zip(_CORNERS, corners, strict=True):
        _put(box, name, repr(shortest(corner)))


def _indented(root: ET.Element) -> str:
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def _put(parent: ET.Element, name: str, text: str) -> None:
    unfit = _UNFIT.search(text)
    if unfit:
        found = f"{name} {text!r:.80} holds {unfit.group()!r}, which XML cannot"
        raise InputError("write a VOC annotation", found, "Rename it, or write JSON, which holds any text.")
    ET.SubElement(parent, name).text = text


def _parse(text: str) -> ET.Element:
    if not isinstance(text, str):
        raise wrong(_ASKED, f"it is of type {type(text).__name__} and not text")
    if len(text) > MAX_BYTES or len(text.encode(errors="replace")) > MAX_BYTES:
        raise InputError(_ASKED, f"it is larger than {MAX_BYTES} bytes", "No picture has so many objects; check it.")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise InputError(_ASKED, "it declares a DOCTYPE or entities", "Remove them; VOC needs none.")
    try:
        root = ET.fromstring(text)  # noqa: S314  entities, the danger, are refused above
    except (ET.ParseError, ValueError) as error:
        raise wrong(_ASKED, f"it is no XML ({error})") from None
    if root.tag != "annotation":
        raise wrong(_ASKED, f"its outermost element is '{root.tag}' and not 'annotation'")
    return root


def _text(parent: ET.Element, path: str, place: str) -> str:
    text = parent.findtext(path)
    if text is None:
        raise wrong(_ASKED, f"{place} has no '{path}'")
    return text


def _float(parent: ET.Element, path: str, place: str) -> float:
    text = _text(parent, path, place)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number - number != 0:  # NaN and infinity alone
        raise wrong(_ASKED, f"'{path}' of {place} is {shown(text)} and not a finite number")
    return number


def _int(parent: ET.Element, path: str, place: str) -> int:
    text = _text(parent, path, place)
    try:
        number = int(text)
    except ValueError:
        raise wrong(_ASKED, f"'{path}' of {place} is {shown(text)} and not a whole number") from None
    return as_kind(number, int, asked=_ASKED, place=f"'{path}' of {place}")


def _box(item: ET.Element, place: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_float(item, f"bndbox/{corner}", place) for corner in _CORNERS)
    return x1, y1, x2, y2


def _image_size(root: ET.Element) -> tuple[int, int]:
    return _int(root, "size/height", "the annotation"), _int(root, "size/width", "the annotation")


def _stated_size(root: ET.Element) -> tuple[int, int] | None:
    height, width = (_side(root.findtext(f"size/{side}", "")) for side in ("height", "width"))
    return as_size(height, width, asked=_ASKED, place="the annotation")


def _side(text: str) -> float | str | None:
    """Return a number where there is one; what is none is judged, and named, with the other numbers."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text.strip() or None


def _row(item: ET.Element, place: str) -> Row:
    return Row(
        box=_box(item, place),
        score=_float(item, "score", place),
        label=_text(item, "name", place),
        label_id=_int(item, "label_id", place),
        head=_text(item, "head", place),
        version=_int(item, "version", place),
    )
