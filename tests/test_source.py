"""Where a training gets what it sees: views of cached features, or pictures augmented anew."""

import pytest
import torch
from training_fixtures import CLASSES, TALL, backbone, cache, shape_sample

from hydra_detect.training.augment import Augmenter
from hydra_detect.training.config import VIEWS
from hydra_detect.training.features import FrozenFeatures
from hydra_detect.training.source import CachedSource, FreshSource, truth_of
from hydra_detect.training.views import see

NUMBERS = {"disc": 1, "square": 2}
SAMPLE = shape_sample("two", ("disc", 2, 4, 16, 20), ("square", 30, 5, 60, 40), size=TALL[::-1])


def source(folder, *views):
    """Return a source of cached features in these views."""
    return CachedSource(FrozenFeatures(backbone(), cache(folder)), CLASSES, views=views)


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_of_a_background(tmp_path, view):
    """A picture without labels is seen in each view with no box, four wide."""
    seen = source(tmp_path, view).draw(shape_sample("empty"))
    assert (seen.boxes.shape, seen.labels.shape, seen.sample) == ((0, 4), (0,), "empty")


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_lie_where_the_features_are(tmp_path, view):
    """A view has the features of the turned picture, and its boxes turned alike, in pixels of the network input."""
    own = source(tmp_path, view)
    seen = own.draw(SAMPLE)
    pixels = own.features.pixels(SAMPLE)
    turned, boxes = see(view, pixels, truth_of(SAMPLE, NUMBERS)[0])
    encoded = own.features.fresh(turned)
    assert all(torch.equal(seen.encoded.maps[name], level) for name, level in encoded.maps.items())
    scale = encoded.size[0] / turned.shape[-2]
    assert torch.allclose(seen.boxes, boxes * scale)
    assert seen.labels.tolist() == [1, 2]


def test_boxes_grow_with_the_picture(tmp_path):
    """A picture that is resized for the network takes its boxes along, one that touches its border too."""
    sample = shape_sample("small", ("disc", 0, 0, 12, 24), ("square", 4, 6, 32, 24), size=(24, 32))
    seen = source(tmp_path, "plain").plain(sample)
    assert seen.encoded.size == (48, 64)
    assert seen.boxes.tolist() == [[0, 0, 24, 48], [8, 12, 64, 48]]


def test_chance_chooses_among_the_views(tmp_path):
    """Every view comes up, none other, and the plain one is what `plain` gives whatever the views are."""
    own = source(tmp_path, "hflip", "vflip")
    frames = {view: own.features.of(SAMPLE, view) for view in VIEWS}
    torch.manual_seed(0)
    drawn = [own.draw(SAMPLE).encoded for _ in range(12)]
    found = {v for one in drawn for v, frame in frames.items() if torch.equal(one.maps["0"], frame.maps["0"])}
    assert found == {"hflip", "vflip"}
    assert torch.equal(own.plain(SAMPLE).encoded.maps["0"], frames["plain"].maps["0"])


def test_fresh_pictures_pass_the_backbone_each_time(tmp_path):
    """A fresh source augments and encodes each time it draws; what is plain comes from the cache."""
    seen_by = []

    def darker(picture, target):
        seen_by.append(target["labels"].tolist())
        return picture * 0.5, target

    features = FrozenFeatures(backbone(), cache(tmp_path))
    own = FreshSource(features, CLASSES, augmenter=Augmenter((("darker", darker),)))
    drawn = [own.draw(SAMPLE) for _ in range(3)]
    assert (features.passes, seen_by) == (3, [[1, 2]] * 3)
    expected = features.fresh(features.pixels(SAMPLE) * 0.5)
    assert all(torch.equal(one.encoded.maps["1"], expected.maps["1"]) for one in drawn)
    assert drawn[0].boxes.tolist() == SAMPLE.truth.boxes.tolist()
    before = features.passes
    plain = [own.plain(SAMPLE) for _ in range(2)]
    assert features.passes == before + 1
    assert torch.equal(plain[0].encoded.maps["1"], features.of(SAMPLE).maps["1"])
