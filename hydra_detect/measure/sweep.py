"""Sweep: precision, recall and F1 at every threshold.

A detection counts from score >= threshold. Thresholds are of calibrated scores. Where nothing counts precision is 0,
and so is recall where nothing is labelled, as in `matching.Counts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect import fields
from hydra_detect.codec import Record
from hydra_detect.errors import InputError, near_matches
from hydra_detect.measure import columns
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.columns import SAME, Doubles, Flags, Floats, Integers
from hydra_detect.measure.matching import Counts

if TYPE_CHECKING:
    from hydra_detect.measure.outcomes import Outcomes
    from hydra_detect.records import OperatingPolicy

GRID = tuple(step / 100 for step in range(101))
"""The thresholds of a sweep in a record, beside the operating point: 0, 0.01, to 1."""


@attrs.frozen(kw_only=True)
class Curve:
    """Hits and false alarms of one class, or of all together, at K thresholds.

    Args:
        thresholds: [K] float64, ascending.
        true_positives: [K] int64, hits that score at least the threshold.
        false_positives: [K] int64, candidates that are no hit and score at least the threshold.
        labels: How many labelled boxes there are.
        wrong: How many candidates are no hit, at whatever score.

    """

    thresholds: Doubles = attrs.field(converter=columns.doubles, eq=SAME)
    true_positives: Integers = attrs.field(converter=columns.integers, eq=SAME)
    false_positives: Integers = attrs.field(converter=columns.integers, eq=SAME)
    labels: int
    wrong: int

    @property
    def false_negatives(self) -> Integers:
        """[K] labelled boxes that no counted candidate hit."""
        return self.labels - self.true_positives

    @property
    def precision(self) -> Doubles:
        """[K] share of the counted candidates that are hits."""
        return columns.shares(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> Doubles:
        """[K] share of the labelled boxes that were found."""
        return columns.shares(self.true_positives, np.full_like(self.true_positives, self.labels))

    @property
    def f1(self) -> Doubles:
        """[K] harmonic mean of precision and recall."""
        twice = 2 * self.true_positives
        return columns.shares(twice, twice + self.false_positives + self.false_negatives)

    def at(self, thresholds: Any) -> Curve:
        """Return the same curve at other thresholds; exact if this one holds every distinct score.

        Args:
            thresholds: Ascending.

        """
        wanted = np.asarray(thresholds, dtype=np.float64)
        # The counts at a threshold are those at the first score that is not below it; above all scores they are 0.
        places = np.searchsorted(self.thresholds, wanted, side="left")
        return attrs.evolve(
            self,
            thresholds=wanted,
            true_positives=np.append(self.true_positives, 0)[places],
            false_positives=np.append(self.false_positives, 0)[places],
        )

    def counts(self, threshold: float) -> Counts:
        """Return hits, false alarms and misses at one threshold."""
        here = self.at([threshold])
        return Counts(
            true_positives=int(here.true_positives[0]),
            false_positives=int(here.false_positives[0]),
            false_negatives=int(here.false_negatives[0]),
        )


@attrs.frozen(kw_only=True)
class Means:
    """Mean precision, recall and F1 of several classes at K thresholds that hold for all of them, [K] float64 each."""

    thresholds: Doubles = attrs.field(converter=columns.doubles, eq=SAME)
    precision: Doubles = attrs.field(converter=columns.doubles, eq=SAME)
    recall: Doubles = attrs.field(converter=columns.doubles, eq=SAME)
    f1: Doubles = attrs.field(converter=columns.doubles, eq=SAME)


@attrs.frozen(kw_only=True)
class Sweep:
    """One curve per class and one over all classes.

    Args:
        class_names: C names.
        curves: C curves, in the same order.
        micro: Hits, false alarms and labels of all classes added up, each threshold holding for all.

    """

    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    curves: tuple[Curve, ...]
    micro: Curve

    def curve(self, class_name: str) -> Curve:
        """Return the curve of one class.

        Raises:
            InputError: If there is none of this name.

        """
        if class_name not in self.class_names:
            remedy = near_matches(class_name, self.class_names)
            raise InputError(f"show the class {class_name!r:.80}", "it was not judged", remedy)
        return self.curves[self.class_names.index(class_name)]

    def macro(self, thresholds: Any = GRID) -> Means:
        """Return the means over all classes that have labels, 0 where none has.

        Args:
            thresholds: [K] ascending, each holding for all classes.

        """
        here = [curve.at(thresholds) for curve in self.curves if curve.labels]
        none = np.zeros((1, len(thresholds)))
        return Means(
            thresholds=thresholds,
            precision=np.mean([curve.precision for curve in here] or none, axis=0),
            recall=np.mean([curve.recall for curve in here] or none, axis=0),
            f1=np.mean([curve.f1 for curve in here] or none, axis=0),
        )

    def on_grid(self, policy: OperatingPolicy | None = None) -> SweepRecord:
        """Return the sweep at 101 thresholds, and at those of a policy, for a record.

        Args:
            policy: The operating point that is to be read off exactly, too; of the curve for all its common threshold.

        """
        named = zip(self.class_names, self.curves, strict=True)
        return SweepRecord(
            class_names=self.class_names,
            curves=tuple(_on_grid(curve, None if policy is None else policy.threshold(name)) for name, curve in named),
            micro=_on_grid(self.micro, None if policy is None else policy.score_threshold),
        )


@attrs.frozen(kw_only=True)
class CurveRecord(Record):
    """Hits and false alarms at `thresholds`; `labels` and `wrong` as in `Curve`.

    `operating` is the threshold of the operating point: between two of the grid's the counts may be others.
    """

    true_positives: tuple[int, ...] = attrs.field(converter=fields.integers)
    false_positives: tuple[int, ...] = attrs.field(converter=fields.integers)
    labels: int
    wrong: int
    operating: float | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """0, 0.01, to 1 and, where there is one, the operating point, ascending."""
        return _thresholds(self.operating)

    def to_curve(self) -> Curve:
        """Return the curve, as plots take it."""
        return Curve(
            thresholds=self.thresholds,
            true_positives=self.true_positives,
            false_positives=self.false_positives,
            labels=self.labels,
            wrong=self.wrong,
        )


@attrs.frozen(kw_only=True)
class SweepRecord(Record):
    """A sweep at the thresholds 0, 0.01, to 1 and at the operating point."""

    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    curves: tuple[CurveRecord, ...]
    micro: CurveRecord

    def to_sweep(self) -> Sweep:
        """Return the sweep, as plots take it."""
        return Sweep(
            class_names=self.class_names,
            curves=tuple(curve.to_curve() for curve in self.curves),
            micro=self.micro.to_curve(),
        )


def sweep(outcomes: Outcomes, *, temperature: float = 1.0) -> Sweep:
    """Count hits and false alarms at every distinct calibrated score.

    Args:
        outcomes: What became of each candidate.
        temperature: That of the head.

    Raises:
        InputError: If the temperature is not a positive number.

    """
    scores = apply_temperature(outcomes.scores, temperature)
    labels = outcomes.truths.sum(axis=0).tolist()
    of_class = [outcomes.labels == number for number in range(1, len(labels) + 1)]
    return Sweep(
        class_names=outcomes.class_names,
        curves=tuple(
            _curve(scores[own], outcomes.hits[own], count) for own, count in zip(of_class, labels, strict=True)
        ),
        micro=_curve(scores, outcomes.hits, sum(labels)),
    )


def _curve(scores: Floats, hits: Flags, labels: int) -> Curve:
    order = np.argsort(-scores)
    ordered, taken = scores[order], hits[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)])  # of each distinct score
    found, passed = np.cumsum(taken)[last], last + 1
    return Curve(
        thresholds=ordered[last][::-1],
        true_positives=found[::-1],
        false_positives=(passed - found)[::-1],
        labels=labels,
        wrong=int((~hits).sum()),
    )


def _thresholds(operating: float | None) -> tuple[float, ...]:
    return GRID if operating is None else tuple(sorted({*GRID, operating}))


def _on_grid(curve: Curve, operating: float | None) -> CurveRecord:
    here = curve.at(_thresholds(operating))
    return CurveRecord(
        true_positives=here.true_positives.tolist(),
        false_positives=here.false_positives.tolist(),
        labels=here.labels,
        wrong=here.wrong,
        operating=operating,
    )
