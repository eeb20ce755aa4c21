"""Calibration: how far a score can be read as the chance of a hit, and one temperature that brings it nearer.

A raw score s becomes sigmoid(logit(s) / T) (Guo et al. 2017, arXiv:1706.04599): T above 1 makes a head less certain,
T below 1 more. No two scores change places. Few candidates that hits and misses divide cleanly have no best T at all:
any smaller one looks better. So T is that of highest posterior probability, ln T being taken beforehand as normally
distributed around 0: with 10 candidates that decides, with 300 it can no longer be told from the likelihood. All sums
are taken in float64: in float32 the search for T would end where it began.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect import fields
from hydra_detect.codec import Record
from hydra_detect.detections import missing_extra
from hydra_detect.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hydra_detect.measure.columns import Doubles, Flags, Floats, Integers
    from hydra_detect.measure.outcomes import Outcomes

BINS = 15
"""Bins of equal width from 0 to 1 for the errors of calibration, as Guo et al. have them."""

LEAST_CANDIDATES = 10
"""From fewer candidates no temperature is fitted: it is 1."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.25, 16.0
"""Where the search ends. At 0.25, scores from 0.987 on become 1 in float32, where no threshold can part them."""

USUAL_SPREAD = 0.5
"""Standard deviation of ln T beforehand: two heads in three are taken to be best between 0.6 and 1.65."""

_BOUNDS = (math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
_EDGE = 2.0**-24  # from 1 to the float32 below it
_NEAR = 1e-3
_PLACE_BINS = 5
_PLACE_LEAST = 8


def logits(scores: Doubles) -> Doubles:
    """Return log(s / (1 - s)); scores beyond 2**-24 from either end, where float32 ends, count as at that distance."""
    clipped = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(values: Doubles) -> Doubles:
    """Return 1 / (1 + exp(-v))."""
    small = np.exp(-np.abs(values))  # never overflows
    return np.where(values >= 0, 1, small) / (1 + small)


def apply_temperature(scores: Any, temperature: float) -> Floats:
    """Return calibrated scores, sigmoid(logit(score) / T).

    Of two raw scores the higher is never the lower one afterwards, though both may become the same float32. At T = 1
    every bit stays. Otherwise scores beyond the resolution of float32 at 1, 2**-24 from either end, count as at that
    distance: the logit of 0 or 1 is infinite.

    Args:
        scores: [N] raw scores in [0, 1].
        temperature: T, above 0.

    Returns:
        [N] float32.

    Raises:
        InputError: If a score is NaN or outside [0, 1], or the temperature is not a positive number.

    """
    raw = _checked(scores)
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError("calibrate scores", f"the temperature is {temperature}", "Give a number above 0.")
    return raw.astype(np.float32) if temperature == 1 else sigmoid(logits(raw) / temperature).astype(np.float32)


def fit_temperature(scores: Any, hits: Any) -> float:
    """Return the most probable temperature, found by a bounded search over its logarithm from ln 0.25 to ln 16.

    What is least is the summed negative log-likelihood and (ln T)**2 / (2 * 0.5**2), so that few candidates, which a
    head may separate by chance, do not make it certain of everything. It is 1 where there is nothing to learn from:
    fewer than 10 candidates, only hits, or no hit. No result is ever less likely than T = 1 on what it was fitted on.

    Args:
        scores: [N] raw scores in [0, 1].
        hits: [N] bool.

    Raises:
        InputError: If a score is NaN or outside [0, 1], or there is not one hit or miss per score.
        ExtraMissingError: If scipy is not installed.

    """
    try:
        from scipy.optimize import minimize_scalar
    except ImportError:
        raise missing_extra("fit a temperature", "train") from None
    raw, taken = logits(_checked(scores)), _flags(hits, scores)
    if len(taken) < LEAST_CANDIDATES or taken.all() or not taken.any():
        return 1.0

    def improbability(t: float) -> float:
        return _loss(raw / math.exp(t), taken) * len(taken) + (t / USUAL_SPREAD) ** 2 / 2

    found = minimize_scalar(improbability, bounds=_BOUNDS, method="bounded", options={"xatol": 1e-6})
    temperature = math.exp(float(found.x))
    return temperature if _loss(raw / temperature, taken) < _loss(raw, taken) else 1.0


def negative_log_likelihood(scores: Any, hits: Any) -> float:
    """Return the mean negative log-likelihood of hits and misses, in nats; NaN without candidates.

    Scores within 2**-24 of 0 or 1 count as at that distance: one certain error would else outweigh everything.

    Args:
        scores: [N] in [0, 1].
        hits: [N] bool.

    Raises:
        InputError: If a score is NaN or outside [0, 1], or there is not one hit or miss per score.

    """
    return _loss(logits(_checked(scores)), _flags(hits, scores))


@attrs.frozen(kw_only=True)
class ReliabilityBin(Record):
    """The candidates whose score is from `low` to below `high` (in the last bin to 1): how many, and what they say.

    `confidence` is their mean score, `precision` the share of them that are hits.
    """

    low: float = attrs.field(converter=fields.one_float)
    high: float = attrs.field(converter=fields.one_float)
    candidates: int
    confidence: float = attrs.field(converter=fields.one_float, validator=fields.SHARE)
    precision: float = attrs.field(converter=fields.one_float, validator=fields.SHARE)

    @property
    def gap(self) -> float:
        """How far confidence and precision are apart."""
        return abs(self.confidence - self.precision)


def reliability(scores: Any, hits: Any, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Return the bins of a reliability diagram that hold candidates, in order of score.

    Args:
        scores: [N] in [0, 1].
        hits: [N] bool.
        bins: How many bins of equal width there are from 0 to 1.

    Raises:
        InputError: If a score is NaN or outside [0, 1], there is not one hit or miss per score, or no bin.

    """
    values, taken = _checked(scores), _flags(hits, scores)
    edges = _edges(bins)
    counts, confidences, precisions = _binned(_places_in(values, edges), values, taken, bins)
    return tuple(
        ReliabilityBin(
            low=edges[place],
            high=edges[place + 1],
            candidates=int(counts[place]),
            confidence=min(confidences[place], 1.0),  # a mean of ones may round to above 1
            precision=precisions[place],
        )
        for place in np.flatnonzero(counts).tolist()
    )


def expected_calibration_error(scores: Any, hits: Any, *, bins: int = BINS) -> float:
    """Return ECE: how far mean score and share of hits are apart per bin, the bins weighted by their candidates.

    Guo et al. 2017 (arXiv:1706.04599), section 3; NaN without candidates.

    Args:
        scores: [N] in [0, 1].
        hits: [N] bool.
        bins: How many bins of equal width there are from 0 to 1.

    Raises:
        InputError: If a score is NaN or outside [0, 1], there is not one hit or miss per score, or no bin.

    """
    found = reliability(scores, hits, bins=bins)
    total = sum(one.candidates for one in found)
    return sum(one.candidates * one.gap for one in found) / total if total else math.nan


def maximum_calibration_error(scores: Any, hits: Any, *, bins: int = BINS) -> float:
    """Return MCE: how far mean score and share of hits are apart in the worst bin; NaN without candidates.

    Guo et al. 2017 (arXiv:1706.04599), section 3. One lonely candidate can make it.

    Args:
        scores: [N] in [0, 1].
        hits: [N] bool.
        bins: How many bins of equal width there are from 0 to 1.

    Raises:
        InputError: If a score is NaN or outside [0, 1], there is not one hit or miss per score, or no bin.

    """
    return max((one.gap for one in reliability(scores, hits, bins=bins)), default=math.nan)


def detection_calibration_error(
    scores: Any, hits: Any, places: Any, *, bins: int = _PLACE_BINS, least: int = _PLACE_LEAST
) -> float:
    """Return D-ECE: as ECE, but with bins over score, place and size of the box, so that errors cannot cancel there.

    Küppers et al. 2020 (arXiv:2004.13546). Bins of fewer than `least` candidates say nothing of precision and are left
    out; NaN where none is left.

    Args:
        scores: [N] in [0, 1].
        hits: [N] bool.
        places: [N, 4] centre x, centre y, width and height as fractions of the picture; beyond 0 to 1 they fall into
            the outermost bins.
        bins: How many bins of equal width each of the five has.
        least: How many candidates a bin needs.

    Raises:
        InputError: If a score is NaN or outside [0, 1], not one hit or miss and place is there per score, or no bin.

    """
    values, taken, boxes = _checked(scores), _flags(hits, scores), np.asarray(places, dtype=np.float64)
    if boxes.shape != (len(values), 4):
        found = f"there are {len(values)} scores, and places of shape {list(boxes.shape)}"
        raise InputError("measure calibration", found, "Give one place (cx, cy, w, h) per score.")
    edges = _edges(bins)
    each = np.concatenate([values[:, None], boxes], axis=1)  # [N, 5]
    cells = _places_in(each, edges) @ bins ** np.arange(each.shape[1])
    _, numbers = np.unique(cells, return_inverse=True)  # only bins that hold something: there are 3,125
    counts, confidences, precisions = _binned(numbers, values, taken, int(numbers.max(initial=-1)) + 1)
    kept = counts >= least
    total = counts[kept].sum()
    return float((counts * np.abs(confidences - precisions))[kept].sum() / total) if total else math.nan


@attrs.frozen(kw_only=True)
class CalibrationFigures(Record):
    """How well scores can be read as chances; None where there are too few candidates to tell.

    `ece`, `mce` and `d_ece` are in [0, 1], `nll` in nats per candidate; `bins` are those of a reliability diagram.
    """

    ece: float | None
    mce: float | None
    d_ece: float | None
    nll: float | None
    bins: tuple[ReliabilityBin, ...]


@attrs.frozen(kw_only=True)
class Calibration(Record):
    """A temperature, and how well the scores of some candidates can be read as chances before and after it.

    On what a temperature was fitted to, what is after it looks better than it is: metrics have the same of the pictures
    that they judge.
    """

    temperature: float
    candidates: int
    hits: int
    before: CalibrationFigures
    after: CalibrationFigures

    def __str__(self) -> str:
        """One line."""
        ends = min(abs(math.log(self.temperature) - bound) for bound in _BOUNDS) < _NEAR
        where = ", where the search ends," if ends else ""
        head = f"temperature {self.temperature:.3f}{where} on {self.candidates} candidates, {self.hits} of them hits"
        changes = [
            f"{title} {_text(getattr(self.before, name))} to {_text(getattr(self.after, name))}"
            for title, name in (("ECE", "ece"), ("MCE", "mce"), ("D-ECE", "d_ece"), ("NLL", "nll"))
        ]
        return f"{head}: {', '.join(changes)}"


def calibrate(outcomes: Outcomes) -> Calibration:
    """Fit one temperature to all candidates of a head, whatever their class.

    Args:
        outcomes: Of pictures that neither training nor selection has seen.

    Raises:
        ExtraMissingError: If scipy is not installed.

    """
    return calibration_at(outcomes, fit_temperature(outcomes.scores, outcomes.hits))


def calibration_at(outcomes: Outcomes, temperature: float) -> Calibration:
    """Tell what a temperature changes on candidates that it need not have been fitted to.

    Args:
        outcomes: What became of them.
        temperature: That of the head.

    Raises:
        InputError: If the temperature is not a positive number.

    """
    return Calibration(
        temperature=temperature,
        candidates=len(outcomes),
        hits=int(outcomes.hits.sum()),
        before=_figures(outcomes, outcomes.scores),
        after=_figures(outcomes, apply_temperature(outcomes.scores, temperature)),
    )


def _figures(outcomes: Outcomes, scores: Floats) -> CalibrationFigures:
    hits = outcomes.hits
    return CalibrationFigures(
        ece=_known(expected_calibration_error(scores, hits)),
        mce=_known(maximum_calibration_error(scores, hits)),
        d_ece=_known(detection_calibration_error(scores, hits, outcomes.places)),
        nll=_known(negative_log_likelihood(scores, hits)),
        bins=reliability(scores, hits),
    )


def _known(figure: float) -> float | None:
    return None if math.isnan(figure) else float(figure)


def _text(figure: float | None) -> str:
    return "unknown" if figure is None else f"{figure:.4f}"


def _checked(scores: Any) -> Doubles:
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError("read scores", "a score is NaN or outside [0, 1]", "Give scores as probabilities.")
    return values


def _flags(hits: Any, scores: Any) -> Flags:
    taken = np.asarray(hits, dtype=np.bool_).reshape(-1)
    if len(taken) != np.size(scores):
        found = f"there are {np.size(scores)} scores and {len(taken)} hits and misses"
        raise InputError("measure calibration", found, "Give one of each per candidate.")
    return taken


def _loss(raw: Doubles, hits: Flags) -> float:
    """Return the mean of -log sigmoid(logit) over hits and -log sigmoid(-logit) over the others."""
    return float(np.logaddexp(0, np.where(hits, -raw, raw)).mean()) if len(hits) else math.nan


def _edges(bins: int) -> Doubles:
    if bins < 1:
        raise InputError("measure calibration", f"there are {bins} bins", "Give at least 1.")
    return np.linspace(0, 1, bins + 1)


def _places_in(values: NDArray[Any], edges: Doubles) -> Integers:
    """Return the bin of each value: from one edge to below the next, the ends taking what lies beyond."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2).astype(np.int64)


def _binned(numbers: Integers, scores: Doubles, hits: Flags, bins: int) -> tuple[Integers, Doubles, Doubles]:
    """Return candidates, mean score and share of hits per bin, 0 in an empty one."""
    counts = np.bincount(numbers, minlength=bins)
    whole = np.maximum(counts, 1)
    means = [np.bincount(numbers, weights=values, minlength=bins) / whole for values in (scores, hits)]
    return counts.astype(np.int64), means[0], means[1]
