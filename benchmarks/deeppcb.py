"""Defects of circuit boards, cut to tiles: the data of `compact_quality.py` and `heads.py`, and their original.

    python benchmarks/deeppcb.py --data DeepPCB --out run

Data: github.com/tangsanli5201/DeepPCB at commit 08e98c4 (MIT); of its pictures those in `deeppcb_pictures.txt`, 40 of
the author's trainval list and 40 of his test list. Each of 640x640 is cut to tiles of 320x320 (for learning nine that
overlap, for testing four that do not), so that a tile goes through the network at the size it was scanned in. A box of
which less than half is left in a tile is dropped from it. First an original is trained from scratch on spurs alone,
unless run/pcb/store is there already: about 40 minutes on 2 cores.
"""

import argparse
import json
import pathlib
import time

import numpy as np
from PIL import Image

from hydra_detect import Samples, read_samples, train_original
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.data.splits import given
from hydra_detect.training.original import OriginalSettings

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
KNOWN = "spur"
"""What the backbone is trained on: no head is measured on it."""

SIDE = 320
STARTS = {"trainval": (0, 160, 320), "test": (0, 320)}
HELD_BACK = 5  # of the trainval pictures every fifth is for calibration
LABELS = "_annotations.coco.json"

ORIGINAL = OriginalSettings(
    architecture="resnet18", min_size=SIDE, max_size=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
ORIGINAL_TRAINING = {
    "epochs": 20,
    "patience": 0,
    "batch_size": 8,
    "weight_decay": 0.02,
    "ema_decay": 0.99,
    "augmentations": "hflip,vflip,crop",
    "anchor_sizes": "12/24/48/96/192",
}


def cut(data, folder):
    """Cut the pictures of both lists to tiles with their labels as COCO, unless that was done before."""
    lists = (pathlib.Path(__file__).parent / "deeppcb_pictures.txt").read_text().splitlines()[1:]
    for name, numbers in (line.split(": ") for line in lists):
        if (folder / name / LABELS).exists():
            continue
        (folder / name).mkdir(parents=True, exist_ok=True)
        tiles = [tile for number in numbers.split() for tile in tiles_of(data, number, STARTS[name], folder / name)]
        images = [{**image, "id": place} for place, (image, _boxes) in enumerate(tiles, start=1)]
        boxes = [{**box, "image_id": place} for place, (_image, own) in enumerate(tiles, start=1) for box in own]
        annotations = [{**box, "id": place, "iscrowd": 0} for place, box in enumerate(boxes, start=1)]
        categories = [{"id": number, "name": label} for number, label in enumerate(CLASSES, start=1)]
        whole = {"images": images, "annotations": annotations, "categories": categories}
        (folder / name / LABELS).write_text(json.dumps(whole))


def tiles_of(data, number, starts, folder):
    """Write the tiles of one picture; return each with its boxes, as COCO has them."""
    home = data / f"PCBData/group{number[:5]}"
    rows = np.loadtxt(home / f"{number[:5]}_not/{number}.txt", dtype=int, ndmin=2)
    with Image.open(home / f"{number[:5]}/{number}_test.jpg") as picture:
        for top in starts:
            for left in starts:
                file = f"{number}-{top}-{left}.png"
                tile = picture.crop((left, top, left + SIDE, top + SIDE))
                if min(tile.convert("L").getextrema()) == max(tile.convert("L").getextrema()):
                    continue  # bare board: the same picture in training and test
                tile.save(folder / file)
                shifted = rows[:, :4] - [left, top, left, top]
                inside = shifted.clip(0, SIDE)
                boxes = [
                    {"bbox": [int(x1), int(y1), int(x2 - x1), int(y2 - y1)], "category_id": int(label)}
                    for (x1, y1, x2, y2), whole, label in zip(inside, shifted, rows[:, 4], strict=True)
                    if (x2 - x1) * (y2 - y1) * 2 > (whole[2] - whole[0]) * (whole[3] - whole[1])
                ]
                yield {"file_name": file, "width": SIDE, "height": SIDE}, boxes


def lists(folder, label):
    """Tiles with the boxes of one class alone: to learn from, to calibrate on, to test on; a picture is one group."""
    own = {name: read_samples(folder / name, classes=[label], group=r"^\d+") for name in STARTS}
    groups = sorted({sample.group for sample in own["trainval"]})
    held = set(groups[::HELD_BACK])
    is_held = [sample.group in held for sample in own["trainval"]]
    places = np.arange(len(is_held))
    return {
        "train": own["trainval"][places[~np.array(is_held)].tolist()],
        "calibrate": own["trainval"][places[np.array(is_held)].tolist()],
        "test": own["test"],
    }


def shown(samples, backgrounds):
    """The tiles that show the class, and so many of the others, spread evenly."""
    with_boxes = [place for place, sample in enumerate(samples) if len(sample.truth)]
    without = [place for place, sample in enumerate(samples) if not len(sample.truth)]
    step = max(1, len(without) // max(1, backgrounds))
    return samples[sorted([*with_boxes, *without[::step][:backgrounds]])]


def joined(parts):
    """Samples with the role of each: all of them, and the split."""
    first = next(iter(parts.values()))
    samples = Samples(items=[sample for part in parts.values() for sample in part], class_names=first.class_names)
    return samples, given(samples, {role: [sample.id for sample in part] for role, part in parts.items()})


def say_epoch(state):
    """One line of JSON for each epoch."""
    latest = state.latest
    print(json.dumps({"epoch": latest.epoch, "loss": latest.losses["total"], "seconds": latest.seconds}), flush=True)


def train_the_original(folder, store):
    """A detector of spurs from scratch, on the tiles that show one and half as many that do not."""
    own = lists(folder / "tiles", KNOWN)
    samples, split = joined({**own, "train": shown(own["train"], len(own["train"]) // 8)})
    began = time.perf_counter()
    print({role: len(part) for role, part in own.items()}, samples.box_counts, flush=True)
    report = train_original(
        store, KNOWN, samples, settings=ORIGINAL, split=split, config=ORIGINAL_TRAINING, progress=say_epoch
    )
    print(report)
    print(f"{time.perf_counter() - began:.0f} s", flush=True)


def main():
    """Cut the tiles and train the original, where they are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="checkout of tangsanli5201/DeepPCB")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    keep_freed_memory()
    cut(args.data, args.out / "pcb/tiles")
    if not (args.out / "pcb/store/heads" / KNOWN).exists():
        train_the_original(args.out / "pcb", args.out / "pcb/store")


if __name__ == "__main__":
    main()
