"""Train the demo's detectors on BCCD blood-smear photographs, from scratch, on a CPU.

First an ordinary torchvision Faster R-CNN learns red blood cells: the "original" that the demo splits. Its
backbone is then frozen, weights and BatchNorm statistics, and a new head is trained on it for each further
class. Data: github.com/Shenggan/BCCD_Dataset at commit d272fb1 (MIT), the author's train, val and test lists.

    MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 \
        python examples/train_original.py --data BCCD_Dataset --out run

writes run/RBC.pth, run/WBC.pth, run/Platelets.pth and a .json of the training beside each. The best epoch and
the score threshold are chosen on val; test is used once, at the end.
"""

import argparse
import copy
import json
import math
import pathlib
import random
import time

import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import box_iou
from torchvision.transforms import v2

from hydra_detect.formats.voc import ground_truth_from_voc

WIDTH = 128  # channels of the pyramid, and of the box head's two layers
SIZES = ((16, 24), (32, 48), (64, 96), (128, 192))  # anchor sizes for strides 8, 16, 32, 64; pixels at network input
MEAN, STD = (0.737, 0.696, 0.715), (0.059, 0.101, 0.073)  # of the training pictures


def build_model():
    """A MobileNetV3-Large detector with pyramid strides 8, 16, 32 and 64 and narrow heads."""
    body = mobilenet_v3_large(weights=None).features
    backbone = BackboneWithFPN(body, {"4": "0", "7": "1", "16": "2"}, [40, 80, 960], WIDTH)
    return FasterRCNN(
        backbone,
        min_size=312,
        max_size=416,
        image_mean=MEAN,
        image_std=STD,
        rpn_anchor_generator=AnchorGenerator(SIZES, ((0.5, 1.0, 2.0),) * len(SIZES)),
        rpn_batch_size_per_image=128,
        rpn_pre_nms_top_n_train=600,
        rpn_post_nms_top_n_train=400,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_test=300,
        box_head=TwoMLPHead(WIDTH * 7 * 7, WIDTH),
        box_predictor=FastRCNNPredictor(WIDTH, 2),
        box_batch_size_per_image=128,
    )


def read_split(root, split, label):
    """Pairs of (picture [3, H, W] uint8, boxes [N, 4] xyxy float32 in its pixels) of one list and one class."""
    samples = []
    for stem in (root / "BCCD/ImageSets/Main" / f"{split}.txt").read_text().split():
        path = root / "BCCD/JPEGImages" / f"{stem}.jpg"
        if not path.exists():  # one picture of the author's val list was never published
            continue
        picture = v2.functional.pil_to_tensor(Image.open(path).convert("RGB"))
        truth = ground_truth_from_voc((root / "BCCD/Annotations" / f"{stem}.xml").read_text())
        samples.append((picture, torch.from_numpy(truth.only(label).boxes.copy())))
    return samples


AUGMENT = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5, max_scale=1.0)], p=0.3),
        v2.RandomPhotometricDistort(hue=(-0.03, 0.03), p=0.5),
        v2.SanitizeBoundingBoxes(min_size=6, labels_getter=None),
        v2.ToDtype(torch.float32, scale=True),
    ]
)


def batches(samples, size):
    """Shuffled, augmented batches of (pictures, torchvision targets)."""
    order = random.sample(samples, len(samples))
    for start in range(0, len(order) - size + 1, size):
        pictures, targets = [], []
        for picture, boxes in order[start : start + size]:
            framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=picture.shape[-2:])
            changed, framed = AUGMENT(tv_tensors.Image(picture), framed)
            pictures.append(changed.as_subclass(torch.Tensor))
            labels = torch.ones(len(framed), dtype=torch.int64)
            targets.append({"boxes": framed.as_subclass(torch.Tensor), "labels": labels})
        yield pictures, targets


@torch.inference_mode()
def sweep(model, samples):
    """F1 at IoU 0.5 for each score threshold 0.02, 0.04 ... 0.98, greedy matching, best score first."""
    model.eval()
    scores, hits, truths = [], [], 0
    for picture, boxes in samples:
        found = model([picture / 255])[0]
        truths += len(boxes)
        free = torch.ones(len(boxes), dtype=torch.bool)
        for box, score in zip(found["boxes"], found["scores"], strict=True):
            overlap = box_iou(box[None], boxes)[0] * free if len(boxes) else torch.zeros(1)
            hit = bool(overlap.max() >= 0.5)
            if hit:
                free[overlap.argmax()] = False
            scores.append(float(score))
            hits.append(hit)
    scores, hits = torch.tensor(scores), torch.tensor(hits)
    table = {}
    for percent in range(2, 100, 2):
        kept = scores >= percent / 100
        table[percent / 100] = 2 * int(hits[kept].sum()) / max(1, int(kept.sum()) + truths)
    return table


def halve(model):
    """Round every weight matrix and kernel to half precision; norms, statistics and biases stay as they are."""
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.dim() >= 2:
                value.copy_(value.half().float())


@torch.no_grad()
def settle(model, samples):
    """Measure the BatchNorm statistics anew: those gathered on the way belong to other weights."""
    norms = [module for module in model.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the passes below
    model.backbone.train()
    for start in range(0, len(samples), 16):
        pictures = [picture / 255 for picture, _ in samples[start : start + 16]]
        model.backbone(model.transform(pictures)[0].tensors)
    model.eval()


def fit(model, train, val, *, epochs, rate, batch, frozen):
    """Train, keeping a moving average of the weights; returns the average's best epoch on val and its history."""
    average = copy.deepcopy(model)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.02)
    steps = epochs * (len(train) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * s / steps)))
    )
    best, history, step = {"f1": -1.0}, [], 0
    for epoch in range(epochs):
        model.train()
        if frozen:
            model.backbone.eval()
        started, total = time.perf_counter(), 0.0
        for pictures, targets in batches(train, batch):
            loss = sum(model(pictures, targets).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 5.0)
            optimizer.step()
            schedule.step()
            step += 1
            total += float(loss.detach())
            decay = min(0.995, (1 + step) / (10 + step))
            with torch.no_grad():
                for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                    kept.lerp_(new, 1 - decay) if kept.is_floating_point() else kept.copy_(new)
        row = {"epoch": epoch, "loss": total / max(1, len(train) // batch), "seconds": time.perf_counter() - started}
        if epoch % 5 == 4 or epoch == epochs - 1:
            candidate = copy.deepcopy(average)
            if not frozen:
                settle(candidate, train)
            halve(candidate)
            table = sweep(candidate, val)
            threshold = max(table, key=table.get)
            row |= {"val_f1": table[threshold], "threshold": threshold}
            if table[threshold] >= best["f1"]:
                best = {"f1": table[threshold], "threshold": threshold, "epoch": epoch, "model": candidate}
        history.append(row)
        print(json.dumps(row), flush=True)
    return best, history


def main():
    """Train the original, then the further heads on its frozen backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="checkout of Shenggan/BCCD_Dataset")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=70)
    parser.add_argument("--head-epochs", type=int, default=40)
    parser.add_argument("--heads", nargs="*", default=["WBC", "Platelets"])
    parser.add_argument("--original", type=pathlib.Path, help="an RBC.pth made before: train only the heads")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    random.seed(0)
    model = build_model()
    if args.original:
        model.load_state_dict(torch.load(args.original, weights_only=True))
    for label in [*([] if args.original else ["RBC"]), *args.heads]:
        train, val, test = (read_split(args.data, split, label) for split in ("train", "val", "test"))
        frozen = label != "RBC"
        model.backbone.requires_grad_(not frozen)
        epochs, rate = (args.head_epochs, 1e-3) if frozen else (args.epochs, 1e-3)
        best, history = fit(model, train, val, epochs=epochs, rate=rate, batch=8, frozen=frozen)
        model = best["model"]
        state = {k: v.half() if v.dim() >= 2 else v for k, v in model.state_dict().items()}
        torch.save(state, args.out / f"{label}.pth")
        figures = {
            "class": label,
            "train_pictures": len(train),
            "best_epoch": best["epoch"],
            "threshold": best["threshold"],
            "val_f1": best["f1"],
            "test_f1": sweep(model, test)[best["threshold"]],
            "history": history,
        }
        (args.out / f"{label}.json").write_text(json.dumps(figures, indent=1) + "\n")
        print(label, "val F1", figures["val_f1"], "test F1", figures["test_f1"], flush=True)


if __name__ == "__main__":
    main()
