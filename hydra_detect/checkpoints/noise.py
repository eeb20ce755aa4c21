"""Seeded pictures for the proof: structured noise that sets detectors off, the same on every machine.

White noise rarely gives a proposal worth refining; blobs, bars and gradients at several scales do. Drawn with
numpy's PCG64 in whole numbers, so that no maths library can change a pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SEED = 20_260_101
_SHAPES = 24
# (name, (height, width), pictures in the batch): square, wide, tall, small, and a batch of three of one size.
_PLAN = (
    ("noise-480x640", (480, 640), 1),
    ("noise-640x400", (640, 400), 1),
    ("noise-256x768", (256, 768), 1),
    ("noise-97x131", (97, 131), 1),
    ("noise-384x512-batch", (384, 512), 3),
)


@attrs.frozen
class ProofInput:
    """One batch of the proof: pictures of one size, each [channel, height, width] float32 in [0, 1]."""

    name: str
    pictures: Sequence[NDArray[np.float32]]

    def tensors(self) -> list[torch.Tensor]:
        """Return the pictures as torch tensors."""
        return [torch.from_numpy(np.ascontiguousarray(picture)) for picture in self.pictures]


def seeded_inputs(channels: int) -> list[ProofInput]:
    """Return the seeded batches for a backbone of so many input channels."""
    inputs = []
    for place, (name, (height, width), count) in enumerate(_PLAN):
        source = np.random.Generator(np.random.PCG64(_SEED + place))
        pictures = [structured_noise(source, height, width, channels=channels) for _ in range(count)]
        inputs.append(ProofInput(name, pictures))
    return inputs


def structured_noise(source: np.random.Generator, height: int, width: int, *, channels: int) -> NDArray[np.float32]:
    """Return one picture: coarse and fine noise, then ellipses and bars of many sizes over it."""
    canvas = np.zeros((channels, height, width), dtype=np.int64)
    for cell in (64, 16, 4):
        coarse = source.integers(0, 86, (channels, -(-height // cell), -(-width // cell)))
        canvas += np.kron(coarse, np.ones((1, cell, cell), dtype=np.int64))[:, :height, :width]
    y, x = np.mgrid[:height, :width]
    for shape in range(_SHAPES):
        middle_y, middle_x = source.integers(0, height), source.integers(0, width)
        half_y, half_x = source.integers(3, max(4, height // 4)), source.integers(3, max(4, width // 4))
        dy, dx = np.abs(y - middle_y), np.abs(x - middle_x)
        ellipse = dy * dy * half_x * half_x + dx * dx * half_y * half_y <= half_y * half_y * half_x * half_x
        inside = ellipse if shape % 2 else (dy <= half_y) & (dx <= half_x)
        canvas[:, inside] = (canvas[:, inside] + 3 * source.integers(0, 256, (channels, 1))) // 4
    return np.clip(canvas, 0, 255).astype(np.float32) / np.float32(255)
