"""The loop: how a head learns, from top to bottom.

Nothing but the head's own weights changes. The caller's random numbers are left as they were: a training has its own,
from its seed. The weights that are kept are those of the best epoch, copied when it ended.
"""

from __future__ import annotations

import copy
import math
import time
from typing import TYPE_CHECKING

import attrs
import torch

from hydra_detect.errors import InputError, TrainingError
from hydra_detect.nets.compact import project
from hydra_detect.training import average, chance, selection
from hydra_detect.training.augment import perturbed
from hydra_detect.training.checkpoint import State
from hydra_detect.training.progress import EpochRecord, TrainingProgress

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from hydra_detect.data.samples import Sample
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.training.checkpoint import Checkpoint
    from hydra_detect.training.features import Seen
    from hydra_detect.training.progress import Progress
    from hydra_detect.training.task import Task

_SECONDS_BETWEEN_CHECKPOINTS = 10.0
_FREE = 2 / 3  # of the epochs: so long all weights of a compact head learn freely


@attrs.frozen(kw_only=True)
class Fitted:
    """What a training came to.

    Args:
        tensors: The weights of the best epoch, by torchvision's names, float32 on the CPU.
        best: That epoch.
        history: All epochs.
        early_stopped: Whether it ended before its last epoch, for want of anything better.
        seconds: What it took, sessions that were interrupted included.

    """

    tensors: Mapping[str, Tensor]
    best: EpochRecord
    history: tuple[EpochRecord, ...]
    early_stopped: bool
    seconds: float


def fit(
    task: Task,
    *,
    checkpoint: Checkpoint,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> Fitted:
    """Train a head.

    Args:
        task: What is to be learnt.
        checkpoint: Where its state is kept; a training that was stopped there is taken up again.
        progress: Called after each epoch.
        cancel: Once it is set, the training stops after the step that it is at.

    Raises:
        InputError: If there are no samples to learn from.
        TrainingError: If the loss or its gradient is no finite number, or it returns something else than a loss.
        TrainingStoppedError: If it was cancelled; it can be taken up again.
        StoreError: If the checkpoint cannot be written.

    """
    if not len(task.train):
        raise InputError("train a head", "there are no samples to learn from", "Give it some with the role 'train'.")
    with chance.seeded(task.seed, task.device):
        run = _Run(task, checkpoint, cancel)
        while not run.is_over:
            run.epoch()
            try:  # told before it is kept: whoever takes a training up again need not tell what was kept
                if progress:
                    progress(run.state_of_progress())
            finally:
                run.keep()
        return run.fitted()


class _Run:
    """A training under way."""

    def __init__(self, task: Task, checkpoint: Checkpoint, cancel: threading.Event | None) -> None:
        self.task, self.config = task, task.config
        self.checkpoint, self.cancel = checkpoint, cancel
        self.network = task.network.requires_grad_(requires_grad=True).train()
        self.average = copy.deepcopy(self.network).requires_grad_(requires_grad=False).eval()
        self.weights = dict(self.network.named_parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.weights.values() if p.dim() > 1], "weight_decay": self.config.weight_decay},
                {"params": [p for p in self.weights.values() if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=self.config.learning_rate,
        )
        self.steps_per_epoch = math.ceil(len(task.train) / self.config.batch_size)
        self.history: list[EpochRecord] = []
        self.best: dict[str, Tensor] = {}
        self.steps = self.waited = 0
        self.began, self.earlier, self.written = time.perf_counter(), 0.0, time.perf_counter()
        state = checkpoint.read()
        if state:
            self._restore(state)

    @property
    def is_over(self) -> bool:
        return len(self.history) >= self.config.epochs or self.has_waited

    @property
    def has_waited(self) -> bool:
        return bool(self.config.patience and self.task.select is not None and self.waited >= self.config.patience)

    @property
    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self.began

    @property
    def best_epoch(self) -> EpochRecord:
        return next(epoch for epoch in reversed(self.history) if epoch.is_best)

    def epoch(self) -> None:
        """Learn from every sample once, and see what it came to."""
        began = time.perf_counter()
        sums: dict[str, float] = {}
        for batch in self._batches():
            for name, value in self.step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            if self.cancel and self.cancel.is_set():
                raise self.checkpoint.stopped(f"it was cancelled in epoch {len(self.history) + 1}")
        shown = self._shown()
        judged = selection.judge(shown, self.task) if self.task.select is not None else None
        best = selection.highest(self.history, self.config)
        is_better = judged is None or selection.is_better(judged, best, self.config)
        is_kept = judged is None or is_better or selection.is_as_good(judged, best, self.task)
        if is_kept:
            self.best = {name: value.detach().clone() for name, value in shown.state_dict().items()}
        self.waited = 0 if is_better else self.waited + 1
        figures = {} if judged is None else attrs.asdict(judged)
        self.history.append(
            EpochRecord(
                epoch=len(self.history) + 1,
                losses={name: value / self.steps_per_epoch for name, value in sums.items()},
                is_best=is_kept,
                learning_rate=self.rate(self.steps - 1),
                seconds=time.perf_counter() - began,
                **figures,
            )
        )

    def _shown(self) -> RCNNHead:
        """Return what is judged and kept: the average or, of a compact head, the nearest that has its form.

        In the last third of the epochs what learns is moved there too, so that each epoch makes up for what the end of
        the one before cost: singular value projection (Jain et al. 2010, arXiv:0909.5457). Before that it would hold up
        what all weights learn.
        """
        lean = self.task.lean
        if lean is None:
            return self.average
        is_free = len(self.history) + 1 <= self.config.epochs * _FREE
        if is_free and self.task.select is None:  # a later epoch is kept, whatever this one is worth
            return self.average
        importance = {name: self._importance(f"{name}.weight") for name in lean.ranks}
        shown = copy.deepcopy(self.average) if is_free else self.average
        for network in (shown,) if is_free else (self.network, shown):
            project(network, lean, importance)
        return shown

    def _importance(self, name: str) -> Tensor:
        """Return the mean square of the gradient of a weight, which AdamW keeps; ones if no loss has moved it."""
        weight = self.weights[name]
        squares: Tensor = self.optimizer.state[weight].get("exp_avg_sq", torch.ones_like(weight))
        return squares.detach()

    def keep(self) -> None:
        """Write a checkpoint, if it is time for one."""
        is_due = time.perf_counter() - self.written > _SECONDS_BETWEEN_CHECKPOINTS
        if self.is_over or is_due or len(self.history) == 1:  # the first tells whoever stops that all can be taken up
            self.checkpoint.write(self._state())
            self.written = time.perf_counter()

    def step(self, batch: Sequence[Sample]) -> dict[str, float]:
        """Go one step down the loss of a batch; return its parts."""
        seen = [self._draw(sample) for sample in batch]
        losses = self.task.losses(self.network, seen)
        total = sum(losses.values(), torch.zeros(()))
        values = {name: float(part.detach()) for name, part in losses.items()} | {"total": float(total.detach())}
        self._check_finite(values, batch)
        self._check_learnable(total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        most = self.config.gradient_clip or math.inf
        length = torch.nn.utils.clip_grad_norm_(self.weights.values(), most)
        self._check_finite({**values, "gradient": float(length)}, batch)
        self.optimizer.step()
        self.steps += 1
        average.follow(self.average, self.network, step=self.steps, decay=self.config.ema_decay)
        return values

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0: a line upwards, then half a cosine down."""
        steps = self.steps_per_epoch * self.config.epochs
        rising = min(1.0, (step + 1) / max(1.0, self.config.warmup * steps))
        falling = 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.config.learning_rate * rising * (self.config.final_rate + (1 - self.config.final_rate) * falling)

    def fitted(self) -> Fitted:
        return Fitted(
            tensors={name: value.cpu() for name, value in self.best.items()},
            best=self.best_epoch,
            history=tuple(self.history),
            early_stopped=len(self.history) < self.config.epochs,
            seconds=self.seconds,
        )

    def state_of_progress(self) -> TrainingProgress:
        done = len(self.history)
        return TrainingProgress(
            history=tuple(self.history),
            best=self.best_epoch,
            epochs=self.config.epochs,
            elapsed=self.seconds,
            remaining=self.seconds / done * (self.config.epochs - done),
            stage=self.task.stage,
        )

    def _draw(self, sample: Sample) -> Seen:
        return perturbed(
            self.task.source.draw(sample), box_jitter=self.config.box_jitter, feature_noise=self.config.feature_noise
        )

    def _batches(self) -> Iterator[list[Sample]]:
        order, size = selection.order(self.task), self.config.batch_size
        return ([self.task.train[place] for place in order[k : k + size]] for k in range(0, len(order), size))

    def _check_finite(self, values: Mapping[str, float], batch: Sequence[Sample]) -> None:
        if not all(math.isfinite(value) for value in values.values()):
            parts = ", ".join(f"{name} {value}" for name, value in values.items())
            ids = ", ".join(sample.id for sample in batch)
            where = f"at step {self.steps + 1}, epoch {len(self.history) + 1}"
            raise TrainingError(
                f"train on {ids:.400}",
                f"{where}, the loss or its gradient is no finite number ({parts})",
                "Lower learning_rate, raise warmup, or look at these samples; no version was made.",
                step=self.steps + 1,
                samples=ids,
            )

    def _check_learnable(self, total: Tensor) -> None:
        if not total.requires_grad:
            raise TrainingError(
                f"train with loss {self.config.loss!r:.60}",
                "no part of what it returned has a gradient: there is nothing to learn from it",
                "Compute it from the predictions as they are, without detach, item or no_grad.",
                loss=self.config.loss,
            )

    def _state(self) -> State:
        tensors = {f"network.{name}": value.detach() for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for name, weight in self.weights.items():
            for part, value in self.optimizer.state[weight].items():
                tensors[f"optimizer.{part}.{name}"] = value
        tensors |= {f"random.{name}": state for name, state in chance.states(self.task.device).items()}
        return State(
            tensors=tensors,
            history=tuple(self.history),
            steps=self.steps,
            waited=self.waited,
            seconds=self.seconds,
        )

    def _restore(self, state: State) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): value for n, value in state.tensors.items() if n.startswith(prefix)}

        self.network.load_state_dict(part("network."), strict=True)
        self.average.load_state_dict(part("average."), strict=True)
        self.best = part("best.")
        moments = {kind: part(f"optimizer.{kind}.") for kind in ("step", "exp_avg", "exp_avg_sq")}
        for name, weight in self.weights.items():
            if name in moments["step"]:  # a weight that a loss has never moved has none
                self.optimizer.state[weight] = {
                    kind: values[name].to("cpu" if kind == "step" else weight.device)
                    for kind, values in moments.items()
                }
        chance.restore(part("random."), self.task.device)
        self.history, self.steps, self.waited = list(state.history), state.steps, state.waited
        self.earlier = state.seconds
