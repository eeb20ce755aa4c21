"""What a person gets from 5, 10, 20, 40 and 80 labelled pictures of blood cells, everything else left to the library.

    python benchmarks/bccd_learning_curve.py --data BCCD_Dataset --out run --json rows.json --plot curve.png
    python benchmarks/bccd_learning_curve.py --data BCCD_Dataset --out run --labels 20 40 \
        --set validation=held-out --earlier rows.json --plot curve.png

Data and original are those of `bccd_heads.py`, which has to be run first: its original is split into a store of its
own, as a stranger's checkpoint would be. For each class, number and seed so many pictures that show it are drawn from
the author's train list, and `train_head` is called with nothing but them: with few of them it cross-validates, with
more it deals four roles, unless `--set validation=` says otherwise; thresholds are chosen on them as well. The version
is then measured on the author's test list, at its operating point. Beside that stands the F1 that the training itself
reported.
"""

import json
import pathlib
import tempfile
import time

import numpy as np
from bccd_heads import HEADS, keep, lists, named, options, say_nothing, told

from hydra_detect import evaluate, split_checkpoint, train_head
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.storage import heads
from hydra_detect.storage.store import Store
from hydra_detect.training.tools import Tools


def store_of(original, folder):
    """Split the original of red cells anew, so that nothing is known of what it was trained with."""
    version = heads.find(Store.open(original), "rbc")
    (file,) = (original / "runs" / "rbc").glob("*/original.pth")
    settings, contract = version.record.settings, version.record.backbone
    facts = {
        **{name: getattr(contract.preprocessing, name) for name in ("min_size", "max_size", "mean", "std")},
        **{name: getattr(settings, name) for name in ("anchor_sizes", "aspect_ratios", "score_threshold")},
        "rpn_pre_nms_top_n": settings.rpn_pre_nms_top_n,
        "rpn_post_nms_top_n": settings.rpn_post_nms_top_n,
        "norm_eps": contract.architecture.norm_eps,
    }
    split_checkpoint(file, folder / "store", head="rbc", class_names=["RBC"], settings=facts)
    return folder / "store"


def a_head(args, store, label, count, seed, folder):
    """Train a head from so many pictures, and return its figures."""
    own = lists(args.data, label)
    shows = [place for place, sample in enumerate(own["train"]) if len(sample.truth)]
    chosen = own["train"][np.random.default_rng(seed).permutation(shows)[:count].tolist()]
    began = time.perf_counter()
    report = train_head(
        store,
        f"{label.lower()}-{count}-{seed}",
        chosen,
        init=args.init,
        seed=seed,
        config={"views": HEADS["views"], **named(args.set)},
        progress=say_nothing,
        tools=Tools(cache=folder / "features"),
    )
    seconds = time.perf_counter() - began
    metrics = evaluate(store, f"{report.head}@{report.version}", own["test"], draws=0)
    reported = report.metrics.micro.rates.f1
    return {
        "pictures": len(chosen),
        "boxes": sum(chosen.box_counts.values()),
        "method": report.training.method,
        "started_from": report.training.course.started_from,
        **metrics.figures(),
        "reported_f1": reported.value,
        "reported_low": reported.low,
        "reported_high": reported.high,
        "seconds": seconds,
    }


def draw(rows, file):
    """Draw AP50 and F1 over the number of pictures: a line through the means of each class and method, a dot a head."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("ap50", "f1"), strict=True):
        every = sorted({row["labels"] for row in rows})
        for place, label in enumerate(dict.fromkeys(row["class"] for row in rows)):
            for method, line in (("cross-validation", "-"), ("held-out", "--")):
                own = [row for row in rows if (row["class"], row["method"]) == (label, method)]
                counts = sorted({row["labels"] for row in own})
                means = [np.mean([row[name] for row in own if row["labels"] == count]) for count in counts]
                axes.plot(counts, means, line, color=f"C{place}", label=f"{label}, {method}")
                axes.scatter([row["labels"] for row in own], [row[name] for row in own], color=f"C{place}", alpha=0.4)
        axes.set(xscale="log", xticks=every, xticklabels=every, ylim=(0, 1.02), xlabel="labelled pictures")
        axes.minorticks_off()
        axes.grid(color="0.9")
        axes.set_title({"ap50": "AP50", "f1": "F1 at the operating point"}[name])
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=100)


def main():
    """Train the heads; a line for each, and the means."""
    parser = options(__doc__)
    parser.add_argument("--labels", type=int, nargs="*", default=[5, 10, 20, 40, 80])
    parser.add_argument("--init", default="auto", help="what heads start from: auto (the red cells' head) or fresh")
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--earlier", type=pathlib.Path, nargs="*", default=[], help="rows of --json to draw as well")
    args = parser.parse_args()
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        store = store_of(args.out / "store", pathlib.Path(place))
        for label in args.classes:
            for count in args.labels:
                for seed in args.seeds:
                    facts = a_head(args, store, label, count, seed, pathlib.Path(place))
                    rows.append({"class": label, "labels": count, "seed": seed, **facts})
                    print(json.dumps(rows[-1]), flush=True)
                own = [row for row in rows if (row["class"], row["labels"]) == (label, count)]
                print(
                    f"{label:<10} {count:>3} pictures, {len(own)} seeds, {own[0]['method']}: "
                    f"{told(own, 'ap50', 'f1')}  {np.mean([row['seconds'] for row in own]):.0f} s",
                    flush=True,
                )
    keep(rows, args.json)
    if args.plot:
        draw([*(row for file in args.earlier for row in json.loads(file.read_text())), *rows], args.plot)


if __name__ == "__main__":
    main()
