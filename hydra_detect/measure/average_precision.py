"""Average precision by the COCO convention (Lin et al. 2014, arXiv:1405.0312), over all candidates of a head.

AP50, AP75, and AP: the mean over the overlaps 0.50, 0.55, to 0.95. Precision is taken at the 101 recalls 0, 0.01, to 1;
of each class in each picture the best 100 candidates are judged. The figures are those of the library hotcoco (extra
`train`), which stays in memory and prints nothing; tests hold it equal to pycocotools. Our own is `average_precision`
over outcomes at one overlap, with weights: what a bootstrap needs a thousand times.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import numpy as np

from hydra_detect import fields
from hydra_detect.detections import missing_extra
from hydra_detect.errors import InputError
from hydra_detect.measure.matching import check_pictures
from hydra_detect.measure.outcomes import class_numbers, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hydra_detect.detections import Detections, GroundTruth
    from hydra_detect.measure.columns import Doubles, Floats, Integers
    from hydra_detect.measure.outcomes import Outcomes

MOST_DETECTIONS = 100
"""Of each class in each picture, as many candidates are judged, the best ones."""

_RECALLS = np.linspace(0, 1, 101)
_AP50, _AP75 = 0, 5  # places among the overlaps 0.50, 0.55, to 0.95
_EVERY_AREA = [0.0, 1e10]


@attrs.frozen(kw_only=True)
class AveragePrecisions:
    """AP50, AP75 and AP of each class and their means.

    Args:
        class_names: C names.
        ap50: C figures at overlap 0.5; NaN for a class without labels.
        ap75: C figures at overlap 0.75.
        ap: C means over the overlaps 0.50, 0.55, to 0.95.

    """

    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    ap50: tuple[float, ...] = attrs.field(converter=fields.floats)
    ap75: tuple[float, ...] = attrs.field(converter=fields.floats)
    ap: tuple[float, ...] = attrs.field(converter=fields.floats)

    @property
    def means(self) -> tuple[float, float, float]:
        """AP50, AP75 and AP, each the mean over the classes that have labels; NaN where none has."""
        return mean_of_known(self.ap50), mean_of_known(self.ap75), mean_of_known(self.ap)


def mean_of_known(figures: Sequence[float]) -> float:
    """Return the mean of those that are not NaN; NaN where all are."""
    known = [figure for figure in figures if not math.isnan(figure)]
    return sum(known) / len(known) if known else math.nan


def average_precisions(
    detections: Sequence[Detections], truths: Sequence[GroundTruth], *, class_names: Sequence[str]
) -> AveragePrecisions:
    """Return AP50, AP75 and AP of each class.

    Args:
        detections: One per picture, with raw scores, down to the head's own low threshold.
        truths: The labels of the same pictures in the same order.
        class_names: The classes to judge.

    Raises:
        InputError: If there are not as many truths as detections, or a box or label is of another class.
        ExtraMissingError: If hotcoco is not installed.

    """
    check_pictures(detections, truths)
    numbers = numbered(class_names)
    precision = _precision(
        _rows([(d.boxes, d.label_names.tolist()) for d in detections], numbers, "a detection"),
        np.concatenate([np.zeros(0), *(d.scores for d in detections)]),
        _rows([(t.boxes, t.label_names) for t in truths], numbers, "a label"),
        pictures=len(truths),
        classes=len(numbers),
    )
    each = precision.mean(axis=1)  # [overlap, class]
    return AveragePrecisions(class_names=numbers, ap50=each[_AP50], ap75=each[_AP75], ap=each.mean(axis=0))


def _rows(pictures: Sequence[tuple[Floats, Sequence[str]]], numbers: dict[str, int], what: str) -> Doubles:
    """Return [N, 6]: picture, class from 1, x, y, width, height."""
    labels = class_numbers((name for _, names in pictures for name in names), numbers, what)
    images = np.repeat(np.arange(len(pictures)), [len(names) for _, names in pictures])
    corners = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in pictures)])  # float64 from here on
    return np.concatenate([np.stack([images, labels], axis=1), corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _precision(found: Doubles, scores: Doubles, present: Doubles, *, pictures: int, classes: int) -> Doubles:
    """Return [overlap, recall, class] precision, NaN for a class without labels."""
    try:
        import hotcoco
    except ImportError:
        raise missing_extra("measure average precision", "train") from None
    truth = hotcoco.COCO.from_arrays(
        [{"id": picture, "width": 1, "height": 1} for picture in range(pictures)],
        [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
        present[:, 0].astype(np.int64),
        present[:, 1].astype(np.int64),
        present[:, 2:],
    )
    columns = [found[:, :1], found[:, 2:], scores[:, None], found[:, 1:2]]
    evaluation = hotcoco.COCOeval(truth, truth.load_res(np.concatenate(columns, axis=1)), "bbox")
    settings = evaluation.params
    settings.area_rng, settings.area_rng_lbl, settings.max_dets = [_EVERY_AREA], ["all"], [MOST_DETECTIONS]
    evaluation.params = settings
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray((evaluation.eval or {})["precision"])[:, :, :, 0, 0]
    return np.where(precision < 0, np.nan, precision)  # -1 is its word for a class without labels


def average_precision(outcomes: Outcomes, class_name: str) -> Callable[[Integers], float]:
    """Return a function that gives one class's average precision at the outcomes' overlap, pictures weighted.

    With weights of 1 it is the library's figure at that overlap; a weight of 2 is as if the picture were there twice.

    Args:
        outcomes: What became of each candidate.
        class_name: One of its classes.

    Returns:
        A function from weights, [P] whole numbers, to the figure; NaN if no labelled box has weight.

    Raises:
        InputError: If there is no class of this name.

    """
    if class_name not in outcomes.class_names:
        raise InputError("measure average precision", f"no class {class_name!r:.80} was judged", "Name a judged class.")
    number = outcomes.class_names.index(class_name)
    rows = _best_rows(outcomes, number + 1)
    images, hits = outcomes.images[rows], np.flatnonzero(outcomes.hits[rows])
    labels = outcomes.truths[:, number]

    def weighted(weights: Integers) -> float:
        total = int(labels @ weights)
        if not total:
            return math.nan
        counted = weights[images]
        drawn = np.cumsum(counted)[hits]  # candidates down to each hit, itself included
        taken = np.cumsum(counted[hits])
        precision = taken / (drawn + np.spacing(1))
        # At each recall the best precision that is reached there or beyond, 0 where the recall is not reached.
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
        return float(best[np.searchsorted(taken / total, _RECALLS, side="left")].mean())

    return weighted


def _best_rows(outcomes: Outcomes, label: int) -> Integers:
    """Return the rows of one class, best score first, at most `MOST_DETECTIONS` of each picture."""
    rows = np.flatnonzero(outcomes.labels == label)
    rows = rows[np.argsort(-outcomes.scores[rows], kind="stable")]
    by_image = np.argsort(outcomes.images[rows], kind="stable")
    images = outcomes.images[rows][by_image]
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[by_image] = np.arange(len(rows)) - np.searchsorted(images, images, side="left")
    return rows[ranks < MOST_DETECTIONS]
