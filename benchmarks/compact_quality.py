"""Compact heads against full ones: the same labels, seeds and budget, paired.

    python benchmarks/compact_quality.py --bccd BCCD_Dataset --deeppcb DeepPCB --out run

Data: github.com/Shenggan/BCCD_Dataset at commit d272fb1 and github.com/tangsanli5201/DeepPCB at commit 08e98c4, both
MIT. On a backbone that was trained on red cells alone (`bccd_heads.py`) heads learn white cells and platelets from 40
pictures each, on one that was trained on spurs alone (`deeppcb.py`) the five other defects from 30 tiles that show them
and 10 that do not. Each is trained as a full and as a compact head, from the same start, with the same settings but for
the kind, and measured once on the author's test list. Rows are kept in --json (those so far: results/), each with the
digest of its backbone; a pair that is there is not trained again, on whatever backbone it was: the two originals take
an hour, and another machine trains others. Heads of DeepPCB are published, for `heads.py` to time them.
"""

import argparse
import json
import pathlib
import time

import bccd_heads
import deeppcb
import numpy as np

from hydra_detect import Store, train_head
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.storage import backbones
from hydra_detect.training.tools import Tools

BCCD = ("WBC", "Platelets")
DEEPPCB = tuple(name for name in deeppcb.CLASSES if name != deeppcb.KNOWN)
TILES, BACKGROUNDS = 30, 10
HEADS = {"epochs": 12, "views": "plain,hflip,vflip,rot180", "validation": "held-out"}
COMPACT = {"kind": "compact"}  # of rank 32, with 150 proposals and 300 anchors of each level before suppression
KINDS = {"full": {}, "compact": COMPACT}
DRAWS = 10_000


def bccd_samples(data, label, seed):
    """40 pictures that show the class to learn from, 40 to calibrate on, the author's test list."""
    return bccd_heads.joined(bccd_heads.drawn(bccd_heads.lists(data, label), 40, seed, "test"))


def deeppcb_samples(folder, label, seed):
    """30 tiles that show the class and 10 that do not, the held-back ones to calibrate on, the author's test list."""
    own, source = deeppcb.lists(folder, label), np.random.default_rng(seed)
    places = source.permutation(len(own["train"])).tolist()
    with_boxes = [place for place in places if len(own["train"][place].truth)]
    without = [place for place in places if not len(own["train"][place].truth)]
    own["train"] = own["train"][sorted([*with_boxes[:TILES], *without[:BACKGROUNDS]])]
    return deeppcb.joined(own)


def trained(store, head, samples, split, seed, kind, init, cache, publish):
    """Train one head; return its figures."""
    began = time.perf_counter()
    report = train_head(
        store,
        head,
        samples,
        split=split,
        seed=seed,
        init=init,
        config={**HEADS, **KINDS[kind]},
        publish=publish,
        progress=lambda _state: None,
        tools=Tools(cache=cache),
    )
    figures = {name: report.metrics.figures()[name] for name in ("ap50", "f1")}
    seconds = report.training.course.seconds
    return {
        **figures,
        "training": seconds["training"],
        "seconds": time.perf_counter() - began,
        "version": report.version,
    }


def paired(rows, figure):
    """The mean of compact minus full over pairs of data, class and seed, and its 95 % interval by bootstrap.

    Pairs of a class share their test list: classes are drawn, and of each as many seeds as it has.
    """
    by_key = {}
    for row in rows:
        key = (row["data"], row["class"], row["seed"], row["backbone"])
        by_key.setdefault(key, {})[row["kind"]] = row[figure]
    by_class = {}
    for (data, label, _seed, _backbone), pair in by_key.items():
        if len(pair) == len(KINDS):
            by_class.setdefault((data, label), []).append(pair["compact"] - pair["full"])
    source, groups = np.random.default_rng(0), [np.array(own) for own in by_class.values()]
    drawn = [
        np.mean([source.choice(groups[place], len(groups[place])).mean() for place in places])
        for places in source.integers(len(groups), size=(DRAWS, len(groups)))
    ]
    mean = np.mean([own.mean() for own in groups])
    return mean, *np.quantile(drawn, [0.025, 0.975]), sum(map(len, groups))


def say(rows):
    """Means of each class and kind, and the paired differences of each data set and of all."""
    for data in dict.fromkeys(row["data"] for row in rows):
        for label in dict.fromkeys(row["class"] for row in rows if row["data"] == data):
            for kind in KINDS:
                own = [row for row in rows if (row["data"], row["class"], row["kind"]) == (data, label, kind)]
                if own:
                    told = bccd_heads.told(own, "ap50", "f1")
                    print(f"{data:<8} {label:<10} {kind:<8} {len(own)} seeds  {told}")
    for chosen in [[row for row in rows if row["data"] == data] for data in ("bccd", "deeppcb")] + [rows]:
        complete = {(row["class"], row["seed"]) for row in chosen if row["kind"] == "compact"}
        if complete:
            for figure in ("ap50", "f1"):
                mean, low, high, count = paired(chosen, figure)
                name = "/".join(dict.fromkeys(row["data"] for row in chosen))
                print(
                    f"{name:<14} {figure:<5} compact - full: {mean:+.4f} ({low:+.4f} to {high:+.4f}) over {count} pairs"
                )


def draw(rows, path):
    """Compact minus full, a point for each seed, by class; the mean of all pairs with its interval at the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    labels = list(dict.fromkeys((row["data"], row["class"]) for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    for axis, figure_name in zip(axes, ("ap50", "f1"), strict=True):
        for place, key in enumerate(labels):
            own = [row for row in rows if (row["data"], row["class"]) == key]
            full = {(row["seed"], row["backbone"]): row[figure_name] for row in own if row["kind"] == "full"}
            points = [row[figure_name] - full[row["seed"], row["backbone"]] for row in own if row["kind"] == "compact"]
            axis.plot([place] * len(points), points, "o", color="0.6", markersize=4)
            axis.plot([place - 0.25, place + 0.25], [np.mean(points)] * 2, color="teal")
        mean, low, high, _count = paired(rows, figure_name)
        axis.errorbar([len(labels)], [mean], [[mean - low], [high - mean]], fmt="o", color="teal", capsize=4)
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.axhline(-0.01, color="0.3", linewidth=0.8, linestyle=":")
        axis.set(xticks=range(len(labels) + 1), title={"ap50": "AP50", "f1": "F1"}[figure_name])
        axis.set_xticklabels([*(label for _data, label in labels), "all"], rotation=40, ha="right")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("compact - full")
    figure.savefig(path, dpi=110)


def backbone_of(store):
    """The digest of the one backbone of a store, shortened."""
    store = Store.open(store)
    return backbones.find(store, backbones.only(store)).record.contract.digest.short


def is_there(rows, data, label, seed, kind, backbone):
    """Whether this is known: as one of a pair, or by itself on this very backbone."""
    own = [row for row in rows if (row["data"], row["class"], row["seed"]) == (data, label, seed)]
    by_backbone = {}
    for row in own:
        by_backbone.setdefault(row["backbone"], set()).add(row["kind"])
    return any(len(kinds) == len(KINDS) for kinds in by_backbone.values()) or kind in by_backbone.get(backbone, ())


def main():
    """Train what is missing, keep each row as it is done, and say what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bccd", type=pathlib.Path, help="checkout of Shenggan/BCCD_Dataset")
    parser.add_argument("--deeppcb", type=pathlib.Path, help="checkout of tangsanli5201/DeepPCB")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="with what the two other benchmarks made")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=pathlib.Path, required=True, help="the rows, read and written")
    parser.add_argument("--plot", type=pathlib.Path, help="picture of the differences (extra plot)")
    args = parser.parse_args()
    keep_freed_memory()
    rows = json.loads(args.json.read_text()) if args.json.exists() else []
    asked = [("bccd", label) for label in BCCD if args.bccd] + [("deeppcb", label) for label in DEEPPCB if args.deeppcb]
    for seed in args.seeds:
        for data, label in asked:
            for kind in KINDS:
                if data == "bccd":
                    samples, split = bccd_samples(args.bccd, label, seed)
                    store, init, name = args.out / "store", "rbc", label.lower()
                else:
                    deeppcb.cut(args.deeppcb, args.out / "pcb/tiles")
                    samples, split = deeppcb_samples(args.out / "pcb/tiles", label, seed)
                    store, init, name = args.out / "pcb/store", deeppcb.KNOWN, f"{label}-{kind}-{seed}"
                if is_there(rows, data, label, seed, kind, backbone_of(store)):
                    continue
                cache = args.out / "features"
                row = trained(store, name, samples, split, seed, kind, init, cache, publish=data == "deeppcb")
                own = {"data": data, "class": label, "seed": seed, "kind": kind, "backbone": backbone_of(store)}
                rows.append({**own, **row})
                print(json.dumps(rows[-1]), flush=True)
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    say(rows)
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
