"""A moving average of weights: steadier than the weights themselves, and what is measured and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, *, step: int, decay: float) -> None:
    """Move an average towards weights and statistics; whole numbers, such as counters, are taken as they are.

    Args:
        average: Changed in place.
        module: What it follows.
        step: From 1: early averages forget faster, or they would hold on to the first weights.
        decay: Share of the average that stays; 0 to copy.

    """
    kept = min(decay, step / (step + 9))
    for mean, weight in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(weight, 1 - kept)
    for held, value in zip(average.buffers(), module.buffers(), strict=True):
        if held.is_floating_point():
            held.lerp_(value, 1 - kept)
        else:
            held.copy_(value)
