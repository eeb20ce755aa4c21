"""Split a real original, prove it, add two real heads, detect in photographs that no training ever saw.

The checkpoint and the heads were made by `examples/train_original.py` from BCCD blood-smear photographs; thresholds
were chosen on its validation list, the photographs here are from its test list. Everything shown is measured as it
runs.
"""

from __future__ import annotations

import json
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.checkpoints.split import split_checkpoint
from hydra_detect.detector import HydraDetector
from hydra_detect.errors import ConflictError
from hydra_detect.formats.coco import ground_truth_from_coco
from hydra_detect.measure.matching import Counts, count
from hydra_detect.records import HeadRecord
from hydra_detect.storage import artifacts, files, layout
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hydra_detect.checkpoints.split import SplitReport
    from hydra_detect.detections import Detections, GroundTruth

DATA = Path(str(resources.files("hydra_detect.demo"))) / "data"
FURTHER_HEADS = ("wbc", "platelets")
_DEFAULT_FOLDER = "hydra-detect-demo"


@attrs.frozen(kw_only=True)
class DemoResult:
    """What the demo made and measured."""

    folder: Path
    split: SplitReport
    counts: Mapping[str, Counts]
    pictures: Sequence[Path]
    seconds: float


def run_demo(out: Path | None, *, say: Callable[[str], None]) -> DemoResult:
    """Run the demo.

    Args:
        out: A new or empty folder; None for `hydra-detect-demo` in the current one, numbered if that is taken.
        say: Called with each paragraph of the story.

    Raises:
        ConflictError: If `out` holds anything.
        StoreError: If it cannot be written.

    """
    started = time.perf_counter()
    folder = _new_folder(out)
    store, photographs = folder / "store", sorted((DATA / "pictures").glob("*.jpg"))
    facts = json.loads((DATA / "original.json").read_text())
    say(f"1. Split a trained detector of red blood cells ({facts['story']}), and prove that nothing changed.")
    split = split_checkpoint(
        DATA / "original.pth",
        store,
        head="rbc",
        class_names=["RBC"],
        settings=facts["settings"],
        parity_inputs=photographs[:2],
    )
    (folder / "parity.txt").write_text(f"{split.parity}\n")
    say(str(split))
    say("\n2. Add two heads that were trained later, on the frozen backbone.")
    for name in FURTHER_HEADS:
        say(f"  {_add_head(store, name)}")
    detector = HydraDetector.from_store(store)
    say(_sizes(split, detector))
    say(f"\n3. Detect with all three heads in {len(photographs)} photographs that no training ever saw.")
    found = detector.predict(photographs)
    counts = _score(found, _labels())
    say(_quality(counts, detector, len(photographs)))
    say(_times(found))
    pictures = _draw(found, folder / "pictures")
    seconds = time.perf_counter() - started
    say(f"\n4. {len(pictures)} annotated pictures, the store and the parity report are in {folder} ({seconds:.0f} s).")
    return DemoResult(folder=folder, split=split, counts=counts, pictures=pictures, seconds=seconds)


def read_head(name: str) -> tuple[dict[str, Any], HeadRecord]:
    """Return the tensors and the record of a head that ships with the demo."""
    place = DATA / "heads" / name
    record = codec.decode(HeadRecord, (place / layout.RECORD).read_bytes(), f"the record of {name}")
    return dict(artifacts.decode_tensors((place / layout.TENSORS).read_bytes(), name)), record


def _add_head(store: Path, name: str) -> str:
    tensors, record = read_head(name)
    manager = VersionManager(store)
    version = manager.create(name, tensors, record)
    manager.promote(name, version.number, reason="trained on this backbone")
    return f"{version}, trained on {record.sample_count} photographs"


def _new_folder(out: Path | None) -> Path:
    folder, number = out or Path(_DEFAULT_FOLDER), 1
    while out is None and folder.exists():
        number += 1
        folder = Path(f"{_DEFAULT_FOLDER}-{number}")
    with files.explained(f"write the demo to {folder}"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConflictError(f"write the demo to {folder}", "something is there", "Name a new folder with --out.")
        folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def _labels() -> dict[str, GroundTruth]:
    truths = ground_truth_from_coco(json.loads((DATA / "labels.coco.json").read_text()))
    return {Path(str(truth.source)).name: truth for truth in truths}


def _score(found: Sequence[Detections], labels: Mapping[str, GroundTruth]) -> dict[str, Counts]:
    truths = [labels[Path(str(item.source)).name] for item in found]
    classes = sorted({name for truth in truths for name in truth.label_names})
    return {
        name: count([item.filter(label_names=[name]) for item in found], [truth.only(name) for truth in truths])
        for name in classes
    }


def _sizes(split: SplitReport, detector: HydraDetector) -> str:
    versions = detector.heads.values()
    shared = split.backbone_bytes + sum(version.files[layout.TENSORS][0] for version in versions)
    apart = split.original_bytes * len(versions)
    memory = detector.memory()
    return (
        f"  on disk: one backbone and {len(versions)} heads {shared / 1e6:.1f} MB; "
        f"{len(versions)} whole detectors would be {apart / 1e6:.1f} MB\n"
        f"  in memory: backbone {memory.backbone / 1e6:.1f} MB, "
        + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in memory.heads.items())
    )


def _quality(counts: Mapping[str, Counts], detector: HydraDetector, photographs: int) -> str:
    rows = [f"  {'class':<12}{'labels':>8}{'F1':>8}{'precision':>11}{'recall':>8}   F1 on the whole test list"]
    claims = {
        name: version.record.claimed_metrics.get("test_f1")
        for version in detector.heads.values()
        for name in version.record.class_names
    }
    for name, result in counts.items():
        claim = claims.get(name)
        whole = "" if claim is None else f"   {claim:.3f} (as recorded with the head)"
        labels = result.true_positives + result.false_negatives
        rows.append(f"  {name:<12}{labels:>8}{result.f1:>8.3f}{result.precision:>11.3f}{result.recall:>8.3f}{whole}")
    rows.append(f"  measured now on {photographs} photographs at IoU 0.5, each head at its own threshold")
    return "\n".join(rows)


def _times(found: Sequence[Detections]) -> str:
    later = found[1:] or found  # the first picture also pays for torch's warming up
    backbone = sum(item.timing.backbone for item in later) / len(later) * 1000
    heads = {name: sum(item.timing.heads[name] for item in later) / len(later) * 1000 for name in later[0].timing.heads}
    total = sum(item.timing.total for item in later) / len(later) * 1000
    each = ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in heads.items())
    return f"  milliseconds a picture: backbone {backbone:.0f} once, {each}; {total:.0f} in all"


def _draw(found: Sequence[Detections], folder: Path) -> list[Path]:
    folder.mkdir()
    pictures = []
    for item in found:
        path = folder / f"{Path(str(item.source)).stem}.png"
        item.save(path)
        pictures.append(path)
    return pictures
