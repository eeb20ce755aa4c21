"""Views: exact ways of seeing a labelled picture, each of which costs the backbone one pass and is then kept.

A view acts on the picture before it is resized and padded, so features of a view are those that the detector would
compute of such a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hydra_detect.errors import InputError, near_matches
from hydra_detect.training.config import VIEWS

if TYPE_CHECKING:
    from torch import Tensor


def see(view: str, pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return a picture and its boxes as a view shows them.

    Args:
        view: One of `VIEWS`.
        pixels: [channel, height, width].
        boxes: [N, 4] xyxy in pixels.

    Raises:
        InputError: If there is no such view.

    """
    if view not in VIEWS:
        raise InputError("see a picture", f"there is no view {view!r:.60}", near_matches(view, VIEWS))
    height, width = pixels.shape[-2:]
    x1, y1, x2, y2 = boxes.unbind(-1)
    left, top = width - x2, height - y2  # of the box, seen from the other side
    right, bottom = width - x1, height - y1
    if view == "hflip":
        return pixels.flip(-1), torch.stack([left, y1, right, y2], dim=-1)
    if view == "vflip":
        return pixels.flip(-2), torch.stack([x1, top, x2, bottom], dim=-1)
    if view == "rot180":
        return pixels.flip(-2, -1), torch.stack([left, top, right, bottom], dim=-1)
    if view == "rot90":
        return pixels.rot90(-1, (-2, -1)), torch.stack([top, x1, bottom, x2], dim=-1)
    if view == "rot270":
        return pixels.rot90(1, (-2, -1)), torch.stack([y1, left, y2, right], dim=-1)
    return pixels, boxes
