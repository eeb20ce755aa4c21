"""Matching: which detection found which labelled box, and how many found one at all.

Owns the one rule of the library for a hit: in order of score, each detection takes the free labelled box of its class
that it overlaps best, if by at least the threshold. A labelled box is taken once, so finding it twice is one hit and
one false alarm. Owns too what every judging begins with: that there are as many labels as detections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect.detections import Detections, GroundTruth, box_iou
from hydra_detect.errors import InputError
from hydra_detect.measure import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def _indices(values: Any) -> NDArray[np.int64]:
    array = np.array(values, dtype=np.int64).reshape(-1)
    array.flags.writeable = False
    return array


@attrs.frozen
class Matching:
    """What became of each detection.

    Args:
        truth_of: [N] int64; for each detection, in the order given, the index of the labelled box it took, or -1.
        truths: Number of labelled boxes, M.

    """

    truth_of: NDArray[np.int64] = attrs.field(converter=_indices, eq=attrs.cmp_using(eq=np.array_equal))
    truths: int

    @property
    def hits(self) -> NDArray[np.bool_]:
        """[N] whether each detection took a labelled box."""
        return self.truth_of >= 0

    @property
    def counts(self) -> Counts:
        """Hits, false alarms and misses."""
        hits = int(self.hits.sum())
        return Counts(
            true_positives=hits, false_positives=len(self.truth_of) - hits, false_negatives=self.truths - hits
        )


@attrs.frozen(kw_only=True)
class Counts:
    """Hits, false alarms and misses; those of several pictures add up with `+`.

    Args:
        true_positives: Detections that took a labelled box.
        false_positives: Detections that took none.
        false_negatives: Labelled boxes that none took.

    """

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add the counts of other pictures."""
        if not isinstance(other, Counts):
            return NotImplemented
        return Counts(
            true_positives=self.true_positives + other.true_positives,
            false_positives=self.false_positives + other.false_positives,
            false_negatives=self.false_negatives + other.false_negatives,
        )

    @property
    def precision(self) -> float:
        """Share of the detections that are hits; 0.0 where there are no detections."""
        return float(columns.shares(self.true_positives, self.true_positives + self.false_positives))

    @property
    def recall(self) -> float:
        """Share of the labelled boxes that were found; 0.0 where there are none."""
        return float(columns.shares(self.true_positives, self.true_positives + self.false_negatives))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0.0 where nothing was found and nothing was there to find."""
        twice = 2 * self.true_positives
        return float(columns.shares(twice, twice + self.false_positives + self.false_negatives))


def match(
    detection_boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    truth_boxes: NDArray[np.float32],
    *,
    iou: float = 0.5,
) -> Matching:
    """Match detections of one class in one picture to its labelled boxes.

    Args:
        detection_boxes: [N, 4] xyxy pixels.
        scores: [N]; the best is served first, of equals the one that stands first.
        truth_boxes: [M, 4] xyxy pixels.
        iou: Least overlap of a hit, above 0 and up to 1.

    Raises:
        InputError: If the threshold is out of range or there is not one score per box.

    """
    if len(detection_boxes) != len(scores):
        found = f"there are {len(detection_boxes)} boxes and {len(scores)} scores"
        raise InputError("match boxes", found, "Give one score per box.")
    return assign(box_iou(detection_boxes, truth_boxes), scores, iou=iou)


def assign(overlaps: NDArray[np.float32], scores: NDArray[np.float32], *, iou: float = 0.5) -> Matching:
    """Match by overlaps: where a pair may not match, because its classes differ, its overlap is given as -1.

    Args:
        overlaps: [N, M] intersection over union of each detection with each labelled box.
        scores: [N]; the best is served first, of equals the one that stands first.
        iou: Least overlap of a hit, above 0 and up to 1.

    Raises:
        InputError: If the threshold is out of range.

    """
    if not 0 < iou <= 1:
        raise InputError("match boxes", f"the threshold iou is {iou}", "Choose one above 0 and up to 1, such as 0.5.")
    least = np.float32(iou)
    truth_of = np.full(len(overlaps), -1, dtype=np.int64)
    reaching = np.flatnonzero((overlaps >= least).any(axis=1))  # the others can take nothing
    free = overlaps[reaching]
    for place in np.argsort(-np.asarray(scores)[reaching], kind="stable").tolist():
        best = int(free[place].argmax())
        if free[place, best] >= least:
            truth_of[reaching[place]] = best
            free[:, best] = -1  # taken
    return Matching(truth_of, overlaps.shape[1])


def check_pictures(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    groups: Sequence[str] | None = None,
    *,
    asked: str = "judge detections",
) -> None:
    """Refuse detections, labels and groups that are not one of each per picture.

    Args:
        detections: One per picture.
        truths: One per picture.
        groups: One per picture, or None.
        asked: What they are wanted for, for the error.

    Raises:
        InputError: If they are not.

    """
    grouped = len(truths) if groups is None else len(groups)
    if isinstance(groups, str) or not len(detections) == len(truths) == grouped:
        named = "" if groups is None else f", and {grouped} groups"
        found = f"there are detections of {len(detections)} pictures and labels of {len(truths)}{named}"
        raise InputError(asked, found, "Give one of each per picture, in the same order.")


def count(
    detections: Sequence[Detections], truths: Sequence[GroundTruth], *, iou: float = 0.5, score: float = 0.0
) -> Counts:
    """Count hits, false alarms and misses over pictures; a box matches only a label of its own class name.

    Args:
        detections: One per picture. Of several heads, boxes of equal class name count together: filter first to
            judge one head.
        truths: The labels of the same pictures in the same order.
        iou: Least overlap of a hit, above 0 and up to 1.
        score: Detections below it are not counted.

    Raises:
        InputError: If there are not as many truths as detections.

    """
    check_pictures(detections, truths, asked="count hits")
    return sum((_count_one(d, t, iou, score) for d, t in zip(detections, truths, strict=True)), Counts())


def _count_one(detections: Detections, truth: GroundTruth, iou: float, score: float) -> Counts:
    kept = detections.filter(score=score)
    names = sorted({*kept.label_names.tolist(), *truth.label_names})
    per_class = ((kept[kept.label_names == name], truth.only(name)) for name in names)
    return sum((match(d.boxes, d.scores, t.boxes, iou=iou).counts for d, t in per_class), Counts())
