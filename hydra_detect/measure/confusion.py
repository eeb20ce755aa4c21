"""Confusion: which class was taken for which, with the background as one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.detections import box_iou
from hydra_detect.errors import RecordError
from hydra_detect.measure.matching import assign, check_pictures
from hydra_detect.measure.outcomes import class_numbers, numbered
from hydra_detect.measure.policy import accepted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.detections import Detections, GroundTruth
    from hydra_detect.records import OperatingPolicy

_BACKGROUND = "background"


@attrs.frozen(kw_only=True)
class Confusion(Record):
    """Counts of (labelled as, detected as) over C classes and the background, which comes last.

    `counts` is [C + 1, C + 1]: row r, column c holds the boxes labelled as class r that a detection of class c took.
    The last row holds detections that took no labelled box, the last column labelled boxes that nothing took; the last
    of both is 0. Boxes are matched whatever their class, so a detection of the wrong class may take a box before one
    of the right class does: the diagonal is not the number of true positives.
    """

    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    counts: tuple[tuple[int, ...], ...] = attrs.field(converter=fields.integer_rows)

    def __attrs_post_init__(self) -> None:
        """Refuse counts that are no square of the classes and the background."""
        side = len(self.class_names) + 1
        if [len(row) for row in self.counts] != [side] * side:
            found = f"{side - 1} classes have rows of {[len(row) for row in self.counts]!r:.60} counts"
            raise RecordError("make a confusion matrix", found, f"Give {side} rows of {side} counts.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(codec.to_dict(self))

    def __str__(self) -> str:
        """Return a table, a row per labelled class and a column per detected one."""
        names = (*self.class_names, _BACKGROUND)
        texts = [[str(count) for count in row] for row in self.counts]
        first = max(map(len, names))
        widths = [max(len(name), *(len(row[place]) for row in texts)) for place, name in enumerate(names)]
        lines = [
            "  ".join([name.ljust(first), *(text.rjust(width) for text, width in zip(row, widths, strict=True))])
            for name, row in zip(("", *names), (list(names), *texts), strict=True)
        ]
        return "\n".join(lines)


def confuse(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    *,
    class_names: Sequence[str],
    policy: OperatingPolicy,
    iou: float = 0.5,
) -> Confusion:
    """Count which class was taken for which at the operating point.

    In order of score, each accepted detection takes the free labelled box, of whatever class, that it overlaps best.

    Args:
        detections: One per picture, with raw scores.
        truths: The labels of the same pictures in the same order.
        class_names: The classes to judge.
        policy: Which detections count.
        iou: Least overlap of a hit, above 0 and up to 1.

    Raises:
        InputError: If the lengths differ, or a box or label is of another class.

    """
    check_pictures(detections, truths)
    numbers = {name: number - 1 for name, number in numbered(class_names).items()}
    background = len(numbers)
    total = np.zeros((background + 1, background + 1), dtype=np.int64)
    for found, truth in zip(detections, truths, strict=True):
        kept = found[accepted(found.scores, found.label_names.tolist(), policy=policy)]
        labels = class_numbers(kept.label_names.tolist(), numbers, "a detection")
        present = class_numbers(truth.label_names, numbers, "a label")
        truth_of = assign(box_iou(kept.boxes, truth.boxes), kept.scores, iou=iou).truth_of
        np.add.at(total, (np.append(present, background)[truth_of], labels), 1)  # -1 is the background
        missed = np.delete(present, truth_of[truth_of >= 0])
        total[:, background] += np.bincount(missed, minlength=background + 1)
    return Confusion(class_names=numbers, counts=total.tolist())
