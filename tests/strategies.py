"""Hypothesis strategies: the values of this library, as they may occur."""

import numpy as np
from hypothesis import strategies as st

from hydra_detect.detections import Detections, GroundTruth, Timing

SIDE = 4096
HEADS = ("owl", "fox-2", "insects")
LABELS = ("owl", "red fox", "RBC", "<b>&\"'é", "日本")


def coordinates(low=0.0, high=SIDE):
    """Draw a coordinate in pixels, a float32 value."""
    return st.floats(low, high, width=32)


@st.composite
def boxes(draw, *, least=0, most=8, low=0.0, high=SIDE):
    """Draw [N, 4] float32 boxes, some without area."""
    rows = draw(st.lists(st.tuples(*[coordinates(low, high)] * 4), min_size=least, max_size=most))
    corners = np.array(rows, dtype=np.float32).reshape(-1, 2, 2)
    return np.sort(corners, axis=1).reshape(-1, 4)


@st.composite
def solid_boxes(draw, *, least=0, most=8):
    """Draw [N, 4] float32 boxes with whole coordinates and an area."""
    side = st.integers(1, 300)
    place = st.integers(0, 600)
    rows = draw(st.lists(st.tuples(place, place, side, side), min_size=least, max_size=most))
    corners = np.array(rows, dtype=np.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def printable(max_size=12):
    """Draw text that people could see: no control characters, no lone surrogates."""
    return st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn")), max_size=max_size)


def timings():
    """Draw a Timing."""
    seconds = st.floats(0, 100)
    return st.builds(Timing, seconds, seconds, st.dictionaries(st.sampled_from(HEADS), seconds, max_size=3), seconds)


@st.composite
def detections(draw, *, most=8, low=0.0, high=SIDE, names=None, source=None):
    """Draw Detections of one picture."""
    found = draw(boxes(most=most, low=low, high=high))
    n = len(found)
    names = st.sampled_from(LABELS) | printable() if names is None else names
    whole = st.integers(1, 1 << 40)
    return Detections(
        boxes=found,
        scores=draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)),
        labels=draw(st.lists(whole, min_size=n, max_size=n)),
        label_names=draw(st.lists(names, min_size=n, max_size=n)),
        heads=draw(st.lists(st.sampled_from(HEADS), min_size=n, max_size=n)),
        head_versions=draw(st.lists(whole, min_size=n, max_size=n)),
        image_size=draw(st.tuples(st.integers(1, SIDE), st.integers(1, SIDE))),
        source=draw(st.none() | printable()) if source is None else source,
        timing=draw(timings()),
    )


@st.composite
def ground_truths(draw):
    """Draw GroundTruth of one picture, every box with an area."""
    found = draw(solid_boxes())
    return GroundTruth(
        boxes=found,
        label_names=draw(st.lists(st.sampled_from(LABELS), min_size=len(found), max_size=len(found))),
        image_size=(1000, 1000),
        source=draw(st.none() | printable()),
    )
