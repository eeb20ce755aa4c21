"""RoIAlign over a pyramid whose strides are stated, not guessed.

torchvision's `MultiScaleRoIAlign` infers the strides from the first picture that it ever sees and keeps them: an
elongated or very small first picture bends all later results, and the module carries state between calls. Here they
come from the feature contract; on ordinary pictures the two are equal bit for bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.ops import box_area, roi_align

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.contracts import Level

# Equation 1 of the FPN paper (arXiv:1612.03144): a box of 224 pixels belongs to level 4.
_CANONICAL_SIZE = 224
_CANONICAL_LEVEL = 4
_EPS = 1e-6  # torchvision's, so that a box of exactly a level's size falls on the same side


class PyramidRoIAlign(nn.Module):
    """Crop each proposal from the level that fits its size, to [proposal, channel, size, size]."""

    def __init__(self, levels: Sequence[Level], *, size: int, sampling_ratio: int) -> None:
        super().__init__()
        self.names = [level.name for level in levels]
        self.scales = [1.0 / level.stride for level in levels]
        self.size = size
        self.sampling_ratio = sampling_ratio
        self.first, self.last = int(math.log2(levels[0].stride)), int(math.log2(levels[-1].stride))

    def levels(self, proposals: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return for each proposal the index of its level, [proposal] int64."""
        side = torch.sqrt(torch.cat([box_area(boxes) for boxes in proposals]))
        level = torch.floor(_CANONICAL_LEVEL + torch.log2(side / _CANONICAL_SIZE) + _EPS)
        return level.clamp(self.first, self.last).to(torch.int64) - self.first

    def forward(
        self,
        maps: Mapping[str, torch.Tensor],
        proposals: Sequence[torch.Tensor],
        image_shapes: Sequence[tuple[int, int]] | None = None,  # noqa: ARG002  torchvision's RoIHeads passes it
    ) -> torch.Tensor:
        """Pool features.

        Args:
            maps: Level name to [image, channel, y, x].
            proposals: For each image, [proposal, 4] xyxy in pixels of the network input.
            image_shapes: Not used.

        """
        places = [boxes.new_full((len(boxes), 1), image) for image, boxes in enumerate(proposals)]
        rois = torch.cat([torch.cat(places), torch.cat(list(proposals))], dim=1)  # [proposal, (image, x1, y1, x2, y2)]
        chosen = [maps[name] for name in self.names]
        if len(chosen) == 1:
            return self._pool(chosen[0], rois, self.scales[0])
        levels = self.levels(proposals)
        pooled = chosen[0].new_zeros((len(rois), chosen[0].shape[1], self.size, self.size))
        for level, (features, scale) in enumerate(zip(chosen, self.scales, strict=True)):
            rows = torch.where(levels == level)[0]
            pooled[rows] = self._pool(features, rois[rows], scale).to(pooled.dtype)
        return pooled

    def _pool(self, features: torch.Tensor, rois: torch.Tensor, scale: float) -> torch.Tensor:
        pooled: torch.Tensor = roi_align(
            features, rois, output_size=self.size, spatial_scale=scale, sampling_ratio=self.sampling_ratio
        )
        return pooled
