"""New heads from few labelled pictures, on a frozen backbone that has only seen red blood cells.

    python benchmarks/bccd_heads.py --data BCCD_Dataset --out run

Data: github.com/Shenggan/BCCD_Dataset at commit d272fb1 (MIT), the author's train, val and test lists. First, unless
run/store is there already, an original is trained from scratch on the red cells of the train list and split: about
half an hour on 2 cores. `--demo` takes the demo's original instead, which was trained on the same list. Then for each
class and seed so many pictures that show it are drawn from the train list, and 40 from the val list for calibration; a
head is trained on them for a fixed number of epochs and measured once on the author's test list.
`--judge tune` measures on what train and val have left instead: for choosing settings.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np

from hydra_detect import read_samples, split_checkpoint, train_head, train_original
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.data.samples import Samples
from hydra_detect.data.splits import given
from hydra_detect.demo.run import DATA
from hydra_detect.training.original import OriginalSettings
from hydra_detect.training.tools import Tools

ORIGINAL = OriginalSettings(
    architecture="resnet18",
    min_size=312,
    max_size=416,
    mean=(0.737, 0.696, 0.715),
    std=(0.059, 0.101, 0.073),
    pyramid_channels=128,
    proposals=300,
)
ORIGINAL_TRAINING = {
    "epochs": 24,
    "patience": 0,
    "batch_size": 8,
    "weight_decay": 0.02,
    "ema_decay": 0.995,
    "augmentations": "hflip,vflip,brightness,contrast,colour,crop",
    "anchor_sizes": "16/32/64/128/256",
}
CALIBRATE = 40
HEADS = {"epochs": 12, "views": "plain,hflip,vflip,rot180"}  # cells lie any way round


def lists(data, label):
    """The author's three lists with the boxes of one class alone."""
    folder = data / "BCCD/ImageSets/Main"
    names = ("train", "val", "test")
    return {name: read_samples(folder / f"{name}.txt", classes=[label], missing="skip") for name in names}


def joined(parts):
    """Samples with the role of each: all of them, and the split."""
    first = next(iter(parts.values()))
    samples = Samples(items=[sample for part in parts.values() for sample in part], class_names=first.class_names)
    return samples, given(samples, {role: [sample.id for sample in part] for role, part in parts.items()})


def say_epoch(state):
    """One line of JSON for each epoch."""
    figures = {"f1": state.latest.f1, "loss": round(state.latest.losses["total"], 4)}
    print(json.dumps({"epoch": state.latest.epoch, **figures, "seconds": round(state.latest.seconds, 1)}), flush=True)


def say_nothing(_state):
    """Nothing."""


def train_the_original(data, store):
    """A detector of red cells from scratch: train to learn, the even half of val to select, the odd to calibrate."""
    own = lists(data, "RBC")
    samples, split = joined(
        {"train": own["train"], "select": own["val"][0::2], "calibrate": own["val"][1::2], "test": own["test"]}
    )
    began = time.perf_counter()
    print(
        train_original(
            store,
            "rbc",
            samples,
            settings=ORIGINAL,
            split=split,
            config=ORIGINAL_TRAINING,
            progress=say_epoch,
        )
    )
    print(f"{time.perf_counter() - began:.0f} s", flush=True)


def drawn(own, count, seed, judge, select=0):
    """Roles for one training: pictures that show the class to learn from; of the val list any."""
    source = np.random.default_rng(seed)
    shows = [place for place, sample in enumerate(own["train"]) if len(sample.truth)]
    chosen = source.permutation(shows)[:count].tolist()
    val = source.permutation(len(own["val"])).tolist()
    parts = {
        "train": own["train"][chosen],
        "calibrate": own["val"][val[:CALIBRATE]],
        "select": own["val"][val[CALIBRATE : CALIBRATE + select]],
        "test": own["test"],
    }
    if judge == "tune":
        rest = sorted(set(range(len(own["train"]))) - set(chosen))
        left = [*own["train"][rest], *own["val"][val[CALIBRATE + select :]]]
        parts["test"] = Samples(items=left, class_names=own["train"].class_names)
    return parts


def a_head(args, label, count, seed):
    """Train one head, and return its figures."""
    samples, split = joined(drawn(lists(args.data, label), count, seed, args.judge))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as features:  # of its own: the backbone's passes are part of its time
        report = train_head(
            args.out / "store",
            label.lower(),
            samples,
            split=split,
            seed=seed,
            init=args.init,
            config={**HEADS, **named(args.set)},
            progress=say_epoch if args.verbose else say_nothing,
            publish=False,
            tools=Tools(cache=pathlib.Path(features)),
        )
    course = report.training.course
    return {
        "roles": dict(report.training.samples.counts),
        **report.metrics.figures(),
        "training": course.seconds["training"],
        "backbone_passes": course.backbone_passes,
        "seconds": time.perf_counter() - began,
        "best_epoch": course.best_epoch,
        "epochs": len(course.history),
    }


def options(doc):
    """Options that all benchmarks on this data have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="checkout of Shenggan/BCCD_Dataset")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="with the store that bccd_heads.py makes")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--classes", nargs="*", default=["WBC", "Platelets"])
    parser.add_argument("--set", nargs="*", default=[], help="settings of the heads, as epochs=10")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the rows")
    return parser


def named(items):
    """Settings that were given as epochs=10."""
    return dict(item.split("=", 1) for item in items)


def told(rows, *names):
    """The mean of each figure over rows, and its standard deviation."""
    return "  ".join(
        f"{name} {np.mean([row[name] for row in rows]):.3f} (sd {np.std([row[name] for row in rows]):.3f})"
        for name in names
    )


def keep(rows, file):
    """Write rows, if a file is named."""
    if file:
        file.write_text(json.dumps(rows, indent=1) + "\n")


def main():
    """Train what is missing, then the heads; a line for each, and the means."""
    parser = options(__doc__)
    parser.add_argument("--demo", action="store_true", help="the demo's backbone")
    parser.add_argument("--labels", type=int, nargs="*", default=[40])
    parser.add_argument("--judge", choices=["test", "tune"], default="test")
    parser.add_argument("--init", default="rbc", help="what heads start from: rbc or fresh")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    keep_freed_memory()
    if args.demo and not (args.out / "store").exists():
        settings = json.loads((DATA / "original.json").read_text())["settings"]
        split_checkpoint(DATA / "original.pth", args.out / "store", head="rbc", class_names=["RBC"], settings=settings)
    if not (args.out / "store" / "heads" / "rbc").exists():
        train_the_original(args.data, args.out / "store")
    rows = []
    for label in args.classes:
        for count in args.labels:
            for seed in args.seeds:
                rows.append({"class": label, "labels": count, "seed": seed, **a_head(args, label, count, seed)})
                print(json.dumps(rows[-1]), flush=True)
            own = [row for row in rows if (row["class"], row["labels"]) == (label, count)]
            print(
                f"{label:<10} {count:>3} pictures to learn from, {own[0]['roles']['calibrate']} to calibrate, "
                f"{len(own)} seeds: {told(own, 'ap50', 'f1')}  training "
                f"{np.mean([row['training'] for row in own]):.0f} s",
                flush=True,
            )
    keep(rows, args.json)


if __name__ == "__main__":
    main()
