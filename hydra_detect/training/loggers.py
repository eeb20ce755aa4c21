"""Loggers: callbacks that put the figures of each epoch where others are (extras `tensorboard` and `mlflow`).

A logger is a context manager: left by an error, it says so where that can be said. What cannot be logged stops the
training, which can be taken up again: a run of which epochs are missing would be compared with whole ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, Any

from hydra_detect.detections import missing_extra
from hydra_detect.errors import TrainingError, TrainingStoppedError
from hydra_detect.storage.files import explained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from hydra_detect.training.progress import Progress, TrainingProgress

_ODD = re.compile(r"[^\w./-]", re.ASCII)  # what not every tracker takes in a name
_REMEDY = "See to the tracking server, or leave the logger out; the same call takes the training up again."


def together(*callbacks: Progress) -> Progress:
    """Return one callback that calls several, in order.

    Args:
        callbacks: Such as a `ProgressBar` and a logger; none do nothing.

    """

    def call(state: TrainingProgress) -> None:
        for callback in callbacks:
            callback(state)

    return call


def figures(state: TrainingProgress) -> dict[str, float]:
    """Return what is logged of an epoch by name.

    Args:
        state: Where the training stands.

    Returns:
        "loss/PART" and "select_loss/PART" for each part of the loss, "f1", "precision", "recall" and "best_f1" where
        there is a select role, "learning_rate" and "seconds"; in one of several trainings each after its stage, as
        "fold_2_of_5/f1".

    """
    latest = state.latest
    found = {f"loss/{part}": value for part, value in latest.losses.items()}
    found |= {f"select_loss/{part}": value for part, value in latest.select_losses.items()}
    judged = {"f1": latest.f1, "precision": latest.precision, "recall": latest.recall, "best_f1": state.best.f1}
    found |= {name: value for name, value in judged.items() if value is not None}
    found |= {"learning_rate": latest.learning_rate, "seconds": latest.seconds}
    stage = f"{state.stage}/" if state.stage else ""
    return {_ODD.sub("_", stage + name): value for name, value in found.items()}


class TensorBoardLogger:
    """Figures of each epoch as scalars of TensorBoard, one event file per logger.

    Args:
        folder: Where; made if it is not there.

    Raises:
        ExtraMissingError: If tensorboard is not installed.
        StoreError: If the folder cannot be written.

    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        asked = f"log to TensorBoard in {os.fspath(folder)}"
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise missing_extra(asked, "tensorboard") from None
        with explained(asked):
            self._writer = SummaryWriter(os.fspath(folder))

    def __call__(self, state: TrainingProgress) -> None:
        """Log an epoch; it is on disk when this returns, so that a training can be watched."""
        for name, value in figures(state).items():
            self._writer.add_scalar(name, value, state.latest.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MLflowLogger:
    """Figures of each epoch as metrics of one MLflow run.

    MLflow reports its own use to its makers unless it is told not to. This tells it so, by the environment variable
    MLFLOW_DISABLE_TELEMETRY, where neither that is set nor mlflow was imported before. The process's own MLflow run and
    tracking address stay as they are.

    Args:
        tracking_uri: Address of the tracking server or database; None for MLflow's own setting.
        experiment: Name of the experiment; it is made if there is none.
        run_name: Of the run; None for one that MLflow makes up.

    Attributes:
        run_id: MLflow's id of the run.

    Raises:
        ExtraMissingError: If mlflow is not installed.
        TrainingError: If MLflow refuses, or its server cannot be reached.

    """

    def __init__(
        self, *, tracking_uri: str | None = None, experiment: str = "hydra-detect", run_name: str | None = None
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing here phones home unasked
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise missing_extra(f"log to MLflow experiment {experiment!r}", "mlflow") from None
        self._where = f"experiment {experiment!r} of {tracking_uri or 'its own tracking address'}"
        with self._accepted("begin a run"):
            self._client: Any = MlflowClient(tracking_uri=tracking_uri)
            known = self._client.get_experiment_by_name(experiment)
            number = known.experiment_id if known else self._client.create_experiment(experiment)
            self.run_id: str = self._client.create_run(number, run_name=run_name).info.run_id
        self._is_open = True

    def __call__(self, state: TrainingProgress) -> None:
        """Log an epoch.

        Raises:
            TrainingError: If MLflow refuses, or its server cannot be reached.

        """
        from mlflow.entities import Metric

        epoch = state.latest.epoch
        now = time.time_ns() // 1_000_000
        with self._accepted(f"log epoch {epoch}"):
            found = [Metric(name, value, now, epoch) for name, value in figures(state).items()]
            self._client.log_batch(self.run_id, metrics=found)

    def close(self, *, status: str = "FINISHED") -> None:
        """End the run.

        Args:
            status: What MLflow shows: "FINISHED", "FAILED" or "KILLED".

        Raises:
            TrainingError: If MLflow refuses, or its server cannot be reached.

        """
        if self._is_open:
            with self._accepted("end a run"):
                self._client.set_terminated(self.run_id, status=status)
        self._is_open = False

    @contextlib.contextmanager
    def _accepted(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise TrainingError(f"{what} in {self._where}", f"MLflow refused ({str(error)[:300]})", _REMEDY) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        was_stopped = isinstance(error, TrainingStoppedError | KeyboardInterrupt)
        self.close(status="FINISHED" if error is None else "KILLED" if was_stopped else "FAILED")
