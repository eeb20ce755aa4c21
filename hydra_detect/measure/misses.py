"""Misses: the labelled boxes that a head did not find, the worst first, for people to look at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from PIL import Image, ImageDraw

from hydra_detect import drawing
from hydra_detect.detections import Detections, box_iou
from hydra_detect.errors import InputError
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.matching import assign, check_pictures
from hydra_detect.measure.outcomes import class_numbers, numbered
from hydra_detect.measure.policy import accepted
from hydra_detect.pictures import open_picture, to_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.detections import GroundTruth
    from hydra_detect.measure.columns import Integers
    from hydra_detect.records import OperatingPolicy

_CONTEXT = 0.75  # of the box's longer side, on each side of it
_LEAST_SIDE = 320  # pixels of a drawing; smaller crops are enlarged
_INK, _HALO = (255, 255, 255), (0, 0, 0)


@attrs.frozen(kw_only=True)
class Miss:
    """A labelled box that no accepted detection took.

    Args:
        image: The picture's place among those given, from 0.
        source: Its path or name, if known.
        image_size: (height, width) in pixels, (0, 0) if unknown.
        label: Its class name.
        box: (x1, y1, x2, y2) in pixels.
        score: Calibrated score of the best candidate of its class that overlaps it enough; 0 if there is none. A miss
            with a score could be found by a lower threshold, one without by no threshold.
        nearest: The candidate, of whatever class and score, that overlaps it best, score calibrated: one detection, or
            none where nothing touches it.

    """

    image: int
    source: str | None
    image_size: tuple[int, int]
    label: str
    box: tuple[float, float, float, float]
    score: float
    nearest: Detections

    def __str__(self) -> str:
        """One line."""
        where = self.source or f"picture {self.image}"
        x1, y1, x2, y2 = (round(corner) for corner in self.box)
        near = ", nothing near"
        if len(self.nearest):
            near = f", nearest {self.nearest.label_names[0]} {float(self.nearest.scores[0]):.2f}"
        return f"{where}: {self.label} at ({x1}, {y1}, {x2}, {y2}) missed{near}"


def worst_misses(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    *,
    policy: OperatingPolicy,
    class_names: Sequence[str],
    most: int = 12,
    iou: float = 0.5,
) -> list[Miss]:
    """Return labelled boxes that were not found at the operating point, the worst first.

    The worst are those that the lowest score speaks for; of equals the one with the largest area, then as given.

    Args:
        detections: One per picture, with raw scores, all candidates.
        truths: The labels of the same pictures in the same order.
        policy: Which detections count.
        class_names: The classes to judge.
        most: How many to return at most.
        iou: Least overlap of a hit, above 0 and up to 1.

    Raises:
        InputError: If the lengths differ, or a box or label is of another class.

    """
    check_pictures(detections, truths)
    numbers = numbered(class_names)
    misses = [
        miss
        for image, (found, truth) in enumerate(zip(detections, truths, strict=True))
        for miss in _misses_in(found, truth, numbers=numbers, policy=policy, iou=iou, image=image)
    ]
    return sorted(misses, key=lambda miss: (miss.score, -_area(miss.box)))[: max(most, 0)]


def _misses_in(
    found: Detections,
    truth: GroundTruth,
    *,
    numbers: dict[str, int],
    policy: OperatingPolicy,
    iou: float,
    image: int,
) -> list[Miss]:
    labels = class_numbers(found.label_names.tolist(), numbers, f"a detection in picture {image}")
    present = class_numbers(truth.label_names, numbers, f"a label in picture {image}")
    overlaps = box_iou(found.boxes, truth.boxes)  # [N, M]
    same = np.where(labels[:, None] == present[None], overlaps, np.float32(-1))
    counts = accepted(found.scores, found.label_names.tolist(), policy=policy)
    taken = assign(same[counts], found.scores[counts], iou=iou).truth_of
    calibrated = attrs.evolve(found, scores=apply_temperature(found.scores, policy.temperature))
    speaking = np.where(same >= np.float32(iou), calibrated.scores[:, None], 0)
    return [
        Miss(
            image=image,
            source=truth.source or found.source,
            image_size=found.image_size if truth.image_size == (0, 0) else truth.image_size,
            label=truth.label_names[place],
            box=tuple(truth.boxes[place].tolist()),
            score=float(speaking[:, place].max(initial=0)),
            nearest=calibrated[_nearest(overlaps[:, place])],
        )
        for place in range(len(truth))
        if place not in taken
    ]


def _nearest(overlaps: Any) -> Integers:
    best = np.argsort(-overlaps, kind="stable")[:1]
    return best[overlaps[best] > 0]


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def draw_miss(miss: Miss, picture: Any = None) -> Image.Image:
    """Draw what was missed in white, and the nearest candidate in the colour of its class, with some context.

    Args:
        miss: What to draw.
        picture: Anything `pictures.open_picture` reads; by default the file at `miss.source`.

    Returns:
        A new RGB image, enlarged where the box is small.

    Raises:
        InputError: If there is no picture to draw on, or it has another size than the one the box belongs to.

    """
    chosen = miss.source if picture is None else picture
    if chosen is None:
        raise InputError("draw a miss", "it does not know its picture's file", "Pass the picture.")
    opened = open_picture(chosen)
    if miss.image_size not in ((0, 0), opened.image_size):
        found = f"the picture is {list(opened.image_size)} and the box belongs to one of {list(miss.image_size)}"
        raise InputError("draw a miss", found, "Pass the picture that was judged, in its own size.")
    frame = _frame(miss, opened.image_size)
    left, top, right, bottom = frame
    pixels = np.rint(to_channels(opened, 3).pixels[:, top:bottom, left:right] * 255).astype(np.uint8)
    crop = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    scale = max(1, math.ceil(_LEAST_SIDE / max(crop.size)))
    crop = crop.resize((crop.width * scale, crop.height * scale), Image.Resampling.BICUBIC)
    near = attrs.evolve(
        miss.nearest, boxes=(miss.nearest.boxes - (left, top) * 2) * scale, image_size=(crop.height, crop.width)
    )
    _outline(crop, [(corner - edge) * scale for corner, edge in zip(miss.box, (left, top) * 2, strict=True)])
    return drawing.plot(near, crop)  # last: the name of the candidate is to be read


def _frame(miss: Miss, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return whole pixels (left, top, right, bottom) around the box and its nearest candidate, within the picture."""
    both = np.concatenate([[miss.box], miss.nearest.boxes])
    margin = _CONTEXT * max(miss.box[2] - miss.box[0], miss.box[3] - miss.box[1], 1)
    height, width = image_size
    left, top = np.clip(both[:, :2].min(axis=0) - margin, 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.ceil(np.clip(both[:, 2:].max(axis=0) + margin, (left + 1, top + 1), (width, height))).tolist()
    return left, top, int(right), int(bottom)


def _outline(image: Image.Image, box: list[float]) -> None:
    """Draw a white line with a dark edge on either side: it can be seen on any ground."""
    brush = ImageDraw.Draw(image)
    line = max(1, round(min(image.size) / 150))
    left, top, right, bottom = (round(corner) for corner in box)
    brush.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=_HALO, width=3 * line)
    brush.rectangle((left, top, right - 1, bottom - 1), outline=_INK, width=line)
