"""Outcomes: one table of what became of each candidate, true at every threshold, and kept as tensors."""

import time

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_fixtures import CLASSES, SIZE, crowd, detect, outcomes, perfect, pictures, table

from hydra_detect.detections import Detections, GroundTruth
from hydra_detect.errors import CorruptError, InputError
from hydra_detect.measure.matching import count
from hydra_detect.measure.outcomes import Outcomes, judge
from hydra_detect.storage.artifacts import decode_tensors, encode_tensors
from hydra_detect.tensors import RawTensor

BOX = (10, 20, 30, 60)


def test_empty_first():
    """No pictures, and pictures without boxes, are ordinary tables."""
    none = judge([], [], class_names=["owl"])
    assert (len(none), none.truths.shape, none.places.shape, none.groups) == (0, (0, 1), (0, 4), ())
    bare = judge([Detections()], [GroundTruth([], [])], class_names=["owl"])
    assert (len(bare), bare.truths.tolist(), bare.groups) == (0, [[0]], ("0",))
    assert judge([], [], class_names=[]).truths.shape == (0, 0)


@given(pictures(), st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]), st.sampled_from([0.1, 0.5, 0.9]))
def test_it_agrees_with_matching_at_every_threshold(both, score, iou):
    """Hits among the candidates above a threshold are those that matching these alone would find."""
    found = judge(*both, class_names=CLASSES, iou=iou)
    kept = found.scores >= np.float32(score)
    counts = count(*both, iou=iou, score=score)
    assert (found.hits & kept).sum() == counts.true_positives
    assert kept.sum() == counts.true_positives + counts.false_positives
    assert found.truths.sum() == counts.true_positives + counts.false_negatives
    assert found.iou == iou


@given(pictures(), st.randoms(use_true_random=False))
def test_picture_order_does_not_matter(both, random):
    """Pictures in another order give the same rows in that order."""
    order = list(range(len(both[0])))
    random.shuffle(order)
    here = judge(*both, class_names=CLASSES)
    there = judge(*([column[place] for place in order] for column in both), class_names=CLASSES)
    for new, old in enumerate(order):
        assert there.scores[there.images == new].tolist() == here.scores[here.images == old].tolist()
        assert there.hits[there.images == new].tolist() == here.hits[here.images == old].tolist()
        assert there.truths[new].tolist() == here.truths[old].tolist()


@given(pictures())
def test_perfect_detections_all_hit(both):
    """Detections equal to the labels are all hits, and as many as there are labels of each class."""
    truths = both[1]
    found = judge([perfect(truth) for truth in truths], truths, class_names=CLASSES)
    assert found.hits.all()
    assert np.array_equal(found.count(found.hits), found.truths)


@given(pictures())
def test_repeating_detections_adds_no_hits_beyond_labels(both):
    """The same candidates twice hit no more boxes than there are, and at least what they hit once."""
    twice = judge([Detections.concat([found, found]) for found in both[0]], both[1], class_names=CLASSES)
    assert (twice.count(twice.hits) <= twice.truths).all()
    found = detect([BOX], ["owl"], [0.9])
    truth = GroundTruth([BOX], ["owl"], SIZE)
    repeated = judge([Detections.concat([found] * 3)], [truth], class_names=CLASSES)
    assert repeated.hits.tolist() == [True, False, False]


def test_places_and_numbers():
    """Places are centre and sides as fractions of the picture; labels count from 1, pictures from 0."""
    truth = GroundTruth([BOX], ["fox"], (100, 200))
    found = judge(
        [detect([], []), detect([BOX], ["fox"], size=(100, 200))], [GroundTruth([], []), truth],
        class_names=CLASSES, groups=["a", "b"],
    )  # fmt: skip
    np.testing.assert_allclose(found.places, [(0.1, 0.4, 0.1, 0.4)], rtol=1e-6)
    assert (found.labels.tolist(), found.images.tolist(), found.groups) == ([2], [1], ("a", "b"))
    assert found.truths.tolist() == [[0, 0], [0, 1]]
    assert not found.scores.flags.writeable


def test_a_size_may_be_known_on_one_side():
    """The picture's size may stand with the labels or with the detections; two sizes are a mistake, none too."""
    unsized, sized = GroundTruth([BOX], ["owl"]), GroundTruth([BOX], ["owl"], (100, 200))
    there = judge([detect([BOX], ["owl"], size=(100, 200))], [unsized], class_names=CLASSES)
    here = judge([detect([BOX], ["owl"], size=(0, 0))], [sized], class_names=CLASSES)
    assert np.array_equal(here.places, there.places)
    with pytest.raises(InputError, match="picture 0 has no size"):
        judge([detect([BOX], ["owl"], size=(0, 0))], [unsized], class_names=CLASSES)
    with pytest.raises(InputError, match=r"picture 0 is \(50, 100\) to its detections and \(100, 200\)"):
        judge([detect([BOX], ["owl"], size=(50, 100))], [sized], class_names=CLASSES)


def test_classes_that_are_not_judged_are_refused():
    """A class that is not among the names is a mistake on either side, and near names are told."""
    truth = GroundTruth([BOX], ["owl"], SIZE)
    with pytest.raises(
        InputError, match=r"a detection in picture 0 is of class 'owls'.*Did you mean 'owl'\?"
    ) as caught:
        judge([detect([BOX], ["owls"])], [truth], class_names=CLASSES)
    assert caught.value.facts["class_name"] == "owls"
    with pytest.raises(InputError, match="a label in picture 0 is of class 'owl'"):
        judge([detect([], [])], [truth], class_names=["fox"])
    for names in ("owl", ["owl", "owl"]):
        with pytest.raises(InputError, match="class_names is one text or has a name twice"):
            judge([], [], class_names=names)


def test_one_of_each_per_picture():
    """Detections, labels and groups of different numbers of pictures are refused."""
    truth = GroundTruth([], [])
    with pytest.raises(InputError, match="detections of 1 pictures and labels of 0"):
        judge([Detections()], [], class_names=CLASSES)
    with pytest.raises(InputError, match="labels of 1, and 2 groups"):
        judge([Detections()], [truth], class_names=CLASSES, groups=["a", "b"])
    with pytest.raises(InputError, match="1 groups"):
        judge([Detections()], [truth], class_names=CLASSES, groups="a")


# Tensors


@given(outcomes)
def test_tensors_round_trip(found):
    """Tensors give the table back, through the bytes of a file too; a tensor more is passed over."""
    tensors = found.to_tensors()
    assert Outcomes.from_tensors(tensors) == found
    again = decode_tensors(encode_tensors(tensors), "outcomes")
    assert Outcomes.from_tensors(again | {"later": RawTensor.of(np.zeros(1))}) == found


def test_names_travel():
    """Class names, groups and the overlap are in the tensors, whatever letters they have."""
    found = attrs.evolve(table([0.5], [True], names=("日本", "é")), groups=["a/b\n"], iou=0.75)
    again = Outcomes.from_tensors(found.to_tensors())
    assert (again.class_names, again.groups, again.iou) == (("日本", "é"), ("a/b\n",), 0.75)


@pytest.mark.parametrize(
    ("name", "tensor", "found"),
    [
        ("hits", None, "missing or of another dtype: hits"),
        ("scores", RawTensor.of(np.zeros(2)), "missing or of another dtype: scores"),
        ("names", RawTensor.of(np.frombuffer(b"{", dtype=np.uint8)), "no valid JSON"),
        ("names", RawTensor.of(np.frombuffer(b'{"schema": 1}', dtype=np.uint8)), "class_names: missing"),
        ("hits", RawTensor.of(np.zeros(3, dtype=bool)), r"for 2 candidates, 1 pictures and 1 classes, hits is \[3\]"),
        ("labels", RawTensor.of(np.array([1, 2])), "a label is not from 1 to 1"),
        ("images", RawTensor.of(np.array([0, -1])), "a picture not from 0 to 0"),
        ("scores", RawTensor.of(np.array([0.5, np.nan], dtype=np.float32)), "NaN or outside"),
        ("truths", RawTensor.of(np.array([[0]])), "more hits of a class than labelled boxes"),
    ],
)
def test_damaged_tensors_are_refused(name, tensor, found):
    """A tensor that is missing, of another kind, or that does not fit the others is refused, saying which."""
    tensors = table([0.5, 0.25], [True, False]).to_tensors()
    del tensors[name]
    if tensor is not None:
        tensors[name] = tensor
    with pytest.raises(CorruptError, match=found):
        Outcomes.from_tensors(tensors)


def test_a_thousand_pictures_are_judged_in_well_under_a_second():
    """25,000 labels' and candidates' worth of matching is no loop over pairs: the best of three runs is quick."""
    both = crowd(pictures=1000, most=25)

    def seconds():
        began = time.process_time()  # which no other process adds to
        judge(*both, class_names=CLASSES)
        return time.process_time() - began

    assert min(seconds() for _ in range(3)) < 1
