"""The select role: which epoch is best; and the order in which samples of the train role come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch

from hydra_detect import answers
from hydra_detect.errors import TrainingError
from hydra_detect.measure.matching import Counts
from hydra_detect.measure.outcomes import judge as judge_detections
from hydra_detect.measure.sweep import sweep
from hydra_detect.names import HeadRef
from hydra_detect.training.chance import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from hydra_detect.detections import Detections
    from hydra_detect.nets.heads import HeadOutput, RCNNHead
    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.features import Seen
    from hydra_detect.training.progress import EpochRecord
    from hydra_detect.training.task import Task

_LEAST_SCORE = 0.02  # what scores less is no candidate for any threshold; it saves most of the suppression
_SEED = 0  # of the anchors and proposals that the selection loss is taken over: the same at every epoch


@attrs.frozen(kw_only=True)
class Judged:
    """What weights are worth on the select role.

    Args:
        select_losses: Mean over the samples, by part and "total".
        f1: At the score threshold that is best for it, all classes together.
        precision: There.
        recall: There.

    """

    select_losses: Mapping[str, float]
    f1: float
    precision: float
    recall: float


def judge(head: RCNNHead, task: Task) -> Judged:
    """Measure weights on the select role: a real loss, and F1 at its best threshold.

    Raises:
        TrainingError: If the loss is no finite number.

    """
    assert task.select is not None  # noqa: S101  the loop asks only then
    sums: dict[str, float] = {}
    found = []
    with torch.no_grad(), seeded(_SEED, task.device):
        for sample in task.select:
            seen = task.source.plain(sample)
            losses, output = task.judged(head, seen, score_threshold=_LEAST_SCORE)
            for name, value in _numbers(losses, seen).items():
                sums[name] = sums.get(name, 0.0) + value
            found.append(_detections(output, seen, task))
    truths = [sample.truth for sample in task.select]
    curve = sweep(judge_detections(found, truths, class_names=task.select.class_names)).micro
    best = curve.counts(float(curve.thresholds[curve.f1.argmax()])) if len(curve.thresholds) else Counts()
    return Judged(
        select_losses={name: value / len(task.select) for name, value in sums.items()},
        f1=best.f1,
        precision=best.precision,
        recall=best.recall,
    )


def highest(history: Sequence[EpochRecord], config: TrainingConfig) -> EpochRecord | None:
    """Return the epoch that nothing before or after it is better than; None where there is none yet."""
    found = None
    for epoch in history:
        if epoch.f1 is not None and is_better(epoch, found, config):
            found = epoch
    return found


def is_as_good(judged: Judged, best: EpochRecord | None, task: Task) -> bool:
    """Whether weights come so near to the best that the select role cannot tell them apart.

    Then those that have learnt longer are taken: with ten labels F1 moves by tenths from epoch to epoch, and its peak
    is mostly luck. Near is within one standard error (as in Breiman et al. 1984, section 3.4.3, for the simpler model)
    of a share over the labels of the select role.
    """
    if best is None or not best.f1 or task.config.monitor != "f1" or task.select is None:
        return False
    labels = sum(task.select.box_counts.values())
    return judged.f1 >= best.f1 - math.sqrt(best.f1 * (1 - best.f1) / max(1, labels))


def is_better(judged: Judged | EpochRecord, best: EpochRecord | None, config: TrainingConfig) -> bool:
    """Whether weights are better than the best so far, by at least `min_delta`; of equal F1, the lower loss is.

    While nothing was found yet the loss alone decides: F1 says nothing of what is still learning.
    """
    if best is None or best.f1 is None or judged.f1 is None:
        return True
    gain = judged.f1 - best.f1
    cheaper = best.select_losses["total"] - judged.select_losses["total"]
    if config.monitor == "loss":
        return cheaper > config.min_delta
    if judged.f1 == best.f1 and (config.min_delta == 0 or not best.f1):
        return cheaper > 0
    return gain > config.min_delta


def order(task: Task) -> list[int]:
    """Return the places of the training samples in the order of an epoch, drawn from torch's random numbers.

    "shuffle" has each once. "balanced" draws as many with replacement, each weighted by the inverse square root of how
    often its rarest class is labelled; a background weighs as much as the least of them.
    """
    if task.config.sampler == "shuffle":
        return torch.randperm(len(task.train)).tolist()
    counts = dict(zip(task.train.class_names, task.context.frequencies, strict=True))
    weights = [max((counts[name] ** -0.5 for name in sample.truth.label_names), default=0.0) for sample in task.train]
    least = min((weight for weight in weights if weight), default=1.0)
    chances = torch.tensor([weight or least for weight in weights])
    return torch.multinomial(chances, len(weights), replacement=True).tolist()


def _numbers(losses: Mapping[str, Tensor], seen: Seen) -> dict[str, float]:
    parts = {name: float(value) for name, value in losses.items()}
    total = sum(parts.values())
    if not math.isfinite(total):
        raise TrainingError(
            f"judge weights on {seen.sample:.400}",
            f"the loss is no finite number ({', '.join(f'{name} {value}' for name, value in parts.items())})",
            "Look at this sample of the select role, and at what the loss makes of it; no version was made.",
            samples=seen.sample,
        )
    return parts | {"total": total}


def _detections(output: HeadOutput, seen: Seen, task: Task) -> Detections:
    return answers.of_head(
        output,
        task.train.class_names,
        ref=HeadRef("candidate"),
        image_size=seen.encoded.original_size,
        source=seen.sample,
    )
