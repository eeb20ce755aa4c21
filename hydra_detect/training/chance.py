"""Chance: random numbers from a seed for a while, and the caller's left as they were."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_CPU = torch.device("cpu")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Let torch draw from a seed, on the CPU and on one device; afterwards it goes on as if nothing had been drawn.

    Unlike `torch.manual_seed` this leaves all other devices alone, whose state nobody would restore.

    Args:
        seed: From which numbers are drawn inside.
        device: Where they are drawn beside the CPU.

    """
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if is_cuda else []):
        torch.default_generator.manual_seed(seed)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def states(device: torch.device) -> dict[str, Tensor]:
    """Return where the random numbers of the CPU and of a device stand, uint8, on the CPU."""
    found = {"cpu": torch.get_rng_state()}
    return found | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else found


def restore(kept: Mapping[str, Tensor], device: torch.device) -> None:
    """Let random numbers go on from where they stood; a device that kept none goes on as it is."""
    torch.set_rng_state(kept["cpu"])
    if device.type == "cuda" and "cuda" in kept:
        torch.cuda.set_rng_state(kept["cuda"], device)
