"""Misses: labelled boxes that were not found, the worst first, and their drawings."""

import json

import numpy as np
import pytest
from hypothesis import given
from measure_fixtures import CLASSES, SIZE, crowd, detect, perfect, pictures
from PIL import Image

from hydra_detect import drawing
from hydra_detect.demo.run import DATA
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError
from hydra_detect.formats.coco import ground_truth_from_coco
from hydra_detect.lifecycle.plots import draw_miss
from hydra_detect.measure.matching import count
from hydra_detect.measure.misses import worst_misses
from hydra_detect.measure.policy import accepted
from hydra_detect.records import OperatingPolicy

POLICY = OperatingPolicy(score_threshold=0.5)
SMALL, LARGE = (10, 10, 30, 30), (100, 100, 300, 300)


def misses(found, truth, policy=POLICY, **changes):
    """Return the misses of one picture."""
    return worst_misses([found], [truth], policy=policy, class_names=CLASSES, **changes)


def test_empty_first():
    """No pictures and no labels have no misses, nor have perfect detections."""
    assert worst_misses([], [], policy=POLICY, class_names=CLASSES) == []
    assert misses(detect([SMALL], ["owl"]), GroundTruth([], [], SIZE)) == []
    truth = GroundTruth([SMALL, LARGE], ["owl", "fox"], SIZE)
    assert misses(perfect(truth), truth) == []


@given(pictures())
def test_as_many_as_there_are_false_negatives(both):
    """The misses are the labelled boxes that the accepted detections left."""
    found = worst_misses(*both, policy=POLICY, class_names=CLASSES, most=1000)
    kept = [d[accepted(d.scores, d.label_names.tolist(), policy=POLICY)] for d in both[0]]
    assert len(found) == count(kept, both[1]).false_negatives
    for miss in found:
        truth = both[1][miss.image]
        assert (miss.box, miss.label) in zip(map(tuple, truth.boxes.tolist()), truth.label_names, strict=True)
        assert len(miss.nearest) <= 1


def test_the_worst_come_first():
    """What nothing speaks for comes before what a low score does, and of these the larger box."""
    truth = GroundTruth([SMALL, LARGE, (500, 500, 900, 900)], ["owl", "owl", "owl"], SIZE)
    found = detect([(500, 500, 900, 900)], ["owl"], [0.4])
    worst = misses(found, truth)
    assert [miss.box for miss in worst] == [LARGE, SMALL, (500, 500, 900, 900)]
    assert [miss.score for miss in worst] == [0, 0, pytest.approx(0.4)]
    assert misses(found, truth, most=1) == worst[:1]
    assert misses(found, truth, most=0) == []


def test_the_nearest_may_be_of_another_class():
    """The nearest candidate is the one that overlaps best, whatever its class; only its own class speaks for a box."""
    truth = GroundTruth([LARGE], ["owl"], SIZE)
    found = detect([(100, 100, 190, 300), LARGE, SMALL], ["owl", "fox", "owl"], [0.9, 0.8, 0.9])
    (miss,) = misses(found, truth)
    assert (miss.nearest.label_names.tolist(), miss.score) == (["fox"], 0)
    assert misses(found, truth, iou=0.4) == []
    (lonely,) = misses(detect([SMALL], ["owl"]), truth)
    assert len(lonely.nearest) == 0


def test_scores_are_calibrated():
    """The policy's temperature decides what counts, and scores are told as it leaves them."""
    truth = GroundTruth([LARGE], ["owl"], SIZE)
    found = detect([LARGE], ["owl"], [0.9])
    policy = OperatingPolicy(score_threshold=0.7, temperature=4.0)  # 0.9 becomes 0.634
    (miss,) = misses(found, truth, policy)
    assert miss.score == float(miss.nearest.scores[0]) == pytest.approx(0.634, abs=1e-3)


def test_it_prints_one_line():
    """A miss says where it is and what was near."""
    truth = GroundTruth([LARGE], ["owl"], SIZE, "a.jpg")
    assert [str(miss) for miss in misses(detect([], []), truth)] == [
        "a.jpg: owl at (100, 100, 300, 300) missed, nothing near"
    ]
    near = detect([LARGE], ["fox"], [0.9])
    (unnamed,) = misses(near, GroundTruth([LARGE], ["owl"], SIZE))
    assert str(unnamed) == "picture 0: owl at (100, 100, 300, 300) missed, nearest fox 0.90"


def test_what_cannot_be_judged_is_refused():
    """Unequal lengths and unknown classes are errors."""
    with pytest.raises(InputError, match="detections of 0 pictures and labels of 1"):
        worst_misses([], [GroundTruth([], [])], policy=POLICY, class_names=CLASSES)
    with pytest.raises(InputError, match="a label in picture 0 is of class 'cat'"):
        misses(detect([], []), GroundTruth([SMALL], ["cat"], SIZE))


# Drawings


def test_a_drawing_shows_the_box_with_its_surroundings():
    """A missed box is outlined in white with dark edges, in the middle of what lies around it, enlarged if small."""
    picture = np.full((200, 400, 3), 128, dtype=np.uint8)
    (miss,) = misses(detect([], [], size=(200, 400)), GroundTruth([(100, 50, 140, 90)], ["owl"], (200, 400)))
    drawn = draw_miss(miss, picture)
    # 40 pixels and 30 on each side, four times as large.
    assert drawn.size == (400, 400)
    pixels = np.asarray(drawn)
    assert pixels[120, 200].tolist() == [255, 255, 255]
    assert pixels[118, 200].tolist() == pixels[124, 200].tolist() == [0, 0, 0]
    assert pixels[20, 20].tolist() == pixels[200, 200].tolist() == [128, 128, 128]


def test_a_drawing_stays_within_the_picture():
    """At the edge of the picture the surroundings end with it."""
    (miss,) = misses(detect([], [], size=(200, 400)), GroundTruth([(380, 0, 400, 20)], ["owl"], (200, 400)))
    assert draw_miss(miss, np.zeros((200, 400), dtype=np.uint8)).size == (350, 350)  # 35 pixels wide and high


def test_the_nearest_is_drawn_too():
    """The nearest candidate changes the drawing, and where it reaches further the drawing does."""
    truth, picture = GroundTruth([(100, 50, 140, 90)], ["owl"], (200, 400)), np.zeros((200, 400, 3), dtype=np.uint8)
    (alone,) = misses(detect([], [], size=(200, 400)), truth)
    (near,) = misses(detect([(120, 60, 300, 180)], ["fox"], size=(200, 400)), truth)
    drawn = np.asarray(draw_miss(near, picture))
    # From (70, 20) to (330, 200), twice as large: the nearest ends at (230, 160) of 260 x 180.
    assert drawn.shape == (360, 520, 3)
    colour = drawing.colour_of("owls", "fox")
    assert tuple(drawn[2 * 160 - 1, 300]) == tuple(drawn[200, 2 * 230 - 1]) == colour
    assert draw_miss(alone, picture).size == (400, 400)


def test_drawings_of_real_photographs():
    """Every miss of a real photograph is drawn from the file it names."""
    truths = [
        GroundTruth(truth.boxes, truth.label_names, truth.image_size, str(DATA / "pictures" / truth.source))
        for truth in ground_truth_from_coco(json.loads((DATA / "labels.coco.json").read_text()))[:2]
    ]
    classes = sorted({name for truth in truths for name in truth.label_names})
    found = [detect(t.boxes[::3] + 9, t.label_names[::3], size=t.image_size) for t in truths]
    for miss in worst_misses(found, truths, policy=POLICY, class_names=classes):
        drawn = draw_miss(miss)
        assert isinstance(drawn, Image.Image)
        assert min(drawn.size) > 100
        assert np.asarray(drawn).std() > 5


def test_a_drawing_needs_its_picture():
    """Without a picture, or with one of another size, nothing is drawn."""
    (miss,) = misses(detect([], []), GroundTruth([SMALL], ["owl"], SIZE))
    with pytest.raises(InputError, match="does not know its picture's file"):
        draw_miss(miss)
    with pytest.raises(InputError, match=r"the picture is \[5, 5\] and the box belongs to one of \[1000, 1000\]"):
        draw_miss(miss, np.zeros((5, 5), dtype=np.uint8))


def test_many_pictures():
    """Of many pictures the most that are asked for come back, in order."""
    worst = worst_misses(*crowd(), policy=POLICY, class_names=CLASSES)
    assert len(worst) == 12
    assert [miss.score for miss in worst] == sorted(miss.score for miss in worst)
