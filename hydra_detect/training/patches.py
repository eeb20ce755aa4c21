"""What the proposal network says of some anchors, computed from what lies around them alone.

A loss is taken over a sample of some hundred anchors, and a frozen backbone needs no gradient. So the gradient of the
convolution, dense, would multiply thousands of positions by zero: half of the time that training a head took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from torchvision.models.detection.rpn import RPNHead


def is_enough(network: RPNHead, maps: Sequence[Tensor]) -> bool:
    """Whether gradients of a few anchors are all that is needed, and a patch of 3x3 all that these depend on.

    Of several convolutions, one after another, the later ones see zeros at the border of the map, and not of a patch.
    """
    return torch.is_grad_enabled() and len(network.conv) == 1 and not any(level.requires_grad for level in maps)


def predicted(network: RPNHead, maps: Sequence[Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the network says of anchors, equal to its dense result but for rounding.

    Args:
        network: torchvision's, with one convolution.
        maps: [image, channel, y, x] of each level.
        anchors: [N] int64: their places, as `concat_box_prediction_layers` numbers them: image by image, level by
            level, row by row.

    Returns:
        [N] logits of objectness, and [N, 4] deltas, both float32.

    """
    kinds = network.cls_logits.out_channels  # anchors at one position
    counts = torch.tensor([level[0, 0].numel() * kinds for level in maps], device=anchors.device)
    ends = counts.cumsum(0)
    image, place = anchors // ends[-1], anchors % ends[-1]
    of_level = torch.bucketize(place, ends, right=True)
    position = (place - (ends - counts)[of_level]) // kinds
    around = torch.empty(len(anchors), 3, 3, maps[0].shape[1], dtype=maps[0].dtype, device=anchors.device)
    for number, level in enumerate(maps):
        own = torch.where(of_level == number)[0]
        around[own] = _around(level, image[own], position[own])
    convolution = network.conv[0][0]
    weight = convolution.weight.permute(0, 2, 3, 1).flatten(1)  # [channel, y * x * channel], as the patches lie
    seen = functional.relu(functional.linear(around.flatten(1), weight, convolution.bias))
    logits = functional.linear(seen, network.cls_logits.weight.flatten(1), network.cls_logits.bias)
    deltas = functional.linear(seen, network.bbox_pred.weight.flatten(1), network.bbox_pred.bias)
    row, kind = torch.arange(len(anchors), device=anchors.device), place % kinds
    return logits[row, kind].float(), deltas.view(len(anchors), kinds, 4)[row, kind].float()


def _around(level: Tensor, image: Tensor, position: Tensor) -> Tensor:
    """Return [N, 3, 3, channel] of a map around positions, which count its rows; zeros beyond its border."""
    width = level.shape[3]
    steps = torch.arange(3, device=position.device)
    y = (position // width)[:, None, None] + steps[:, None]
    x = (position % width)[:, None, None] + steps
    padded = functional.pad(level, (1, 1, 1, 1))
    return padded[image[:, None, None], :, y, x]
