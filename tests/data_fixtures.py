"""Small labelled data sets for tests: in memory, and as files."""

import json
from pathlib import Path

import numpy as np
import strategies
from hypothesis import strategies as st
from PIL import Image

import hydra_detect
from hydra_detect.data.samples import Sample, Samples
from hydra_detect.detections import GroundTruth

DEMO = Path(hydra_detect.__file__).parent / "demo/data"
SIZE = (24, 32)


def picture(seed, size=SIZE):
    """Return a noise picture [height, width, 3] uint8; equal seeds give equal pictures."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def sample(name, labels=(), *, group=None, seed=None):
    """Return a sample of its own picture (or that of the seed) with one box for each label."""
    boxes = [(n, n, n + 5, n + 6) for n, _label in enumerate(labels)]
    truth = GroundTruth(boxes, labels, SIZE)
    seed = [*name.encode()] if seed is None else seed
    return Sample(id=name, picture=picture(seed), truth=truth, **({} if group is None else {"group": group}))


def samples_of(*labels, groups=None):
    """Return samples s000, s001, ... with these labels each, and groups if given."""
    groups = groups or [None] * len(labels)
    items = [sample(f"s{n:03}", own, group=group) for n, (own, group) in enumerate(zip(labels, groups, strict=True))]
    return Samples(items=items)


def save(folder, name, size=SIZE, seed=0):
    """Write a picture into the folder and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed, size)).save(path)
    return path


def coco_of(folder, *annotations, images=None, categories=None):
    """Write a COCO file of one picture a.png of 24 x 32 with annotations of class 1, owl, and return its path."""
    save(folder, "a.png")
    document = {
        "images": images or [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
        "annotations": [{"image_id": 1, "category_id": 1} | each for each in annotations],
        "categories": categories or [{"id": 1, "name": "owl"}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(document))
    return path


def on_disk(folder, truths, *, groups=None):
    """Save a picture for each name and return Samples of them."""
    groups = groups or {}
    items = [
        Sample(
            id=name,
            picture=str(save(folder, name, truth.image_size, seed=number)),
            truth=truth,
            group=groups.get(name, name),
        )
        for number, (name, truth) in enumerate(truths.items())
    ]
    return Samples(items=items, class_names=strategies.LABELS)


NAMES = st.sampled_from(["a.png", "b c.png", "sub/a.png", "sub/dé.png", "日本.png", "x,y.png", "e.f.png"])


@st.composite
def truths(draw):
    """Draw the labels of one picture: float32 boxes with an area, within it."""
    height, width = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))

    def side(end):
        return st.lists(st.floats(0, end, width=32), min_size=2, max_size=2, unique=True).map(sorted)

    rows = draw(st.lists(st.tuples(side(width), side(height)), max_size=4))
    boxes = [(x1, y1, x2, y2) for (x1, x2), (y1, y2) in rows]
    labels = draw(st.lists(st.sampled_from(strategies.LABELS), min_size=len(boxes), max_size=len(boxes)))
    return GroundTruth(boxes, labels, (height, width))


def data_sets():
    """Draw labels by name of the picture."""
    return st.dictionaries(NAMES, truths(), max_size=4)
