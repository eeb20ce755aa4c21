"""Policy: objectives and their text forms, the choice of thresholds, and what a policy accepts."""

import math

import attrs
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from measure_fixtures import CLASSES, crowd, outcomes, table

from hydra_detect import codec
from hydra_detect.errors import InputError
from hydra_detect.measure.calibration import apply_temperature
from hydra_detect.measure.matching import count
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.policy import (
    F1,
    MCC,
    FBeta,
    Mcc,
    RecallAtPrecision,
    accepted,
    fit_policy,
    parse_objective,
)
from hydra_detect.measure.sweep import sweep
from hydra_detect.records import OperatingPolicy

positives = st.floats(1e-3, 1e3)
objectives = st.one_of(
    st.just(MCC), st.builds(FBeta, positives), st.builds(RecallAtPrecision, st.floats(0, 1, exclude_min=True))
)
CURVE = sweep(table([0.25, 0.5, 0.5, 0.75], [False, True, False, True], missed=1)).micro  # TP 2 2 1, FP 2 1 0, FN 1 1 2


# Objectives


@given(objectives)
def test_text_forms_round_trip(objective):
    """Every objective reads back from its text."""
    assert parse_objective(str(objective)) == objective


@pytest.mark.parametrize(
    ("text", "objective"),
    [("f1", F1), ("fbeta:1", F1), ("fbeta:0.5", FBeta(0.5)), ("mcc", Mcc()),
     ("recall@precision:0.9", RecallAtPrecision(0.9))],
)  # fmt: skip
def test_known_texts(text, objective):
    """The texts of the documentation are read."""
    assert parse_objective(text) == objective


def test_numbers_of_any_kind():
    """Whole numbers and numpy's are numbers."""
    assert FBeta(2) == FBeta(np.float32(2)) == FBeta(2.0)
    assert str(FBeta(2)) == "fbeta:2.0"


@pytest.mark.parametrize(
    "text",
    ["", "F1", "f1:1", "mcc:", "fbeta", "fbeta:0", "fbeta:nan", "fbeta:x", "recall@precision:0",
     "recall@precision:1.1", "recall:0.9", None],
)  # fmt: skip
def test_other_texts_are_refused(text):
    """What is no objective is refused with the forms that there are."""
    with pytest.raises(InputError, match=r"as an objective: it is none\. Write f1, fbeta:0\.5, mcc"):
        parse_objective(text)


def test_impossible_objectives():
    """A beta of nothing and a precision beyond 1 are refused by name."""
    for beta in (0.0, -1, math.inf, math.nan, True, None):
        with pytest.raises(InputError, match="cannot set beta: it is"):
            FBeta(beta)
    for precision in (0.0, 1.5, math.nan, "0.9"):
        with pytest.raises(InputError, match="cannot set precision: it is"):
            RecallAtPrecision(precision)


def test_values_of_a_known_curve():
    """F-beta, MCC and recall are what their definitions give."""
    np.testing.assert_allclose(F1.values(CURVE), CURVE.f1)
    precision, recall = CURVE.precision, CURVE.recall
    np.testing.assert_allclose(FBeta(2.0).values(CURVE), 5 * precision * recall / (4 * precision + recall))
    # At 0.5: TP 2, FP 1, FN 1, and one candidate that is no hit lies below, so TN 1.
    expected = (2 * 1 - 1 * 1) / math.sqrt((2 + 1) * (2 + 1) * (1 + 1) * (1 + 1))
    np.testing.assert_allclose(MCC.values(CURVE)[1], expected)
    assert MCC.values(CURVE)[0] == pytest.approx(-2 / math.sqrt(24))  # TP 2, FP 2, FN 1, TN 0
    assert MCC.values(sweep(table([0.5], [True])).micro).tolist() == [0]  # nothing is wrong: not defined
    np.testing.assert_array_equal(RecallAtPrecision(0.9).values(CURVE), [np.nan, np.nan, 1 / 3])


# Fitting


def test_the_threshold_lies_half_way():
    """The threshold parts the scores it lets through from the next lower one, half way."""
    parted = table([0.25, 0.75], [False, True])
    assert fit_policy(parted, chosen_on="three slides") == OperatingPolicy(
        score_threshold=0.5, objective="f1", chosen_on="three slides"
    )
    assert fit_policy(table([0.5, 0.75], [True, True])).score_threshold == 0.25  # half way to nothing


def test_of_equal_thresholds_the_highest():
    """Where two thresholds serve equally well the one with fewer boxes is taken."""
    hits = table([0.25, 0.5, 0.75], [False, False, True])
    assert fit_policy(hits, objective=RecallAtPrecision(0.3)).score_threshold == 0.625  # the same recall at all three
    even = table([0.25, 0.4, 0.5, 0.75], [True, False, False, True])
    assert fit_policy(even).score_threshold == 0.625  # F1 2/3 with one box of two, and with two of four


@given(outcomes, objectives, st.floats(0.3, 3))
def test_no_other_threshold_serves_better(found, objective, temperature):
    """The chosen threshold reaches the best value of all scores, whether it is reached or passed, in either float."""
    curve = sweep(found, temperature=temperature).micro
    assume(curve.true_positives.any())
    values = objective.values(curve)
    assume(not np.isnan(values).all())
    policy = fit_policy(found, objective=objective, temperature=temperature, per_class=False)
    assert objective.values(curve.at([policy.score_threshold]))[0] == pytest.approx(np.nanmax(values))
    calibrated = apply_temperature(found.scores, temperature)
    counted = calibrated.astype(np.float64) >= policy.score_threshold
    assert np.array_equal(calibrated >= np.float32(policy.score_threshold), counted)
    passed = calibrated[counted].astype(np.float64) > policy.score_threshold
    assert passed.all() or np.nextafter(calibrated[counted].min(), np.float32(0)) in calibrated


def test_neighbours_in_float32_are_parted():
    """Between two scores that differ by the last bit the threshold lets through the upper one alone, in float32 too."""
    for low in (np.float32(0.5), np.nextafter(np.float32(0.5), np.float32(1))):
        high = np.nextafter(low, np.float32(1))
        threshold = fit_policy(table([low, high], [False, True])).score_threshold
        assert [score >= np.float64(threshold) for score in (low, high)] == [False, True]
        assert [score >= np.float32(threshold) for score in (low, high)] == [False, True]


def test_classes_have_thresholds_of_their_own():
    """A class with enough labels has its own threshold; one with fewer, or without a hit, uses the one for all."""
    names = ("a", "b", "c")
    confidences = [0.9, 0.8, 0.3, 0.2, 0.6, 0.7]
    hits = [True, True, True, False, False, False]
    found = table(confidences, hits, labels=[1, 1, 2, 2, 2, 3], names=names)
    both = fit_policy(found, least=1)
    assert set(both.class_thresholds) == {"a", "b"}
    assert both.threshold("a") == pytest.approx(0.4)  # below 0.8 there is nothing of its class
    assert both.threshold("b") == pytest.approx(0.25)
    assert both.threshold("c") == both.score_threshold
    assert set(fit_policy(found, least=2).class_thresholds) == {"a"}
    assert set(fit_policy(attrs.evolve(found, truths=[[2, 1, 9]]), least=1).class_thresholds) == {"a", "b"}
    assert fit_policy(found, least=1, per_class=False).class_thresholds == {}
    assert fit_policy(found).class_thresholds == {}


def test_one_class_needs_no_threshold_of_its_own():
    """With one class the threshold for all is its threshold."""
    found = table([0.25] * 20 + [0.75] * 20, [False] * 20 + [True] * 20)
    assert fit_policy(found) == OperatingPolicy(score_threshold=0.5, objective="f1")


def test_at_the_threshold_the_figures_are_those_promised():
    """On many pictures the calibrated policy accepts what the sweep counted, and no class could do better alone."""
    both = crowd()
    found = judge(*both, class_names=CLASSES)
    policy = fit_policy(found, temperature=1.7)
    curves = sweep(found, temperature=1.7)
    for name in CLASSES:
        kept = [
            d[accepted(d.scores, d.label_names.tolist(), policy=policy)].filter(label_names=[name]) for d in both[0]
        ]
        counts = count(kept, [truth.only(name) for truth in both[1]])
        assert counts == curves.curve(name).counts(policy.threshold(name))
        assert counts.f1 == curves.curve(name).f1.max()
    assert codec.decode(OperatingPolicy, codec.encode(policy), "a policy") == policy


def test_what_cannot_be_chosen_by():
    """No detections, no labels and no hits are told apart, each with what to do."""
    for found, problem in (
        (table([], [], missed=3), "there are no detections"),
        (table([0.5], [False]), "there are no labelled boxes"),
        (table([0.5], [False], missed=1), "none of the 1 detections is a hit"),
    ):
        with pytest.raises(InputError, match=f"cannot choose thresholds: {problem}.*Give more labelled pictures"):
            fit_policy(found)


def test_what_is_out_of_reach():
    """An objective that no threshold reaches is refused with the best there was."""
    found = table([0.5, 0.5, 0.5, 0.5], [True, True, True, False])
    with pytest.raises(
        InputError, match=r"out of reach for all classes together: the best precision is 0\.7500"
    ) as caught:
        fit_policy(found, objective=RecallAtPrecision(0.9))
    assert caught.value.facts["best"] == 0.75


def test_what_is_out_of_reach_for_a_class():
    """A class with labels enough that cannot reach the precision is named, with its best, as is every other one."""
    names = ("a", "b", "c", "d")
    found = table(
        [0.9, 0.5, 0.5, 0.4, 0.3, 0.3, 0.3],
        [True, True, False, False, True, False, False],
        labels=[1, 2, 2, 3, 4, 4, 4],
        names=names,
    )
    found = attrs.evolve(found, truths=[[1, 1, 2, 1]])
    objective = RecallAtPrecision(0.6)
    told = (
        r"0\.6 is out of reach for class 'b': the best precision is 0\.5000, class 'c': the best precision is 0\.0000"
    )
    with pytest.raises(InputError, match=rf"{told}, class 'd': .* 0\.3333\. Ask for less, or train longer") as caught:
        fit_policy(found, objective=objective, least=1)
    assert caught.value.facts["best"] == 0
    with pytest.raises(InputError, match=r"out of reach for class 'c': the best precision is 0\.0000\. Ask"):
        fit_policy(found, objective=objective, least=2)
    for few in (
        fit_policy(found, objective=objective, least=3),
        fit_policy(found, objective=objective, per_class=False),
    ):
        assert few.class_thresholds == {}
        assert few.score_threshold == pytest.approx(0.45)
    assert set(fit_policy(found, least=1).class_thresholds) == {"a", "b", "d"}  # F1 is never out of reach


def test_a_class_without_candidates_is_in_reach():
    """Of a class of which nothing was found there is nothing to choose by: it uses the threshold for all."""
    found = attrs.evolve(table([0.9], [True], names=("a", "b")), truths=[[1, 5]])
    policy = fit_policy(found, objective=RecallAtPrecision(0.9), least=1)
    assert (set(policy.class_thresholds), policy.threshold("b")) == ({"a"}, policy.score_threshold)


@given(outcomes, st.floats(0.1, 1), st.floats(0.3, 3))
def test_no_threshold_pretends(found, precision, temperature):
    """Where thresholds are chosen at all, each class that has its own reaches the precision that was asked for."""
    try:
        policy = fit_policy(found, objective=RecallAtPrecision(precision), temperature=temperature, least=1)
    except InputError:
        return
    curves = sweep(found, temperature=temperature)
    for name, curve in zip(curves.class_names, curves.curves, strict=True):
        if curve.labels and len(curve.thresholds):
            assert curve.counts(policy.threshold(name)).precision >= precision


# Accepting


def test_accepting_nothing():
    """No detections are accepted as none."""
    assert accepted([], [], policy=OperatingPolicy(score_threshold=0.5)).tolist() == []


def test_accepting_by_class_and_temperature():
    """Raw scores are calibrated and compared with the threshold of their class; one that is reached counts."""
    policy = OperatingPolicy(score_threshold=0.5, class_thresholds={"fox": 0.75})
    assert accepted([0.5, 0.49, 0.5, 0.75], ["owl", "owl", "fox", "fox"], policy=policy).tolist() == [
        True, False, False, True,
    ]  # fmt: skip
    warm = attrs.evolve(policy, temperature=4.0)  # 0.9 becomes 0.634
    assert accepted([0.9, 0.9], ["owl", "fox"], policy=warm).tolist() == [True, False]


def test_thresholds_are_compared_in_double():
    """A threshold between two float32 numbers is not rounded to the lower one."""
    score = np.float32(0.1)  # which is above 0.1
    threshold = float(score) + 1e-10
    assert np.float32(threshold) == score
    assert not accepted([score], ["owl"], policy=OperatingPolicy(score_threshold=threshold)).any()
