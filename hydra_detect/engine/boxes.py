"""The second stage: from proposals and the table of maps to class logits and box deltas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn import functional

from hydra_detect.engine.roi_align import pooled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    from hydra_detect.engine.layers import Layer
    from hydra_detect.engine.roi_align import Table
    from hydra_detect.nets.pooling import PyramidRoIAlign

_PROPOSALS_PER_CHUNK = 512  # of 49 bins of 256 float32: 26 MB, which the last cache holds


@attrs.frozen(eq=False)
class BoxHead:
    """The box head of one head.

    Args:
        layers: Its layers, convolutions first.
        predictor: [5 * label, in]: class logits, then box deltas.
        predictor_bias: [5 * label].
        labels: How many labels it has, the background too.
        pool: Says which level a proposal is cropped from, and how finely.

    """

    layers: Sequence[Layer]
    predictor: torch.Tensor
    predictor_bias: torch.Tensor
    labels: int
    pool: PyramidRoIAlign

    @classmethod
    def of(cls, layers: Sequence[Layer], predictor: FastRCNNPredictor, pool: PyramidRoIAlign) -> BoxHead:
        """Join both predictors into one."""
        dtype = layers[-1].base.dtype
        parts = (predictor.cls_score, predictor.bbox_pred)
        return cls(
            layers,
            torch.cat([part.weight.detach() for part in parts]).to(dtype),
            torch.cat([part.bias.detach() for part in parts]).to(dtype),
            len(predictor.cls_score.bias),
            pool,
        )

    def scored(self, table: Table, proposals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class logits [proposal, label] and box deltas [proposal, 4 * label] of one picture, float32."""
        chunks = torch.split(proposals, _PROPOSALS_PER_CHUNK)  # one of none, if there is no proposal
        every = torch.cat([self._predicted(self._cropped(table, chunk)) for chunk in chunks]).float()
        return every[:, : self.labels], every[:, self.labels :]

    def _cropped(self, table: Table, proposals: torch.Tensor) -> torch.Tensor:
        """Return proposals as [proposal, bin, channel]."""
        if self.pool.sampling_ratio > 0:
            levels = self.pool.levels([proposals])
            return pooled(table, proposals, levels, size=self.pool.size, samples=self.pool.sampling_ratio)
        # The number of samples depends on the proposal: torchvision's own, which takes maps and boxes of one dtype.
        square = self.pool({name: level.float() for name, level in table.maps.items()}, [proposals])
        return square.to(table.rows.dtype).flatten(2).transpose(1, 2)

    def _predicted(self, bins: torch.Tensor) -> torch.Tensor:
        """Return logits and deltas of pooled proposals [proposal, bin, channel]."""
        side = self.pool.size
        for layer in (layer for layer in self.layers if layer.is_convolution):
            square = bins.view(len(bins), side, side, bins.shape[-1]).permute(0, 3, 1, 2)
            bins = layer.convolved(square).permute(0, 2, 3, 1).flatten(1, 2)
        rows = bins.flatten(1)
        for layer in (layer for layer in self.layers if not layer.is_convolution):
            rows = layer.linear(rows)
        return functional.linear(rows, self.predictor, self.predictor_bias)
