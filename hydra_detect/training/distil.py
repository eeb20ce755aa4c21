"""Distillation: a compact head learns to say what the full head that it was made from says. No label is looked at.

After Hinton et al. (2015, arXiv:1503.02531), with squared differences of logits and deltas.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torchvision.models.detection.rpn import concat_box_prediction_layers

from hydra_detect.nets.compact import CompactHead, project, shared_layers
from hydra_detect.training.chance import seeded
from hydra_detect.training.features import stack

if TYPE_CHECKING:
    from torch import Tensor

    from hydra_detect.data.samples import Samples
    from hydra_detect.nets.backbones import Features
    from hydra_detect.nets.compact import Lean
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.training.features import FrozenFeatures

_LEARNING_RATE = 1e-4
_BETWEEN = 10  # steps from one projection to the next
_ANCHORS = 1024  # of each picture: so many that the full head thinks most of, and as many others
_PROPOSALS = 256
_LONGEST_GRADIENT = 1.0


def distil(
    teacher: RCNNHead, lean: Lean, samples: Samples, features: FrozenFeatures, *, steps: int, seed: int
) -> CompactHead:
    """Return a compact head that says what a full head says of pictures, as nearly as its ranks allow.

    It begins as the nearest in its weights. Then all weights learn, and are projected on the ranks again and again, as
    in a training.

    Args:
        teacher: In evaluation mode.
        lean: What the compact head leans on, and how.
        samples: Pictures; their labels are not looked at.
        features: Of the backbone.
        steps: One picture each, the rate falling in a line to nothing; 0 for the nearest.
        seed: Of the order of pictures, anchors and proposals.

    Returns:
        It, frozen, in evaluation mode, on the CPU.

    """
    pupil = copy.deepcopy(teacher).requires_grad_(requires_grad=True)
    weights = list(pupil.parameters())
    own = lean.to(weights[0].device)
    project(pupil, own)
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=0.0)
    with seeded(seed, weights[0].device):
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = _LEARNING_RATE * (1 - step / steps)
            chosen = samples[int(torch.randint(len(samples), ()))]
            loss = _difference(pupil, teacher, stack([features.of(chosen)]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
            torch.nn.utils.clip_grad_norm_(weights, _LONGEST_GRADIENT)
            optimizer.step()
            if step % _BETWEEN == _BETWEEN - 1 or step == steps - 1:
                layers = shared_layers(pupil)
                project(pupil, own, {name: optimizer.state[layers[name].weight]["exp_avg_sq"] for name in own.ranks})
    return CompactHead.nearest(pupil, lean)


def _difference(pupil: RCNNHead, teacher: RCNNHead, features: Features) -> Tensor:
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
