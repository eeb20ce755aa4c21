"""Plots: curves of a sweep and the reliability diagram, as matplotlib figures (extra `plot`).

Each function returns a `matplotlib.figure.Figure`, which its `savefig` writes and a notebook shows. pyplot is not used:
no backend is chosen, and no figure stays behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra_detect.detections import missing_extra
from hydra_detect.drawing import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hydra_detect.measure.calibration import Calibration, CalibrationFigures
    from hydra_detect.measure.sweep import Curve, Sweep
    from hydra_detect.records import OperatingPolicy

_INCHES = (5.0, 4.0)
_ALL = "all classes"
_DARK, _GREY = "0.15", "0.6"
_MOST_CLASSES = 10  # whose curves can be told apart


def plot_precision_recall(sweep: Sweep, *, policy: OperatingPolicy | None = None) -> Figure:
    """Plot precision over recall, a curve per class and one for all; marks show the operating points.

    Args:
        sweep: Of the head's candidates; of more than 10 classes only the curve for all is drawn.
        policy: Its operating point, if it is to be shown.

    Raises:
        ExtraMissingError: If matplotlib is not installed.

    """
    figure, (axes,) = _figure("plot precision over recall", 1)
    for name, curve, style in _curves(sweep):
        # Where nothing counts there is no precision; and the curve ends where the recall of the head does.
        counts = curve.true_positives + curve.false_positives > 0
        recall, precision = curve.recall[counts][::-1].tolist(), curve.precision[counts][::-1].tolist()
        axes.step([0.0, *recall] if recall else [], [*precision[:1], *precision], where="pre", label=name, **style)
        if policy is not None:
            _mark(axes, curve, _threshold(policy, name), x="recall", y="precision", colour=style["color"])
    _label(axes, x="recall", y="precision")
    return figure


def plot_f1(sweep: Sweep, *, policy: OperatingPolicy | None = None) -> Figure:
    """Plot F1 over the threshold, a curve per class and one for all; marks show the operating points.

    Args:
        sweep: Of the head's candidates; of more than 10 classes only the curve for all is drawn.
        policy: Its operating point, if it is to be shown.

    Raises:
        ExtraMissingError: If matplotlib is not installed.

    """
    figure, (axes,) = _figure("plot F1 over the threshold", 1)
    for name, curve, style in _curves(sweep):
        axes.step([0, *curve.thresholds], [*curve.at([0]).f1, *curve.f1], where="pre", label=name, **style)
        if policy is not None:
            _mark(axes, curve, _threshold(policy, name), x="thresholds", y="f1", colour=style["color"])
    _label(axes, x="threshold (calibrated score)", y="F1")
    return figure


def plot_reliability(calibration: Calibration) -> Figure:
    """Plot the share of hits over the score, before and after calibration, and how many candidates each bin has.

    On the diagonal a score is the chance of a hit; below it the head is too sure of itself.

    Args:
        calibration: What was fitted, and its bins.

    Raises:
        ExtraMissingError: If matplotlib is not installed.

    """
    figure, (before, after) = _figure("plot reliability", 2)
    _reliability(before, calibration.before, "before")
    _reliability(after, calibration.after, f"after, temperature {calibration.temperature:.2f}")
    before.set_ylabel("share of hits")
    return figure


def _figure(asked: str, panels: int) -> tuple[Figure, list[Axes]]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra(asked, "plot") from None
    figure = Figure(figsize=(_INCHES[0] * panels, _INCHES[1]), layout="constrained")
    each = list(figure.subplots(1, panels, squeeze=False, sharey=True)[0])
    for axes in each:
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, each


def _curves(sweep: Sweep) -> list[tuple[str, Curve, dict[str, Any]]]:
    """Return name, curve and style of each class that can be told apart, and of all where that says more."""
    classes = len(sweep.class_names)
    shown = [
        (name, curve, {"color": [channel / 255 for channel in PALETTE[place % len(PALETTE)]], "linewidth": 1.5})
        for place, (name, curve) in enumerate(zip(sweep.class_names, sweep.curves, strict=True))
        if classes <= _MOST_CLASSES
    ]
    return shown if len(shown) == 1 else [*shown, (_ALL, sweep.micro, {"color": _DARK, "linewidth": 2.5})]


def _threshold(policy: OperatingPolicy, name: str) -> float | None:
    if name != _ALL:
        return policy.threshold(name)
    return None if policy.class_thresholds else policy.score_threshold  # classes of their own have no common point


def _mark(axes: Axes, curve: Curve, threshold: float | None, *, x: str, y: str, colour: Any) -> None:
    if threshold is not None:
        here = curve.at([threshold])
        axes.plot(getattr(here, x), getattr(here, y), marker="o", color=colour, markeredgecolor="white", clip_on=False)


def _label(axes: Axes, *, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    axes.legend(frameon=False)


def _reliability(axes: Axes, figures: CalibrationFigures, title: str) -> None:
    total = sum(one.candidates for one in figures.bins)
    for one in figures.bins:
        width = one.high - one.low
        axes.bar(one.low, one.candidates / total, width, align="edge", color="0.85", edgecolor="white")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    axes.plot(
        [one.confidence for one in figures.bins], [one.precision for one in figures.bins], color=_DARK, marker="o"
    )
    ece = "" if figures.ece is None else f"\nECE {figures.ece:.3f}"
    axes.set(title=title + ece, xlabel="score (grey: share of the candidates)")
