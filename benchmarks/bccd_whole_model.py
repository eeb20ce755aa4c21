"""A new head on the frozen backbone against fine-tuning the whole model, from the same few labels of blood cells.

    python benchmarks/bccd_whole_model.py --data BCCD_Dataset --out run

Data and original are those of `bccd_heads.py`, which has to be run first: run/store holds the original of red cells.
Both start from all of it, learn from the same pictures, are selected and calibrated on the same pictures, and are
measured once on the author's test list (or, with `--judge tune`, on what train and val have left). The head sees its
pictures as its views have them; the whole model sees flips of them, drawn anew each time. `--set` is for both,
`--whole` for the whole model: `--set epochs=36 patience=0 --whole epochs=12 learning_rate=3e-4` gives both about as
long. "Time to equal F1" is the training time until F1 on the pictures for selection first reaches the lower of the two
best.
"""

import json
import pathlib
import tempfile

import attrs
import numpy as np
import torch
from bccd_heads import HEADS, drawn, joined, keep, lists, named, options, told

from hydra_detect import Store, train_head
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.data.samples import Role
from hydra_detect.lifecycle.candidates import Contender, candidates
from hydra_detect.lifecycle.judging import calibrated_on, measured
from hydra_detect.lifecycle.original import parts
from hydra_detect.names import HeadRef
from hydra_detect.nets.state import torch_tensors
from hydra_detect.storage import backbones, heads
from hydra_detect.training.checkpoint import Checkpoint
from hydra_detect.training.config import resolve_config
from hydra_detect.training.original import Design, learn_original
from hydra_detect.training.start import LEAST_SCORE
from hydra_detect.training.tools import Tools

WHOLE = {"augmentations": "hflip,vflip"}
SELECT = 20  # pictures that tell after each epoch how far both have come
CLASSES = "roi_heads.box_predictor."  # what judges classes begins at random in both: they are others


class Course:
    """Seconds and F1 of each epoch: where its callback is given, a training leaves them here."""

    def __init__(self, name):
        self.name, self.points = name, []

    def __call__(self, state):
        """Keep an epoch, and say it."""
        self.points.append((state.elapsed, state.latest.f1))
        print(f"  {self.name} {state.latest.epoch}: {state.elapsed:.0f} s, F1 {state.latest.f1:.3f}", flush=True)

    @property
    def best(self):
        """The best F1."""
        return max(f1 for _seconds, f1 in self.points)

    @property
    def an_epoch(self):
        """Seconds of an epoch, in the median; selection included, and without the first, which fills the cache."""
        return float(np.median(np.diff([seconds for seconds, _f1 in self.points])))

    def seconds_to(self, f1):
        """Seconds until F1 was at least so much."""
        return next(seconds for seconds, own in self.points if own >= f1)


def tune_the_head(store, samples, split, seed, settings):
    """Train a head; return its figures and its course."""
    course = Course("head")
    with tempfile.TemporaryDirectory() as features:  # of its own: the backbone's passes are part of its time
        report = train_head(
            store,
            "candidate",
            samples,
            split=split,
            seed=seed,
            init="rbc",
            config=settings,
            progress=course,
            publish=False,
            tools=Tools(cache=pathlib.Path(features)),
        )
    return report.metrics.figures(), course


def tune_the_whole(store, samples, split, seed, settings):
    """Fine-tune backbone and head together; return its figures and its course."""
    version, tensors = heads.load(store, "rbc")
    stored = backbones.find(store, version.record.backbone_name)
    contract, config, course = version.record.backbone, resolve_config(given=settings), Course("whole")
    weights = {f"backbone.{name}": value for name, value in torch_tensors(backbones.tensors(store, stored)).items()}
    weights |= torch_tensors(tensors)
    shape = Design(
        architecture=contract.architecture,
        preprocessing=contract.preprocessing,
        head=attrs.evolve(version.record.settings, score_threshold=LEAST_SCORE),
        tensors={name: value for name, value in weights.items() if not name.startswith(CLASSES)},
    )
    with tempfile.TemporaryDirectory() as folder:
        fitted = learn_original(
            shape,
            train=split.take(samples, Role.TRAIN),
            select=split.take(samples, Role.SELECT),
            config=config,
            seed=seed,
            checkpoint=Checkpoint(pathlib.Path(folder), fingerprint="whole"),
            tools=Tools(),
            progress=course,
            device=torch.device("cpu"),
        )
    backbone, network = parts(shape, fitted)
    head = Contender(ref=HeadRef("whole"), network=network, class_names=samples.class_names)
    fit = calibrated_on(backbone, head, split.take(samples, Role.CALIBRATE), objective=config.objective)
    test = split.take(samples, Role.TEST)
    return measured(candidates(backbone, [head], test)[head.ref], test, fit.policy, draws=0).figures(), course


def main():
    """Train both for each class and seed; a line for each, and the means."""
    parser = options(__doc__)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--judge", choices=["test", "tune"], default="test")
    parser.add_argument("--whole", nargs="*", default=[], help="settings of the whole model alone")
    args = parser.parse_args()
    keep_freed_memory()
    store = Store.open(args.out / "store")
    both = {**HEADS, **named(args.set)}
    whole = {**both, **WHOLE, **named(args.whole)}
    rows = []
    for label in args.classes:
        for seed in args.seeds:
            samples, split = joined(drawn(lists(args.data, label), args.labels, seed, args.judge, SELECT))
            ours, our_course = tune_the_head(store, samples, split, seed, both)
            theirs, their_course = tune_the_whole(store, samples, split, seed, whole)
            level = min(our_course.best, their_course.best)
            rows.append(
                {
                    "class": label,
                    "seed": seed,
                    "head": ours,
                    "whole": theirs,
                    "epochs_ratio": their_course.an_epoch / our_course.an_epoch,
                    "equal_f1": level,
                    "head_seconds": our_course.seconds_to(level),
                    "whole_seconds": their_course.seconds_to(level),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
        own = [row for row in rows if row["class"] == label]
        for who in ("head", "whole"):
            seconds = np.mean([row[f"{who}_seconds"] for row in own])
            figures = told([row[who] for row in own], "f1", "ap50")
            print(f"{label}, {args.labels} pictures, {who}: {figures}; {seconds:.0f} s to equal F1", flush=True)
    keep(rows, args.json)


if __name__ == "__main__":
    main()
