"""3x3 convolutions of a map with kernels that many heads share: two ways, chosen by device and dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from hydra_detect.engine import winograd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ROWS_PER_BAND = 2048  # of 256 float32: 2 MB, which a core's cache holds
_LANES = 16  # matrix products with fewer columns take longer, not less


class Convolutions(Protocol):
    """A way to convolve."""

    shares_maps: bool
    """Whether work on a map is shared by kernels that are given together."""

    def kernel(self, weight: torch.Tensor) -> torch.Tensor:
        """Return a kernel [out, in, 3, 3] in the form that it is held in."""

    def ready(self, kernel: torch.Tensor) -> torch.Tensor:
        """Return a kernel in the form that `bands` takes: once for each picture."""

    def bands(self, level: torch.Tensor, kernels: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """Yield for each kernel [position, out], for some positions of a map [1, channel, y, x] after the other."""

    def in_rows(self, parts: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:
        """Return what was made of all bands as [y * x, out], in row-major order."""


def filled(weight: torch.Tensor) -> torch.Tensor:
    """Return a thin weight [out, ...] with rows of zeros up to a number of outputs that is no slower than fewer."""
    more = weight.new_zeros(-len(weight) % _LANES, *weight.shape[1:])
    return torch.cat([weight, more])


class Winograd:
    """By minimal filtering: on a CPU, in float32."""

    shares_maps = True

    def kernel(self, weight: torch.Tensor) -> torch.Tensor:
        """Lay out a kernel for its transform."""
        return winograd.laid_out(weight)

    def ready(self, kernel: torch.Tensor) -> torch.Tensor:
        """Transform a kernel."""
        return winograd.transformed(kernel)

    def bands(self, level: torch.Tensor, kernels: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """Yield band after band of tiles."""
        return winograd.bands(level, kernels)

    def in_rows(self, parts: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:
        """Put tiles in their places."""
        return winograd.in_rows(parts, height, width)


class Direct:
    """By the library's own convolution: on a GPU, and in half precision."""

    shares_maps = False

    def kernel(self, weight: torch.Tensor) -> torch.Tensor:
        """Lay out a kernel as the convolution likes it."""
        return weight.contiguous(memory_format=torch.channels_last)

    def ready(self, kernel: torch.Tensor) -> torch.Tensor:
        """Return it as it is."""
        return kernel

    def bands(self, level: torch.Tensor, kernels: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
        """Convolve the whole map, then yield it piece by piece."""
        whole = [functional.conv2d(level, kernel, padding=1)[0].permute(1, 2, 0).flatten(0, 1) for kernel in kernels]
        rows = len(whole[0])
        step = rows if level.is_cuda else _ROWS_PER_BAND
        for first in range(0, rows, step):
            yield [one[first : first + step] for one in whole]

    def in_rows(self, parts: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:  # noqa: ARG002
        """Join the pieces."""
        return torch.cat(list(parts))


def chosen(device: torch.device, dtype: torch.dtype) -> Convolutions:
    """Return the faster way there and in that."""
    return Winograd() if device.type == "cpu" and dtype == torch.float32 else Direct()
