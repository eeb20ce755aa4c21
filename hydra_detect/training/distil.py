"""Distillation: a compact head learns to say what the full head that it was made from says. No label is looked at.

After Hinton et al. (2015, arXiv:1503.02531), with squared differences of logits and deltas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torchvision.models.detection.rpn import concat_box_prediction_layers

from hydra_detect.training.chance import seeded
from hydra_detect.training.features import stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hydra_detect.nets.backbones import Features
    from hydra_detect.nets.compact import CompactHead
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.training.features import Encoded

_LEARNING_RATE = 3e-4
_ANCHORS = 1024  # of each picture: so many that the full head thinks most of, and as many others
_PROPOSALS = 256
_LONGEST_GRADIENT = 1.0


def distil(pupil: CompactHead, teacher: RCNNHead, pictures: Sequence[Encoded], *, steps: int, seed: int) -> list[float]:
    """Move a compact head towards what a full head says of pictures.

    Args:
        pupil: It is changed, and left in evaluation mode.
        teacher: In evaluation mode, of the same classes and anchors.
        pictures: Features, one picture each.
        steps: One picture each.
        seed: Of the order of pictures, anchors and proposals.

    Returns:
        The mean loss over the first and over the last quarter of the steps.

    """
    weights = list(pupil.requires_grad_(requires_grad=True).parameters())
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=0.0)
    losses = []
    with seeded(seed, weights[0].device):
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 - step / steps)
            chosen = pictures[int(torch.randint(len(pictures), ()))]
            loss = _difference(pupil, teacher, stack([chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            torch.nn.utils.clip_grad_norm_(weights, _LONGEST_GRADIENT)
            optimizer.step()
            losses.append(float(loss.detach()))
    pupil.eval().requires_grad_(requires_grad=False)
    quarter = max(1, steps // 4)
    return [sum(part) / len(part) for part in (losses[:quarter], losses[-quarter:]) if part]


def _difference(pupil: CompactHead, teacher: RCNNHead, features: Features) -> Tensor:
    """Return how far the pupil is from the teacher: logits and deltas of anchors and of the teacher's proposals."""
    maps = list(features.maps.values())
    with torch.no_grad():
        (proposals,), _losses = teacher.rpn(features.images, features.maps)
        wanted_logits, wanted_deltas = concat_box_prediction_layers(*teacher.rpn.head(maps))
        some = [proposals[torch.randperm(len(proposals), device=proposals.device)[:_PROPOSALS]]]
        wanted_scores, wanted_boxes = teacher.score(features.maps, some)
        best = wanted_logits[:, 0].topk(min(_ANCHORS, len(wanted_logits))).indices
        others = torch.randint(len(wanted_logits), (len(best),), device=best.device)
    logits, deltas = concat_box_prediction_layers(*pupil.rpn.head(maps))
    scores, boxes = pupil.score(features.maps, some)
    rows = torch.cat([best, others])
    return (
        functional.mse_loss(logits[rows], wanted_logits[rows])
        + functional.mse_loss(deltas[best], wanted_deltas[best])
        + functional.mse_loss(scores, wanted_scores)
        + functional.mse_loss(boxes, wanted_boxes)
    )
