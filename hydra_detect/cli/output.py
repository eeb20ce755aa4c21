"""What the commands print: tables for people, JSON for programs, pictures in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_detect.errors import InputError
from hydra_detect.names import one_line
from hydra_detect.storage.files import explained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.detections import Detections
    from hydra_detect.errors import HydraDetectError
    from hydra_detect.lifecycle.runs import RunSummary
    from hydra_detect.overview import HeadInfo, HeadStatus, VersionStatus
    from hydra_detect.storage.usage import Usage


def say(text: str) -> None:
    """Print a line on standard output."""
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, errors="backslashreplace").decode(encoding)  # a file name need not be printable
    print(text, flush=True)  # noqa: T201  the one place that prints


def runs_table(runs: Sequence[RunSummary]) -> str:
    """Return finished runs, one a line, with the settings that differ from the usual."""
    if not runs:
        return "No training has finished yet."
    rows = [
        [
            run.head if run.version is None else f"{run.head}@{run.version}",
            run.outcome,
            *(f"{run.figures[name]:.3f}" if name in run.figures else "-" for name in ("f1", "ap50", "ap")),
            run.samples_digest.removeprefix("sha256:")[:6],
            f"{run.best_epoch}/{run.epochs}",
            f"{run.seconds:.0f} s",
            run.name,
            one_line(", ".join(f"{name}={value}" for name, value in run.settings.items()) or run.trouble),
        ]
        for run in runs
    ]
    return table(["head", "outcome", "F1", "AP50", "AP", "on", "best", "time", "run", "settings"], rows)


def drop_the_rest() -> None:
    """Send what is still buffered for standard output nowhere: it could not be written, nor can it be at exit."""
    with contextlib.suppress(OSError, ValueError):  # no such descriptor, where output is captured
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(error: HydraDetectError, *, json: bool) -> None:
    """Print an error on standard error, for people or as one line of JSON."""
    text = as_json(error.to_dict()) if json else f"hydra-detect: {error}"
    print(text, file=sys.stderr, flush=True)  # noqa: T201  and this


def as_json(value: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under a header in aligned columns."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def heads_table(infos: Sequence[HeadInfo]) -> str:
    """Return the heads of a store, one a line."""
    if not infos:
        return "The store has no heads yet: 'hydra-detect split' makes the first."
    rows = [
        [
            info.head,
            "-" if info.active is None else str(info.active),
            str(len(info.versions)),
            info.backbone,
            _megabytes(info.nbytes),
            info.leans_on or "-",
            f"cannot be read: {info.problem}" if info.problem else _classes(info.class_names),
        ]
        for info in infos
    ]
    return table(["head", "active", "versions", "backbone", "size", "leans on", "classes"], rows)


def _classes(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if names[4:] else "")


def versions_table(status: HeadStatus) -> str:
    """Return the versions of a head, one a line."""
    header = ["version", "", "created", "by", "size", "samples", "leans on", "classes", "claims"]
    text = table(header, [_version_row(version) for version in status.versions])
    return f"{text}\nwhich is active cannot be read: {status.problem}" if status.problem else text


def _version_row(version: VersionStatus) -> list[str]:
    marks = {"active": version.is_active, "previous": version.is_previous, "pinned": bool(version.pinned_for)}
    told = " ".join(mark for mark, is_so in marks.items() if is_so)
    if version.record is None:
        return [str(version.number), told, "", "", "", "", "", f"cannot be read: {version.problem}", ""]
    made, facts = version.record, version.record.record
    samples = "" if facts.sample_count is None else str(facts.sample_count)
    claims = ", ".join(f"{name} {value:g}" for name, value in facts.claimed_metrics.items())
    who = [made.created_at, one_line(made.actor), _megabytes(made.nbytes), samples]
    return [str(version.number), told, *who, facts.leans_on or "-", _classes(facts.class_names), one_line(claims)]


def usage_table(usage: Usage) -> str:
    """Return what takes the disk, one line for each version."""
    rows = []
    for item in usage.items:
        whose = [item.kind.removesuffix("s"), item.name]
        for number, size in item.versions.items():
            rows.append([*whose, str(number), "active" if number == item.active else "", _megabytes(size)])
        beside = {"history": item.history, "being written": item.staging, "quarantine": item.quarantine}
        rows += [[*whose, "", what, _megabytes(size)] for what, size in beside.items() if size]
    beside = {"being written": usage.staging, "quarantine": usage.quarantine, "other files": usage.others}
    rows += [["", "", "", what, _megabytes(size)] for what, size in beside.items() if size]
    return table(["", "name", "version", "", "size"], [*rows, ["total", "", "", "", _megabytes(usage.total)]])


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def detections_table(found: Detections) -> str:
    """Return the boxes of one picture, one a line, under its name."""
    title = f"{found.source or 'picture'}  {len(found)} detections, {found.timing.total * 1000:.0f} ms"
    rows = [
        [
            f"  {found.heads[row]}@{found.head_versions[row]}",
            str(found.label_names[row]),
            f"{found.scores[row]:.3f}",
            " ".join(f"{corner:.1f}" for corner in found.boxes[row]),
        ]
        for row in range(len(found))
    ]
    return f"{title}\n{table(['  head', 'label', 'score', 'x1 y1 x2 y2'], rows)}" if rows else title


class PictureFolder:
    """A folder that annotated pictures are written to; nothing that lies there is ever replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with explained(f"make the folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)

    def save(self, found: Detections) -> Path:
        """Write one annotated picture under the name of its source, numbered if that is taken."""
        if found.source is None:
            raise InputError("save the picture", "it has no name", "Give a file.")
        stem, number = Path(found.source).stem, 1
        target = self.folder / f"{stem}.png"
        while target.exists():
            number += 1
            target = self.folder / f"{stem}-{number}.png"
        found.save(target)
        return target
