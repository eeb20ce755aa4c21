"""An epoch of training a full head on kept features, against an epoch of fine-tuning the whole torchvision model.

    python benchmarks/training_speed.py --rounds 3

A ResNet-18-FPN Faster R-CNN with torchvision's default head, random weights; 1024x1024 pictures of noise with boxes,
which the default transform makes 800x800; batches of 2; the same numbers of anchors and proposals in both, AdamW in
both. Features are on disk before the clock starts; how long that took is printed beside it. Ratios are of medians over
epochs of one run.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from hydra_detect import split_checkpoint
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.data.samples import Sample, Samples
from hydra_detect.detections import GroundTruth
from hydra_detect.nets.backbones import Backbone
from hydra_detect.storage import backbones, heads
from hydra_detect.storage.store import Store
from hydra_detect.training.checkpoint import Checkpoint
from hydra_detect.training.config import resolve_config
from hydra_detect.training.features import FeatureCache, FrozenFeatures
from hydra_detect.training.learn import learn
from hydra_detect.training.start import Origin
from hydra_detect.training.tools import Tools

BATCH = 2


def pictures(count, side):
    """Noise with 8 boxes each, as samples."""
    source = np.random.default_rng(0)
    found = []
    for number in range(count):
        pixels = source.integers(0, 256, (side, side, 3), dtype=np.uint8)
        corners = source.integers(0, side - 200, (8, 2))
        boxes = np.concatenate([corners, corners + source.integers(40, 200, (8, 2))], axis=1)
        truth = GroundTruth(boxes=boxes, label_names=["thing"] * 8, image_size=(side, side))
        found.append(Sample(id=f"noise-{number}", picture=pixels, truth=truth))
    return Samples(items=found, class_names=["thing"])


def whole_epochs(model, samples, rounds, box_batch):
    """Seconds of each epoch of fine-tuning everything."""
    model.train().requires_grad_(requires_grad=True)
    model.roi_heads.fg_bg_sampler.batch_size_per_image = box_batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    inputs = [torch.from_numpy(sample.open().pixels) for sample in samples]
    targets = [
        {"boxes": torch.from_numpy(s.truth.boxes.copy()), "labels": torch.ones(len(s.truth), dtype=torch.int64)}
        for s in samples
    ]
    taken = []
    for _round in range(rounds + 1):
        began = time.perf_counter()
        for start in range(0, len(inputs), BATCH):
            loss = sum(model(inputs[start : start + BATCH], targets[start : start + BATCH]).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        taken.append(time.perf_counter() - began)
    return taken[1:]


def head_epochs(store, samples, rounds, box_batch, folder):
    """Seconds of each epoch of training the head alone, and what its features took."""
    stored = backbones.find(store, backbones.only(store))
    backbone = Backbone(stored.record.contract, backbones.tensors(store, stored))
    version, tensors = heads.load(store, "thing")
    origin = Origin(settings=version.record.settings, class_names=("thing",), tensors=tensors)
    given = {"epochs": rounds + 1, "batch_size": BATCH, "views": "plain", "ema_decay": 0.0, "patience": 0}
    given |= {"box_batch": box_batch, "proposals": 2000, "learning_rate": 1e-5}
    began = time.perf_counter()
    features = FrozenFeatures(backbone, FeatureCache(folder / "features", limit=10**11))
    for sample in samples:
        features.of(sample)
    filled = time.perf_counter() - began
    taken = []
    learn(
        backbone,
        origin,
        train=samples,
        select=None,
        config=resolve_config(given=given),
        seed=0,
        checkpoint=Checkpoint(folder / f"checkpoint-{box_batch}", fingerprint="speed"),
        tools=Tools(cache=folder / "features"),
        progress=lambda state: taken.append(state.latest.seconds),
    )
    return taken[1:], filled


def main():
    """Make the model once; time both, for torchvision's number of proposals and for ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--side", type=int, default=1024)
    args = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    samples = pictures(args.pictures, args.side)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        model = FasterRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None, trainable_layers=5), 2)
        torch.save(model.state_dict(), folder / "model.pth")
        split_checkpoint(folder / "model.pth", folder / "store", head="thing")
        store = Store.open(folder / "store")
        for box_batch in (512, 128):
            head, filled = head_epochs(store, samples, args.rounds, box_batch, folder)
            whole = whole_epochs(model, samples, args.rounds, box_batch)
            ours, theirs = statistics.median(head), statistics.median(whole)
            print(
                f"{box_batch} proposals a picture: whole model {theirs:.2f} s an epoch of {len(samples)} pictures, "
                f"head {ours:.2f} s: {theirs / ours:.2f} times as fast; features {filled:.1f} s once",
                flush=True,
            )


if __name__ == "__main__":
    main()
