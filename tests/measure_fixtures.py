"""Pictures with labels and candidates that partly hit them, for the tests of `hydra_detect.measure`."""

import numpy as np
import strategies
from hypothesis import strategies as st

from hydra_detect.detections import Detections, GroundTruth
from hydra_detect.measure.outcomes import Outcomes, judge

CLASSES = ("owl", "fox")
SIZE = (1000, 1000)
scores = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1, width=32)


def detect(boxes, names, confidences=None, *, size=SIZE):
    """Return detections of these boxes, certain ones by default."""
    n = len(names)
    return Detections(
        boxes=boxes, scores=np.ones(n) if confidences is None else confidences, labels=np.ones(n), label_names=names,
        heads=["owls"] * n, head_versions=np.ones(n), image_size=size,
    )  # fmt: skip


def perfect(truth):
    """Return detections that are just the labels."""
    return detect(truth.boxes, truth.label_names, size=truth.image_size)


@st.composite
def one_picture(draw):
    """Draw the candidates and labels of one picture; about half of the candidates lie on labels."""
    boxes = draw(strategies.solid_boxes(most=4))
    truth = GroundTruth(boxes, draw(st.lists(st.sampled_from(CLASSES), min_size=len(boxes), max_size=len(boxes))), SIZE)
    taken = draw(st.lists(st.integers(0, len(boxes) - 1), max_size=4)) if len(boxes) else []
    others = draw(strategies.solid_boxes(most=3))
    n = len(taken) + len(others)
    names = [truth.label_names[place] for place in taken]
    names += draw(st.lists(st.sampled_from(CLASSES), min_size=len(others), max_size=len(others)))
    confidences = draw(st.lists(scores, min_size=n, max_size=n))
    return detect(np.concatenate([boxes[taken], others]), names, confidences), truth


def pictures(least=0, most=4):
    """Draw (detections, truths) of some pictures."""
    return st.lists(one_picture(), min_size=least, max_size=most).map(
        lambda pairs: ([found for found, _ in pairs], [truth for _, truth in pairs])
    )


outcomes = pictures().map(lambda both: judge(*both, class_names=CLASSES))


def table(confidences, hits, *, labels=None, names=("owl",), missed=0):
    """Return outcomes of one picture: candidates of these scores, and labelled boxes of the first class beside."""
    numbers = np.ones(len(hits), dtype=int) if labels is None else np.array(labels)
    present = [int(np.sum(np.array(hits, dtype=bool) & (numbers == number))) for number in range(1, len(names) + 1)]
    present[0] += missed
    return Outcomes(
        scores=confidences, hits=hits, labels=numbers, images=np.zeros(len(hits)), places=np.zeros((len(hits), 4)),
        truths=[present], class_names=names, groups=["0"],
    )  # fmt: skip


def crowd(seed=0, *, pictures=40, classes=CLASSES, most=12):
    """Return (detections, truths) of many pictures, as a head of middling quality finds them."""
    source = np.random.default_rng(seed)
    found, truths = [], []
    for _ in range(pictures):
        labels = source.integers(1, most)
        corners = source.uniform(0, 800, (labels, 2))
        boxes = np.concatenate([corners, corners + source.uniform(20, 150, (labels, 2))], axis=1)
        names = source.choice(classes, labels)
        near = boxes + np.tile(source.normal(0, 8, (labels, 2)), 2)
        stray = np.concatenate([source.uniform(0, 500, (labels, 2)), source.uniform(500, 999, (labels, 2))], axis=1)
        confidences = np.concatenate([source.beta(4, 2, labels), source.beta(2, 4, labels)])
        both = np.concatenate([near, stray])
        found.append(detect(both, [*names, *source.choice(classes, labels)], confidences))
        truths.append(GroundTruth(boxes, names, SIZE))
    return found, truths
