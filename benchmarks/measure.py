"""Seconds to measure the detections of 1,000 pictures, and pycocotools beside it in the same run.

    python benchmarks/measure.py --json measure.json

By default 20 labels and 50 candidates per picture on average, of 3 classes, drawn at random: about 0.8 of the labels
are found, a few pixels askew, and the rest are strays. `--data DIR` takes the labels instead from a checkout of
github.com/Shenggan/BCCD_Dataset at commit d272fb1 (MIT), its pictures repeated up to the number asked for; candidates
are made from them in the same way. Whole figures are precision, recall, F1, their sweep, confusion and average
precisions; the bootstrap is timed apart. Needs the extras `train` and `test`.
"""

import argparse
import contextlib
import io
import itertools
import json
import pathlib
import statistics
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hydra_detect.detections import Detections, GroundTruth
from hydra_detect.formats.coco import ground_truth_to_coco, to_coco
from hydra_detect.formats.voc import ground_truth_from_voc
from hydra_detect.measure.average_precision import average_precisions
from hydra_detect.measure.calibration import calibrate
from hydra_detect.measure.metrics import measure
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.policy import fit_policy

CLASSES = ("RBC", "WBC", "Platelets")
SIZE = (480, 640)
FOUND = 0.8


def draw_labels(source, count, labels):
    """Return the labels of `count` pictures, about `labels` each."""
    truths = []
    for _ in range(count):
        here = source.poisson(labels)
        boxes = draw_boxes(source, here, SIZE)
        truths.append(GroundTruth(boxes, source.choice(CLASSES, here), SIZE))
    return truths


def read_labels(folder, count):
    """Return the labels of `count` pictures of a BCCD checkout, from the first again when all were taken."""
    files = sorted((folder / "BCCD/Annotations").glob("*.xml"))
    truths = [ground_truth_from_voc(file.read_text()) for file in files]
    return list(itertools.islice(itertools.cycle(truths), count))


def draw_boxes(source, count, size):
    """Return boxes of 20 to 120 pixels a side somewhere in a picture."""
    corners = source.uniform(0, 0.8, (count, 2)) * (size[1], size[0])
    return np.concatenate([corners, corners + source.uniform(20, 120, (count, 2))], axis=1)


def find(source, truth, candidates):
    """Return about `candidates` detections of one picture: most labels, askew, and strays."""
    kept = source.random(len(truth)) < FOUND
    near = truth.boxes[kept] + np.tile(source.normal(0, 4, (kept.sum(), 2)), 2)
    strays = draw_boxes(source, max(source.poisson(candidates) - len(near), 0), truth.image_size)
    names = [*np.array(truth.label_names, dtype=np.str_)[kept], *source.choice(CLASSES, len(strays))]
    count = len(names)
    return Detections(
        boxes=np.concatenate([near, strays]),
        scores=np.concatenate([source.beta(4, 2, len(near)), source.beta(1.2, 4, len(strays))]),
        labels=[CLASSES.index(name) + 1 for name in names],
        label_names=names,
        heads=["cells"] * count,
        head_versions=[1] * count,
        image_size=truth.image_size,
    )


def run_pycocotools(detections, truths):
    """Evaluate with pycocotools, all in memory, and return AP50 per class."""
    categories = {name: number for number, name in enumerate(CLASSES, start=1)}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth_to_coco(truths, categories=categories)
        truth.createIndex()
        rows = [row for n, d in enumerate(detections, 1) for row in to_coco(d, image_id=n, categories=categories)]
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][0, :, :, 0, 2].mean(axis=0)


def timed(act):
    """Seconds that one call takes, and what it returns."""
    began = time.perf_counter()
    found = act()
    return time.perf_counter() - began, found


def main():
    """Make the data, time each part in turn, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--labels", type=float, default=20, help="labels per picture, without --data")
    parser.add_argument("--candidates", type=float, default=50, help="candidates per picture")
    parser.add_argument("--data", type=pathlib.Path, help="checkout of Shenggan/BCCD_Dataset")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    args = parser.parse_args()
    source = np.random.default_rng(0)
    read = read_labels(args.data, args.pictures) if args.data else draw_labels(source, args.pictures, args.labels)
    found = [find(source, truth, args.candidates) for truth in read]
    both, policy = (found, read), fit_policy(judge(found, read, class_names=CLASSES))
    outcomes = judge(*both, class_names=CLASSES)
    acts = {
        "match every candidate": lambda: judge(*both, class_names=CLASSES),
        "fit temperature and errors of calibration": lambda: calibrate(outcomes),
        "fit thresholds": lambda: fit_policy(outcomes),
        "average precision": lambda: average_precisions(*both, class_names=CLASSES),
        "average precision by pycocotools": lambda: run_pycocotools(*both),
        "whole figures": lambda: measure(*both, class_names=CLASSES, policy=policy, draws=0),
        "whole figures and 1,000 draws": lambda: measure(*both, class_names=CLASSES, policy=policy),
    }
    seconds, results = {name: [] for name in acts}, {}
    for _ in range(args.rounds):  # each round takes every part once, so that a drift of the machine meets all of them
        for name, act in acts.items():
            took, results[name] = timed(act)
            seconds[name].append(took)
    difference = np.abs(np.array(results["average precision"].ap50) - results["average precision by pycocotools"]).max()
    pairs = zip(seconds["average precision by pycocotools"], seconds["average precision"], strict=True)
    ratios = [theirs / ours for theirs, ours in pairs]
    report = {
        "pictures": len(read),
        "labels": sum(map(len, read)),
        "candidates": sum(map(len, found)),
        "rounds": args.rounds,
        "median_s": {name: statistics.median(values) for name, values in seconds.items()},
        "pycocotools_over_ours": statistics.median(ratios),
        "largest_difference_of_ap50": float(difference),
    }
    print(f"{report['pictures']} pictures, {report['labels']} labels, {report['candidates']} candidates")
    for name, median in report["median_s"].items():
        print(f"{name:<44}{median:>8.3f} s")
    print(f"pycocotools takes {report['pycocotools_over_ours']:.0f} times as long; AP50 differ by {difference:.0e}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
