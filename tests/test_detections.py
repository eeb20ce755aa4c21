"""Detections and ground truth: values that behave like lists of boxes, and the laws of IoU."""

import pickle

import attrs
import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.detections import Detections, GroundTruth, Timing, box_iou, missing_extra
from hydra_detect.errors import ExtraMissingError, InputError

COLUMNS = ("boxes", "scores", "labels", "label_names", "heads", "head_versions")


def make(n, head="owl", **changes):
    """Return n boxes of one head."""
    values = {
        "boxes": [(10.0 * i, 0, 10.0 * i + 5, 5) for i in range(n)],
        "scores": [1 - i / 10 for i in range(n)],
        "labels": range(1, n + 1),
        "label_names": [f"class{i}" for i in range(n)],
        "heads": [head] * n,
        "head_versions": [3] * n,
        "image_size": (100, 200),
    }
    return Detections(**(values | changes))


def test_empty_is_ordinary():
    """Every method works on no detections at all."""
    empty = Detections()
    assert len(empty) == 0
    assert list(empty) == []
    assert empty.boxes.shape == (0, 4)
    assert empty[:] == empty[[]] == empty[np.zeros(0, dtype=bool)] == empty.filter(score=0.5) == empty.suppress()
    assert empty.filter(heads=["owl"], label_names=["owl"]) == empty
    assert Detections.concat([]) == Detections.concat([empty, empty]) == empty
    assert empty.by_head() == {}
    assert box_iou(empty.boxes, empty.boxes).shape == (0, 0)
    assert len(GroundTruth((), ())) == 0
    assert GroundTruth((), ()).only("owl") == GroundTruth((), ())


@given(strategies.detections(), st.data())
def test_selecting_agrees_with_lists(d, data):
    """Numbers, slices, lists of numbers and masks select what they select from a list."""
    rows = list(range(len(d)))
    part = data.draw(st.slices(len(d)))
    assert d[part].scores.tolist() == [d.scores[i] for i in rows[part]]
    mask = data.draw(st.lists(st.booleans(), min_size=len(d), max_size=len(d)))
    assert d[np.array(mask, dtype=bool)] == d[[i for i in rows if mask[i]]]
    if rows:
        picked = data.draw(st.lists(st.sampled_from(rows), max_size=6))
        assert d[picked].label_names.tolist() == [d.label_names[i] for i in picked]
        assert d[-1] == d[len(d) - 1] == d[[len(d) - 1]]
        assert len(d[0]) == 1


@given(strategies.detections(), strategies.detections())
def test_concat_agrees_with_lists(first, second):
    """Joining is joining the lists of boxes, and cutting at the seam gives the parts back."""
    joined = Detections.concat([first, second])
    assert len(joined) == len(first) + len(second)
    assert list(joined) == [*first, *attrs.evolve(second, source=first.source, image_size=first.image_size)]
    assert joined[: len(first)] == first
    for column in COLUMNS:
        assert getattr(joined, column).tolist() == getattr(first, column).tolist() + getattr(second, column).tolist()


def test_number_beyond_the_end_is_an_index_error():
    """A box number that does not exist raises IndexError, at either end."""
    with pytest.raises(IndexError, match="box 2 of 2"):
        make(2)[2]
    with pytest.raises(IndexError, match="box -3 of 2"):
        make(2)[-3]


@given(strategies.detections())
def test_by_head_is_a_partition(d):
    """The heads' shares together are all boxes, each under its own head, in order of first appearance."""
    parts = d.by_head()
    assert sum(map(len, parts.values())) == len(d)
    assert list(parts) == list(dict.fromkeys(d.heads.tolist()))
    assert all(set(part.heads.tolist()) == {head} for head, part in parts.items())


def test_filter_by_score_head_and_class():
    """The threshold is inclusive, and an empty list of names keeps nothing."""
    both = Detections.concat([make(3), make(2, head="fox")])
    assert both.filter(score=0.9).scores.tolist() == pytest.approx([1, 0.9, 1, 0.9])
    assert both.filter(heads=["fox"]) == make(2, head="fox")
    assert both.filter(label_names=["class2"]).labels.tolist() == [3]
    assert len(both.filter(heads=[])) == 0
    assert both.filter() == both


def test_suppress_drops_the_worse_of_two_across_heads():
    """Of two overlapping boxes the better one stays, whichever head found it, and order is kept."""
    boxes = [(0, 0, 10, 10), (0, 0, 10, 9), (50, 50, 60, 60)]
    d = make(3, boxes=boxes, scores=[0.5, 0.9, 0.1], heads=["a", "b", "a"])
    assert d.suppress() == d[[1, 2]]
    assert d.suppress(iou=0.95) == d
    within = make(3, boxes=boxes, scores=[0.5, 0.9, 0.1], heads=["a", "a", "a"])
    assert within.suppress() == within  # a head has done its own already


@given(strategies.detections())
def test_suppress_leaves_no_overlap_and_changes_nothing_twice(d):
    """What is left of different heads overlaps nowhere beyond the threshold; suppressing again changes nothing."""
    kept = d.suppress(0.3)
    overlaps = box_iou(kept.boxes, kept.boxes)
    overlaps[kept.heads[:, None] == kept.heads[None]] = 0
    assert (overlaps <= 0.3).all()
    assert kept.suppress(0.3) == kept


@given(strategies.boxes(), strategies.boxes())
def test_iou_is_symmetric_and_a_share(a, b):
    """Overlap is the same both ways and lies in [0, 1]."""
    overlaps = box_iou(a, b)
    assert overlaps.shape == (len(a), len(b))
    assert overlaps.dtype == np.float32
    assert np.array_equal(overlaps, box_iou(b, a).T)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()


@given(strategies.boxes(low=-(2.0**100), high=2.0**100))
def test_iou_on_itself(a):
    """A box with an area overlaps itself wholly; one without overlaps nothing."""
    solid = (a[:, 2] > a[:, 0]) & (a[:, 3] > a[:, 1])
    assert np.array_equal(np.diagonal(box_iou(a, a)), solid.astype(np.float32))


@given(strategies.solid_boxes(), strategies.solid_boxes(), st.integers(-500, 500), st.sampled_from([0.25, 0.5, 3, 8]))
def test_iou_is_unchanged_by_shift_and_scale(a, b, shift, scale):
    """Moving or enlarging both boxes together leaves their overlap as it was."""
    before = box_iou(a, b)
    np.testing.assert_allclose(box_iou(a + np.float32(shift), b + np.float32(shift)), before, atol=1e-6)
    np.testing.assert_allclose(box_iou(a * np.float32(scale), b * np.float32(scale)), before, atol=1e-6)


def test_iou_of_known_boxes():
    """A quarter shared by two squares is one seventh of their union; touching boxes share nothing."""
    a = np.array([[0, 0, 2, 2]], dtype=np.float32)
    b = np.array([[1, 1, 3, 3], [2, 0, 4, 2]], dtype=np.float32)
    np.testing.assert_allclose(box_iou(a, b), [[1 / 7, 0]], rtol=1e-6)


def test_arrays_are_frozen_and_apart_from_what_was_given():
    """No column can be written to, and changing the arrays given changes nothing."""
    given_boxes = np.zeros((1, 4), dtype=np.float32)
    d = make(1, boxes=given_boxes)
    given_boxes[:] = 7
    assert d.boxes.tolist() == [[0, 0, 0, 0]]
    for column in COLUMNS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(d, column)[0] = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        d.source = "x"


@given(strategies.detections(), strategies.ground_truths())
def test_pickling_keeps_all(d, truth):
    """A value from another process is equal, timing included, and still frozen."""
    again = pickle.loads(pickle.dumps(d))  # noqa: S301  our own bytes
    assert again == d
    assert again.timing == d.timing
    assert not again.boxes.flags.writeable
    other = pickle.loads(pickle.dumps(truth))  # noqa: S301
    assert other == truth
    assert not other.boxes.flags.writeable


def test_timing_adds_up():
    """The total is the sum of the parts, and timing does not make detections differ."""
    timing = Timing(transform=1, backbone=2, heads={"a": 3, "b": 4})
    assert timing.total == 10
    assert make(1, timing=timing) == make(1)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"boxes": [(0, 0, 1, 1)]}, "lengths"),
        ({"boxes": [(0, 0, 1, 1), (5, 0, 4, 1)]}, "the first is box 1"),
        ({"boxes": [(0, 0, 1, np.nan), (0, 0, 1, 1)]}, "not finite"),
        ({"boxes": [(0, 0, 1e39, 1), (0, 0, 1, 1)]}, "not finite"),
        ({"boxes": [(0, 0, 1), (0, 0, 1)]}, r"shape is \[2, 3\]"),
        ({"scores": [0.5, 1.5]}, "outside"),
        ({"scores": [0.5, np.nan]}, "NaN"),
        ({"image_size": (10,)}, "image size"),
        ({"image_size": (10, -1)}, "image size"),
        ({"image_size": (10.5, 3)}, "image size"),
    ],
)
def test_what_is_no_detection_is_refused(changes, found):
    """Columns of different lengths, impossible boxes, scores and sizes are errors that say what is wrong."""
    with pytest.raises(InputError, match=found):
        make(2, **changes)


def test_ground_truth_selects_and_refuses():
    """Ground truth keeps the classes asked for, and needs one name per box."""
    truth = GroundTruth([(0, 0, 1, 1), (0, 0, 2, 2)], ["a", "b"], image_size=[5, 6])
    assert truth.only("b") == GroundTruth([(0, 0, 2, 2)], ["b"], image_size=(5, 6))
    assert len(truth.only()) == 0
    with pytest.raises(InputError, match="1 boxes and 2 label names"):
        GroundTruth([(0, 0, 1, 1)], ["a", "b"])


@pytest.mark.parametrize("names", ["WBC", [None, "a", "b"], [1, 2, 3]])
def test_names_are_texts_one_for_each_box(names):
    """One text is no list of its letters, and a number is no name."""
    boxes = [(0, 0, 1, 1)] * 3
    with pytest.raises(InputError, match=r"the names are .*Give a list with the class name of each box"):
        GroundTruth(boxes, names, (8, 8))
    assert GroundTruth(boxes, np.array(["a", "b", "a"]), (8, 8)).label_names == ("a", "b", "a")


def test_numbers_of_labels_are_whole():
    """A label of 1.7 would become 1; 2.0 is 2."""
    columns = {"boxes": [(0, 0, 1, 1)], "scores": [0.5], "label_names": ["a"], "heads": ["h"], "head_versions": [1]}
    with pytest.raises(InputError, match=r"they are 1\.7\. Give whole numbers"):
        Detections(labels=[1.7], **columns)
    assert Detections(labels=[2.0], **columns).labels.tolist() == [2]


def test_missing_extra_names_the_command():
    """The error for a missing extra is an ImportError with the command that installs it."""
    error = missing_extra("fly", "wings")
    assert isinstance(error, ExtraMissingError)
    assert error.remedy == "pip install 'hydra-detect[wings]'"


def test_the_thin_names_reach_the_formats(tmp_path):
    """The methods users look for give what the format modules give."""
    d = make(1)
    assert d.to_dict()["detections"][0]["label"] == "class0"
    assert d.to_json().startswith("{")
    assert d.to_coco()[0]["bbox"] == [0, 0, 5, 5]
    assert d.to_yolo().startswith("0 ")
    assert d.to_voc().startswith("<annotation>")
    picture = np.zeros((100, 200, 3), dtype=np.uint8)
    assert d.plot(picture).size == (200, 100)
    d.save(tmp_path / "out.png", picture)
    assert (tmp_path / "out.png").is_file()
    assert d._repr_png_() is None
    assert "class0" in d._repr_html_()


def test_filter_refuses_one_name_for_a_list():
    """A bare name would be read letter by letter, so it is refused with the form that is meant."""
    for names in ({"heads": "owl"}, {"label_names": "owl"}):
        with pytest.raises(InputError, match=r"Write \['name'\]"):
            Detections().filter(**names)
