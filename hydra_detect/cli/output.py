"""What the commands print: tables for people, JSON for programs, pictures in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra_detect.errors import HydraDetectError, InputError
from hydra_detect.names import Digest, one_line
from hydra_detect.storage.files import explained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.detections import Detections
    from hydra_detect.records import VersionRecord
    from hydra_detect.registry import HeadInfo
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.usage import Usage


def say(text: str) -> None:
    """Print a line on standard output."""
    encoding = sys.stdout.encoding or "utf-8"
    text = text.encode(encoding, errors="backslashreplace").decode(encoding)  # a file name need not be printable
    print(text, flush=True)  # noqa: T201  the one place that prints


def drop_the_rest() -> None:
    """Send what is still buffered for standard output nowhere: it could not be written, nor can it be at exit."""
    with contextlib.suppress(OSError, ValueError):  # no such descriptor, where output is captured
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(error: HydraDetectError | str) -> None:
    """Print an error on standard error."""
    print(f"hydra-detect: {error}", file=sys.stderr, flush=True)  # noqa: T201  and this


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
            info.name,
            "-" if info.active is None else str(info.active),
            str(len(info.versions)),
            info.backbone,
            _megabytes(info.nbytes),
            f"cannot be read: {info.problem}" if info.problem else _classes(info.class_names),
        ]
        for info in infos
    ]
    return table(["head", "active", "versions", "backbone", "size", "classes"], rows)


def _classes(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if names[4:] else "")


def version_facts(version: VersionRecord, pointer: Pointer) -> dict[str, Any]:
    """Return one version as plain JSON values: what it is, and what it is to its head."""
    return {
        "head": version.head,
        "version": version.number,
        "active": version.number == pointer.active,
        "previous": version.number == pointer.previous,
        "pinned": version.number in pointer.pinned,
        "created_at": version.created_at,
        "actor": version.actor,
        "nbytes": version.nbytes,
        "class_names": list(version.record.class_names),
        "digest": str(version.manifest),
        "notes": version.record.notes,
    }


def versions_table(facts: Sequence[dict[str, Any]]) -> str:
    """Return the versions of a head, one a line, from their `version_facts` or their problem."""
    rows = []
    for version in facts:
        if "problem" in version:
            rows.append([str(version["version"]), "", "", "", "", "", f"cannot be read: {version['problem']}"])
            continue
        marks = " ".join(mark for mark in ("active", "previous", "pinned") if version[mark])
        size, digest = _megabytes(version["nbytes"]), Digest.parse(version["digest"]).short
        who = [version["created_at"], one_line(version["actor"])]
        rows.append([str(version["version"]), marks, *who, size, digest, _classes(version["class_names"])])
    return table(["version", "", "created", "by", "size", "digest", "classes"], rows)


def usage_table(usage: Usage) -> str:
    """Return what takes the disk, one line for each version."""
    rows = []
    for item in usage.items:
        for number, size in item.versions.items():
            rows.append([item.name, str(number), "active" if number == item.active else "", _megabytes(size)])
        beside = {"being written": item.staging, "quarantine": item.quarantine}
        rows += [[item.name, "", what, _megabytes(size)] for what, size in beside.items() if size]
    beside = {"being written": usage.staging, "quarantine": usage.quarantine}
    rows += [["", "", what, _megabytes(size)] for what, size in beside.items() if size]
    return table(["name", "version", "", "size"], [*rows, ["total", "", "", _megabytes(usage.total)]])


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
