"""A training that can be taken up again: everything that the next epoch depends on, in one file.

Tensors and plain values in one safetensors file, replaced as a whole: no pickle, and a process that is killed leaves
the state of an earlier epoch. What cannot be read is said and passed over: the training then begins anew.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.errors import TrainingStoppedError
from hydra_detect.storage.files import explained
from hydra_detect.training import tensor_files
from hydra_detect.training.progress import EpochRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"
_STATE = "state"
_LOG = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class State:
    """Where a training stands at the end of an epoch.

    Args:
        tensors: By part and name, as "head.rpn.head...", with the random numbers' state.
        history: All epochs so far.
        steps: Steps taken.
        waited: Epochs since the best.
        seconds: What it took so far.

    """

    tensors: Mapping[str, Tensor]
    history: tuple[EpochRecord, ...]
    steps: int
    waited: int
    seconds: float


class Checkpoint:
    """The file of one training.

    Args:
        folder: Where it lies.
        fingerprint: What the training depends on, as a digest: a state of another training is never taken up.

    """

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self.path = folder / CHECKPOINT
        self.fingerprint = fingerprint

    def read(self) -> State | None:
        """Return the state that was written last, or None."""
        try:
            tensors, texts = tensor_files.load(self.path)
            facts = json.loads(texts[_STATE])
            if facts["fingerprint"] != self.fingerprint:
                _LOG.warning("%s belongs to another training; this one begins anew", self.path)
                return None
            history = tuple(codec.from_dict(EpochRecord, row, "a checkpoint") for row in facts["history"])
            return State(
                tensors={name: tensor.clone() for name, tensor in tensors.items()},  # the file may change
                history=history,
                steps=facts["steps"],
                waited=facts["waited"],
                seconds=facts["seconds"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            _LOG.warning("the checkpoint %s cannot be used (%s); the training begins anew", self.path, error)
            return None

    def write(self, state: State) -> None:
        """Replace the state by a later one.

        Raises:
            StoreError: If the folder cannot be written.

        """
        facts = {
            "fingerprint": self.fingerprint,
            "history": [codec.to_dict(epoch) for epoch in state.history],
            "steps": state.steps,
            "waited": state.waited,
            "seconds": state.seconds,
        }
        with explained(f"keep a checkpoint in {self.path.parent}"):
            tensor_files.save(self.path, state.tensors, {_STATE: json.dumps(facts)})

    def stopped(self, found: str) -> TrainingStoppedError:
        """Return the error for a training that was stopped, which says whether there is a state to go on from."""
        is_kept = self.path.exists()
        remedy = "go on from the last epoch that was kept" if is_kept else "begin anew: no epoch was kept yet"
        return TrainingStoppedError(
            "go on with the training",
            found,
            f"Call it again with the same arguments to {remedy}.",
            checkpoint=str(self.path) if is_kept else None,
        )
