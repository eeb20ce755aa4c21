"""Confusion: which class was taken for which, the background included."""

import numpy as np
import pytest
from hypothesis import given
from measure_fixtures import CLASSES, SIZE, detect, perfect, pictures

from hydra_detect import codec
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError, RecordError
from hydra_detect.measure.confusion import Confusion, confuse
from hydra_detect.measure.policy import accepted
from hydra_detect.records import OperatingPolicy

POLICY = OperatingPolicy(score_threshold=0.5)
BOX, ELSEWHERE = (10, 10, 50, 50), (500, 500, 600, 600)


def of(found, truth, policy=POLICY):
    """Return the counts of one picture."""
    return confuse([found], [truth], class_names=CLASSES, policy=policy).counts


def test_empty_first():
    """Nothing found and nothing labelled, in no picture or in one, are counts of 0."""
    assert confuse([], [], class_names=CLASSES, policy=POLICY).counts == ((0, 0, 0),) * 3
    assert of(detect([], []), GroundTruth([], [])) == ((0, 0, 0),) * 3
    assert confuse([], [], class_names=[], policy=POLICY).counts == ((0,),)


def test_every_case_has_its_cell():
    """Right, taken for another class, missed, and found where nothing is."""
    owl = GroundTruth([BOX], ["owl"], SIZE)
    assert of(detect([BOX], ["owl"]), owl) == ((1, 0, 0), (0, 0, 0), (0, 0, 0))
    assert of(detect([BOX], ["fox"]), owl) == ((0, 1, 0), (0, 0, 0), (0, 0, 0))
    assert of(detect([], []), owl) == ((0, 0, 1), (0, 0, 0), (0, 0, 0))
    assert of(detect([ELSEWHERE], ["fox"]), owl) == ((0, 0, 1), (0, 0, 0), (0, 1, 0))


def test_the_best_score_takes_the_box():
    """Of two detections on one box the better one takes it, of whatever class; the other is a false alarm."""
    both = detect([BOX, BOX], ["owl", "fox"], [0.7, 0.9])
    assert of(both, GroundTruth([BOX], ["owl"], SIZE)) == ((0, 1, 0), (0, 0, 0), (1, 0, 0))


def test_only_what_the_policy_accepts_counts():
    """A detection below the threshold of its class is none."""
    both = detect([BOX, ELSEWHERE], ["owl", "fox"], [0.6, 0.6])
    policy = OperatingPolicy(score_threshold=0.5, class_thresholds={"fox": 0.7})
    assert of(both, GroundTruth([BOX], ["owl"], SIZE), policy) == ((1, 0, 0), (0, 0, 0), (0, 0, 0))


@given(pictures())
def test_rows_are_labels_and_columns_detections(both):
    """Each labelled box stands once in the row of its class, each accepted detection once in its column."""
    counts = np.array(confuse(*both, class_names=CLASSES, policy=POLICY).counts)
    for place, name in enumerate(CLASSES):
        assert counts[place].sum() == sum(truth.label_names.count(name) for truth in both[1])
        kept = [d.label_names[accepted(d.scores, d.label_names.tolist(), policy=POLICY)] for d in both[0]]
        assert counts[:, place].sum() == sum((names == name).sum() for names in kept)
    assert counts[-1, -1] == 0


@given(pictures())
def test_perfect_detections_neither_miss_nor_stray(both):
    """Detections equal to the labels leave the row and the column of the background empty."""
    counts = np.array(confuse([perfect(t) for t in both[1]], both[1], class_names=CLASSES, policy=POLICY).counts)
    assert counts[-1].sum() == counts[:, -1].sum() == 0


def test_it_is_a_record_and_a_table():
    """It reads back as it was written, and prints with a column as wide as its widest entry."""
    found = Confusion(class_names=CLASSES, counts=[[10, 0, 2], [1, 7, 0], [3, 12345, 0]])
    assert codec.decode(Confusion, codec.encode(found), "a confusion matrix") == found
    assert found.to_dict() == {"class_names": ["owl", "fox"], "counts": [[10, 0, 2], [1, 7, 0], [3, 12345, 0]]}
    assert str(found).splitlines() == [
        "            owl    fox  background",
        "owl          10      0           2",
        "fox           1      7           0",
        "background    3  12345           0",
    ]


def test_what_is_no_matrix_is_refused():
    """Rows that do not fit the classes, and classes that are not judged, are errors."""
    with pytest.raises(RecordError, match=r"2 classes have rows of \[3, 3\] counts. Give 3 rows of 3 counts"):
        Confusion(class_names=CLASSES, counts=[[0, 0, 0], [0, 0, 0]])
    with pytest.raises(InputError, match="a label is of class 'owl'"):
        confuse([detect([], [])], [GroundTruth([BOX], ["owl"], SIZE)], class_names=["fox"], policy=POLICY)
    with pytest.raises(InputError, match="detections of 0 pictures and labels of 1"):
        confuse([], [GroundTruth([], [])], class_names=CLASSES, policy=POLICY)
