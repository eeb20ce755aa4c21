"""YOLO11n, one model a signal: what users would run instead.

    python -m venv yolo && yolo/bin/pip install ultralytics && yolo/bin/python benchmarks/yolo.py --json yolo.json

ultralytics is AGPL-3.0, so it lives in an environment of its own and nothing of this library imports it. Twelve models
with random weights (`yolo11n.yaml`: speed does not depend on them) look at one 1024x1024 picture one after another, at
1024 and at 800, which is what torchvision's transform makes of such a picture. Same allocator settings as in
`heads.py`, and as many threads: ultralytics leaves one out at each model's first prediction, so they are set after it.
Times are of prediction as a user calls it, pre- and post-processing included.
"""

import argparse
import ctypes
import json
import pathlib
import statistics
import time

import numpy as np
import torch
from ultralytics import YOLO

MODELS = 12
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    picture = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), dtype=np.uint8)
    models = [YOLO("yolo11n.yaml") for _ in range(MODELS)]
    for model in models:
        model.predict(picture, imgsz=800, verbose=False, device="cpu")
    torch.set_num_threads(args.threads)
    report = {"torch": torch.__version__, "models": MODELS}
    for side in (1024, 800):
        taken = []
        for turn in range(args.rounds + 1):
            started = time.perf_counter()
            for model in models:
                model.predict(picture, imgsz=side, verbose=False, device="cpu")
            if turn:
                taken.append(time.perf_counter() - started)
        report[f"twelve_at_{side}_s"] = statistics.median(taken)
    report["threads"] = torch.get_num_threads()  # as they were while it ran
    if report["threads"] != args.threads:
        parser.error(f"ultralytics set {report['threads']} threads meanwhile, and not {args.threads}")
    print(json.dumps(report, indent=1))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
