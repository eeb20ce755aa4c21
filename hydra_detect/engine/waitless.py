"""Both stages of a head without ever asking how many boxes are left: for devices that should not be waited for.

The same function as in `proposals` and `nets.heads`, with a fixed number of boxes and a mask of those that count. All
heads suppress together, and the host learns what they found in one transfer at the end.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
import torch
from torchvision.ops import clip_boxes_to_image

from hydra_detect.engine.decoding import decoded, resized
from hydra_detect.engine.proposals import LEAST_SIDE
from hydra_detect.engine.suppression import Lot, survivors
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
    proposers: Sequence[Proposer],
    predicted: Sequence[Sequence[torch.Tensor]],
    shapes: Sequence[tuple[int, int]],
    *,
    size: tuple[int, int],
    padded: tuple[int, int],
) -> list[Masked]:
    """Return the proposals of each head in one picture, as `Proposer.selected` does for one.

    Args:
        proposers: Of the heads.
        predicted: For each head and level [position, 5 * anchor].
        shapes: (height, width) of each level.
        size: (height, width) of the network input, without its padding.
        padded: The same with it.

    """
    parts = []
    for proposer, per_level in zip(proposers, predicted, strict=True):
        for level, (values, cell, shape) in enumerate(zip(per_level, proposer.cells, shapes, strict=True)):
            logits, boxes = proposer.best(values.float(), cell, shape, padded)
            scores, boxes = logits.sigmoid(), clip_boxes_to_image(boxes, size)
            counts = (_sides(boxes) >= LEAST_SIDE).all(dim=1) & (scores >= proposer.settings.rpn_score_threshold)
            boxes = torch.where(counts[:, None], boxes, 0.0)  # they are cropped, too: NaN would be no place in a map
            parts.append(_Part(boxes, scores, level, counts, proposer.settings.rpn_nms_threshold))
    return _best(parts, [(len(shapes), proposer.settings.rpn_post_nms_top_n) for proposer in proposers])


def chosen(
    heads: Sequence[tuple[RCNNHead, float]],
    picture: Features,
    proposals: Sequence[Masked],
    scored: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> list[Masked]:
    """Turn proposals and what the box heads say of them into detections, as `RCNNHead.choose` does for one head.

    Args:
        heads: Each with the score that its boxes have to be above.
        picture: Its sizes.
        proposals: Of each head.
        scored: Of each head class logits [proposal, label] and box deltas [proposal, 4 * label].

    """
    size, parts, counts_of = picture.images.image_sizes[0], [], []
    for (head, threshold), own, (logits, deltas) in zip(heads, proposals, scored, strict=True):
        roi = head.roi_heads
        boxes = clip_boxes_to_image(decoded(roi.box_coder, deltas, own.boxes), size)  # [proposal, label, 4]
        scores = logits.softmax(dim=1)
        for label in range(1, scores.shape[1]):
            best, order = scores[:, label].sort(descending=True, stable=True)
            found = boxes[order, label]
            counts = (best > threshold) & (_sides(found) >= _LEAST_SIDE).all(dim=1) & own.counts[order]
            parts.append(_Part(found, best, label, counts, roi.nms_thresh))
        counts_of.append((scores.shape[1] - 1, roi.detections_per_img))
    return [
        attrs.evolve(
            best,
            boxes=resized(best.boxes, size, picture.original_sizes[0]),
            is_settled=best.is_settled & own.is_settled,
        )
        for best, own in zip(_best(parts, counts_of), proposals, strict=True)
    ]


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


@attrs.frozen(eq=False)
class _Part:
    """Boxes of one level or label, best first: [box, 4], [box], which one, [box] those that count, and their limit."""

    boxes: torch.Tensor
    scores: torch.Tensor
    label: int
    counts: torch.Tensor
    limit: float


def _best(parts: Sequence[_Part], counts: Sequence[tuple[int, int]]) -> list[Masked]:
    """Suppress within each part, and return for each head, of so many parts, the best boxes, at most so many."""
    left = survivors([Lot(part.boxes, part.counts, part.limit) for part in parts])
    both, found = iter(zip(parts, left, strict=True)), []
    for count, most in counts:
        own = list(itertools.islice(both, count))
        scores = torch.cat([torch.where(kept, part.scores, _NOTHING) for part, (kept, _settled) in own])
        labels = torch.cat([torch.full_like(part.scores, part.label, dtype=torch.int64) for part, _left in own])
        best, order = scores.sort(descending=True, stable=True)
        best, order = best[:most], order[:most]
        boxes = torch.cat([part.boxes for part, _left in own])
        settled = torch.stack([is_settled for _part, (_kept, is_settled) in own]).all()
        found.append(Masked(boxes[order], best, labels[order], best > _NOTHING, settled))
    return found


def _sides(boxes: torch.Tensor) -> torch.Tensor:
    return boxes[:, 2:] - boxes[:, :2]
