"""Average precision: equal to pycocotools, silent, and weighted as a bootstrap needs it."""

import contextlib
import io
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measure_fixtures import CLASSES, SIZE, crowd, detect, perfect, pictures, table
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hydra_detect.demo.run import DATA
from hydra_detect.detections import Detections, GroundTruth
from hydra_detect.errors import ExtraMissingError, InputError
from hydra_detect.formats.coco import ground_truth_from_coco, ground_truth_to_coco, to_coco
from hydra_detect.measure.average_precision import average_precision, average_precisions
from hydra_detect.measure.outcomes import judge


def of_pycocotools(detections, truths, class_names):
    """Return [overlap, class] average precision as pycocotools has it, NaN for a class without labels."""
    categories = {name: number for number, name in enumerate(class_names, start=1)}
    rows = [row for number, d in enumerate(detections, 1) for row in to_coco(d, image_id=number, categories=categories)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth_to_coco(truths, categories=categories)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]  # every area, at most 100 detections
    return np.where(precision < 0, np.nan, precision).mean(axis=1)


def assert_equal_to_pycocotools(detections, truths, class_names):
    """Compare all figures with pycocotools'."""
    found = average_precisions(detections, truths, class_names=class_names)
    expected = of_pycocotools(detections, truths, class_names)
    for ours, theirs in ((found.ap50, expected[0]), (found.ap75, expected[5]), (found.ap, expected.mean(axis=0))):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    expected = of_pycocotools(*as_one_class(detections, truths, class_names), ["owl"])
    theirs = (expected[0, 0], expected[5, 0], expected[:, 0].mean())
    np.testing.assert_allclose(found.pooled, theirs, rtol=0, atol=1e-12)


def as_one_class(detections, truths, class_names):
    """Return (detections, truths) in which each class of each picture is a picture of its own, all called owl."""
    pairs = [
        (d.filter(label_names=[name]), t.only(name))
        for d, t in zip(detections, truths, strict=True)
        for name in class_names
    ]
    found = [detect(d.boxes, ["owl"] * len(d), d.scores) for d, _ in pairs]
    return found, [GroundTruth(t.boxes, ["owl"] * len(t), SIZE) for _, t in pairs]


def test_empty_first():
    """No pictures, no labels and no detections: there is a figure, 0, only where something is labelled."""
    assert average_precisions([], [], class_names=[]).ap == ()
    none = average_precisions([], [], class_names=["owl"])
    assert math.isnan(none.ap50[0])
    assert all(map(math.isnan, none.means))
    assert all(map(math.isnan, none.pooled))
    unseen = average_precisions([detect([], [])], [GroundTruth([(0, 0, 5, 5)], ["owl"], SIZE)], class_names=CLASSES)
    assert (unseen.ap50[0], unseen.ap75[0], unseen.ap[0]) == (0, 0, 0)
    assert math.isnan(unseen.ap[1])
    assert unseen.means == unseen.pooled == (0, 0, 0)
    unasked = average_precisions([detect([(0, 0, 5, 5)], ["owl"])], [GroundTruth([], [])], class_names=["owl"])
    assert math.isnan(unasked.ap[0])
    assert math.isnan(average_precision(judge([], [], class_names=[]))(np.zeros(0, dtype=np.int64)))


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_pycocotools(seed):
    """On many pictures each figure of each class is pycocotools' own, one class of three having no label."""
    assert_equal_to_pycocotools(*crowd(seed, most=30), class_names=(*CLASSES, "unseen"))


def test_it_equals_pycocotools_beyond_100_detections():
    """Of a class in a picture only the best 100 candidates are judged, as there."""
    source = np.random.default_rng(0)
    corners = source.uniform(0, 900, (300, 2))
    boxes = np.concatenate([corners, corners + 40], axis=1)
    found = detect(boxes, ["owl"] * 300, source.random(300))
    both = [found] * 2, [GroundTruth(boxes[::2], ["owl"] * 150, SIZE)] * 2
    assert_equal_to_pycocotools(*both, class_names=["owl"])
    figure = average_precision(judge(*both, class_names=["owl"]), "owl")(np.ones(2, dtype=np.int64))
    assert figure == pytest.approx(average_precisions(*both, class_names=["owl"]).ap50[0], abs=1e-12)


def test_it_equals_pycocotools_on_real_labels():
    """On the labels of real photographs, found askew, each figure is pycocotools' own."""
    truths = ground_truth_from_coco(json.loads((DATA / "labels.coco.json").read_text()))
    source = np.random.default_rng(0)
    found = [
        detect(t.boxes + np.tile(source.normal(0, 9, (len(t), 2)), 2), t.label_names, source.random(len(t)))
        for t in truths
    ]
    assert_equal_to_pycocotools(found, truths, class_names=["RBC", "WBC", "Platelets"])


@given(pictures(least=1))
def test_perfect_detections_have_average_precision_1(both):
    """Detections equal to the labels have 1 everywhere."""
    truths = both[1]
    found = average_precisions([perfect(truth) for truth in truths], truths, class_names=CLASSES)
    for name, *figures in zip(CLASSES, found.ap50, found.ap75, found.ap, strict=True):
        labelled = any(name in truth.label_names for truth in truths)
        np.testing.assert_allclose(figures, 1 if labelled else np.nan)


@given(pictures(), st.randoms(use_true_random=False))
def test_picture_order_does_not_matter(both, random):
    """Pictures in another order have the same figures, where no two candidates of different pictures score the same."""
    spread = [d if not len(d) else distinct(d, place) for place, d in enumerate(both[0])]
    order = list(range(len(spread)))
    random.shuffle(order)
    here = average_precisions(spread, both[1], class_names=CLASSES)
    there = average_precisions([spread[k] for k in order], [both[1][k] for k in order], class_names=CLASSES)
    for ours, theirs in ((here.ap50, there.ap50), (here.ap, there.ap)):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def distinct(found, place):
    """Return detections whose scores are those of no other picture."""
    scores = (np.arange(len(found)) + 1 + place / 8) / 16
    return Detections(
        boxes=found.boxes, scores=scores, labels=found.labels, label_names=found.label_names, heads=found.heads,
        head_versions=found.head_versions, image_size=found.image_size,
    )  # fmt: skip


# All classes pooled


def test_pooled_is_one_list_of_all_candidates():
    """Of three candidates of two classes, a hit, a false alarm of the other class and its hit, the list is one."""
    truth = GroundTruth([(0, 0, 10, 10), (50, 50, 90, 90)], ["owl", "fox"], SIZE)
    boxes = [(0, 0, 10, 10), (200, 200, 300, 300), (50, 50, 90, 90)]
    found = average_precisions([detect(boxes, ["owl", "fox", "fox"], [0.9, 0.8, 0.7])], [truth], class_names=CLASSES)
    np.testing.assert_allclose((*found.ap50, found.means[0]), (1, 1 / 2, 3 / 4))
    np.testing.assert_allclose(found.pooled, (51 + 50 * 2 / 3) / 101)  # precision 1 to a recall of 1/2, then 2/3


def test_pooled_matches_within_the_class():
    """A box of the wrong class on a label is a false alarm in the pooled list, too."""
    truth = GroundTruth([(0, 0, 10, 10)], ["owl"], SIZE)
    found = average_precisions([detect([(0, 0, 10, 10)], ["fox"])], [truth], class_names=CLASSES)
    assert found.pooled == (0, 0, 0)


@given(pictures())
def test_pooled_of_one_class_is_that_of_the_class(both):
    """Where there is one class, its figure, the mean and the pooled one are the same."""
    found = [d.filter(label_names=["owl"]) for d in both[0]]
    one = average_precisions(found, [truth.only("owl") for truth in both[1]], class_names=["owl"])
    np.testing.assert_array_equal(one.pooled, one.means)


@given(pictures())
def test_pooled_is_that_of_one_class_in_pictures_of_one_class(both):
    """It is the figure of one class, were each class of each picture a picture of its own."""
    one = average_precisions(*as_one_class(*both, CLASSES), class_names=["owl"])
    np.testing.assert_array_equal(average_precisions(*both, class_names=CLASSES).pooled, one.means)


# The weighted figure


@pytest.mark.parametrize("seed", range(3))
def test_weights_of_one_give_the_librarys_figure(seed):
    """With each picture once, the weighted figure is the library's at the same overlap."""
    both = crowd(seed)
    outcomes, library = judge(*both, class_names=CLASSES), average_precisions(*both, class_names=CLASSES)
    for name, expected in zip(CLASSES, library.ap50, strict=True):
        figure = average_precision(outcomes, name)(np.ones(len(both[0]), dtype=np.int64))
        assert figure == pytest.approx(expected, abs=1e-12)
    pooled = average_precision(outcomes)(np.ones(len(both[0]), dtype=np.int64))
    assert pooled == pytest.approx(library.pooled[0], abs=1e-12)


@given(pictures())
def test_pooled_weights_of_one_give_the_librarys_figure(both):
    """Of equal scores, too, the one that stands first in the list is the same as there."""
    pooled = average_precision(judge(*both, class_names=CLASSES))(np.ones(len(both[0]), dtype=np.int64))
    expected = average_precisions(*both, class_names=CLASSES).pooled[0]
    assert pooled == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(max_examples=20)
@given(st.integers(0, 5), st.randoms(use_true_random=False))
def test_a_weight_is_a_repetition(seed, random):
    """A picture of weight 2 counts as if it were there twice, one of weight 0 as if it were not there."""
    found, truths = crowd(seed, pictures=12)
    outcomes = judge(found, truths, class_names=CLASSES)
    weights = np.array([random.randrange(3) for _ in found])
    repeated = average_precisions(
        [d for d, weight in zip(found, weights, strict=True) for _ in range(weight)],
        [t for t, weight in zip(truths, weights, strict=True) for _ in range(weight)],
        class_names=CLASSES,
    )
    for name, expected in zip((*CLASSES, None), (*repeated.ap50, repeated.pooled[0]), strict=True):
        assert average_precision(outcomes, name)(weights) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_without_weight_there_is_no_figure():
    """Where no labelled box has weight there is no figure; where one has and nothing was found it is 0."""
    assert math.isnan(average_precision(table([0.5], [True]), "owl")(np.zeros(1, dtype=np.int64)))
    assert average_precision(table([], [], missed=1), "owl")(np.ones(1, dtype=np.int64)) == 0


# What is refused, and what is left alone


def test_what_cannot_be_measured_is_refused():
    """Unequal lengths and unknown classes are errors, here as in judging."""
    with pytest.raises(InputError, match="detections of 1 pictures and labels of 0"):
        average_precisions([Detections()], [], class_names=CLASSES)
    with pytest.raises(InputError, match="a detection is of class 'cat'"):
        average_precisions([detect([(0, 0, 5, 5)], ["cat"])], [GroundTruth([], [])], class_names=CLASSES)
    with pytest.raises(InputError, match="no class 'cat' was judged"):
        average_precision(table([], []), "cat")


def test_hotcoco_is_an_extra(monkeypatch):
    """Without hotcoco the error tells which extra to install."""
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(ExtraMissingError, match=r"cannot measure average precision: .*hydra-detect\[train\]"):
        average_precisions([], [], class_names=CLASSES)


def test_threads_do_not_disturb_each_other():
    """Measured in four threads at once, each figure is what it is alone."""
    data = [crowd(seed) for seed in range(8)]

    def measured(both):
        return average_precisions(*both, class_names=CLASSES)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(measured, data)) == [measured(both) for both in data]


def test_it_is_silent(capfd):
    """Nothing is written to standard output or standard error, by whatever language."""
    average_precisions(*crowd(), class_names=CLASSES)
    assert capfd.readouterr() == ("", "")


def test_it_changes_nothing_in_the_process():
    """Measuring leaves environment, working folder, logging and warning filters alone, and imports no torch."""
    program = (
        "import logging, os, sys, warnings, numpy\n"
        "from hydra_detect.measure.average_precision import average_precisions\n"
        "def state(): return dict(os.environ), os.getcwd(), list(warnings.filters), list(logging.root.handlers)\n"
        "before = state()\n"
        "average_precisions([], [], class_names=['owl'])\n"
        "assert state() == before\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
