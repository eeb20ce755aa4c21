"""Runs: the folder that a training leaves, with metrics.csv, report.json and, while it lasts, a checkpoint.

A folder is named by the fingerprint of all that the training depends on. One without a report is unfinished: the same
training takes it up again. A finished one is never written to, and an unfinished one by one process at a time.
"""

from __future__ import annotations

import contextlib
import csv
import io
from typing import TYPE_CHECKING, TypeVar

import attrs

from hydra_detect import codec
from hydra_detect.errors import ConflictError
from hydra_detect.storage import locks
from hydra_detect.storage.files import explained
from hydra_detect.storage.owners import is_abandoned, staging_name
from hydra_detect.training.checkpoint import CHECKPOINT, Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from hydra_detect.codec import Record
    from hydra_detect.names import Digest
    from hydra_detect.training.progress import EpochRecord, Progress, TrainingProgress

R = TypeVar("R", bound="Record")

METRICS, REPORT = "metrics.csv", "report.json"
_COLUMNS = ("epoch", "seconds", "learning_rate", "f1", "precision", "recall", "is_best")


@attrs.frozen(kw_only=True)
class Run:
    """The folder of one training.

    Args:
        folder: Where.
        fingerprint: Digest of all that the training depends on.

    """

    folder: Path
    fingerprint: Digest

    @classmethod
    def of(cls, runs: Path, fingerprint: Digest) -> Run:
        """Return the unfinished run of a training, or a new one; nothing is written yet.

        Args:
            runs: Folder of all runs of a head.
            fingerprint: Of the training.

        """
        number, folder = 1, runs / fingerprint.short
        while (folder / REPORT).exists():
            number += 1
            folder = runs / f"{fingerprint.short}-{number}"
        return cls(folder=folder, fingerprint=fingerprint)

    @property
    def is_begun(self) -> bool:
        """Whether an earlier call began it, and was stopped."""
        return self.folder.is_dir()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run while it lasts: the same training in another process is refused, and not mixed into it.

        Raises:
            ConflictError: If another process is at it, or has just finished it.
            StoreError: If the folder of the runs cannot be written.

        """
        asked = f"train into {self.folder}"
        with explained(asked):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.held(self.folder.with_suffix(".lock"), asked, seconds=0):
            if (self.folder / REPORT).exists():
                raise ConflictError(asked, "another process has just finished it", "Call it again for another run.")
            yield

    def checkpoint(self, stage: str = "") -> Checkpoint:
        """Return where the state of one of its trainings is kept."""
        return Checkpoint(self._folder_of(stage), fingerprint=f"{self.fingerprint} {stage}")

    def kept(self, progress: Progress, stage: str = "") -> Progress:
        """Return a progress callback that writes metrics.csv after each epoch, and then calls the given one."""

        def keep(state: TrainingProgress) -> None:
            self.write_metrics(state.history, stage)
            progress(state)

        return keep

    def write_metrics(self, history: Sequence[EpochRecord], stage: str = "") -> None:
        """Write one row per epoch.

        Args:
            history: All epochs so far.
            stage: Which of several trainings they are of; it has a folder of its own.

        Raises:
            StoreError: If the folder cannot be written.

        """
        losses = sorted({name for epoch in history for name in epoch.losses})
        selected = sorted({name for epoch in history for name in epoch.select_losses})
        header = [*_COLUMNS, *(f"loss_{name}" for name in losses), *(f"select_loss_{name}" for name in selected)]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(header)
        for epoch in history:
            facts = attrs.asdict(epoch, recurse=False)
            own = [facts[name] for name in _COLUMNS]
            parts = [epoch.losses.get(name) for name in losses] + [epoch.select_losses.get(name) for name in selected]
            writer.writerow(["" if value is None else value for value in own + parts])
        self._write(self._folder_of(stage) / METRICS, text.getvalue().encode())

    def finish(self, report: R) -> R:
        """Write the report, by which the run is finished, delete its checkpoints, and return the report.

        Raises:
            StoreError: If the folder cannot be written.

        """
        self._write(self.folder / REPORT, codec.encode(report, limit=codec.MAX_LIST_BYTES))
        with explained(f"tidy up {self.folder}", "The run is finished: delete its checkpoints by hand."):
            for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder before the folder
                if path.name == CHECKPOINT or is_abandoned(path):
                    path.unlink()
                elif path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        return report

    def _folder_of(self, stage: str) -> Path:
        return self.folder / stage.replace(" ", "-") if stage else self.folder

    def _write(self, path: Path, data: bytes) -> None:
        aside = path.with_name(staging_name())
        with explained(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(data)
                aside.replace(path)
            finally:
                aside.unlink(missing_ok=True)
