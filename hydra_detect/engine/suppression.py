"""Suppression of a fixed number of boxes, without asking how many are left: for devices that should not be waited for.

Greedy suppression keeps a box unless a better one that is kept overlaps it. That is the one mask for which "kept" means
"valid, and overlapped by no kept one before", and repeating that sentence reaches it from any beginning: after r
repetitions the first r boxes at least are settled, and usually all of them after a few. Lots of all heads, levels and
labels are repeated together, side by side: each as it would be alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROUNDS = 32
"""Repetitions: chains of boxes, each suppressed by the one before, are seldom longer."""

_MOST_PAIRS = 1 << 26  # of boxes at a time: some 1 GB while overlaps are computed


@attrs.frozen(eq=False)
class Lot:
    """Boxes that suppress each other.

    Args:
        boxes: [box, 4] xyxy, best first.
        valid: [box] bool; others are neither kept nor suppress any.
        limit: Overlap beyond which the worse of two boxes goes.

    """

    boxes: torch.Tensor
    valid: torch.Tensor
    limit: float


def survivors(lots: Sequence[Lot]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return which boxes of each lot greedy suppression keeps, and whether that is settled.

    Returns:
        For each lot [box] bool, and a scalar bool on the same device: False where more repetitions would change it.

    """
    found = []
    for some in _together(lots):
        boxes = pad_sequence([lot.boxes for lot in some], batch_first=True)  # [lot, box, 4]
        valid = pad_sequence([lot.valid for lot in some], batch_first=True)  # [lot, box]
        limits = boxes.new_tensor([lot.limit for lot in some])[:, None, None]
        overlaps = (_overlaps(boxes) > limits).triu(diagonal=1) & valid[:, :, None]  # [lot, better, worse]
        kept = before = valid
        for _ in range(ROUNDS):
            before, kept = kept, valid & ~(overlaps & kept[:, :, None]).any(dim=1)
        is_settled = (kept == before).all(dim=1)
        found += [(kept[place, : len(lot.valid)], is_settled[place]) for place, lot in enumerate(some)]
    return found


def _together(lots: Sequence[Lot]) -> Iterator[list[Lot]]:
    """Yield lots, one after the other, in lots of lots that are not too large for memory."""
    some: list[Lot] = []
    for lot in lots:
        longest = max(len(other.valid) for other in (*some, lot))
        if some and (len(some) + 1) * longest**2 > _MOST_PAIRS:
            yield some
            some = []
        some.append(lot)
    if some:
        yield some


def _overlaps(boxes: torch.Tensor) -> torch.Tensor:
    """Return intersection over union [lot, box, box], by torchvision's own operations."""
    sides = boxes[..., 2:] - boxes[..., :2]
    areas = sides[..., 0] * sides[..., 1]
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    inner = (high - low).clamp(min=0).prod(dim=-1)
    return inner / (areas[:, :, None] + areas[:, None, :] - inner)
