"""New heads from 40 labelled pictures on a frozen backbone that has only seen red blood cells.

    python benchmarks/bccd_heads.py --data BCCD_Dataset --out run

Data: github.com/Shenggan/BCCD_Dataset at commit d272fb1 (MIT), the author's train, val and test lists. First, unless
run/store is there already, an original is trained from scratch on the red cells of the train list and split: about an
hour on 2 cores. Then for each seed 40 pictures that show the class are drawn from the train list, 20 for selection and
40 for calibration from the val list; a head is trained on them and measured once on the author's test list.
"""

import argparse
import json
import pathlib
import time

import numpy as np

from hydra_detect import train_head, train_original
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.data.reading import read_samples
from hydra_detect.data.samples import Samples
from hydra_detect.data.splits import given
from hydra_detect.training.original import OriginalSettings
from hydra_detect.training.tools import Tools

ORIGINAL = OriginalSettings(
    architecture="resnet18",
    min_size=312,
    max_size=416,
    mean=(0.737, 0.696, 0.715),
    std=(0.059, 0.101, 0.073),
    pyramid_channels=128,
    anchor_sizes=((16,), (32,), (64,), (128,), (256,)),
    proposals=300,
)
ORIGINAL_TRAINING = {
    "epochs": 24,
    "patience": 0,
    "batch_size": 8,
    "weight_decay": 0.02,
    "ema_decay": 0.995,
    "augmentations": "hflip,vflip,brightness,contrast,colour,crop",
}


def lists(data, label):
    """The author's three lists with the boxes of one class alone."""
    folder = data / "BCCD/ImageSets/Main"
    return {
        name: read_samples(folder / f"{name}.txt", classes=[label], missing="skip") for name in ("train", "val", "test")
    }


def joined(parts):
    """Samples of one class with the role of each, as a split."""
    samples = Samples(items=[sample for part in parts.values() for sample in part], class_names=part_names(parts))
    return samples, given(samples, {role: [sample.id for sample in part] for role, part in parts.items()})


def part_names(parts):
    """The classes that all parts share."""
    return next(iter(parts.values())).class_names


def train_the_original(data, store):
    """A detector of red cells from scratch: train to learn, the even half of val to select, the odd to calibrate."""
    own = lists(data, "RBC")
    samples, split = joined(
        {"train": own["train"], "select": own["val"][0::2], "calibrate": own["val"][1::2], "test": own["test"]}
    )
    began = time.perf_counter()
    report = train_original(
        store,
        "rbc",
        samples,
        settings=ORIGINAL,
        split=split,
        config=ORIGINAL_TRAINING,
        progress=lambda state: print(
            json.dumps(
                {
                    "epoch": state.latest.epoch,
                    "f1": state.latest.f1,
                    **state.latest.losses,
                    "seconds": state.latest.seconds,
                }
            ),
            flush=True,
        ),
    )
    print(report, f"\n{time.perf_counter() - began:.0f} s", flush=True)


def main():
    """Train what is missing, then the heads, and print one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="checkout of Shenggan/BCCD_Dataset")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    keep_freed_memory()
    store = args.out / "store"
    if not store.exists():
        train_the_original(args.data, store)


if __name__ == "__main__":
    main()
