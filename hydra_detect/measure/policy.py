"""Policy: the score from which a detection counts, chosen for a stated objective.

Owns objectives, their text forms (`parse_objective(str(x)) == x`), the choice of thresholds on labelled outcomes, and
the one rule by which a policy accepts a detection: its calibrated score is at least the threshold of its class.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect.errors import InputError, listed
from hydra_detect.measure import columns
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.sweep import sweep
from hydra_detect.names import shown
from hydra_detect.records import OperatingPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hydra_detect.measure.columns import Doubles, Flags
    from hydra_detect.measure.outcomes import Outcomes
    from hydra_detect.measure.sweep import Curve

_ASKED = "choose thresholds"
_EQUAL = 1e-12  # figures that only differ by rounding


def _plain(value: Any) -> Any:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return float(value) if is_number else value


def _number(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not (type(value) is float and math.isfinite(value) and value > 0):
        raise InputError(f"set {attribute.name}", f"it is {shown(value)}", "Give a number above 0.")


def _share(_instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not (type(value) is float and 0 < value <= 1):
        raise InputError(f"set {attribute.name}", f"it is {shown(value)}", "Give a share above 0 and up to 1.")


@attrs.frozen
class FBeta:
    """F-beta: recall counts `beta` times as much as precision; at 1 it is F1 (van Rijsbergen 1979)."""

    beta: float = attrs.field(default=1.0, converter=_plain, validator=_number)

    def values(self, curve: Curve) -> Doubles:
        """Return F-beta at each threshold of the curve, [K] in [0, 1]."""
        square = self.beta**2
        hits = (1 + square) * curve.true_positives
        whole = hits + square * curve.false_negatives + curve.false_positives
        return columns.shares(hits, whole)

    def __str__(self) -> str:
        """Return the form that `parse_objective` reads."""
        return "f1" if self.beta == 1 else f"fbeta:{self.beta!r}"


@attrs.frozen
class Mcc:
    """Matthews' correlation of what counts with what is right (Matthews 1975), from -1 to 1.

    Detection has no true negatives of its own. Here they are the candidates that are no hit and score below the
    threshold: boxes that the head thought of and rightly kept quiet about. The figure so depends on how many
    candidates the head puts forward.
    """

    def values(self, curve: Curve) -> Doubles:
        """Return the correlation at each threshold of the curve, [K]; 0 where it is not defined."""
        hits, alarms, missed = (
            column.astype(np.float64) for column in (curve.true_positives, curve.false_positives, curve.false_negatives)
        )
        quiet = curve.wrong - alarms
        whole = (hits + alarms) * (hits + missed) * (quiet + alarms) * (quiet + missed)
        return columns.shares(hits * quiet - alarms * missed, np.sqrt(whole))

    def __str__(self) -> str:
        """Return the form that `parse_objective` reads."""
        return "mcc"


@attrs.frozen
class RecallAtPrecision:
    """The highest recall among the thresholds that reach this precision; it holds for each threshold that is chosen."""

    precision: float = attrs.field(converter=_plain, validator=_share)

    def values(self, curve: Curve) -> Doubles:
        """Return recall at each threshold of the curve, [K]; NaN where the precision is not reached."""
        return np.where(curve.precision >= self.precision, curve.recall, np.nan)

    def __str__(self) -> str:
        """Return the form that `parse_objective` reads."""
        return f"recall@precision:{self.precision!r}"


Objective = FBeta | Mcc | RecallAtPrecision
F1 = FBeta()
"""The objective unless another is named."""

MCC = Mcc()
"""Matthews' correlation, as an objective."""


def parse_objective(text: str) -> Objective:
    """Read "f1", "fbeta:0.5", "mcc" or "recall@precision:0.9".

    Raises:
        InputError: For anything else.

    """
    name, _colon, number = text.partition(":") if isinstance(text, str) else ("", "", "")
    known: dict[str, Any] = {"fbeta": FBeta, "recall@precision": RecallAtPrecision}
    try:
        if text in ("f1", "mcc"):
            return F1 if text == "f1" else MCC
        found: Objective = known[name](float(number))
    except (KeyError, ValueError):  # InputError is a ValueError
        remedy = "Write f1, fbeta:0.5, mcc or recall@precision:0.9; numbers are above 0, a precision at most 1."
        raise InputError(f"read {shown(text)} as an objective", "it is none", remedy) from None
    return found


def accepted(scores: Any, label_names: Iterable[str], *, policy: OperatingPolicy) -> Flags:
    """Tell which detections count: those whose calibrated score is at least the threshold of their class.

    Args:
        scores: [N] raw scores in [0, 1].
        label_names: N class names.
        policy: Its temperature and thresholds.

    Returns:
        [N] bool.

    Raises:
        InputError: If a score is NaN or outside [0, 1].

    """
    thresholds = np.array([policy.threshold(name) for name in label_names], dtype=np.float64)
    return apply_temperature(scores, policy.temperature).astype(np.float64) >= thresholds


def fit_policy(
    outcomes: Outcomes,
    *,
    objective: Objective = F1,
    temperature: float = 1.0,
    per_class: bool = True,
    least: int = 10,
    chosen_on: str = "",
) -> OperatingPolicy:
    """Choose thresholds that serve an objective best on these outcomes.

    Every distinct calibrated score is tried. The threshold lies half way between the score that it lets through and
    the next lower one (0 below the lowest), so that neither rounding nor whether it is reached or passed changes what
    counts. Of thresholds that serve equally well the highest is taken: fewer boxes for the same figure.

    Args:
        outcomes: Of pictures that neither training nor selection has seen.
        objective: What to serve.
        temperature: That of the head, 1 where it is not calibrated.
        per_class: Whether classes have thresholds of their own beside the one for all.
        least: A class with fewer labelled boxes, or without a hit, uses the one for all.
        chosen_on: On what, for the record.

    Raises:
        InputError: If there are no candidates, no labels or no hits to choose by, or the objective is out of reach, for
            all classes together or for one that has labels enough for a threshold of its own. Its `facts["best"]` is
            what all of them reach.

    """
    curves = sweep(outcomes, temperature=temperature)
    _check(curves.micro)
    named = zip(curves.class_names, curves.curves, strict=True) if per_class and len(curves.curves) > 1 else ()
    own = {
        name: curve
        for name, curve in named
        if curve.labels >= least and (curve.true_positives.any() or _is_out_of_reach(objective, curve))
    }
    _check_reach(objective, {"all classes together": curves.micro} | {f"class {name!r}": own[name] for name in own})
    return OperatingPolicy(
        score_threshold=_best(curves.micro, objective),
        class_thresholds={name: _best(curve, objective) for name, curve in own.items()},
        temperature=temperature,
        objective=str(objective),
        chosen_on=chosen_on,
    )


def _check(curve: Curve) -> None:
    remedy = "Give more labelled pictures, or train longer."
    if not len(curve.thresholds):
        raise InputError(_ASKED, "there are no detections to choose by", remedy)
    if not curve.labels:
        raise InputError(_ASKED, "there are no labelled boxes to choose by", remedy)
    if not curve.true_positives.any():
        raise InputError(_ASKED, f"none of the {curve.wrong} detections is a hit", remedy)


def _is_out_of_reach(objective: Objective, curve: Curve) -> bool:
    """Whether there are candidates, but none of their scores as a threshold would serve the objective."""
    return len(curve.thresholds) > 0 and bool(np.isnan(objective.values(curve)).all())


def _check_reach(objective: Objective, curves: Mapping[str, Curve]) -> None:
    """Refuse an objective that one of them cannot reach: at no threshold would it be what was asked for.

    All that cannot are named at once, as whoever asks for less wants to know how much less.
    """
    best = {what: float(curve.precision.max()) for what, curve in curves.items() if _is_out_of_reach(objective, curve)}
    if best:
        told = listed(f"{what}: the best precision is {precision:.4f}" for what, precision in best.items())
        found = f"{objective} is out of reach for {told}"
        raise InputError(_ASKED, found, "Ask for less, or train longer.", best=min(best.values()))


def _best(curve: Curve, objective: Objective) -> float:
    values = objective.values(curve)
    place = int(np.flatnonzero(values >= np.nanmax(values) - _EQUAL)[-1])
    return _between(0.0 if place == 0 else float(curve.thresholds[place - 1]), float(curve.thresholds[place]))


def _between(low: float, high: float) -> float:
    """Return the number half way; the upper one if in float32, as scores are, half way would be the lower one."""
    middle = (low + high) / 2
    return middle if float(np.float32(middle)) > low else high
