"""Where everything lies in a store: every path of the library, once.

::

    STORE.json                        format of the store, written once
    locks/<kind>.<name>.lock          operating-system locks, never deleted
    tmp/                              what is being written that belongs to no single head
    <kind>/<name>/                    kind is "backbones" or "heads"
        claims/000007                 empty: number 7 is taken for ever
        versions/000007/              immutable after one rename
            model.safetensors  record.json  parity.json  MANIFEST.json
        pointer/00000012.json         the highest one says which version is active
        tmp/<host>.<pid>.<began>.<uuid>   what is being written or taken away, on one file system by construction
        quarantine/                   what a repair set aside; nothing here is ever deleted
    registry.json                     derived; rebuilt at will
    runs/<head>/<run>/                what trainings leave beside versions: metrics.csv, report.json, a checkpoint
    hub/<digest>.json                 where weights lie on a Hub; remembered, and asked for again where it is lost

A version that was trained here has further files: split.json, training.json, calibration.json, outcomes.safetensors and
evaluation.json. One that was pulled from a Hub has origin.json.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from hydra_detect.names import check_name
from hydra_detect.storage import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hydra_detect.names import Digest

BACKBONES = "backbones"
HEADS = "heads"

TENSORS = "model.safetensors"
RECORD = "record.json"
PARITY = "parity.json"
MANIFEST = "MANIFEST.json"
ORIGINAL = "original"

SPLIT = "split.json"
TRAINING = "training.json"
CALIBRATION = "calibration.json"
OUTCOMES = "outcomes.safetensors"
EVALUATION = "evaluation.json"
RUNS = "runs"
HUB = "hub"

ORIGIN = "origin.json"

TOP = frozenset(["STORE.json", "registry.json", "locks", "tmp", "quarantine", RUNS, HUB, BACKBONES, HEADS])
"""What may lie at the top of a store."""

HIGHEST = 999_999_999
"""The last number that a version or generation can have; a file of a longer name is not ours."""

_NUMBER = re.compile(r"[0-9]{6,9}", re.ASCII)


@attrs.frozen
class StoreLayout:
    """The top of a store."""

    root: Path

    @property
    def identity(self) -> Path:
        """The file that makes a folder a store."""
        return self.root / "STORE.json"

    @property
    def index(self) -> Path:
        """The derived index of heads."""
        return self.root / "registry.json"

    @property
    def staging(self) -> Path:
        """What is being written that belongs to no single head."""
        return self.root / "tmp"

    @property
    def quarantine(self) -> Path:
        """What a repair set aside that belongs to no single head."""
        return self.root / "quarantine"

    @property
    def every_run(self) -> Path:
        """What trainings left; no version depends on it, and it may be deleted at any time."""
        return self.root / RUNS

    def runs(self, head: str) -> Path:
        """What the trainings of a head left."""
        return self.every_run / check_name(head)

    def on_hub(self, digest: Digest) -> Path:
        """Where a thing lies on a Hub, by the digest of its identity or of the reference that was asked for."""
        return self.root / HUB / f"{digest.hex}.json"

    def kind(self, kind: str) -> Path:
        """The folder of all backbones or all heads."""
        return self.root / kind

    def lock(self, kind: str, name: str) -> Path:
        """The lock of one backbone or head."""
        return self.root / "locks" / f"{kind}.{check_name(name)}.lock"

    def item(self, kind: str, name: str) -> ItemLayout:
        """The folder of one backbone or head."""
        return ItemLayout(self.root / kind / check_name(name, kind.removesuffix("s")))


@attrs.frozen
class ItemLayout:
    """The folder of one backbone or head."""

    root: Path

    @property
    def claims(self) -> Path:
        """One empty file per number ever given out."""
        return self.root / "claims"

    @property
    def versions(self) -> Path:
        """One folder per published version."""
        return self.root / "versions"

    @property
    def pointers(self) -> Path:
        """One file per change of the active version."""
        return self.root / "pointer"

    @property
    def staging(self) -> Path:
        """Versions and pointers that are being written, and versions that are being taken away."""
        return self.root / "tmp"

    @property
    def quarantine(self) -> Path:
        """What a repair set aside."""
        return self.root / "quarantine"

    def claim(self, number: int) -> Path:
        """The file that takes a number for ever."""
        return self.claims / _of_version(number)

    def version(self, number: int) -> Path:
        """The folder of one version."""
        return self.versions / _of_version(number)

    def pointer(self, generation: int) -> Path:
        """The file of one generation of the pointer."""
        return self.pointers / _of_pointer(generation)

    def claimed_numbers(self) -> list[int]:
        """Numbers given out, ascending."""
        return _numbers(self.claims, _of_version)

    def version_numbers(self) -> list[int]:
        """Numbers of published versions, ascending."""
        return _numbers(self.versions, _of_version)

    def pointer_generations(self) -> list[int]:
        """Generations of the pointer, ascending."""
        return _numbers(self.pointers, _of_pointer)


def _of_version(number: int) -> str:
    return f"{number:06}"


def _of_pointer(generation: int) -> str:
    return f"{generation:08}.json"


def _numbers(folder: Path, name_of: Callable[[int], str]) -> list[int]:
    """Numbers from 1 whose own name stands in the folder; what is named in another way is not ours.

    Every change and every look at a head comes through here, with an entry for each change so far: no path is built.
    """
    entries = set(files.names_in(folder, f"list {folder}"))
    numbers = {int(begin[0]) for begin in map(_NUMBER.match, entries) if begin}
    return sorted(number for number in numbers if number and name_of(number) in entries)
