"""Stores with full and compact heads on real torchvision backbones, and pictures to run them on."""

import functools
import json
import shutil
import tempfile
from pathlib import Path

import attrs
import pytest
import torch
from originals import RATIOS, SETTINGS, mobilenet, restless, save, second_form, small
from PIL import Image
from torchvision.ops import boxes

from hydra_detect import split_checkpoint
from hydra_detect.demo.run import DATA, FURTHER_HEADS, read_head
from hydra_detect.loading import Shelf
from hydra_detect.nets.compact import CompactHead, Lean
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import COMPACT, CompactForm
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.ranks import ranks_of
from hydra_detect.versions import VersionManager

MODELS = {
    "resnet": (small, SETTINGS),
    "second form": (second_form, SETTINGS),
    "mobilenet": (mobilenet, {**SETTINGS, "anchor_sizes": ((8, 16, 32),) * 3, "aspect_ratios": RATIOS[:3]}),
}
"""Kinds of originals that a head may come from, with the settings that their weights cannot tell."""


def compact(store, name, *, rank="4", seed=0, reference="owl", **settings):
    """Publish a compact head with random differences from a full one, and make it active; return it."""
    manager = VersionManager(store)
    full = manager.active(reference)
    facts = attrs.evolve(full.record.settings, **settings)
    ranks = ranks_of(rank, facts, full.record.backbone.levels)
    lean = Lean(reference=Shelf(manager.store).of(full), ranks=ranks)
    with torch.random.fork_rng(devices=[]):
        network = restless(CompactHead(facts, full.record.backbone.levels, lean=lean, device="cpu"), seed)
    own = network.state_dict()
    for key, value in own.items():
        if key.endswith(".up"):
            value.mul_(0.3)
    raw = raw_tensors(own)
    form = CompactForm(reference=full.record.tensors, reference_ref=str(full.ref), ranks=ranks)
    record = attrs.evolve(
        full.record, tensors=tensors_digest(raw), settings=facts, compact=form, kind=COMPACT, parity=None, source=None
    )
    return manager.promote(name, manager.create(name, raw, record).number)


def copied(store, folder):
    """Return a copy of a store that may be written to."""
    shutil.copytree(store.root, folder / "store")
    return Store.open(folder / "store", durability="fast")


@functools.cache
def _made(kind):
    build, settings = MODELS[kind]
    folder = Path(tempfile.mkdtemp())
    model = build()
    backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    for head, seed in (("owl", 0), ("fox", 1)):
        restless(model, seed)
        model.backbone.load_state_dict(backbone)
        split_checkpoint(save(model, folder / f"{head}.pth"), folder / "store", head=head, settings=settings)
    store = Store.open(folder / "store", durability="fast")
    compact(store, "bat", rank="4", seed=2)
    compact(store, "eel", rank="2", seed=3)
    return store


def mixed(kind="resnet"):
    """Return a store with full heads `owl`, `fox` and compact ones `bat`, `eel`; nobody may write to it."""
    return _made(kind)


def is_clear(exact, picture, name):
    """Whether what a head finds stays the same when overlaps may be 1e-4 more or less: rounding decides nothing.

    What two engines agree on but for rounding, they may disagree on where it does: of two proposals that overlap by
    0.70002 the one keeps both, and the other one.
    """
    suppress, found = boxes.batched_nms, []
    for shift in (-1e-4, 0, 1e-4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boxes, "batched_nms", lambda *of, shift=shift: suppress(*of[:3], of[3] + shift))
            found.append(exact.predict(picture, heads=[name], raw_scores=True, score_threshold=0.05))
    return found[0] == found[1] == found[2]


def photographs(count=3):
    """Return real photographs of blood cells, [height, width, 3] uint8."""
    return [Image.open(path).convert("RGB") for path in sorted((DATA / "pictures").glob("*.jpg"))[:count]]


@functools.cache
def demo_store():
    """Return a store with the demo's three trained heads on a MobileNetV3-Large; nobody may write to it."""
    folder = Path(tempfile.mkdtemp())
    facts = json.loads((DATA / "original.json").read_text())
    split_checkpoint(
        DATA / "original.pth", folder / "store", head="rbc", class_names=["RBC"], settings=facts["settings"]
    )
    manager = VersionManager(folder / "store")
    for name in FURTHER_HEADS:
        manager.promote(name, manager.create(name, *read_head(name)).number)
    return Store.open(folder / "store", durability="fast")


def every_photograph():
    """Return the paths of all real pictures that ship with the repository."""
    examples = Path(__file__).parent.parent / "examples" / "bccd" / "JPEGImages"
    return sorted([*(DATA / "pictures").glob("*.jpg"), *examples.glob("*.jpg")])
