"""A training that takes a second: coloured shapes on noise, a tiny backbone, a narrow head that can learn them."""

import functools

import attrs
import numpy as np
import torch

from hydra_detect.contracts import Architecture, BackboneContract, Preprocessing
from hydra_detect.data.samples import Role, Sample, Samples
from hydra_detect.detections import GroundTruth
from hydra_detect.nets.backbones import Backbone, build_network, levels_of
from hydra_detect.nets.heads import Sampling
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import HeadSettings
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.checkpoint import Checkpoint
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.features import FeatureCache, FrozenFeatures
from hydra_detect.training.learn import learn
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.source import CachedSource
from hydra_detect.training.start import Origin, start_head
from hydra_detect.training.task import Task
from hydra_detect.training.tools import Tools

CLASSES = ("disc", "square")
SIZE, TALL = (48, 64), (64, 48)
COLOURS = {"disc": (230, 60, 40), "square": (40, 90, 230)}
FIXED = "the fingerprint of this training"

ARCHITECTURE = Architecture(
    body="resnet", in_channels=3, return_layers=("layer1", "layer2"), body_channels=(64, 128), pyramid_channels=16,
    norm="batch", norm_eps=1e-5, block="basic", layers=(1, 1),
)  # fmt: skip
SETTINGS = HeadSettings(
    label_count=len(CLASSES) + 1, anchor_sizes=((12,), (20,), (32,)), aspect_ratios=((0.5, 1.0, 2.0),) * 3,
    box_widths=(32, 32), roi_levels=("0", "1"), rpn_post_nms_top_n=50, score_threshold=0.01,
)  # fmt: skip
CONFIG = TrainingConfig(
    epochs=3, patience=0, batch_size=2, learning_rate=3e-3, warmup=0.1, ema_decay=0.5, views=("plain",),
    rpn_batch=64, box_batch=32, proposals=50, cache_bytes=100_000_000,
)  # fmt: skip
SAMPLING = Sampling(rpn_batch=CONFIG.rpn_batch, box_batch=CONFIG.box_batch, proposals=CONFIG.proposals)


def shape_picture(things, size=SIZE, seed=0):
    """Return noise [height, width, 3] uint8 with a filled shape in each (name, x1, y1, x2, y2)."""
    pixels = np.random.default_rng(seed).integers(90, 130, (*size, 3), dtype=np.uint8)
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.5
    for name, x1, y1, x2, y2 in things:
        across, down = (xs - (x1 + x2) / 2) / ((x2 - x1) / 2), (ys - (y1 + y2) / 2) / ((y2 - y1) / 2)
        inside = across**2 + down**2 <= 1 if name == "disc" else np.maximum(abs(across), abs(down)) <= 1
        pixels[inside] = COLOURS[name]
    return pixels


def shape_sample(name, *things, size=SIZE, seed=0):
    """Return a sample of such a picture with its labels."""
    truth = GroundTruth([thing[1:] for thing in things], [thing[0] for thing in things], size)
    return Sample(id=name, picture=shape_picture(things, size, seed), truth=truth)


def random_sample(number):
    """Return a sample with up to two shapes; one in four has none, and one in three is taller than wide."""
    source = np.random.default_rng([7, number])
    size = TALL if number % 3 == 2 else SIZE
    things = []
    for place in range(0 if number % 4 == 3 else 1 + number % 2):
        width, height = source.integers(12, 22, 2)
        left = place * size[1] // 2 + source.integers(0, max(1, size[1] // 2 - width))
        top = source.integers(0, size[0] - height)
        things.append((CLASSES[(number + place) % 2], left, top, min(left + width, size[1]), top + height))
    return shape_sample(f"s{number:03}", *things, size=size, seed=number)


def shape_samples(first, count, *, role=None):
    """Return the random samples of these numbers."""
    items = [random_sample(number) for number in range(first, first + count)]
    return Samples(items=items, class_names=CLASSES, role=role)


TRAIN = shape_samples(0, 8, role=Role.TRAIN)
SELECT = shape_samples(100, 4, role=Role.SELECT)


@functools.cache
def backbone():
    """Return the tiny backbone: random weights, BatchNorm, a 48 x 64 picture enters as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = build_network(ARCHITECTURE, device="cpu")
    raw = raw_tensors(network.state_dict())
    return Backbone(
        BackboneContract(
            digest=tensors_digest(raw),
            architecture=ARCHITECTURE,
            preprocessing=Preprocessing(min_size=48, max_size=96, size_divisor=16),
            levels=levels_of(ARCHITECTURE),
        ),
        raw,
    )


def origin(**changes):
    """Return a head to start from: narrow, with random weights unless they are given."""
    return attrs.evolve(Origin(settings=SETTINGS, class_names=CLASSES), **changes)


def head(seed=0, settings=SETTINGS, sampling=SAMPLING):
    """Return a fresh head with random weights."""
    names = [f"class {label}" for label in range(1, settings.label_count)]
    return start_head(
        Origin(settings=settings), settings, backbone().contract, class_names=names, sampling=sampling, seed=seed
    )


def cache(folder, limit=CONFIG.cache_bytes):
    """Return a cache in a folder."""
    return FeatureCache(folder / "features", limit=limit)


def task(folder, *, train=TRAIN, select=SELECT, config=CONFIG, seed=0, loss=torchvision_loss, **changes):
    """Return what a tiny training is given."""
    features = FrozenFeatures(backbone(), cache(folder), dtype=config.feature_dtype)
    facts = {
        "network": head(seed),
        "source": CachedSource(features, train.class_names, views=config.seen_as),
        "train": train,
        "select": select,
        "loss": loss,
        "config": config,
        "seed": seed,
    }
    return Task(**facts | changes)


def checkpoint(folder, fingerprint=FIXED):
    """Return where a training keeps its state."""
    return Checkpoint(folder / "run", fingerprint=fingerprint)


def learn_shapes(
    folder, *, train=TRAIN, select=SELECT, config=CONFIG, seed=0, start=None, tools=None, run=None, progress=None
):
    """Train the tiny head, with its cache and checkpoint in a folder."""
    return learn(
        backbone(),
        start or origin(),
        train=train,
        select=select,
        config=config,
        seed=seed,
        checkpoint=run or checkpoint(folder),
        tools=attrs.evolve(tools or Tools(), cache=folder / "features"),
        progress=progress,
    )


def weights_of(fitted):
    """Return what was learnt as bytes by name: equal if and only if every bit is."""
    return {name: value.contiguous().numpy().tobytes() for name, value in fitted.tensors.items()}
