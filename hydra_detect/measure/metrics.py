"""Metrics: everything that was measured of a head on labelled pictures, as one record.

Precision, recall and F1 are those of the operating point: raw scores are calibrated and compared with the thresholds of
the policy. The sweep and average precision look at all candidates, whatever the policy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.errors import InputError, RecordError
from hydra_detect.measure import columns
from hydra_detect.measure.average_precision import average_precision, average_precisions
from hydra_detect.measure.bootstrap import Figure, Groups, figure, rates
from hydra_detect.measure.calibration import Calibration, calibration_at
from hydra_detect.measure.confusion import Confusion, confuse
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.policy import accepted
from hydra_detect.measure.promotion import Measurement
from hydra_detect.measure.sweep import SweepRecord, sweep
from hydra_detect.names import Digest
from hydra_detect.records import OperatingPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from hydra_detect.detections import Detections, GroundTruth
    from hydra_detect.measure.average_precision import AveragePrecisions
    from hydra_detect.measure.columns import Doubles, Integers
    from hydra_detect.measure.outcomes import Outcomes

HELD_OUT, CROSS_VALIDATION = "held-out", "cross-validation"
METHODS = (HELD_OUT, CROSS_VALIDATION)
_FEW_GROUPS = 10
_MOST_CONFUSED = 10  # classes: more make a table too wide to read
_COLUMNS = ("", "threshold", "labels", "TP", "FP", "FN", "precision", "recall", "F1", "AP50", "AP75", "AP")


def _method(_instance: Any, _attribute: Any, value: str) -> None:
    if value not in METHODS:
        raise RecordError(
            "say how it was measured", f"the method is {value!r:.60}", f"Give one of: {', '.join(METHODS)}."
        )


@attrs.frozen(kw_only=True)
class Rates(Record):
    """Precision, recall and F1 with their 95 % intervals; 0 where there is nothing to take a share of."""

    precision: Figure
    recall: Figure
    f1: Figure


@attrs.frozen(kw_only=True)
class Precisions(Record):
    """Average precision by the COCO convention; None where nothing is labelled. `ap50` has a 95 % interval."""

    ap50: Figure | None = None
    ap75: float | None = None
    ap: float | None = None


@attrs.frozen(kw_only=True)
class ClassMeans(Rates):
    """The means over the classes that have labels; that of average precision is what COCO calls AP."""

    average_precision: Precisions = Precisions()


@attrs.frozen(kw_only=True)
class Performance(Record):
    """How one class, or all together, did at the operating point, and its average precision over all candidates.

    For all together that is the pooled one: the candidates of all classes in one list, each matched within its class.
    `threshold` is the calibrated score from which a detection counted; None for all together where classes differ.
    """

    name: str
    threshold: float | None
    true_positives: int
    false_positives: int
    false_negatives: int
    rates: Rates
    average_precision: Precisions

    @property
    def labels(self) -> int:
        """How many labelled boxes there were."""
        return self.true_positives + self.false_negatives


@attrs.frozen(kw_only=True)
class Metrics(Record):
    """What was measured of a head on labelled pictures.

    `samples`, `labels` and `groups` count pictures, labelled boxes and groups of pictures. `classes` has one entry per
    class; `micro` takes all boxes together, counts added up and candidates pooled; `macro` is the mean over the classes
    that have labels. `method` is "held-out", or "cross-validation" where each picture was judged
    by a head that had not seen it, but not by this one. `samples_digest` is that of the pictures and their labels.

    `calibration` says how well scores can be read as chances on these very pictures, raw and as the policy reads them.
    It is None where that cannot be known: without candidates, and by cross-validation, where the scores are those of
    several heads, put on one scale.
    """

    samples: int
    labels: int
    groups: int
    iou: float = attrs.field(converter=fields.one_float, validator=fields.SHARE)
    policy: OperatingPolicy
    classes: tuple[Performance, ...]
    micro: Performance
    macro: ClassMeans
    sweep: SweepRecord
    confusion: Confusion
    samples_digest: Digest | None = None
    method: str = attrs.field(default=HELD_OUT, validator=_method)
    notes: tuple[str, ...] = attrs.field(default=(), converter=fields.texts)
    calibration: Calibration | None = None

    def figures(self) -> dict[str, float]:
        """Return the main figures by short names, for a record's `claimed_metrics`; those not measured are left out.

        Precision, recall and F1 are those of all boxes together; average precisions are means over the classes, as COCO
        has them.
        """
        if not self.labels:
            return {}
        shares, precisions = self.micro.rates, self.macro.average_precision
        ap50 = None if precisions.ap50 is None else precisions.ap50.value
        found = {
            "precision": shares.precision.value,
            "recall": shares.recall.value,
            "f1": shares.f1.value,
            "ap50": ap50,
            "ap75": precisions.ap75,
            "ap": precisions.ap,
        }
        return {name: value for name, value in found.items() if value is not None}

    def measurement(self) -> Measurement:
        """Return what a promotion is decided by: F1 over all classes, not a number if nothing was labelled.

        Raises:
            InputError: If it is not known which samples were measured.

        """
        if self.samples_digest is None:
            remedy = "Give measure the digest of the samples: figures of different samples are never compared."
            raise InputError("compare these metrics", "they do not say on which samples they were taken", remedy)
        return Measurement(f1=self.micro.rates.f1.value if self.labels else math.nan, samples=self.samples_digest)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dict(codec.to_dict(self))

    def __str__(self) -> str:
        """Return a table: a line per class, and where there are several, all together.

        Below it stand the confusion with the background, a table where there are several classes, and what scores say.
        """
        whole = [_row(self.micro), _macro_row(self.macro)] if len(self.classes) > 1 else []
        rows = [_COLUMNS, *map(_row, self.classes), *whole]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        told = (
            f"{self.samples} samples in {self.groups} groups, {self.labels} labelled boxes",
            self.method,
            f"IoU {self.iou:g}",
            f"temperature {self.policy.temperature:.3f}",
            "95 % intervals",
        )
        table = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        scores = [] if self.calibration is None else [_scores(self.calibration)]
        return "\n".join(
            ["; ".join(told), *table, *_confused(self.confusion), *scores, *(f"note: {note}" for note in self.notes)]
        )


def measure(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    *,
    class_names: Sequence[str],
    policy: OperatingPolicy,
    groups: Sequence[str] | None = None,
    samples_digest: Digest | None = None,
    method: str = HELD_OUT,
    seed: int = 0,
    draws: int = 1000,
) -> Metrics:
    """Measure a head on labelled pictures; a hit overlaps a label of its class by at least 0.5.

    Args:
        detections: One per picture, with raw scores: all candidates down to the head's own low threshold.
        truths: The labels of the same pictures in the same order.
        class_names: The classes of the head.
        policy: The operating point to measure at.
        groups: One name per picture; by default each picture is a group of its own.
        samples_digest: Digest of the pictures and their labels; without it no promotion can be decided.
        method: "held-out" or "cross-validation".
        seed: Of the bootstrap.
        draws: How often groups are drawn for the intervals; 0 gives none.

    Raises:
        InputError: If the lengths differ, a box or label is of another class, the size of a picture is unknown, or
            the seed is none.
        RecordError: If the method is neither of the two.
        ExtraMissingError: If hotcoco is not installed (extra `train`).

    """
    outcomes = judge(detections, truths, class_names=class_names, groups=groups)
    grouped = Groups.of(outcomes.groups)
    drawn = grouped.draw(draws, seed=seed)
    counts = grouped.add_up(_counts(outcomes, policy))  # [G, C, 3]
    found = average_precisions(detections, truths, class_names=class_names)
    each, pooled, mean = _averages(found, _ap50_draws(outcomes, grouped, drawn))
    classes = _performances(counts, drawn, dict(zip(outcomes.class_names, each, strict=True)), policy=policy)
    confusion = confuse(detections, truths, class_names=class_names, policy=policy, iou=outcomes.iou)
    return Metrics(
        samples=len(truths),
        labels=int(outcomes.truths.sum()),
        groups=grouped.count,
        iou=outcomes.iou,
        policy=policy,
        classes=classes,
        micro=_micro(counts, drawn, pooled, classes=classes),
        macro=_macro(counts, drawn, mean),
        sweep=sweep(outcomes, temperature=policy.temperature).on_grid(policy),
        confusion=confusion,
        samples_digest=samples_digest,
        method=method,
        notes=_notes(classes, grouped.count, wrong=int(counts[..., 1:].sum())),
        # What cross-validation found by several heads was put on one scale: no score is raw any more.
        calibration=calibration_at(outcomes, policy.temperature) if len(outcomes) and method == HELD_OUT else None,
    )


def _counts(outcomes: Outcomes, policy: OperatingPolicy) -> Integers:
    """Return [P, C, 3] true positives, false positives and false negatives at the operating point."""
    names = [outcomes.class_names[number - 1] for number in outcomes.labels.tolist()]
    chosen = accepted(outcomes.scores, names, policy=policy)
    hits = outcomes.count(chosen & outcomes.hits)
    return np.stack([hits, outcomes.count(chosen) - hits, outcomes.truths - hits], axis=-1)


def _ap50_draws(outcomes: Outcomes, groups: Groups, drawn: Integers) -> Doubles:
    """Return [D, C + 1] AP50 of each class, and last of all pooled, on each draw; NaN where it has no label."""
    names = (*outcomes.class_names, None)
    each: list[Callable[[Integers], float]] = [average_precision(outcomes, name) for name in names]
    found = [[weighted(draw[groups.of_image]) for weighted in each] for draw in drawn]
    return np.array(found, dtype=np.float64).reshape(len(drawn), len(each))


def _averages(found: AveragePrecisions, draws: Doubles) -> tuple[list[Precisions], Precisions, Precisions]:
    """Return average precisions of each class, of all pooled, and their means, with intervals of draws [D, C + 1]."""
    each = zip(found.ap50, found.ap75, found.ap, strict=True)
    return (
        [_precisions(figures, draws[:, place]) for place, figures in enumerate(each)],
        _precisions(found.pooled, draws[:, -1]),
        _precisions(found.means, _mean_of_known(draws[:, :-1])),
    )


def _performances(
    counts: Integers, drawn: Integers, precisions: Mapping[str, Precisions], *, policy: OperatingPolicy
) -> tuple[Performance, ...]:
    return tuple(
        _performance(name, counts[:, place], drawn, threshold=policy.threshold(name), precisions=own)
        for place, (name, own) in enumerate(precisions.items())
    )


def _micro(
    counts: Integers, drawn: Integers, precisions: Precisions, *, classes: tuple[Performance, ...]
) -> Performance:
    thresholds = {one.threshold for one in classes}
    return _performance(
        "all classes",
        counts.sum(axis=1),
        drawn,
        threshold=thresholds.pop() if len(thresholds) == 1 else None,
        precisions=precisions,
    )


def _performance(
    name: str, counts: Integers, drawn: Integers, *, threshold: float | None, precisions: Precisions
) -> Performance:
    """Return the performance of counts [G, 3]."""
    hits, alarms, missed = counts.sum(axis=0).tolist()
    points = zip(rates(counts.sum(axis=0)), rates(np.tensordot(drawn, counts, axes=1)), strict=True)
    precision, recall, f1 = (figure(_or_zero(value), draws) for value, draws in points)
    return Performance(
        name=name,
        threshold=threshold,
        true_positives=hits,
        false_positives=alarms,
        false_negatives=missed,
        rates=Rates(precision=precision, recall=recall, f1=f1),
        average_precision=precisions,
    )


def _macro(counts: Integers, drawn: Integers, precisions: Precisions) -> ClassMeans:
    """Return the means over the classes that have labels, of counts [G, C, 3]."""
    points = zip(_mean_rates(counts.sum(axis=0)[None]), _mean_rates(np.tensordot(drawn, counts, axes=1)), strict=True)
    precision, recall, f1 = (figure(_or_zero(value[0]), draws) for value, draws in points)
    return ClassMeans(precision=precision, recall=recall, f1=f1, average_precision=precisions)


def _mean_rates(counts: Integers) -> list[Doubles]:
    """Return precision, recall and F1, [D] each, as means over the classes of counts [D, C, 3] that have labels."""
    labelled = counts[..., 0] + counts[..., 2] > 0
    return [_mean_of_known(np.where(labelled, np.nan_to_num(each), math.nan)) for each in rates(counts)]


def _mean_of_known(values: Doubles) -> Doubles:
    """Return the means [D] over the classes of [D, C] that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    return columns.shares(np.where(known, values, 0).sum(axis=1), known.sum(axis=1), otherwise=math.nan)


def _precisions(figures: Sequence[float], draws: Doubles) -> Precisions:
    ap50, ap75, ap = figures
    if math.isnan(ap50):
        return Precisions()
    return Precisions(ap50=figure(ap50, draws), ap75=ap75, ap=ap)


def _or_zero(value: NDArray[Any]) -> float:
    return 0.0 if math.isnan(value) else float(value)


def _notes(classes: tuple[Performance, ...], groups: int, *, wrong: int) -> tuple[str, ...]:
    notes = [f"no labelled box of class {one.name}: its figures say nothing" for one in classes if not one.labels]
    if groups < _FEW_GROUPS:
        notes.append(f"intervals from {groups} groups are too narrow, or missing: label pictures of more groups")
    if groups and not wrong and any(one.labels for one in classes):
        # Where nothing is wrong every draw says so. What may be all the same: Hanley and Lippman-Hand 1983, JAMA 249.
        most = 1 - 0.05 ** (1 / groups)  # with which all being right still has a chance of one in twenty
        notes.append(f"nothing is wrong in {groups} groups: in up to {most:.0%} of others like them something may be")
    return tuple(notes)


def _row(one: Performance) -> tuple[str, ...]:
    counts = (one.labels, one.true_positives, one.false_positives, one.false_negatives)
    threshold = "" if one.threshold is None else f"{one.threshold:.3f}"
    return one.name, threshold, *map(str, counts), *_figures(one.rates, one.average_precision)


def _macro_row(means: ClassMeans) -> tuple[str, ...]:
    return "mean of classes", *[""] * 5, *_figures(means, means.average_precision)


def _figures(shares: Rates, precisions: Precisions) -> tuple[str, ...]:
    return (
        *map(str, (shares.precision, shares.recall, shares.f1)),
        "-" if precisions.ap50 is None else str(precisions.ap50),
        *map(_text, (precisions.ap75, precisions.ap)),
    )


def _confused(confusion: Confusion) -> list[str]:
    if 1 < len(confusion.class_names) <= _MOST_CONFUSED:
        return ["confusion: a row is what was labelled, a column what it was detected as", *str(confusion).splitlines()]
    inner = [row[:-1] for row in confusion.counts[:-1]]
    found = sum(row[place] for place, row in enumerate(inner))
    as_another = sum(map(sum, inner)) - found
    missed, false = sum(row[-1] for row in confusion.counts), sum(confusion.counts[-1])
    another = f"{as_another} taken for another class, " if len(inner) > 1 else ""
    return [f"confusion: {found} found, {another}{missed} missed, {false} false"]


def _scores(calibration: Calibration) -> str:
    before, after = calibration.before, calibration.after
    pairs = (("ECE", before.ece, after.ece), ("NLL", before.nll, after.nll))
    changes = [f"{title} {_text(raw)} raw, {_text(read)} calibrated" for title, raw, read in pairs]
    return f"scores on these pictures: {'; '.join(changes)}"


def _text(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
