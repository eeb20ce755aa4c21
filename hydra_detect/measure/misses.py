"""Misses: the labelled boxes that a head did not find, the worst first, for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect.detections import Detections, box_iou
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.matching import assign, check_pictures
from hydra_detect.measure.outcomes import class_numbers, numbered
from hydra_detect.measure.policy import accepted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.detections import GroundTruth
    from hydra_detect.measure.columns import Integers
    from hydra_detect.records import OperatingPolicy


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
