"""3x3 convolutions of one map with many kernels, by Winograd's minimal filtering.

F(4x4, 3x3) of Lavin and Gray (2015, arXiv:1509.09308): a tile of 6x6 inputs and a kernel are both transformed,
multiplied position by position, and give a tile of 4x4 outputs for a quarter of the multiplications. What heads share
is the transform of the map; each kernel then costs one matrix product at each of 36 positions. A band of tiles is taken
through all kernels before the next, so that it stays in the cache.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_IN, _OUT = 6, 4
_TILES_PER_BAND = 128  # 36 positions of 128 tiles of 256 channels take 4.7 MB

_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


@functools.cache
def _both_ways(matrix: tuple[tuple[float, ...], ...]) -> torch.Tensor:
    """Return the Kronecker square of a transform: what it does to a tile in rows and columns at once."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).float()


def laid_out(weight: torch.Tensor) -> torch.Tensor:
    """Return a kernel [out, in, 3, 3] as [9, in, out]: a quarter of what it takes when it is transformed."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).contiguous()


def transformed(kernel: torch.Tensor) -> torch.Tensor:
    """Return a kernel that is laid out as [36, in, out]."""
    return (_both_ways(_KERNEL) @ kernel.flatten(1)).view(_IN * _IN, *kernel.shape[1:])


def bands(level: torch.Tensor, kernels: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Convolve one map with kernels, band by band of tiles, from the top; zeros lie around the map.

    Args:
        level: [1, channel, y, x] float32, channels last.
        kernels: As `transformed` returns them.

    Yields:
        For each kernel [16 * tile, out]: what it makes of the output positions of the tiles of one band.

    """
    down, across = _tiles(*level.shape[-2:])
    below, right = down * _OUT - level.shape[-2] + 1, across * _OUT - level.shape[-1] + 1
    padded = functional.pad(level[0].permute(1, 2, 0), (0, 0, 1, right, 1, below))
    tiles = padded.unfold(0, _IN, _OUT).unfold(1, _IN, _OUT)  # [down, across, channel, 6, 6]
    forward, back = _both_ways(_INPUT), _both_ways(_OUTPUT)
    step = max(1, _TILES_PER_BAND // across)
    for first in range(0, down, step):
        band = tiles[first : first + step].permute(3, 4, 0, 1, 2).flatten(2, 3).flatten(0, 1)  # [36, tile, channel]
        seen = (forward @ band.flatten(1)).view(band.shape)
        made = (torch.bmm(seen, kernel) for kernel in kernels)  # [36, tile, out]
        yield [(back @ one.flatten(1)).view(-1, one.shape[-1]) for one in made]


def in_rows(parts: Sequence[torch.Tensor], height: int, width: int) -> torch.Tensor:
    """Return what was made of all bands, each [16 * tile, out], as [y * x, out] in row-major order."""
    down, across = _tiles(height, width)
    whole = torch.cat([part.view(_OUT * _OUT, -1, part.shape[-1]) for part in parts], dim=1)
    square = whole.view(_OUT, _OUT, down, across, -1).permute(2, 0, 3, 1, 4).reshape(down * _OUT, across * _OUT, -1)
    return square[:height, :width].reshape(height * width, -1)


def _tiles(height: int, width: int) -> tuple[int, int]:
    return -(-height // _OUT), -(-width // _OUT)
