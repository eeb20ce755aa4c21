"""Matching: which detection found which label, and the counts that follow."""

import attrs
import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.detections import Detections, GroundTruth, box_iou
from hydra_detect.errors import InputError
from hydra_detect.measure.matching import Counts, count, match

NO_BOXES = np.zeros((0, 4), dtype=np.float32)


def detect(truth, scores=None):
    """Return detections that are just the labels."""
    n = len(truth)
    return Detections(
        boxes=truth.boxes, scores=np.ones(n) if scores is None else scores, labels=np.ones(n),
        label_names=truth.label_names, heads=["owl"] * n, head_versions=np.ones(n), image_size=truth.image_size,
    )  # fmt: skip


def array(*rows):
    """Return float32 boxes."""
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def test_empty_first():
    """No boxes on either side give no hits and no error, and the shares are 0."""
    assert match(NO_BOXES, np.zeros(0), NO_BOXES).counts == Counts()
    assert match(NO_BOXES, np.zeros(0), array((0, 0, 1, 1))).counts == Counts(false_negatives=1)
    assert match(array((0, 0, 1, 1)), np.ones(1), NO_BOXES).truth_of.tolist() == [-1]
    assert count([], []) == Counts()
    assert (Counts().precision, Counts().recall, Counts().f1) == (0, 0, 0)


def test_better_score_chooses_first():
    """The better score takes the label that both want, and the other gets the best one still free."""
    truths = array((0, 0, 10, 10), (0, 4, 10, 14))
    found = array((0, 0, 10, 10), (0, 1, 10, 11))
    assert match(found, np.array([0.5, 0.9]), truths, iou=0.3).truth_of.tolist() == [1, 0]
    assert match(found, np.array([0.9, 0.5]), truths, iou=0.3).truth_of.tolist() == [0, 1]
    assert match(found, np.array([0.5, 0.9]), truths).truth_of.tolist() == [-1, 0]


def test_equal_scores_go_by_order_and_the_threshold_counts_as_reached():
    """Of equal scores the first is served first, and an overlap just at the threshold is a hit."""
    truths = array((0, 0, 10, 10))
    assert match(array((0, 0, 10, 5), (0, 0, 10, 10)), np.ones(2), truths, iou=0.5).truth_of.tolist() == [0, -1]
    for share in (0.1, 0.3, 0.6, 0.7, 0.9):
        assert match(array((0, 0, 10, 10 * share)), np.ones(1), truths, iou=share).hits.all()


@given(strategies.solid_boxes(), strategies.solid_boxes(), st.data())
def test_a_matching_is_one_to_one_and_above_the_threshold(found, truths, data):
    """Each label is taken once at most, each hit overlaps enough, and counts add up to both sides."""
    scores = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(found), max_size=len(found))))
    matching = match(found, scores, truths, iou=0.2)
    taken = matching.truth_of[matching.hits]
    assert len(set(taken.tolist())) == len(taken)
    assert (box_iou(found, truths)[np.flatnonzero(matching.hits), taken] >= np.float32(0.2)).all()
    counts = matching.counts
    assert counts.true_positives + counts.false_positives == len(found)
    assert counts.true_positives + counts.false_negatives == len(truths)
    assert not matching.truth_of.flags.writeable


@given(st.lists(strategies.ground_truths(), max_size=3))
def test_perfect_detections_give_f1_of_one(truths):
    """Detections equal to the labels are all hits."""
    counts = count([detect(truth) for truth in truths], truths)
    boxes = sum(map(len, truths))
    assert counts == Counts(true_positives=boxes)
    assert counts.f1 == counts.precision == counts.recall == (1 if boxes else 0)


@given(strategies.ground_truths(), strategies.ground_truths())
def test_picture_order_does_not_matter_and_counts_add(one, two):
    """Counting pictures in another order, or apart and adding, gives the same."""
    found = [detect(two), detect(two)]
    together = count(found, [one, two])
    assert together == count(found[::-1], [two, one])
    assert together == count(found[:1], [one]) + count(found[1:], [two])


@given(strategies.ground_truths(), strategies.ground_truths())
def test_repeating_a_detection_never_adds_a_hit(truth, other):
    """The same boxes twice are hits once, unless two labels lie there."""
    once = count([detect(truth)], [truth])
    twice = count([Detections.concat([detect(truth)] * 2)], [truth])
    assert twice.true_positives == once.true_positives
    assert twice.false_positives == len(truth)
    assert count([detect(other)], [truth]).recall <= 1


@given(strategies.ground_truths(), st.data())
def test_recall_never_rises_with_the_score_threshold(truth, data):
    """Counting fewer detections never finds more labels."""
    scores = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(truth), max_size=len(truth)))
    found = detect(truth, scores)
    recalls = [count([found], [truth], score=score).recall for score in (0, 0.25, 0.5, 1)]
    assert recalls == sorted(recalls, reverse=True)


def test_a_box_of_another_class_is_no_hit():
    """Right place, wrong name: one false alarm and one miss."""
    truth = GroundTruth([(0, 0, 5, 5)], ["owl"])
    wrong = attrs.evolve(detect(truth), label_names=["fox"])
    assert count([wrong], [truth]) == Counts(false_positives=1, false_negatives=1)


def test_shares_of_known_counts():
    """Precision, recall and F1 are what their names say."""
    counts = Counts(true_positives=6, false_positives=2, false_negatives=4)
    assert (counts.precision, counts.recall) == (0.75, 0.6)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert sum([counts, counts], Counts()).true_positives == 12
    with pytest.raises(TypeError, match="unsupported"):
        counts + 1


def test_what_cannot_be_matched_is_refused():
    """A threshold out of range, missing scores and missing labels are errors."""
    for iou in (0, 1.5, float("nan")):
        with pytest.raises(InputError, match="threshold iou"):
            match(NO_BOXES, np.zeros(0), NO_BOXES, iou=iou)
    with pytest.raises(InputError, match="1 boxes and 0 scores"):
        match(array((0, 0, 1, 1)), np.zeros(0), NO_BOXES)
    with pytest.raises(
        InputError, match=r"cannot count hits: .* 1 pictures and labels of 0\. Give one of each per pic"
    ):
        count([Detections()], [])
