"""F1 of the demo's three heads on the whole BCCD test list, through HydraDetector.

    python benchmarks/bccd_quality.py --data BCCD_Dataset

Data: github.com/Shenggan/BCCD_Dataset at commit d272fb1 (MIT). Thresholds were chosen on the author's val list and
stand in the heads' records; the 72 pictures of the test list were never used for training or choosing. Intervals are
bootstraps over pictures.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np

from hydra_detect import HydraDetector, VersionManager, split_checkpoint
from hydra_detect.demo.run import DATA, FURTHER_HEADS, read_head
from hydra_detect.formats.voc import ground_truth_from_voc
from hydra_detect.measure.matching import Counts, count

NOTHING = Counts(true_positives=0, false_positives=0, false_negatives=0)
CLASSES = {"rbc": "RBC", "wbc": "WBC", "platelets": "Platelets"}


def main():
    """Split, add the heads, detect, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="checkout of Shenggan/BCCD_Dataset")
    parser.add_argument("--list", default="test", help="one of the author's lists")
    args = parser.parse_args()
    stems = (args.data / f"BCCD/ImageSets/Main/{args.list}.txt").read_text().split()
    pictures = [args.data / f"BCCD/JPEGImages/{stem}.jpg" for stem in stems]
    pictures = [path for path in pictures if path.exists()]
    truths = [ground_truth_from_voc((args.data / f"BCCD/Annotations/{path.stem}.xml").read_text()) for path in pictures]
    with tempfile.TemporaryDirectory() as store:
        settings = json.loads((DATA / "original.json").read_text())["settings"]
        split_checkpoint(DATA / "original.pth", store, head="rbc", class_names=["RBC"], settings=settings)
        manager = VersionManager(store)
        for name in FURTHER_HEADS:
            manager.promote(name, manager.create(name, *read_head(name)).number)
        found = HydraDetector.from_store(store).predict(pictures)
    source = np.random.default_rng(0)
    for head, label in CLASSES.items():
        each = [count([f.filter(heads=[head])], [t.only(label)]) for f, t in zip(found, truths, strict=True)]
        total = sum(each, NOTHING)
        draws = source.integers(0, len(each), (1000, len(each)))
        low, high = np.quantile([sum((each[i] for i in draw), NOTHING).f1 for draw in draws], [0.025, 0.975])
        print(
            f"{label:<10} F1 {total.f1:.3f} (95% {low:.3f} to {high:.3f})  precision {total.precision:.3f}  "
            f"recall {total.recall:.3f}  on {len(pictures)} pictures"
        )


if __name__ == "__main__":
    main()
