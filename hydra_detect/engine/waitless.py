"""Both stages of a head without ever asking how many boxes are left: for devices that should not be waited for.

The same function as in `proposals` and `nets.heads`, with a fixed number of boxes and a mask of those that count. The
host learns what was found by all heads in one transfer at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from hydra_detect.engine.proposals import LEAST_SIDE
from hydra_detect.engine.suppression import survivors
from hydra_detect.nets.heads import HeadOutput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect.engine.proposals import Proposer
    from hydra_detect.nets.backbones import Features
    from hydra_detect.nets.heads import RCNNHead

_LEAST_SIDE = 1e-2  # pixels: torchvision's, below which a detection is dropped
_NOTHING = -1.0  # a score below all others


@attrs.frozen(eq=False)
class Masked:
    """A fixed number of boxes, best first, of which some count.

    Args:
        boxes: [box, 4] xyxy float32.
        scores: [box] float32.
        labels: [box] int64.
        counts: [box] bool.
        is_settled: Scalar bool: False if suppression would have needed more repetitions.

    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor
    is_settled: torch.Tensor


def proposed(
    proposer: Proposer,
    per_level: Sequence[torch.Tensor],
    shapes: Sequence[tuple[int, int]],
    *,
    size: tuple[int, int],
    padded: tuple[int, int],
) -> Masked:
    """Return the proposals of one picture, as `Proposer.selected` does."""
    settings, parts = proposer.settings, []
    for level, (values, cell, shape) in enumerate(zip(per_level, proposer.cells, shapes, strict=True)):
        logits, boxes = proposer.best(values.float(), cell, shape, padded)
        scores, boxes = logits.sigmoid(), clip_boxes_to_image(boxes, size)
        counts = (_sides(boxes) >= LEAST_SIDE).all(dim=1) & (scores >= settings.rpn_score_threshold)
        kept, is_settled = survivors(boxes, counts, limit=settings.rpn_nms_threshold)
        parts.append(Masked(boxes, scores, torch.full_like(scores, level, dtype=torch.int64), kept, is_settled))
    return _best(parts, settings.rpn_post_nms_top_n)


def chosen(
    head: RCNNHead,
    picture: Features,
    proposals: Masked,
    scored: tuple[torch.Tensor, torch.Tensor],
    *,
    score_threshold: float,
) -> Masked:
    """Turn proposals and what the box head says of them into detections, as `RCNNHead.choose` does."""
    logits, deltas = scored
    roi, size = head.roi_heads, picture.images.image_sizes[0]
    boxes = clip_boxes_to_image(roi.box_coder.decode(deltas, [proposals.boxes]), size)  # [proposal, label, 4]
    scores = logits.softmax(dim=1)
    parts = []
    for label in range(1, scores.shape[1]):
        own, order = scores[:, label].sort(descending=True, stable=True)
        found = boxes[order, label]
        counts = (own > score_threshold) & (_sides(found) >= _LEAST_SIDE).all(dim=1) & proposals.counts[order]
        kept, is_settled = survivors(found, counts, limit=roi.nms_thresh)
        parts.append(Masked(found, own, torch.full_like(order, label), kept, is_settled))
    best = _best(parts, roi.detections_per_img)
    return attrs.evolve(
        best,
        boxes=resize_boxes(best.boxes, size, picture.original_sizes[0]),
        is_settled=best.is_settled & proposals.is_settled,
    )


def fetched(found: Sequence[Masked]) -> list[HeadOutput | None]:
    """Return what heads found, on the CPU, in one transfer; None for a head whose suppression is not settled."""
    if not found:
        return []
    columns = [
        torch.cat([one.boxes, one.scores[:, None], one.labels[:, None].float(), one.counts[:, None].float()], dim=1)
        for one in found
    ]
    settled = torch.stack([one.is_settled for one in found]).float()
    lengths = [len(one) for one in columns]
    flat = torch.cat([settled, *(one.flatten() for one in columns)]).cpu()
    outputs: list[HeadOutput | None] = []
    for is_settled, rows in zip(flat[: len(found)], flat[len(found) :].view(-1, 7).split(lengths), strict=True):  # type: ignore[no-untyped-call]  # torch has no types for it
        own = rows[rows[:, 6] > 0]
        outputs.append(HeadOutput(own[:, :4], own[:, 4], own[:, 5].to(torch.int64)) if is_settled else None)
    return outputs


def _best(parts: Sequence[Masked], most: int) -> Masked:
    """Return the best boxes of several lots, at most so many."""
    scores = torch.cat([torch.where(part.counts, part.scores, _NOTHING) for part in parts])
    best, order = scores.sort(descending=True, stable=True)
    best, order = best[:most], order[:most]
    return Masked(
        torch.cat([part.boxes for part in parts])[order],
        best,
        torch.cat([part.labels for part in parts])[order],
        best > _NOTHING,
        torch.stack([part.is_settled for part in parts]).all(),
    )


def _sides(boxes: torch.Tensor) -> torch.Tensor:
    return boxes[:, 2:] - boxes[:, :2]
