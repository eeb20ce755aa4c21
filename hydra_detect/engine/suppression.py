"""Suppression of a fixed number of boxes, without asking how many are left: for devices that should not be waited for.

Greedy suppression keeps a box unless a better one that is kept overlaps it. That is the one mask for which "kept" means
"valid, and overlapped by no kept one before", and repeating that sentence reaches it from any beginning: after r
repetitions the first r boxes at least are settled, and usually all of them after a few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchvision.ops import box_iou

if TYPE_CHECKING:
    import torch

ROUNDS = 32
"""Repetitions: chains of boxes, each suppressed by the one before, are seldom longer."""


def survivors(boxes: torch.Tensor, valid: torch.Tensor, *, limit: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which boxes greedy suppression keeps, and whether that is settled.

    Args:
        boxes: [box, 4] xyxy, best first.
        valid: [box] bool; others are neither kept nor suppress any.
        limit: Overlap beyond which the worse of two boxes goes.

    Returns:
        [box] bool, and a scalar bool on the same device: False where more repetitions would change it.

    """
    overlaps = (box_iou(boxes, boxes) > limit).triu(diagonal=1)  # [better, worse]
    overlaps &= valid[:, None]
    kept = before = valid
    for _ in range(ROUNDS):
        before, kept = kept, valid & ~(overlaps & kept[:, None]).any(dim=0)
    return kept, (kept == before).all()
