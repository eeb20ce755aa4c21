"""From box deltas to boxes, and from one picture size to another: torchvision's arithmetic, to the bit.

torchvision makes tensors of single numbers for it, and to bring one to a device is to wait for that device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torchvision.models.detection._utils import BoxCoder


def decoded(coder: BoxCoder, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return what deltas make of boxes (Girshick et al. 2014, arXiv:1311.2524, appendix C).

    Args:
        coder: Its weights, and the limit of how much larger a box may become.
        deltas: [box, 4 * label] float32: shifts of the centre and logarithms of the sides.
        boxes: [box, 4] xyxy float32.

    Returns:
        [box, label, 4] xyxy float32.

    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + 0.5 * sides
    parts = deltas.view(len(boxes), deltas.shape[1] // 4, 4)
    across, down, wide, high = coder.weights
    shifts = torch.stack([parts[..., 0] / across, parts[..., 1] / down], dim=-1)
    growth = torch.stack([parts[..., 2] / wide, parts[..., 3] / high], dim=-1).clamp(max=coder.bbox_xform_clip)
    middle = shifts * sides[:, None] + centres[:, None]
    half = 0.5 * (growth.exp() * sides[:, None])
    return torch.cat([middle - half, middle + half], dim=-1)


def resized(boxes: torch.Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> torch.Tensor:
    """Return boxes [box, 4] xyxy of a picture of one (height, width) as they are in one of another."""
    down, across = (float(np.float32(after) / np.float32(before)) for before, after in zip(size, wanted, strict=True))
    return torch.stack([boxes[:, 0] * across, boxes[:, 1] * down, boxes[:, 2] * across, boxes[:, 3] * down], dim=1)
