"""Agreement: detections that two ways of computing have in common, and those that one of them lacks."""

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st
from measure_fixtures import detect

from hydra_detect.errors import InputError
from hydra_detect.measure.agreement import agreement

BOXES = [[0, 0, 10, 10], [20, 0, 40, 20], [50, 50, 60, 70]]


def owls(boxes=BOXES, scores=(0.9, 0.8, 0.7), names=None):
    """Return detections of one picture."""
    return detect(np.array(boxes, dtype=np.float32).reshape(-1, 4), names or ["owl"] * len(scores), scores)


def test_nothing():
    """No pictures agree, and so do pictures without detections."""
    assert agreement([], []).matched == 0
    none = agreement([owls([], [])], [owls([], [])])
    assert (none.pictures, none.matched, none.unmatched, none.largest_box) == (1, 0, 0, 0.0)


def test_moved_and_scored_otherwise():
    """Edges and scores are compared pair by pair, the largest difference counts."""
    moved = np.array(BOXES) + np.array([[0, 0, 0.5, 0], [0, -0.25, 0, 0], [0, 0, 0, 0]])
    told = agreement([owls()], [owls(moved, (0.9, 0.7, 0.75))])
    assert (told.matched, told.unmatched) == (3, 0)
    assert told.largest_box == pytest.approx(0.5)
    assert told.largest_score == pytest.approx(0.1)
    assert str(told).startswith("3 detections in 1 pictures, boxes within 0.5 px, scores within 0.1;")


def test_appeared_and_vanished():
    """What only one of the two has is counted on its side; another class or head is another detection."""
    told = agreement([owls()], [owls(BOXES[:2], (0.9, 0.8))])
    assert (told.matched, told.vanished, told.appeared, told.near_limits) == (2, 1, 0, 0)
    told = agreement([owls(BOXES[:1], (0.9,))], [detect(np.array(BOXES[:1]), ["fox"], [0.9])])
    assert told.matched == 1  # labels are numbers of a head, names are not looked at


@pytest.mark.parametrize(("score", "near"), [(0.5, 1), (0.50009, 1), (0.502, 0), (0.45, 0)])
def test_near_a_limit_of_score(score, near):
    """What is lacking within the margin of a score limit was decided by rounding."""
    one = owls([*BOXES, [80, 80, 90, 90]], (0.9, 0.8, score, 0.3))
    other = owls([BOXES[0], BOXES[1], [80, 80, 90, 90]], (0.9, 0.8, 0.3))
    told = agreement([one], [other], score_limits=[0.5])
    assert (told.vanished, told.near_limits) == (1, near)


def test_where_there_is_room_the_lowest_score_is_no_limit():
    """What one side lacks is no matter of rounding because its score is that of another's last: there was room."""
    one, other = owls([BOXES[0]], (0.3,)), owls([BOXES[2]], (0.30005,))
    assert agreement([one], [other]).near_limits == 0
    assert agreement([one], [other], most=1).near_limits == 2
    assert agreement([one], [other], most=2).near_limits == 0


@pytest.mark.parametrize(("width", "near"), [(20.0, 2), (21.0, 0)])
@pytest.mark.parametrize("is_swapped", [False, True])
def test_what_rounding_lets_in_pushes_the_last_one_out(width, near, is_swapped):
    """Of a head that has all it may have, the last goes where one of a doubtful overlap came; no further ones do."""
    boxes = [[0, 0, 10, 10], [0, 0, width, 10], [50, 50, 60, 60], [70, 70, 80, 80]]
    full = owls([boxes[0], boxes[2], boxes[3]], (0.9, 0.6, 0.4))
    let = owls([boxes[0], boxes[1], boxes[2]], (0.9, 0.8, 0.6))
    pair = [[full], [let]][:: -1 if is_swapped else 1]
    told = agreement(*pair, most=3)
    assert (told.vanished, told.appeared, told.near_limits) == (1, 1, near)
    two = owls([boxes[0], boxes[1]], (0.9, 0.8))
    assert agreement([full], [two], most=2).near_limits == near


@pytest.mark.parametrize(("width", "near"), [(20.0, 1), (20.001, 1), (21.0, 0)])
def test_near_a_limit_of_overlap(width, near):
    """What is lacking and overlaps another by just the limit of suppression was decided by rounding."""
    boxes = [[0, 0, 10, 10], [0, 0, width, 10], [50, 50, 60, 60]]
    told = agreement([owls(boxes, (0.9, 0.8, 0.2))], [owls([boxes[0], boxes[2]], (0.9, 0.2))])
    assert (told.vanished, told.near_limits) == (1, near)


def test_pairs_are_one_to_one():
    """Two boxes on one are not both matched by it; the better score is matched first."""
    twice = owls([BOXES[0], [0, 0, 10, 9]], (0.9, 0.6))
    told = agreement([twice], [owls(BOXES[:1], (0.9,))])
    assert (told.matched, told.vanished) == (1, 1)
    assert told.largest_box == 0


def test_other_pictures():
    """Lots of different lengths are refused."""
    with pytest.raises(InputError, match="there are 1 pictures of the one and 2 of the other"):
        agreement([owls()], [owls(), owls()])


@given(st.lists(strategies.detections(), max_size=3))
def test_agrees_with_itself(found):
    """Detections agree with themselves, but for boxes without area, which overlap nothing."""
    told = agreement(found, found)
    solid = sum(int(((one.boxes[:, 2:] - one.boxes[:, :2]).prod(axis=1) > 0).sum()) for one in found)
    assert told.matched >= 0
    assert told.matched + told.vanished == sum(map(len, found))
    assert told.vanished == told.appeared
    assert told.vanished <= sum(map(len, found)) - min(solid, told.matched)
    assert told.largest_score <= 1


@given(st.lists(strategies.detections(), max_size=3), st.randoms())
def test_order_of_detections_does_not_matter(found, source):
    """However the second lot is ordered, as many are matched."""
    mixed = [one[source.sample(range(len(one)), len(one))] for one in found]
    assert agreement(found, mixed).unmatched == agreement(found, found).unmatched
