"""Plots: figures of matplotlib's object interface that show what was measured, and leave the process alone."""

import io
import subprocess
import sys

import numpy as np
import pytest
from measure_fixtures import CLASSES, crowd, table
from PIL import Image

from hydra_detect import codec
from hydra_detect.errors import ExtraMissingError
from hydra_detect.measure.calibration import calibrate
from hydra_detect.measure.metrics import Metrics, measure
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.plots import plot_f1, plot_precision_recall, plot_reliability
from hydra_detect.measure.policy import fit_policy
from hydra_detect.measure.sweep import sweep
from hydra_detect.records import OperatingPolicy

OUTCOMES = judge(*crowd(), class_names=CLASSES)
SWEEP = sweep(OUTCOMES)
POLICY = fit_policy(OUTCOMES)


def pixels(figure):
    """Return a figure as it is saved, [height, width, 3]."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return np.asarray(Image.open(written).convert("RGB"))


def lines(figure):
    """Return the labelled curves of the first panel."""
    return {line.get_label(): line for line in figure.axes[0].get_lines() if line.get_label()[0] != "_"}


def marks(figure):
    """Return the points that are marked in the first panel."""
    found = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found]


@pytest.mark.parametrize("plot", [plot_precision_recall, plot_f1])
def test_empty_first(plot):
    """Nothing found, nothing labelled and no classes are plotted as empty axes."""
    for outcomes in (table([], [], missed=2), table([], []), judge([], [], class_names=[])):
        assert pixels(plot(sweep(outcomes))).shape == (400, 500, 3)


def test_precision_over_recall():
    """Each class and all together have the curve of the sweep, and marks lie at the operating points of classes."""
    figure = plot_precision_recall(SWEEP, policy=POLICY)
    found = lines(figure)
    assert list(found) == [*CLASSES, "all classes"]
    for name in CLASSES:
        curve = SWEEP.curve(name)
        assert list(found[name].get_xdata()) == [0, *curve.recall[::-1]]
        assert list(found[name].get_ydata()) == [curve.precision[-1], *curve.precision[::-1]]
    here = [SWEEP.curve(name).counts(POLICY.threshold(name)) for name in CLASSES]
    assert marks(figure) == [(counts.recall, counts.precision) for counts in here]
    assert marks(plot_precision_recall(SWEEP)) == []
    assert pixels(figure).std() > 5
    grid = lines(plot_precision_recall(SWEEP.on_grid().to_sweep()))  # above its best score nothing counts
    assert all(min(line.get_ydata()) > 0 for line in grid.values())


def test_f1_over_the_threshold():
    """The curve begins at threshold 0, ends at the best score, and the mark of F1 lies at its top."""
    pooled = fit_policy(OUTCOMES, per_class=False)
    figure = plot_f1(SWEEP, policy=pooled)
    overall = lines(figure)["all classes"]
    assert overall.get_xdata().tolist() == [0, *SWEEP.micro.thresholds]
    assert overall.get_ydata()[1:].tolist() == SWEEP.micro.f1.tolist()
    assert marks(figure)[-1] == (pooled.score_threshold, SWEEP.micro.f1.max())
    assert len(marks(plot_f1(SWEEP, policy=POLICY))) == len(CLASSES)


def test_one_class_has_one_curve():
    """All together says nothing more where there is one class."""
    assert list(lines(plot_f1(sweep(table([0.5], [True]))))) == ["owl"]


def test_many_classes_have_one_curve():
    """Of more than 10 classes only the curve of all together is drawn: no one could tell them apart."""
    many = table([0.5], [True], names=[f"class {k}" for k in range(11)])
    assert list(lines(plot_precision_recall(sweep(many)))) == ["all classes"]
    ten = table([0.5], [True], names=[f"class {k}" for k in range(10)])
    assert len(lines(plot_precision_recall(sweep(ten)))) == 11


def test_a_sweep_from_a_record_is_plotted_too():
    """The 101 points of a record, and its operating point, give the same picture but for its steps."""
    figure = plot_f1(SWEEP.on_grid(POLICY).to_sweep(), policy=POLICY)
    assert len(lines(figure)["owl"].get_xdata()) == 1 + 101 + 1


@pytest.mark.parametrize("own", [{}, {"owl": 0.437}])
def test_marks_of_a_stored_record_are_the_figures_of_its_table(own):
    """Between two points of the grid, too, what is marked is what the record says of the operating point."""
    policy = OperatingPolicy(score_threshold=0.4233, class_thresholds=own, temperature=1.3)
    measured = measure(*crowd(), class_names=CLASSES, policy=policy, draws=0)
    stored = codec.decode(Metrics, codec.encode(measured), "metrics")
    shown = [*stored.classes, *([] if own else [stored.micro])]  # classes of their own have no common point
    curves = stored.sweep.to_sweep()
    assert marks(plot_precision_recall(curves, policy=stored.policy)) == [
        (one.rates.recall.value, one.rates.precision.value) for one in shown
    ]
    assert marks(plot_f1(curves, policy=stored.policy)) == [(one.threshold, one.rates.f1.value) for one in shown]


def test_reliability_before_and_after():
    """Both panels show the bins of the record, and their titles what calibration changed."""
    record = calibrate(OUTCOMES)
    before, after = plot_reliability(record).axes
    for axes, figures in ((before, record.before), (after, record.after)):
        diagonal, curve = axes.get_lines()
        assert list(diagonal.get_xdata()) == [0, 1]
        assert list(curve.get_xdata()) == [one.confidence for one in figures.bins]
        assert list(curve.get_ydata()) == [one.precision for one in figures.bins]
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(1)
    assert before.get_title() == f"before\nECE {record.before.ece:.3f}"
    assert f"temperature {record.temperature:.2f}" in after.get_title()
    assert pixels(plot_reliability(record)).shape == (400, 1000, 3)
    assert pixels(plot_reliability(calibrate(table([], [])))).shape == (400, 1000, 3)


def test_matplotlib_is_an_extra(monkeypatch):
    """Without matplotlib the error tells which extra to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for plot in (lambda: plot_f1(SWEEP), lambda: plot_reliability(calibrate(OUTCOMES))):
        with pytest.raises(ExtraMissingError, match=r"cannot plot .*hydra-detect\[plot\]"):
            plot()


def test_pyplot_is_never_used():
    """Plotting imports no pyplot, and so chooses no backend and keeps no figure."""
    program = (
        "import io, sys\n"
        "from hydra_detect.measure.outcomes import judge\n"
        "from hydra_detect.measure.plots import plot_f1\n"
        "from hydra_detect.measure.sweep import sweep\n"
        "plot_f1(sweep(judge([], [], class_names=['owl']))).savefig(io.BytesIO())\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
