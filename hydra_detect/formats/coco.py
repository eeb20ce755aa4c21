"""COCO: result rows for Detections, annotation documents for GroundTruth.

A COCO box is [x, y, width, height] in the same continuous pixels as ours. Law: `from_coco(to_coco(d), ...)` gives the
boxes, scores and names of `d` back. Corners come back bit for bit wherever x1 and y1 are not negative: the width is
written in float64, so x1 + width errs by less than 2**-51 of x2, far from where float32 would round otherwise. For a
negative x1 with an x2 more than 2**24 times smaller, x2 comes back within 2**-51 of x1's size.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError, near_matches
from hydra_detect.formats.labels import LabelSet, PictureLabels
from hydra_detect.formats.rows import (
    Row,
    as_kind,
    as_list,
    as_numbers,
    as_size,
    detections_of,
    must_have,
    need,
    rows_of,
    shortest,
    wrong,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from hydra_detect.detections import Detections
    from hydra_detect.formats.labels import Box

logger = logging.getLogger(__name__)

_ASKED = "read COCO rows"
_ASKED_TRUTH = "read COCO annotations"


def to_coco(d: Detections, *, image_id: int = 1, categories: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Return one row per box.

    Args:
        d: Detections of one picture.
        image_id: The picture's number in the annotation file.
        categories: Number of each class name, which need not be consecutive; by default a class has its index
            within its head, so that classes of several heads share numbers.

    Returns:
        Rows of `image_id`, `category_id`, `bbox` [x, y, width, height] and `score`, as COCO's own evaluation reads
        them, and beside them `head`, `head_version`, `label` and `label_id`.

    Raises:
        InputError: If `categories` lacks a class that was found.

    """
    return [
        {
            "image_id": image_id,
            "category_id": row.label_id if categories is None else _number_of(row.label, categories),
            "bbox": _to_xywh(row.box),
            "score": shortest(row.score),
            "head": row.head,
            "head_version": row.version,
            "label": row.label,
            "label_id": row.label_id,
        }
        for row in rows_of(d)
    ]


def from_coco(
    rows: Sequence[Mapping[str, Any]],
    *,
    image_size: tuple[int, int],
    categories: Mapping[str, int] | None = None,
    source: str | None = None,
) -> Detections:
    """Read the rows of one picture.

    Args:
        rows: As `to_coco` returns them; those of another program need only COCO's own four keys.
        image_size: (height, width) in pixels, which the rows do not tell.
        categories: Number of each class name, for rows without `label`; by default the number serves as the name.
        source: Path or name of the picture.

    Raises:
        InputError: If a row is malformed, its number is not among `categories`, or there are rows of two pictures.

    """
    rows = as_list(rows, asked=_ASKED, place="the whole")
    images = {
        as_kind(must_have(row, "image_id", asked=_ASKED, place=f"row {index}"), int, asked=_ASKED, place="'image_id'")
        for index, row in enumerate(rows)
    }
    if len(images) > 1:
        found = f"they belong to {len(images)} pictures"
        raise InputError(_ASKED, found, "Pass the rows of one image_id at a time.", image_ids=sorted(images))
    names = None if categories is None else {number: name for name, number in categories.items()}
    return detections_of(
        [_row(row, f"row {index}", names) for index, row in enumerate(rows)], image_size=image_size, source=source
    )


def labels_from_coco(document: Mapping[str, Any]) -> LabelSet:
    """Read an annotation document, as `json.load` gives it, and judge nothing but its form.

    Args:
        document: `images` (`id`, `file_name`, and as far as known `height`, `width` and `group`), `annotations`
            (`image_id`, `category_id`, `bbox`) and `categories` (`id`, `name`). Numbers may be any, with gaps. Spaces
            around a name are none of it.

    Returns:
        One entry per image in the document's order, those without annotations included; crowd regions (`iscrowd`),
        which are no box of one object, are counted instead of read. Detections in them count as false: nothing is known
        to be there.

    Raises:
        InputError: If a part is malformed, a number or the name of a used category stands twice, or an annotation
            refers to what is not there; the place is named.

    """
    names = {number: need(item, "name", str, asked=_ASKED_TRUTH, place=place).strip()
             for number, (place, item) in _numbered(document, "categories").items()}  # fmt: skip
    images = _numbered(document, "images")
    boxes: dict[int, list[Box]] = defaultdict(list)
    labels: dict[int, list[str]] = defaultdict(list)
    crowds: Counter[int] = Counter()
    used: set[int] = set()
    for place, item in _parts(document, "annotations"):
        image = _reference(item, "image_id", images, place)
        category = _reference(item, "category_id", names, place)
        used.add(category)
        if item.get("iscrowd"):  # its outline may stand there without a box
            crowds[image] += 1
            continue
        boxes[image].append(_corners(item, place))
        labels[image].append(names[category])
    categories = _categories(names, used)
    pictures = [
        _labels(item, place, boxes=boxes[number], label_names=labels[number], crowds=crowds[number])
        for number, (place, item) in images.items()
    ]
    return LabelSet(pictures=pictures, class_names=tuple(categories), category_ids=categories)


def _categories(names: Mapping[int, str], used: Collection[int]) -> dict[str, int]:
    """Return the number of each name; some programs list one again, as the root of all, that no annotation has."""
    categories: dict[str, int] = {}
    for number, name in names.items():
        other = categories.setdefault(name, number)
        if other != number and {other, number} <= set(used):
            raise wrong(_ASKED_TRUTH, f"the category {name!r} stands twice, with the numbers {other} and {number}")
        if other not in used:
            categories[name] = number
    return categories


def ground_truth_from_coco(document: Mapping[str, Any]) -> list[GroundTruth]:
    """Read an annotation document, as `json.load` gives it.

    Annotations without area and crowd regions (`iscrowd`), which are no box of one object, are skipped and counted
    in a warning of this module's logger.

    Args:
        document: As for `labels_from_coco`.

    Returns:
        One GroundTruth per image in the document's order, those without annotations included; `source` is
        `file_name`, and a size that is not known is (0, 0).

    Raises:
        InputError: As `labels_from_coco`.

    """
    labels = labels_from_coco(document).pictures
    solid = [picture.with_area for picture in labels]
    skipped = sum(
        len(all_of.boxes) - len(kept.boxes) + all_of.crowds for all_of, kept in zip(labels, solid, strict=True)
    )
    if skipped:
        logger.warning("skipped %d COCO annotations: boxes without area or crowd regions", skipped)
    return [
        GroundTruth(picture.boxes, picture.label_names, picture.image_size or (0, 0), picture.name) for picture in solid
    ]


def ground_truth_to_coco(
    truths: Iterable[GroundTruth], *, categories: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return an annotation document; `ground_truth_from_coco` reads it.

    Args:
        truths: One per picture; they are numbered from 1 in order.
        categories: Number of each class name; by default the names that occur, sorted, from 1.

    Raises:
        InputError: If `categories` lacks a class.

    """
    pictures = list(truths)
    if categories is None:
        names = sorted({name for truth in pictures for name in truth.label_names})
        categories = {name: number for number, name in enumerate(names, start=1)}
    annotations: list[dict[str, Any]] = []
    for image_id, truth in enumerate(pictures, start=1):
        for box, name in zip(truth.boxes.tolist(), truth.label_names, strict=True):
            bbox = _to_xywh(box)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": _number_of(name, categories),
                "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0,
            })  # fmt: skip
    return {
        "images": [_image(truth, image_id) for image_id, truth in enumerate(pictures, start=1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }


def _to_xywh(box: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def _xywh(item: Any, *, asked: str, place: str) -> list[float]:
    numbers = as_numbers(must_have(item, "bbox", asked=asked, place=place), 4, asked=asked, place=f"'bbox' of {place}")
    if numbers[2] < 0 or numbers[3] < 0:
        raise wrong(asked, f"'bbox' of {place} is {numbers}, with a negative width or height")
    return numbers


def _corners(item: Any, place: str) -> Box:
    """Return the box of an annotation; an empty list, as some programs leave of a deleted one, is a box of no area."""
    if item.get("bbox") == []:
        return 0.0, 0.0, 0.0, 0.0
    x, y, width, height = _xywh(item, asked=_ASKED_TRUTH, place=place)
    return x, y, x + width, y + height


def _number_of(label: str, categories: Mapping[str, int]) -> int:
    if label not in categories:
        found = f"the class {label!r} is not among the categories"
        raise InputError("write COCO rows", found, near_matches(label, categories))
    return categories[label]


def _row(item: Mapping[str, Any], place: str, names: Mapping[int, str] | None) -> Row:
    number = need(item, "category_id", int, asked=_ASKED, place=place)
    x, y, width, height = _xywh(item, asked=_ASKED, place=place)
    if "label" not in item and names is not None and number not in names:
        raise wrong(_ASKED, f"'category_id' of {place} is {number}, which is not among the categories")
    name = str(number) if names is None else names.get(number, "")
    return Row(
        box=(x, y, x + width, y + height),
        score=need(item, "score", float, asked=_ASKED, place=place),
        label=as_kind(item.get("label", name), str, asked=_ASKED, place=f"'label' of {place}"),
        label_id=as_kind(item.get("label_id", number), int, asked=_ASKED, place=f"'label_id' of {place}"),
        head=as_kind(item.get("head", ""), str, asked=_ASKED, place=f"'head' of {place}"),
        version=as_kind(item.get("head_version", 0), int, asked=_ASKED, place=f"'head_version' of {place}"),
    )


def _parts(document: Any, key: str) -> list[tuple[str, Any]]:
    items = must_have(document, key, asked=_ASKED_TRUTH, place="the document")
    return [(f"{key}[{n}]", item) for n, item in enumerate(as_list(items, asked=_ASKED_TRUTH, place=f"'{key}'"))]


def _numbered(document: Any, key: str) -> dict[int, tuple[str, Any]]:
    """Return the parts by their `id`, each with its place."""
    found: dict[int, tuple[str, Any]] = {}
    for place, item in _parts(document, key):
        number = need(item, "id", int, asked=_ASKED_TRUTH, place=place)
        if number in found:
            raise wrong(_ASKED_TRUTH, f"{place} has the 'id' {number} of {found[number][0]}")
        found[number] = (place, item)
    return found


def _reference(item: Any, key: str, known: Mapping[int, Any], place: str) -> int:
    number = need(item, key, int, asked=_ASKED_TRUTH, place=place)
    if number not in known:
        raise wrong(_ASKED_TRUTH, f"'{key}' of {place} is {number}, which the document does not list")
    return number


def _labels(
    item: Mapping[str, Any], place: str, *, boxes: list[Box], label_names: list[str], crowds: int
) -> PictureLabels:
    def text(key: str) -> str | None:
        value = item.get(key)
        return None if value is None else as_kind(value, str, asked=_ASKED_TRUTH, place=f"'{key}' of {place}")

    return PictureLabels(
        name=text("file_name"),
        boxes=boxes,
        label_names=label_names,
        image_size=as_size(item.get("height"), item.get("width"), asked=_ASKED_TRUTH, place=place),
        group=text("group"),
        crowds=crowds,
    )


def _image(truth: GroundTruth, image_id: int) -> dict[str, Any]:
    height, width = truth.image_size
    name = {} if truth.source is None else {"file_name": truth.source}
    return {"id": image_id, "height": height, "width": width, **name}
