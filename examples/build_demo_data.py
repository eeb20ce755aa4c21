"""Turn the detectors that `train_original.py` made into the data that ships with the demo.

    python examples/build_demo_data.py --run run --data BCCD_Dataset

splits run/RBC.pth, run/WBC.pth and run/Platelets.pth into one store (the three share one backbone, which proves that
training the later two left it untouched), and writes the original, the two further heads and every sixth photograph
of the author's test list, with their labels, to hydra_detect/demo/data.
"""

import argparse
import json
import pathlib
import shutil
import tempfile

import torch
from train_original import MEAN, SIZES, STD

from hydra_detect import SplitSettings, VersionManager, split_checkpoint
from hydra_detect.formats.coco import ground_truth_to_coco
from hydra_detect.formats.voc import ground_truth_from_voc
from hydra_detect.storage import layout

HERE = pathlib.Path(__file__).resolve().parent.parent / "hydra_detect" / "demo" / "data"
EVERY = 6  # of the 72 photographs of the test list: a dozen, spread evenly, not chosen by how they turn out


def settings_of(figures):
    """What the weights cannot tell, as the training script has it, and what it measured."""
    return {
        "rpn_score_threshold": 0.0,  # FasterRCNN's own default; torchvision's MobileNet detectors have 0.05
        "min_size": 312,
        "max_size": 416,
        "mean": MEAN,
        "std": STD,
        "norm_eps": 0.001,  # MobileNetV3's own
        "return_layers": ["4", "7", "16"],
        "anchor_sizes": SIZES,
        "aspect_ratios": [[0.5, 1.0, 2.0]] * len(SIZES),
        "rpn_pre_nms_top_n": 300,
        "rpn_post_nms_top_n": 300,
        "operating_threshold": figures["threshold"],
        "operating_threshold_chosen_on": "BCCD val, the author's list",
        "sample_count": figures["train_pictures"],
        "claimed_metrics": {"val_f1": figures["val_f1"], "test_f1": figures["test_f1"]},
        "notes": "trained on BCCD (MIT) by examples/train_original.py; F1 at IoU 0.5",
    }


def main():
    """Split, copy, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="what train_original.py wrote")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="checkout of Shenggan/BCCD_Dataset")
    args = parser.parse_args()
    for old in ("heads", "pictures"):
        shutil.rmtree(HERE / old, ignore_errors=True)
    with tempfile.TemporaryDirectory() as store:
        for label in ("RBC", "WBC", "Platelets"):
            figures = json.loads((args.run / f"{label}.json").read_text())
            settings = settings_of(figures)
            report = split_checkpoint(
                args.run / f"{label}.pth", store, head=label.lower(), class_names=[label], settings=settings
            )
            print(report)
            if label == "RBC":
                state = torch.load(args.run / "RBC.pth", weights_only=True)
                torch.save(state, HERE / "original.pth")
                story = f"MobileNetV3-Large, {figures['train_pictures']} photographs"
                (HERE / "original.json").write_text(json.dumps({"story": story, "settings": settings}, indent=1) + "\n")
                SplitSettings.of(settings)
            else:
                version = VersionManager(store).active(label.lower())
                folder = pathlib.Path(store) / "heads" / label.lower() / "versions" / f"{version.number:06}"
                target = HERE / "heads" / label.lower()
                target.mkdir(parents=True)
                for name in (layout.TENSORS, layout.RECORD):
                    shutil.copyfile(folder / name, target / name)
    truths = []
    (HERE / "pictures").mkdir()
    for stem in (args.data / "BCCD/ImageSets/Main/test.txt").read_text().split()[::EVERY]:
        shutil.copyfile(args.data / f"BCCD/JPEGImages/{stem}.jpg", HERE / "pictures" / f"{stem}.jpg")
        truths.append(ground_truth_from_voc((args.data / f"BCCD/Annotations/{stem}.xml").read_text()))
    (HERE / "labels.coco.json").write_text(json.dumps(ground_truth_to_coco(truths), indent=1) + "\n")
    print(sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file()) / 1e6, "MB in", HERE)


if __name__ == "__main__":
    main()
