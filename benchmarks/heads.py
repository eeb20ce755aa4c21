"""N heads on one backbone against N whole detectors: time, memory, and what holds them back.

    python benchmarks/heads.py --deeppcb DeepPCB --out run --json heads.json

The heads are those of the study (`compact_quality.py`, which has to have been run with the same --out): full and
compact ones for defects of circuit boards, trained, 25 of each if all of it was run, on one backbone (ResNet-18-FPN,
256 channels, torchvision's default head). Where there are fewer than N, the same versions run again under other names,
each as a head of its own, and the report says how many there were. They learnt from tiles at the size they were
scanned in; here the same weights run on a whole picture, so the store is copied with torchvision's usual input size
(shorter side 800). The picture of 1024x1024 is put together from test pictures, and becomes 800x800, the scale of the
tiles. What a head's record says of proposals stays as it is: 150 for a compact head, which it was evaluated with on
tiles, 1,000 for a full one and for the original that it is measured with.

In one run, on the same threads, with the same allocator settings: N of torchvision's own Faster R-CNN, each with the
weights of a full head, one after another; against one HydraDetector with N heads, by kind, engine and dtype. Every
round takes every measurement once, so that a drift of the machine meets all of them; figures are medians, ratios are
taken within rounds. The report says for each stage of compact heads how long it could not help taking: operations over
the speed of a large matrix product, bytes over that of a copy. `--yolo FILE` puts in what `yolo.py` measured on the
same machine, with as many threads, in an environment of its own. AP50 in bfloat16 is that of the compact heads on all
test tiles, against float32.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time

import attrs
import deeppcb
import numpy as np
import torch
import torchvision
from PIL import Image

from hydra_detect import HeadRegistry, HydraDetector, Store, VersionManager
from hydra_detect.allocation import keep_freed_memory
from hydra_detect.checkpoints.recognise import BACKBONE_PREFIX
from hydra_detect.contracts import Preprocessing
from hydra_detect.lifecycle.judging import measured
from hydra_detect.loading import whole_tensors
from hydra_detect.nets import devices
from hydra_detect.nets.original import build_original, load_original
from hydra_detect.nets.state import torch_tensors
from hydra_detect.storage import backbones, heads

SIDE = 1024
WAYS = {
    "full, exact": ("full", "exact", "float32"),
    "full, fast": ("full", "fast", "float32"),
    "compact, exact": ("compact", "exact", "float32"),
    "compact, fast": ("compact", "fast", "float32"),
    "compact, fast, bf16": ("compact", "fast", "bfloat16"),
}


def enlarged(source, folder, names, most):
    """A copy of the study's store for pictures of another size: the same weights, torchvision's usual input size.

    Returns:
        The store, and of each kind `most` names of heads: of so many versions as there are, again and again.

    """
    stored = backbones.find(source, backbones.only(source))
    usual = Preprocessing(mean=stored.record.contract.preprocessing.mean, std=stored.record.contract.preprocessing.std)
    contract = attrs.evolve(stored.record.contract, preprocessing=usual)
    target = Store.create(folder, durability="fast")
    backbones.publish(
        target, stored.name, attrs.evolve(stored.record, contract=contract), backbones.tensors(source, stored)
    )
    manager, registry = VersionManager(target), HeadRegistry(source)
    several = {
        kind: {f"{own[turn % len(own)]}-{turn // len(own)}": own[turn % len(own)] for turn in range(most)}
        for kind, own in names.items()
    }
    leant_on = {name: name for name in registry if name not in {*names["full"], *names["compact"]}}
    for name, own in {**leant_on, **several["full"], **several["compact"]}.items():
        version = registry[own]
        record = attrs.evolve(version.record, backbone=contract, parity=None)
        manager.promote(name, manager.create(name, heads.tensors(source, version), record).number)
    return target, {kind: list(own) for kind, own in several.items()}


def originals(store, names, device):
    """Torchvision's own detectors, each with the backbone and the weights of a full head."""
    stored = backbones.find(store, backbones.only(store))
    network = {BACKBONE_PREFIX + name: value for name, value in torch_tensors(backbones.tensors(store, stored)).items()}
    contract = stored.record.contract
    models = []
    for name in names:
        version = heads.find(store, name)
        model = build_original(contract.architecture, contract.preprocessing, version.record.settings)
        models.append(load_original(model, {**network, **torch_tensors(whole_tensors(store, version))}).to(device))
    return models


def a_picture(data):
    """1024x1024 pixels of circuit board: four test pictures' corners side by side at 1.28 times their size."""
    numbers = (pathlib.Path(__file__).parent / "deeppcb_pictures.txt").read_text().splitlines()[2].split()[1:5]
    whole = Image.new("RGB", (800, 800))
    for place, number in enumerate(numbers):
        with Image.open(data / f"PCBData/group{number[:5]}/{number[:5]}/{number}_test.jpg") as picture:
            whole.paste(picture.convert("RGB").crop((0, 0, 400, 400)), (place % 2 * 400, place // 2 * 400))
    return np.array(whole.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def timed(act):
    """Seconds that one call takes, and what it returns."""
    started = time.perf_counter()
    result = act()
    return time.perf_counter() - started, result


def run_originals(models, tensor):
    """One picture through whole models, one after another, until the device is done."""
    with torch.inference_mode():
        found = [model([tensor]) for model in models]
    devices.wait(tensor.device)
    return found


def measure(store, names, picture, *, counts, rounds, device):
    """Run the rounds; the first only warms up."""
    tensor = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255).to(device)
    models = originals(store, names["full"][: max(counts)], device)
    detectors = {
        way: HydraDetector.from_store(store, names[kind][: max(counts)], device=device, engine=engine, dtype=dtype)
        for way, (kind, engine, dtype) in WAYS.items()
    }
    seconds = {(way, n): [] for way in ("originals", *WAYS) for n in counts}
    timings, loads = {}, []
    for turn in range(rounds + 1):
        for n in counts:
            taken, _found = timed(lambda n=n: run_originals(models[:n], tensor))
            seconds["originals", n].append(taken)
            for way, (kind, _engine, _dtype) in WAYS.items():
                chosen = names[kind][:n]
                taken, found = timed(lambda way=way, chosen=chosen: detectors[way].predict(picture, heads=chosen))
                seconds[way, n].append(taken)
                timings.setdefault((way, n), []).append(found.timing)
        loads.append(timed(lambda: detectors["compact, fast"].load_head(names["compact"][0]))[0])
        print(f"round {turn}/{rounds}", flush=True)
    seconds = {key: values[1:] for key, values in seconds.items()}
    timings = {key: values[1:] for key, values in timings.items()}
    return seconds, timings, loads[1:]


def machine(device):
    """What was measured on: torch, threads, and the peaks that floors are reckoned from."""
    a = torch.randn(2048, 2048, device=device)
    half, long = a.bfloat16(), torch.randn(64_000_000, device=device)

    def best(act):
        return min(timed(lambda: (act(), devices.wait(device)))[0] for _ in range(5))

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "float32_gmac_per_s": 2048**3 / best(lambda: a @ a) / 1e9,
        "bfloat16_gmac_per_s": 2048**3 / best(lambda: half @ half) / 1e9,
        "copy_gb_per_s": 2 * 4 * len(long) / best(long.clone) / 1e9,
    }


def processor():
    """What the system calls the processor."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def told_of(record):
    """What of a head decides how long it takes."""
    settings = record.settings
    return {
        "ranks": dict(record.compact.ranks) if record.compact else None,
        "anchors_per_level": settings.rpn_pre_nms_top_n,
        "proposals": settings.rpn_post_nms_top_n,
    }


def floors(store, head, facts):
    """Milliseconds that each stage takes at the least, of the first compact head: its work at the machine's peak."""
    record = heads.find(store, head).record
    levels, settings = record.backbone.levels, record.settings
    ranks = {name.removeprefix("roi_heads.box_head."): rank for name, rank in record.compact.ranks.items()}
    rpn = next(rank for name, rank in ranks.items() if name.startswith("rpn"))
    channels, positions = levels[0].channels, sum(math.ceil(800 / level.stride) ** 2 for level in levels)
    anchors = len(settings.anchor_sizes[0]) * len(settings.aspect_ratios[0])
    bins, (wide, narrow) = settings.roi_size**2, settings.box_widths
    fc6 = bins * channels * (wide + ranks["fc6"]) + ranks["fc6"] * wide
    fc7 = wide * (narrow + ranks["fc7"]) + ranks["fc7"] * narrow
    tiled = 9 / 4  # F(4x4, 3x3) multiplies 36 numbers where 144 are
    macs = {
        "proposals, shared": positions * channels * channels * tiled,
        "proposals, a head": positions * channels * (rpn * (tiled + 1) + 5 * anchors),
        "boxes, a head": settings.rpn_post_nms_top_n * (fc6 + fc7),
    }
    taps = (2 * settings.roi_sampling_ratio) ** 2
    cropped = settings.rpn_post_nms_top_n * bins * taps * channels * 4  # bytes
    told = {stage: count / facts["float32_gmac_per_s"] / 1e6 for stage, count in macs.items()}
    return {**told, "cropping, a head": cropped / facts["copy_gb_per_s"] / 1e6}


def ap50(found, samples, version):
    """AP50 of what a version found."""
    return measured(found, samples, version.record.policy, draws=0).figures()["ap50"]


def half_precision(store, names, tiles):
    """Mean AP50 of the compact heads on the test tiles, in float32 and in bfloat16."""
    tests = {name: deeppcb.lists(tiles, name.rsplit("-", 2)[0])["test"] for name in names}
    pictures, told = [sample.picture for sample in next(iter(tests.values()))], {}
    for dtype in ("float32", "bfloat16"):
        with HydraDetector.from_store(store, names, device="cpu", engine="fast", dtype=dtype) as detector:
            least = {name: version.record.settings.score_threshold for name, version in detector.heads.items()}
            found = detector.predict(pictures, raw_scores=True, score_threshold=least)
            told[dtype] = statistics.mean(
                ap50([one.filter(heads=[name]) for one in found], tests[name], version)
                for name, version in detector.heads.items()
            )
    return told


def median(values):
    """The median of some numbers."""
    return statistics.median(list(values))


def summarised(seconds, timings, counts):
    """Medians, and ratios within rounds."""
    rows = []
    for way in WAYS:
        for n in counts:
            ratios = [a / b for a, b in zip(seconds["originals", n], seconds[way, n], strict=True)]
            own = timings[way, n]
            rows.append(
                {
                    "way": way,
                    "n": n,
                    "originals_s": median(seconds["originals", n]),
                    "hydra_s": median(seconds[way, n]),
                    "ratio": median(ratios),
                    "ratio_range": [min(ratios), max(ratios)],
                    "transform_ms": 1e3 * median(t.transform for t in own),
                    "backbone_ms": 1e3 * median(t.backbone for t in own),
                    "shared_ms": 1e3 * median(t.shared for t in own),
                    "per_head_ms": 1e3 * median(sum(t.heads.values()) / n for t in own),
                }
            )
    return rows


def one_more(seconds, way, counts):
    """What one more head costs, as a share of one original: the slope between the first and the last count."""
    low, high = min(counts), max(counts)
    shares = [
        (b - a) / (high - low) / original
        for a, b, original in zip(seconds[way, low], seconds[way, high], seconds["originals", 1], strict=True)
    ]
    return median(shares)


def main():
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeppcb", type=pathlib.Path, required=True, help="checkout of tangsanli5201/DeepPCB")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="with the study's store")
    parser.add_argument("--n", type=int, nargs="+", default=[1, 3, 6, 12, 24])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; on a GPU look at the seconds themselves")
    parser.add_argument("--yolo", type=pathlib.Path, help="what yolo.py wrote")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    parser.add_argument("--plot", type=pathlib.Path, help="picture of time and bytes against N (extra plot)")
    args = parser.parse_args()
    keep_freed_memory()
    if args.threads:
        torch.set_num_threads(args.threads)
    source = Store.open(args.out / "pcb/store")
    registry = HeadRegistry(source)
    names = {
        "full": [name for name in registry if registry[name].record.compact is None and name != deeppcb.KNOWN],
        "compact": [name for name in registry if registry[name].record.compact],
    }
    if not (names["full"] and names["compact"]):
        parser.error("the study's store has no heads of both kinds: run compact_quality.py")
    yolo = json.loads(args.yolo.read_text()) if args.yolo else None
    if yolo and yolo["threads"] != torch.get_num_threads():
        parser.error(f"--yolo: it ran on {yolo['threads']} threads, and this would on {torch.get_num_threads()}")
    device = devices.choose_device(args.device)
    facts, picture = machine(device), a_picture(args.deeppcb)
    with tempfile.TemporaryDirectory() as folder:
        store, ran = enlarged(source, pathlib.Path(folder) / "store", names, max(*args.n, 12))
        seconds, timings, loads = measure(store, ran, picture, counts=args.n, rounds=args.rounds, device=device)
        files = [registry[name].files["model.safetensors"][0] for name in names["compact"]]
        memory = {}
        for dtype in ("float32", "bfloat16"):
            twelve = HydraDetector.from_store(store, ran["compact"][:12], device=device, engine="fast", dtype=dtype)
            memory[dtype] = twelve.memory().total / 1e6
        disk = disk_bytes(registry, source, names)
    rows = summarised(seconds, timings, args.n)
    report = {
        "machine": facts,
        "rounds": args.rounds,
        "versions": {kind: len(own) for kind, own in names.items()},
        "table": rows,
        "one_more_compact_head_share": one_more(seconds, "compact, fast", args.n),
        "load_ms": 1e3 * median(loads),
        "largest_compact_file_mb": max(files) / 1e6,
        "twelve_compact_mb": memory,
        "disk_mb": disk,
        "heads": {kind: told_of(registry[own[0]].record) for kind, own in names.items()},
        "floors": floors(source, names["compact"][0], facts),
        "ap50": half_precision(source, names["compact"], args.out / "pcb/tiles"),
        "yolo": yolo,
    }
    say(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if args.plot:
        draw(report, args.plot)


def disk_bytes(registry, store, names):
    """Megabytes on disk of the parts: a backbone, a full head, a compact head (the largest)."""
    backbone = backbones.find(store, backbones.only(store)).nbytes

    def largest(kind):
        return max(registry[name].files["model.safetensors"][0] for name in names[kind])

    return {"backbone": backbone / 1e6, "full": largest("full") / 1e6, "compact": largest("compact") / 1e6}


def draw(report, path):
    """Two pictures side by side: seconds and megabytes against the number of signals, of three ways."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    disk, rows = report["disk_mb"], report["table"]
    counts = sorted({row["n"] for row in rows})
    by_way = {way: [row for row in rows if row["way"] == way] for way in ("full, exact", "compact, fast")}
    seconds = {
        "separate models": [row["originals_s"] for row in by_way["full, exact"]],
        "a shared backbone, full heads": [row["hydra_s"] for row in by_way["full, exact"]],
        "hydra-detect, compact heads": [row["hydra_s"] for row in by_way["compact, fast"]],
    }
    bytes_of = {
        "separate models": [n * (disk["backbone"] + disk["full"]) for n in counts],
        "a shared backbone, full heads": [disk["backbone"] + n * disk["full"] for n in counts],
        "hydra-detect, compact heads": [disk["backbone"] + disk["full"] + n * disk["compact"] for n in counts],
    }
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axis, values, unit in zip(axes, (seconds, bytes_of), ("seconds a picture", "MB on disk"), strict=True):
        for colour, (way, numbers) in zip(("0.6", "0.3", "teal"), values.items(), strict=True):
            axis.plot(counts, numbers, marker="o", color=colour, label=way)
            last = f"{numbers[-1]:,.0f}" if numbers[-1] >= 100 else f"{numbers[-1]:.3g}"
            axis.annotate(last, (counts[-1], numbers[-1]), xytext=(5, -3), textcoords="offset points")
        axis.set(xlabel="signals", ylabel=unit, xticks=counts, ylim=(0, None), xlim=(0, counts[-1] * 1.1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=110)


def say(report):
    """Print the report."""
    print(json.dumps(report["machine"], indent=1))
    print(f"{'way':<20}{'N':>3}{'originals s':>13}{'hydra s':>9}{'ratio':>7}  backbone, shared, per head ms")
    for row in report["table"]:
        print(
            f"{row['way']:<20}{row['n']:>3}{row['originals_s']:>13.2f}{row['hydra_s']:>9.3f}{row['ratio']:>7.2f}"
            f"{row['backbone_ms']:>11.0f}{row['shared_ms']:>8.0f}{row['per_head_ms']:>8.1f}"
        )
    print(f"one more compact head: 1/{1 / report['one_more_compact_head_share']:.1f} of an original")
    print(f"loading one: {report['load_ms']:.1f} ms; largest file {report['largest_compact_file_mb']:.2f} MB")
    print(f"12 compact heads with backbone and reference: {report['twelve_compact_mb']} MB")
    print(f"heads: {report['heads']}, of so many versions: {report['versions']}")
    print(f"at least, ms: { {stage: round(value, 2) for stage, value in report['floors'].items()} }")
    print(f"AP50 of the compact heads: {report['ap50']}")
    if report["yolo"]:
        print(f"YOLO: {report['yolo']}")


if __name__ == "__main__":
    main()
