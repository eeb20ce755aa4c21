"""RoIAlign as one weighted sum over rows of a table: each bin of a proposal is a bag of 4 samples with 4 corners each.

The function is that of torchvision's kernel (He et al. 2017, arXiv:1703.06870; `aligned=False`, a fixed number of
samples per bin); only the order of its sums is another. Rows of the table are positions of all pyramid levels, so
proposals of all levels go through it together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@attrs.frozen(eq=False)
class Table:
    """The maps that proposals are cropped from, as one table.

    Args:
        rows: [position, channel] of all levels, each in row-major order, one behind the other.
        heights: [level] int64.
        widths: [level] int64.
        starts: [level] int64: the row of each level's first position.
        scales: [level] float32: positions per pixel of the network input.
        maps: The same by level name, [1, channel, y, x].

    """

    rows: torch.Tensor
    heights: torch.Tensor
    widths: torch.Tensor
    starts: torch.Tensor
    scales: torch.Tensor
    maps: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, maps: Mapping[str, torch.Tensor], scales: Sequence[float]) -> Table:
        """Lay out maps [1, channel, y, x] of one picture, finest first."""
        place = next(iter(maps.values())).device
        shapes = torch.tensor([level.shape[-2:] for level in maps.values()], device=place)
        areas = shapes.prod(dim=1)
        rows = torch.cat([level[0].permute(1, 2, 0).flatten(0, 1) for level in maps.values()])
        return cls(rows, shapes[:, 0], shapes[:, 1], areas.cumsum(0) - areas, torch.tensor(scales, device=place), maps)


def pooled(table: Table, boxes: torch.Tensor, levels: torch.Tensor, *, size: int, samples: int) -> torch.Tensor:
    """Crop proposals.

    Args:
        table: The maps.
        boxes: [proposal, 4] xyxy float32, pixels of the network input.
        levels: [proposal] int64, which map each is cropped from; from one that there is not, as where strides leave one
            out, comes nothing.
        size: Bins per side.
        samples: Samples per side of a bin.

    Returns:
        [proposal, bin, channel], bins in row-major order.

    """
    is_there = levels < len(table.scales)
    levels = levels.clamp(max=len(table.scales) - 1)
    scaled = boxes * table.scales[levels][:, None]  # [proposal, 4] in positions of its level
    sides = (scaled[:, 2:] - scaled[:, :2]).clamp(min=1.0)
    x, y = (
        _taps(scaled[:, axis], sides[:, axis], extent[levels], size=size, samples=samples)
        for axis, extent in ((0, table.widths), (1, table.heights))
    )
    # Rows and weights of [proposal, bin y, bin x, sample and corner y, sample and corner x].
    rows = y.places[:, :, None, :, None] * table.widths[levels][:, None, None, None, None]
    rows = rows + x.places[:, None, :, None, :] + table.starts[levels][:, None, None, None, None]
    weights = y.weights[:, :, None, :, None] * x.weights[:, None, :, None, :] * is_there[:, None, None, None, None]
    bags, taps = len(boxes) * size * size, (2 * samples) ** 2
    summed = functional.embedding_bag(
        rows.view(bags, taps),
        table.rows,
        mode="sum",
        per_sample_weights=weights.view(bags, taps).div_(samples * samples).to(table.rows.dtype),
    )
    return summed.view(len(boxes), size * size, table.rows.shape[1])


@attrs.frozen(eq=False)
class _Taps:
    """Along one axis: [proposal, bin, sample and corner] places int64, and weights float32."""

    places: torch.Tensor
    weights: torch.Tensor


def _taps(start: torch.Tensor, side: torch.Tensor, extent: torch.Tensor, *, size: int, samples: int) -> _Taps:
    """Return the two positions beside each sample along one axis, and what each counts for.

    A sample more than one position outside the map counts nothing; up to there the edge counts for it.
    """
    fractions = torch.arange(size * samples, device=start.device, dtype=start.dtype)
    step = side / size / samples  # [proposal]
    at = start[:, None] + (fractions + 0.5) * step[:, None]  # [proposal, bin and sample]
    last = (extent - 1)[:, None].to(at.dtype)
    inside = (at >= -1.0) & (at <= last + 1)
    at = torch.minimum(at.clamp(min=0.0), last)
    low = at.floor()
    high = torch.minimum(low + 1, last)
    counts = inside.to(at.dtype)
    far = (at - low) * counts
    near = counts - far
    places = torch.stack([low, high], dim=-1).to(torch.int64)
    weights = torch.stack([near, far], dim=-1)
    shape = (len(start), size, samples * 2)
    return _Taps(places.view(shape), weights.view(shape))
