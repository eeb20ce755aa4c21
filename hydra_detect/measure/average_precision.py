"""Average precision by the COCO convention (Lin et al. 2014, arXiv:1405.0312), over all candidates of a head.

AP50, AP75, and AP: the mean over the overlaps 0.50, 0.55, to 0.95. Precision is taken at the 101 recalls 0, 0.01, to 1;
of each class in each picture the best 100 candidates are judged. What COCO gives for all classes is the mean over them.
Beside it stands the pooled figure: one list of all candidates, best score first, each matched within its own class. It
is the same computation with each class of each picture taken for a picture of its own, all of them of one class. A
frequent class weighs more in it, and a class whose scores are lower than those of the others costs.

The figures are those of the library hotcoco (extra `train`), which stays in memory and prints nothing; tests hold it
equal to pycocotools. Our own is `average_precision` over outcomes at one overlap, with weights: what a bootstrap needs
a thousand times.
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
    from hydra_detect.measure.columns import Doubles, Flags, Floats, Integers
    from hydra_detect.measure.outcomes import Outcomes

MOST_DETECTIONS = 100
"""Of each class in each picture, as many candidates are judged, the best ones."""

_RECALLS = np.linspace(0, 1, 101)
_AP50, _AP75 = 0, 5  # places among the overlaps 0.50, 0.55, to 0.95
_EVERY_AREA = [0.0, 1e10]


@attrs.frozen(kw_only=True)
class AveragePrecisions:
    """AP50, AP75 and AP of each class, their means, and those of all classes pooled.

    Args:
        class_names: C names.
        ap50: C figures at overlap 0.5; NaN for a class without labels.
        ap75: C figures at overlap 0.75.
        ap: C means over the overlaps 0.50, 0.55, to 0.95.
        pooled: AP50, AP75 and AP of the candidates of all classes in one list; NaN without labels.

    """

    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    ap50: tuple[float, ...] = attrs.field(converter=fields.floats)
    ap75: tuple[float, ...] = attrs.field(converter=fields.floats)
    ap: tuple[float, ...] = attrs.field(converter=fields.floats)
    pooled: tuple[float, ...] = attrs.field(converter=fields.floats)

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
    """Return AP50, AP75 and AP of each class, and of all classes pooled.

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
    found = _rows([(d.boxes, d.label_names.tolist()) for d in detections], numbers, "a detection")
    scores = np.concatenate([np.zeros(0), *(d.scores for d in detections)])
    present = _rows([(t.boxes, t.label_names) for t in truths], numbers, "a label")
    ap50, ap75, ap = _figures(found, scores, present, classes=len(numbers))
    pooled = _figures(_as_one_class(found, len(numbers)), scores, _as_one_class(present, len(numbers)), classes=1)
    return AveragePrecisions(class_names=numbers, ap50=ap50, ap75=ap75, ap=ap, pooled=np.concatenate(pooled))


def _rows(pictures: Sequence[tuple[Floats, Sequence[str]]], numbers: dict[str, int], what: str) -> Doubles:
    """Return [N, 6]: picture, class from 1, x, y, width, height."""
    labels = class_numbers((name for _, names in pictures for name in names), numbers, what)
    images = np.repeat(np.arange(len(pictures)), [len(names) for _, names in pictures])
    corners = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _ in pictures)])  # float64 from here on
    return np.concatenate([np.stack([images, labels], axis=1), corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def _as_one_class(rows: Doubles, classes: int) -> Doubles:
    """Return rows [N, 6] in which each class of each picture is a picture of its own, and all boxes are of class 1."""
    pairs = rows[:, 0] * classes + rows[:, 1] - 1
    return np.concatenate([np.stack([pairs, np.ones(len(rows))], axis=1), rows[:, 2:]], axis=1)


def _figures(found: Doubles, scores: Doubles, present: Doubles, *, classes: int) -> tuple[Doubles, Doubles, Doubles]:
    """Return AP50, AP75 and AP, [C] each, NaN for a class without labels."""
    each = _precision(found, scores, present, classes=classes).mean(axis=1)  # [overlap, class]
    return each[_AP50], each[_AP75], each.mean(axis=0)


def _precision(found: Doubles, scores: Doubles, present: Doubles, *, classes: int) -> Doubles:
    """Return [overlap, recall, class] precision, NaN for a class without labels."""
    try:
        import hotcoco
    except ImportError:
        raise missing_extra("measure average precision", "train") from None
    pictures = np.unique(np.concatenate([found[:, 0], present[:, 0]])).astype(np.int64).tolist()  # others say nothing
    truth = hotcoco.COCO.from_arrays(
        [{"id": picture, "width": 1, "height": 1} for picture in pictures],
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


def average_precision(outcomes: Outcomes, class_name: str | None = None) -> Callable[[Integers], float]:
    """Return a function that gives average precision at the outcomes' overlap, pictures weighted.

    With weights of 1 it is the library's figure at that overlap; a weight of 2 is as if the picture were there twice.

    Args:
        outcomes: What became of each candidate.
        class_name: One of its classes; None for all of them pooled.

    Returns:
        A function from weights, [P] whole numbers, to the figure; NaN if no labelled box has weight.

    Raises:
        InputError: If there is no class of this name.

    """
    if class_name not in {None, *outcomes.class_names}:
        raise InputError("measure average precision", f"no class {class_name!r:.80} was judged", "Name a judged class.")
    wanted = [class_name in {None, name} for name in outcomes.class_names]
    rows = _best_rows(outcomes, np.array(wanted, dtype=np.bool_))
    images, hits = outcomes.images[rows], np.flatnonzero(outcomes.hits[rows])
    labels = outcomes.truths[:, wanted].sum(axis=1)

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


def _best_rows(outcomes: Outcomes, wanted: Flags) -> Integers:
    """Return the rows of the wanted classes [C], best first, at most `MOST_DETECTIONS` of each class in a picture."""
    rows = np.flatnonzero(wanted[outcomes.labels - 1])
    pairs = outcomes.images * len(wanted) + outcomes.labels  # one number for each class of each picture
    rows = rows[np.lexsort((pairs[rows], -outcomes.scores[rows]))]
    by_pair = np.argsort(pairs[rows], kind="stable")
    ordered = pairs[rows][by_pair]
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[by_pair] = np.arange(len(rows)) - np.searchsorted(ordered, ordered, side="left")
    return rows[ranks < MOST_DETECTIONS]
