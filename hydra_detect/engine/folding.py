"""A backbone for speed: its norms folded into its convolutions, its maps with channels last."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Iterator


@torch.no_grad()
def fold_norms(network: nn.Module) -> None:
    """Fold every norm that follows a convolution into it, in place: the same function, to rounding.

    A norm in evaluation mode is a factor and a shift for each channel (Ioffe and Szegedy 2015, arXiv:1502.03167), and
    so is part of the convolution before it. In torchvision's blocks a norm is registered right behind its convolution.
    """
    for parent, conv, norm, place in list(_pairs(network)):
        scale, shift = scale_and_shift(norm)
        conv.weight.data = conv.weight * scale[:, None, None, None]
        bias = shift if conv.bias is None else shift + conv.bias * scale
        conv.bias = nn.Parameter(bias, requires_grad=False)
        setattr(parent, place, nn.Identity())


def scale_and_shift(norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a norm in evaluation mode multiplies each channel by, and what it adds then."""
    weight, bias, mean, variance = (getattr(norm, name) for name in ("weight", "bias", "running_mean", "running_var"))
    scale = weight * (variance + norm.eps).rsqrt()
    return scale, bias - mean * scale


def _pairs(
    network: nn.Module,
) -> Iterator[tuple[nn.Module, nn.Conv2d, nn.BatchNorm2d | FrozenBatchNorm2d, str]]:
    for parent in network.modules():
        children = list(parent.named_children())
        for (_name, conv), (place, norm) in itertools.pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                yield parent, conv, norm, place
