"""Sweep: hits, false alarms and misses at every threshold, per class and over all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_fixtures import CLASSES, outcomes, perfect, pictures, scores, table

from hydra_detect import codec
from hydra_detect.errors import InputError
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.matching import Counts, count
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.sweep import GRID, SweepRecord, sweep
from hydra_detect.records import OperatingPolicy


def test_empty_first():
    """Without candidates a curve has no thresholds, and everything labelled is missed at any."""
    found = sweep(table([], [], missed=3))
    assert found.micro.thresholds.tolist() == found.micro.f1.tolist() == []
    assert found.micro.counts(0.5) == Counts(false_negatives=3)
    none = sweep(judge([], [], class_names=[]))
    assert none.curves == ()
    assert none.macro([0.5]).f1.tolist() == [0]
    assert none.micro.counts(0) == Counts()


def test_a_known_curve():
    """Four candidates, two of them hits, and one label that nothing hit."""
    curve = sweep(table([0.25, 0.5, 0.5, 0.75], [False, True, False, True], missed=1)).micro
    assert curve.thresholds.tolist() == [0.25, 0.5, 0.75]
    assert curve.true_positives.tolist() == [2, 2, 1]
    assert curve.false_positives.tolist() == [2, 1, 0]
    assert curve.false_negatives.tolist() == [1, 1, 2]
    np.testing.assert_allclose(curve.precision, [1 / 2, 2 / 3, 1])
    np.testing.assert_allclose(curve.recall, [2 / 3, 2 / 3, 1 / 3])
    np.testing.assert_allclose(curve.f1, [4 / 7, 2 / 3, 1 / 2])
    assert (curve.labels, curve.wrong) == (3, 2)


@given(pictures(), st.lists(scores, min_size=1, max_size=4))
def test_it_agrees_with_counting_at_any_threshold(both, thresholds):
    """At scores and between them the curves are what counting gives: from score >= threshold a detection counts."""
    found = sweep(judge(*both, class_names=CLASSES))
    for threshold in thresholds:
        assert found.micro.counts(threshold) == count(*both, score=threshold)
        each = [found.curve(name).counts(threshold) for name in CLASSES]
        assert sum(each, Counts()) == found.micro.counts(threshold)


@given(outcomes, st.floats(0.25, 4))
def test_recall_never_rises_with_the_threshold(found, temperature):
    """Along every curve recall, hits and false alarms only fall as the threshold rises."""
    curves = sweep(found, temperature=temperature)
    for curve in (*curves.curves, curves.micro):
        assert (np.diff(curve.thresholds) > 0).all()
        for falling in (curve.recall, curve.true_positives, curve.false_positives):
            assert (np.diff(falling) <= 0).all()


@given(pictures(least=1))
def test_perfect_detections_give_f1_of_one(both):
    """Detections equal to the labels have F1 1 wherever they count."""
    truths = both[1]
    found = sweep(judge([perfect(truth) for truth in truths], truths, class_names=CLASSES))
    for curve in (*found.curves, found.micro):
        assert curve.f1.tolist() == ([1] if curve.labels else [])
    assert found.macro([1.0]).f1.tolist() == [1 if found.micro.labels else 0]


@given(outcomes, st.floats(0.25, 4))
def test_thresholds_are_of_calibrated_scores(found, temperature):
    """The thresholds are the distinct calibrated scores, and no count changes but through scores that became one."""
    curve = sweep(found, temperature=temperature).micro
    calibrated = apply_temperature(found.scores, temperature)
    assert curve.thresholds.tolist() == np.unique(calibrated).tolist()
    for threshold, hits in zip(curve.thresholds, curve.true_positives, strict=True):
        assert hits == found.hits[calibrated >= threshold].sum()


def test_macro_is_the_mean_over_classes_with_labels():
    """A class without labels is no part of a mean over classes."""
    found = sweep(table([0.5, 0.5, 0.25], [True, True, False], labels=[1, 2, 3], names=("a", "b", "c"), missed=1))
    means = found.macro([0.2, 0.9])
    assert means.thresholds.tolist() == [0.2, 0.9]
    np.testing.assert_allclose(means.recall, [(1 / 2 + 1) / 2, 0])
    np.testing.assert_allclose(means.precision, [1, 0])
    np.testing.assert_allclose(means.f1, [(2 / 3 + 1) / 2, 0])
    assert len(found.macro().f1) == 101


@given(outcomes)
def test_on_a_grid(found):
    """The form for records has 101 thresholds, reads back, and holds the same counts as the whole sweep there."""
    whole = sweep(found)
    record = whole.on_grid()
    assert codec.decode(SweepRecord, codec.encode(record), "a sweep") == record
    coarse = record.to_sweep()
    assert GRID[29] == 0.29
    for name in CLASSES:
        assert coarse.curve(name) == whole.curve(name).at(GRID)
    assert coarse.micro == whole.micro.at(GRID)


@given(outcomes, st.floats(0, 1), st.floats(0, 1))
def test_the_operating_point_is_on_the_grid(found, common, own):
    """A record made for a policy holds the counts at its very thresholds, each curve at its own, and reads back."""
    whole, policy = sweep(found), OperatingPolicy(score_threshold=common, class_thresholds={"owl": own})
    record = whole.on_grid(policy)
    assert codec.decode(SweepRecord, codec.encode(record), "a sweep") == record
    coarse = record.to_sweep()
    assert coarse.micro.counts(common) == whole.micro.counts(common)
    for name, threshold in (("owl", own), ("fox", common)):
        assert coarse.curve(name).counts(threshold) == whole.curve(name).counts(threshold)
        assert coarse.curve(name).at(GRID) == whole.curve(name).at(GRID)


def test_a_record_of_the_grid_alone_is_read():
    """A record without an operating point, as they were at first, is one of the 101 thresholds."""
    plain = codec.to_dict(sweep(table([0.5], [True])).on_grid())
    for curve in (plain["micro"], *plain["curves"]):
        assert curve.pop("operating") is None
    assert codec.from_dict(SweepRecord, plain, "a sweep").micro.thresholds == GRID


def test_unknown_classes_are_named():
    """Asking for a class that was not judged tells the near names."""
    with pytest.raises(InputError, match=r"'owls': it was not judged. Did you mean 'owl'\?"):
        sweep(table([], [])).curve("owls")
