"""Engines on heads of every make: whatever a head's settings, and whichever way it is run, they find the same."""

import numpy as np
import pytest
import torch
from engine_fixtures import compact, copied, mixed, photographs
from originals import RATIOS, detector, mobilenet, resnet18, restless, save, small
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from hydra_detect import HydraDetector, Store, split_checkpoint
from hydra_detect.engine.fast import FastEngine
from hydra_detect.measure.agreement import agreement

COMMON = {
    "few": {"rpn_pre_nms_top_n": 20, "rpn_post_nms_top_n": 10},
    "sure": {"rpn_score_threshold": 0.5},
    "none": {"rpn_score_threshold": 1.0},
    "adaptive": {"roi_sampling_ratio": 0},
    "finer": {"roi_sampling_ratio": 3},
    "one-level": {"roi_levels": ("1",)},
    "level-left-out": {"roi_levels": ("0", "2")},
}
FORMS = {
    "coarse": {"roi_size": 14, "rank": "rpn:4,fc6:whole,fc7:4"},
    "odd": {"roi_size": 5, "rank": "rpn:4,fc6:whole,fc7:4"},
    "deep": {"rpn_conv_depth": 2, "rank": "rpn.0:4,rpn.1:whole,fc6:4,fc7:4"},
    "plain": {},
    "no-rank": {"rank": "rpn:0,fc6:3,fc7:0"},
}
"""Heads on one reference whose layers stand in other places, or read other things."""

SETTINGS = {"resnet": {**COMMON, **FORMS}, "second form": COMMON}


def loaded(store, *names, **options):
    """Return a detector on the CPU."""
    return HydraDetector.from_store(store, names, device="cpu", **options)


def raw(detector, pictures):
    """Return what a detector finds in pictures, raw, down to low scores."""
    return detector.predict(pictures, raw_scores=True, score_threshold=0.05)


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """For each kind of original a store with heads of every setting, and what the exact engine finds with them."""
    made = {}
    for kind, changes in SETTINGS.items():
        store = copied(mixed(kind), tmp_path_factory.mktemp("settings"))
        for place, (name, change) in enumerate(changes.items()):
            compact(store, name, seed=20 + place, **change)
        made[kind] = store, raw(loaded(store, *changes, engine="exact"), photographs())
    return made


@pytest.mark.parametrize("way", ["one_by_one", "without_waiting"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_a_head_may_have(kind, way, every, monkeypatch):
    """Few proposals, sure ones, none, other sampling, levels and forms: both ways find what the exact engine does."""
    store, exact = every[kind]
    with loaded(store, *SETTINGS[kind], engine="fast") as fast_detector:
        monkeypatch.setattr(FastEngine, "one_by_one", getattr(FastEngine, way))
        fast = raw(fast_detector, photographs(2))
    found = agreement(exact[:2], fast, score_limits=[0.05], most=100)
    assert found.matched > 50 * len(SETTINGS[kind])
    assert found.largest_box <= 0.01
    assert found.largest_score <= 1e-4
    assert found.unmatched == found.near_limits
    counts = {name: sum(len(one.filter(heads=[name])) for one in fast) for name in SETTINGS[kind]}
    assert counts.pop("none") == 0
    assert 0 < counts["few"] <= 20
    assert min(counts.values()) > 0


def test_no_head_brings_numbers_to_the_device(monkeypatch):
    """A number that is brought to a device is waited for: however many heads run, there are as many of those."""
    monkeypatch.setattr(FastEngine, "one_by_one", FastEngine.without_waiting)
    made, tensor, new_tensor = [], torch.tensor, torch.Tensor.new_tensor

    def counted(make):
        def one(*given, **options):
            made.append(given)
            return make(*given, **options)

        return one

    counts = []
    for names in (["owl"], ["owl", "bat"], ["owl", "bat", "fox", "eel"]):
        one = loaded(mixed(), *names, engine="fast")
        raw(one, photographs(1)[0])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "tensor", counted(tensor))
            patch.setattr(torch.Tensor, "new_tensor", counted(new_tensor))
            raw(one, photographs(1)[0])
        counts.append(len(made))
        made.clear()
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("way", ["one_by_one", "without_waiting"])
@pytest.mark.parametrize("size", [(73, 117), (64, 64)])
def test_maps_that_are_no_numbers(way, size, monkeypatch):
    """What overflowed before is nothing: no box of it is cropped from nowhere, in either way, and the next is found."""
    detector, wide = loaded(mixed(), "owl", "bat", engine="fast"), np.random.default_rng(0)
    monkeypatch.setattr(FastEngine, "one_by_one", getattr(FastEngine, way))
    pixels = wide.integers(0, 255, (*size, 3), dtype=np.uint8)
    usual = detector._engine.encode

    def overflown(pictures):
        features = usual(pictures)
        for one in features.maps.values():
            one.fill_(float("nan"))
        return features

    with monkeypatch.context() as patch:
        patch.setattr(detector._engine, "encode", overflown)
        assert len(raw(detector, pixels)) == 0
    assert len(raw(detector, photographs(1)[0])) > 0


@pytest.mark.parametrize("names", [list(FORMS), list(FORMS)[::-1]])
def test_heads_of_other_forms_on_one_reference(names, every):
    """Which head of a reference was loaded first, and how it takes the weights, is nothing to the others."""
    store, _exact = every["resnet"]
    together = raw(loaded(store, *names, engine="fast"), photographs())
    for name in names:
        alone = raw(loaded(store, name, engine="fast"), photographs())
        for one, other in zip(alone, together, strict=True):
            own = other.filter(heads=[name])
            assert len(own)
            assert np.array_equal(one.boxes, own.boxes)
            assert np.array_equal(one.scores, own.scores)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("engine", ["exact", "fast"])
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_in_half_precision(kind, engine, dtype, every):
    """Every setting runs in half precision too, and most boxes are where they were."""
    store, exact = every[kind]
    half = raw(loaded(store, *SETTINGS[kind], engine=engine, dtype=dtype), photographs(1))
    found = agreement(exact[:1], half)
    assert found.matched > 0.7 * (found.matched + found.vanished)
    assert not len(half[0].filter(heads=["none"]))


def three_levels(**options):
    """Return a detector whose pyramid has three levels: two of the body, and one that is pooled."""
    return detector(resnet18(**options), sizes=THREE["anchor_sizes"], ratios=THREE["aspect_ratios"])


THREE = {"anchor_sizes": ((8,), (32,), (96,)), "aspect_ratios": RATIOS[:3]}
GREY = {"mean": (0.5,), "std": (0.25,)}
TWO = {"anchor_sizes": ((8, 16, 32),) * 3, "aspect_ratios": RATIOS[:3]}
ORIGINALS = {
    "one channel": (lambda: detector(resnet18(channels=1), image_mean=[0.5], image_std=[0.25]), GREY),
    "frozen norms": (lambda: detector(resnet18(norm=FrozenBatchNorm2d)), {}),
    "normed pyramid": (lambda: detector(resnet18(pyramid_norm=nn.BatchNorm2d)), {}),
    "a stride left out": (
        lambda: detector(resnet18(layers=(1, 3)), sizes=THREE["anchor_sizes"], ratios=RATIOS[:3]),
        THREE,
    ),
    "coarse levels": (lambda: detector(resnet18(layers=(3, 4)), sizes=THREE["anchor_sizes"], ratios=RATIOS[:3]), THREE),
    "mobilenet, batch norms": (lambda: mobilenet(norm=nn.BatchNorm2d), TWO),
    "three classes": (lambda: small(classes=4), {}),
}
"""Kinds of originals beside those of `engine_fixtures.MODELS`, with the settings that their weights cannot tell."""


@pytest.mark.parametrize("kind", ORIGINALS)
def test_every_original(kind, tmp_path):
    """Whatever original a head was split from, the engines find the same with it and with a compact head beside it."""
    build, settings = ORIGINALS[kind]
    original = save(restless(build()), tmp_path / "model.pth")
    usual = {"min_size": 64, "max_size": 128} | settings
    split_checkpoint(original, tmp_path / "store", head="owl", settings=usual)
    store = Store.open(tmp_path / "store", durability="fast")
    compact(store, "bat", seed=5)
    exact, fast = (raw(loaded(store, "owl", "bat", engine=name), photographs()) for name in ("exact", "fast"))
    found = agreement(exact, fast, score_limits=[0.05], most=100)
    assert found.matched > 100
    assert found.largest_box <= 0.01
    assert found.largest_score <= 1e-4
    assert found.unmatched == found.near_limits
