"""What a training tells while it runs, as values; what becomes of them is up to the callback.

The default callback draws a bar on a terminal. Any number of them can be given, and any callable is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from hydra_detect import fields
from hydra_detect.codec import Record


@attrs.frozen(kw_only=True)
class EpochRecord(Record):
    """One epoch: what the training said of it, and what a run keeps of it.

    Args:
        epoch: From 1.
        losses: Mean over the steps, by part and "total".
        select_losses: The same on the select role, of the averaged weights; empty without such a role.
        f1: On the select role at the best threshold; None without such a role.
        precision: There.
        recall: There.
        is_best: Whether the weights of this epoch are the best so far, or cannot be told from them and learnt longer.
        learning_rate: After its last step.
        seconds: What it took, selection included.

    """

    epoch: int
    losses: Mapping[str, float]
    select_losses: Mapping[str, float] = attrs.field(factory=dict)
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    is_best: bool = False
    learning_rate: float = attrs.field(converter=fields.one_float, default=0.0)
    seconds: float = attrs.field(converter=fields.one_float, default=0.0)


@attrs.frozen(kw_only=True)
class TrainingProgress:
    """Where a training stands after an epoch.

    Args:
        history: All epochs so far.
        best: The best of them.
        epochs: How many there will be at most.
        elapsed: Seconds since the training began, earlier sessions of it included.
        remaining: Seconds that it will take at most, at the pace so far.
        stage: Which of several trainings this is, as "fold 2 of 5"; empty for the only one.

    """

    history: tuple[EpochRecord, ...]
    best: EpochRecord
    epochs: int
    elapsed: float
    remaining: float
    stage: str = ""

    @property
    def latest(self) -> EpochRecord:
        """The epoch that has just ended."""
        return self.history[-1]


Progress = Callable[[TrainingProgress], None]


class ProgressBar:
    """A bar on a terminal, one step an epoch; nothing where standard error is none. `contextlib.closing` closes it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""

    def __call__(self, state: TrainingProgress) -> None:
        """Move the bar on."""
        from tqdm import tqdm

        if self._bar is None or state.stage != self._stage:
            self.close()
            every = {"miniters": 1, "mininterval": 0}  # or tqdm would pass over epochs of less than a tenth of a second
            self._bar = tqdm(total=state.epochs, desc=state.stage or "epochs", leave=False, disable=None, **every)
            self._stage = state.stage
        figures = {"loss": f"{state.latest.losses['total']:.3f}"}
        if state.latest.f1 is not None:
            figures |= {"F1": f"{state.latest.f1:.3f}", "best": f"{state.best.f1 or 0:.3f}"}
        self._bar.set_postfix(figures, refresh=False)
        self._bar.update(state.latest.epoch - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
