"""Anchors fitted to labels, and how well anchors resemble them."""

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hydra_detect.records import HeadSettings
from hydra_detect.training.anchors import Anchors, coverage, fit_anchors, usual_anchors

STRIDES = (4, 8, 16, 32, 64)
NONE = np.zeros((0, 2))


def sides(low=4.0, high=500.0, most=40):
    """Draw [label, (width, height)]."""
    return st.integers(1, most).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(low, high)))


def test_without_labels():
    """Without labels nothing is covered, and fitted anchors are the usual ones."""
    usual = usual_anchors(STRIDES)
    assert attrs.astuple(coverage(usual, NONE)) == (0, 0.0, 0.0)
    assert fit_anchors(NONE, STRIDES) == usual
    assert usual == Anchors(sizes=((32,), (64,), (128,), (256,), (512,)), ratios=((0.5, 1.0, 2.0),) * 5)


def test_shapes_are_torchvisions():
    """A size is the root of the area, a ratio height over width: as torchvision's generator makes them of both."""
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    anchors = Anchors(sizes=((32.0, 50.0), (64.0, 20.0)), ratios=((0.5, 2.0),) * 2)
    cells = AnchorGenerator(anchors.sizes, anchors.ratios).cell_anchors
    theirs = np.concatenate(
        [(cell[:, 2:] - cell[:, :2]).numpy() for cell in cells]
    )  # rounded to whole pixels each side
    ours = anchors.shapes()
    assert sorted(map(tuple, theirs.tolist())) == sorted(map(tuple, (2 * np.round(ours / 2)).tolist()))


def test_coverage_by_hand():
    """A label equal to an anchor overlaps it wholly; half as high, by half; and half is enough."""
    anchors = Anchors(sizes=((10.0,),), ratios=((1.0,),))
    found = coverage(anchors, np.array([[10, 10], [10, 5], [5, 4]]))
    assert (found.boxes, found.at_half) == (3, pytest.approx(2 / 3))
    assert found.mean_iou == pytest.approx((1 + 0.5 + 0.2) / 3)


@given(sides())
def test_fitted_anchors_cover_no_less(found):
    """On the labels that they were fitted to, fitted anchors resemble them as much as the usual ones do, or more."""
    fitted, usual = (coverage(a, found).mean_iou for a in (fit_anchors(found, STRIDES), usual_anchors(STRIDES)))
    assert fitted >= usual


def test_where_k_means_does_worse_the_usual_anchors_stay():
    """One small label among larger ones on a level draws its size away from all: then the usual anchors are kept."""
    found = np.array([[7, 10]] + [[21, 44]] * 8, dtype=float)
    assert fit_anchors(found, STRIDES) == usual_anchors(STRIDES)
    assert fit_anchors(found, STRIDES, sizes=2) != usual_anchors(STRIDES)


@given(sides(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_as_many_shapes_on_each_level(found, sizes, ratios, seed):
    """Each level has sizes times ratios shapes, ascending and distinct, and the same labels give the same ones."""
    anchors = fit_anchors(found, STRIDES, sizes=sizes, ratios=ratios, seed=seed)
    assert fit_anchors(found.copy(), STRIDES, sizes=sizes, ratios=ratios, seed=seed) == anchors
    assert [len(row) for row in anchors.sizes] == [sizes] * len(STRIDES)
    assert [len(row) for row in anchors.ratios] == [ratios] * len(STRIDES)
    assert all(list(row) == sorted(row) for row in (*anchors.sizes, *anchors.ratios))
    assert HeadSettings(label_count=2, anchor_sizes=anchors.sizes, aspect_ratios=anchors.ratios)


@given(sides(low=0.01, high=5000.0))
def test_extreme_labels_give_anchors_that_a_head_takes(found):
    """Labels a hair wide and a picture long give shapes like them, never a side of nothing."""
    anchors = fit_anchors(found, STRIDES)
    assert (anchors.shapes() > 0).all()
    HeadSettings(label_count=2, anchor_sizes=anchors.sizes, aspect_ratios=anchors.ratios)


def test_one_shape_is_found():
    """Labels of one shape, however elongated, are covered nearly wholly; the empty levels move with them."""
    for shape in ((119, 18), (20, 20), (1000, 0.4)):
        anchors = fit_anchors(np.array([shape] * 9, dtype=float), STRIDES)
        assert coverage(anchors, np.array([shape], dtype=float)).mean_iou > 0.99
        assert len(set(anchors.sizes)) == len(STRIDES)
        assert [row[0] for row in anchors.sizes] == sorted(row[0] for row in anchors.sizes)


def test_levels_without_labels_move_with_the_others():
    """Labels of half the usual size halve the anchors of levels that none of them belongs to."""
    anchors = fit_anchors(np.full((5, 2), 16.0), STRIDES)
    assert anchors.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))


def test_two_ratios_are_told_apart():
    """Lying and standing labels get ratios of their own."""
    lying, standing = [[80, 20]] * 5, [[20, 80]] * 7
    anchors = fit_anchors(np.array(lying + standing, dtype=float), STRIDES, ratios=2)
    assert anchors.ratios[0] == (0.25, 4.0)
    assert coverage(anchors, np.array([[80, 20], [20, 80]], dtype=float)).mean_iou > 0.99
