"""Position bias: heads that saw a kind of blood cell only in the left half of pictures, asked about the right half.

    python benchmarks/bccd_position.py --data BCCD_Dataset --out run

Data and original are those of `bccd_heads.py`, which has to be run first. Of the train and val lists only pictures are
drawn in which every box of the class has its centre in the left half. Each head is measured at its operating point on
those pictures of the author's test list where all boxes are in the left half, and on those where all are in the right
half; once with mirrored views too, and once with the plain view alone. The heads are versions of a
copy of the store.
"""

import json
import pathlib
import shutil
import tempfile

from bccd_heads import HEADS, drawn, joined, keep, lists, named, options, say_nothing, told

from hydra_detect import evaluate, train_head
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.training.tools import Tools

VIEWS = {"plain": "plain", "mirrored": "plain,hflip,vflip,rot180"}


def of_side(samples, side):
    """The samples with boxes all of which are in one half, left or right."""

    def is_there(truth):
        centres = (truth.boxes[:, 0] + truth.boxes[:, 2]) / 2
        is_left = centres < truth.image_size[1] / 2
        return len(truth) and bool((is_left if side == "left" else ~is_left).all())

    return samples[[place for place, sample in enumerate(samples) if is_there(sample.truth)]]


def a_head(args, store, label, seed, views):
    """Train a head on the left half; return AP50 and F1 on both."""
    own = lists(args.data, label)
    left = {**own, **{name: of_side(own[name], "left") for name in ("train", "val")}}
    samples, split = joined({**drawn(left, args.labels, seed, "test"), "test": own["test"]})
    report = train_head(
        store,
        f"{label.lower()}-{views}",
        samples,
        split=split,
        seed=seed,
        init="rbc",
        config={**HEADS, **named(args.set), "views": VIEWS[views]},
        progress=say_nothing,
        tools=Tools(cache=args.out / "features"),
    )
    found = {"learnt": report.training.samples.counts["train"]}
    for side in ("left", "right"):
        judged = of_side(own["test"], side)
        metrics = evaluate(store, f"{report.head}@{report.version}", judged, draws=0)
        found[side] = {"pictures": len(judged), **metrics.figures()}
    return found


def main():
    """Train the heads; a line for each, and the means."""
    parser = options(__doc__)
    parser.add_argument("--labels", type=int, default=20)
    args = parser.parse_args()
    keep_freed_memory()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        store = pathlib.Path(place) / "store"
        shutil.copytree(args.out / "store", store)
        for label in args.classes:
            for views in VIEWS:
                for seed in args.seeds:
                    rows.append(
                        {"class": label, "views": views, "seed": seed, **a_head(args, store, label, seed, views)}
                    )
                    print(json.dumps(rows[-1]), flush=True)
                own = [row for row in rows if (row["class"], row["views"]) == (label, views)]
                for side in ("left", "right"):
                    figures = told([row[side] for row in own], "ap50", "f1")
                    print(f"{label}, {views}, learnt on the left, {own[0][side]['pictures']} on the {side}: {figures}")
    keep(rows, args.json)


if __name__ == "__main__":
    main()
