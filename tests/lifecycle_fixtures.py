"""A store with a tiny backbone, and scenes that a head learns in half a second: lights in the dark."""

import functools
import shutil

import attrs
import numpy as np
import pytest
import training_fixtures
from PIL import Image

from hydra_detect.data.samples import Sample, Samples
from hydra_detect.data.splits import TOLD, fits_four_roles
from hydra_detect.detections import GroundTruth
from hydra_detect.lifecycle import beside
from hydra_detect.lifecycle.plans import plan
from hydra_detect.lifecycle.train import train_head
from hydra_detect.nets.heads import Sampling
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import BackboneRecord, HeadRecord, HeadSettings
from hydra_detect.storage import backbones
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.start import Origin, start_head
from hydra_detect.training.tools import Tools
from hydra_detect.versions import VersionManager

SIZE = (48, 64)
COLOURS = {"lamp": (255, 255, 255), "ember": (255, 40, 0)}
SETTINGS = HeadSettings(
    label_count=2, anchor_sizes=((8,), (16,), (32,)), aspect_ratios=((1.0,),) * 3, box_widths=(32, 32),
    roi_levels=("0", "1"), rpn_post_nms_top_n=50, score_threshold=0.01,
)  # fmt: skip
QUICK = {
    "epochs": 4, "patience": 0, "batch_size": 1, "learning_rate": 1e-2, "ema_decay": 0.8, "views": ("plain",),
    "rpn_batch": 64, "box_batch": 32, "proposals": 50, "cache_bytes": 100_000_000,
}  # fmt: skip
"""Settings with which a head finds every lamp, whatever the seed."""

HARDLY = {**QUICK, "epochs": 1, "learning_rate": 1e-7}
"""Settings with which it stays what it started from."""


def where_alone(predictions, context):
    """Return a loss by which a head learns where things are, and not what they are."""
    parts = dict(torchvision_loss(predictions, context))
    return parts | {"class": parts["class"] * 0}


BADLY = {"config": {**QUICK, "loss": "where"}, "tools": Tools(losses={"where": where_alone})}
"""Options with which a head finds every lamp, and a lot beside."""


def scene(number, *labels):
    """Return a dark picture [48, 64, 3] uint8 with one light for each label, and their boxes."""
    source = np.random.default_rng(number)
    pixels = source.integers(0, 30, (*SIZE, 3), dtype=np.uint8)
    boxes = []
    for label, place in zip(labels, source.permutation(6), strict=False):
        x, y = (int(16 * cell + 8 * source.integers(2)) for cell in (place % 3, place // 3))
        pixels[y : y + 16, x : x + 16] = COLOURS[label]
        boxes.append((x, y, x + 16, y + 16))
    return pixels, boxes


def light(number, *labels, name=None):
    """Return a sample of such a scene."""
    pixels, boxes = scene(number, *labels)
    return Sample(id=name or f"s{number:03}", picture=pixels, truth=GroundTruth(boxes, labels, SIZE))


def lights(labelled=20, dark=4, *, first=0, names=("lamp",)):
    """Return so many samples with one light each, their classes taking turns, and so many without any."""
    items = [light(first + place, names[place % len(names)]) for place in range(labelled)]
    items += [light(first + labelled + place) for place in range(dark)]
    return Samples(items=items, class_names=names)


def on_disk(samples, folder):
    """Return the same samples, their pictures as files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for sample in samples:
        path = folder / f"{sample.id}.png"
        Image.fromarray(sample.picture).save(path)
        items.append(Sample(id=path.name, picture=str(path), truth=sample.truth, group=path.name))
    return Samples(items=items, class_names=samples.class_names)


def with_backbone(folder, *, name="default", store=None):
    """Return a store with the tiny backbone; one of another name has another size of pictures."""
    store = store or Store.create(folder / "store", durability="fast")
    contract = training_fixtures.backbone().contract
    if name != "default":
        sizes = {"min_size": 96, "max_size": 128}
        contract = attrs.evolve(contract, preprocessing=attrs.evolve(contract.preprocessing, **sizes))
    tensors = raw_tensors(training_fixtures.backbone().network.state_dict())
    backbones.publish(store, name, BackboneRecord(contract=contract), tensors)
    return store


def give(store, head="moth", *, seed=1, classes=("moth",), backbone="default", settings=None, **facts):
    """Publish a version of a head with random weights, and make it active; return it."""
    contract = backbones.find(store, backbone).record.contract
    settings = attrs.evolve(SETTINGS, label_count=len(classes) + 1, **(settings or {}))
    network = start_head(
        Origin(settings=settings), settings, contract, class_names=classes, sampling=Sampling(), seed=seed
    )
    tensors = raw_tensors(network.state_dict())
    record = HeadRecord(
        tensors=tensors_digest(tensors), backbone=contract, backbone_name=backbone, settings=settings,
        class_names=classes, **facts,
    )  # fmt: skip
    manager = VersionManager(store)
    return manager.promote(head, manager.create(head, tensors, record).number)


def silent(_state):
    """Hear of an epoch and say nothing."""


def teach(store, head="lamp", samples=None, **options):
    """Train a head quickly, from random weights unless asked otherwise; with a test role from 20 labels on."""
    usual = {"config": QUICK, "init": "fresh", "progress": silent, "device": "cpu"}
    tools = attrs.evolve(options.pop("tools", Tools()), cache=store.root.parent / "features")
    samples, options = lights() if samples is None else samples, usual | options
    if fits_four_roles(samples, TOLD) and isinstance(options["config"], dict):
        options["config"] = {"validation": "held-out", **options["config"]}
    return train_head(store, head, samples, tools=tools, **options)


def plan_for(store, samples, *, split=None, seed=0, validation="auto"):
    """Return the plan of a training of `lamp`."""
    return plan(store, "lamp", samples, given=split, seed=seed, validation=validation)


def runs_of(store, head="lamp"):
    """Return the folders of the runs of a head; their locks stay beside them."""
    return [path for path in sorted(store.layout.runs(head).iterdir()) if path.is_dir()]


@pytest.fixture
def bare(tmp_path):
    """Give a store with the tiny backbone and one head of it, `moth`, of which version 1 is active."""
    store = with_backbone(tmp_path)
    give(store)
    return store


@functools.cache
def _taught(folder):
    folder.mkdir()
    store = with_backbone(folder)
    give(store)
    return store.root, teach(store)


@pytest.fixture
def taught(tmp_path, tmp_path_factory):
    """Give a store as `bare` in which `lamp@1` was trained from `lights()` and is active, and the report of that."""
    root, report = _taught(tmp_path_factory.getbasetemp() / "taught")
    store = tmp_path / "taught" / "store"
    shutil.copytree(root, store)
    return Store.open(store, durability="fast"), report


def role_of(store, version):
    """Return the role that each sample had for a version, by id."""
    return beside.split_of(store, version).roles


def config(**changes):
    """Return the quick settings with changes; with a test role from 20 labels on."""
    return TrainingConfig(**{**QUICK, "validation": "held-out", **changes})
