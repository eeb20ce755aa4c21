"""N heads on one backbone against N whole detectors: time, memory, and what the parts allow.

    python benchmarks/heads.py --json heads.json

In one run, on the same threads and the same 1024x1024 picture: N of torchvision's own Faster R-CNN (ResNet-18-FPN,
default head, 2 classes) one after another, against one HydraDetector with the same N heads. The bound is
N * t_model / (t_backbone + N * t_head), with the three times taken on torchvision's own parts in the same rounds:
what a shared backbone can gain when every head still costs all of itself. Weights are random: speed does not depend
on them, as every model here proposes the full 1,000 boxes (the number is printed). `--data DIR` takes the picture
from a folder instead of drawing structured noise, such as a checkout of github.com/Shenggan/BCCD_Dataset.
"""

import argparse
import json
import pathlib
import platform
import statistics
import tempfile
import time

import attrs
import numpy as np
import torch
import torchvision
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from hydra_detect import HydraDetector, VersionManager, split_checkpoint
from hydra_detect.checkpoints.noise import structured_noise
from hydra_detect.nets.state import raw_tensors
from hydra_detect.pictures import open_picture
from hydra_detect.tensors import tensors_digest


def make_models(count: int, folder: pathlib.Path) -> tuple[list[FasterRCNN], HydraDetector]:
    """Return `count` originals that share their backbone's weights, and a detector with all their heads.

    The first is split, with its proof; the heads of the others are added as versions of their own.
    """
    torch.manual_seed(0)
    models = []
    for _ in range(count):
        backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d)
        model = FasterRCNN(backbone, num_classes=2).eval()
        if models:
            model.backbone.load_state_dict(models[0].backbone.state_dict())
        models.append(model)
    store = folder / "store"
    torch.save(models[0].state_dict(), folder / "original.pth")
    report = split_checkpoint(folder / "original.pth", store, head="head-01")
    print(report)
    manager = VersionManager(store)
    template = manager.active("head-01").record
    for place, model in enumerate(models[1:], start=2):
        state = {name: value for name, value in model.state_dict().items() if not name.startswith("backbone.")}
        tensors = raw_tensors(state)
        record = attrs.evolve(template, tensors=tensors_digest(tensors), parity=None, source=None)
        manager.create(f"head-{place:02}", tensors, record)
        manager.promote(f"head-{place:02}", 1)
    return models, HydraDetector.from_store(store, device="cpu")


def timed(act) -> float:
    """Seconds that one call takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


@torch.inference_mode()
def time_parts(model: FasterRCNN, picture: torch.Tensor) -> dict[str, float]:
    """Seconds of torchvision's own parts, and how many proposals its head refined."""
    marks = [time.perf_counter()]
    images, _ = model.transform([picture])
    features = model.backbone(images.tensors)
    marks.append(time.perf_counter())
    proposals, _ = model.rpn(images, features)
    marks.append(time.perf_counter())
    found, _ = model.roi_heads(features, proposals, images.image_sizes)
    model.transform.postprocess(found, images.image_sizes, [tuple(picture.shape[-2:])])
    marks.append(time.perf_counter())
    backbone, rpn, roi = (end - begin for begin, end in zip(marks, marks[1:], strict=False))
    return {"t_backbone": backbone, "t_head": rpn + roi, "t_rpn": rpn, "t_roi": roi, "proposals": len(proposals[0])}


def measure(models, detector, picture, *, counts, rounds):
    """Run the rounds; each takes every measurement once, so that a drift of the machine meets all of them."""
    pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    names = list(detector.heads)
    rows = {f"originals-{n}": [] for n in counts} | {f"hydra-{n}": [] for n in counts}
    parts, stages = [], {n: [] for n in counts}

    def run_originals(n):
        with torch.inference_mode():
            for model in models[:n]:
                model([picture])

    for turn in range(rounds + 1):  # the first round only warms up
        part = time_parts(models[0], picture)
        part["t_model"] = timed(lambda: run_originals(1))
        for n in counts:
            originals = timed(lambda n=n: run_originals(n))
            results = []
            hydra = timed(lambda n=n, out=results: out.append(detector.predict(pixels, heads=names[:n])))
            if turn:
                rows[f"originals-{n}"].append(originals)
                rows[f"hydra-{n}"].append(hydra)
                stages[n].append(results[0].timing)
        if turn:
            parts.append(part)
        print(f"round {turn}/{rounds}", flush=True)
    return rows, parts, stages


def summarise(rows, parts, stages, counts):
    """Medians, ratios within each round, and the bound from the parts."""
    part = {name: statistics.median(item[name] for item in parts) for name in parts[0]}
    table = []
    for n in counts:
        ratios = [a / b for a, b in zip(rows[f"originals-{n}"], rows[f"hydra-{n}"], strict=True)]
        bound = statistics.median(n * p["t_model"] / (p["t_backbone"] + n * p["t_head"]) for p in parts)
        ratio = statistics.median(ratios)
        table.append(
            {
                "n": n,
                "originals_s": statistics.median(rows[f"originals-{n}"]),
                "hydra_s": statistics.median(rows[f"hydra-{n}"]),
                "ratio": ratio,
                "ratio_range": [min(ratios), max(ratios)],
                "bound": bound,
                "share_of_bound": ratio / bound,
                "transform_s": statistics.median(t.transform for t in stages[n]),
                "backbone_s": statistics.median(t.backbone for t in stages[n]),
                "per_head_s": statistics.median(sum(t.heads.values()) / n for t in stages[n]),
            }
        )
    return part, table


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[1, 6, 12])
    parser.add_argument("--size", type=int, default=1024, help="side of the picture, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--data", type=pathlib.Path, help="folder to take the first picture of")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.data:
        first = min(path for path in args.data.rglob("*") if path.suffix.lower() in {".jpg", ".png"})
        picture = torch.from_numpy(open_picture(first).pixels)
        picture = torch.nn.functional.interpolate(picture[None], size=(args.size, args.size), mode="bilinear")[0]
    else:
        noise = structured_noise(np.random.default_rng(0), args.size, args.size, channels=3)
        picture = torch.from_numpy(noise)
    with tempfile.TemporaryDirectory() as folder:
        models, detector = make_models(max(args.n), pathlib.Path(folder))
        rows, parts, stages = measure(models, detector, picture, counts=args.n, rounds=args.rounds)
        part, table = summarise(rows, parts, stages, args.n)
        memory = detector.memory()
        whole = sum(t.numel() * t.element_size() for t in models[0].state_dict().values())
    report = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        },
        "rounds": args.rounds,
        "parts": part,
        "table": table,
        "hydra_weights_mb": memory.total / 1e6,
        "originals_weights_mb": whole * len(models) / 1e6,
    }
    print(f"torchvision's parts, medians in s: { {k: round(v, 4) for k, v in part.items()} }")
    print(f"{'N':>3}{'originals s':>13}{'hydra s':>9}{'ratio':>7}{'bound':>7}{'share':>7}  backbone s  per head s")
    for row in table:
        print(
            f"{row['n']:>3}{row['originals_s']:>13.2f}{row['hydra_s']:>9.2f}{row['ratio']:>7.2f}{row['bound']:>7.2f}"
            f"{row['share_of_bound']:>7.1%}{row['backbone_s']:>12.3f}{row['per_head_s']:>12.3f}"
        )
    print(
        f"weights of {len(models)} heads: hydra {memory.total / 1e6:.1f} MB, "
        f"originals {report['originals_weights_mb']:.1f} MB"
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
