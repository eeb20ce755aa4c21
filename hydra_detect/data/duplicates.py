"""Duplicates: pictures that look the same, joined into one group, so that no split tears them apart.

The picture is averaged to 8 x 9 grey cells; each of the 64 bits of its hash says whether a cell is brighter than the
one to its left (the "difference hash" of Neal Krawetz, 2013). Another encoding, size, brightness or contrast of a
picture changes a bit or two; pictures that have nothing in common differ in about 32. Cropped, turned and mirrored
copies are not found.

A hash says something only where neighbouring cells do differ. An empty spectrogram, flat or noise, averages to cells
of nearly one grey, and equal zeros are no likeness. So a picture takes part only if at least half of its 64 differences
exceed one grey level of 255: a smaller one is what a byte's rounding could have made of none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
from PIL import Image

from hydra_detect.data.groups import connected
from hydra_detect.errors import InputError
from hydra_detect.pictures import to_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hydra_detect.data.samples import Samples
    from hydra_detect.pictures import Picture

_BITS = 64
_COLUMNS, _ROWS = 9, 8
_GREY_LEVEL = 1 / 255
_LEAST_STRUCTURE = _BITS // 2  # differences beyond a grey level
_AT_ONCE = 1024  # pictures compared with all others in one step: at 10,000 pictures 40 MB
_MOST_BITS_ALLOWED = 16  # half of what unrelated pictures differ in


def group_near_duplicates(samples: Samples, *, most_bits: int = 4) -> Samples:
    """Return the samples with near-duplicates, and the groups that they were in, joined to one group each.

    Args:
        samples: Each picture is read once.
        most_bits: Pictures whose 64-bit hashes differ in at most so many bits are near-duplicates; 0 to 16.

    Returns:
        The same samples in the same order; a joined group has the first of its groups' names, in sorted order.

    Raises:
        InputError: If most_bits is out of range or a picture cannot be read.

    """
    if not 0 <= most_bits <= _MOST_BITS_ALLOWED:
        remedy = f"Give a number from 0 to {_MOST_BITS_ALLOWED}; unrelated pictures differ in about {_BITS // 2}."
        raise InputError("find near-duplicates", f"most_bits is {most_bits}", remedy)
    differences = [cell_differences(sample.open()) for sample in samples]
    alike = _alike(np.array(differences, dtype=np.float32).reshape(-1, _BITS), most_bits)
    items = list(samples)
    for joined in connected([(("group", sample.group), ("alike", int(alike[i]))) for i, sample in enumerate(samples)]):
        name = min(items[i].group for i in joined)
        for i in joined:
            items[i] = attrs.evolve(items[i], group=name)
    return attrs.evolve(samples, items=items)


def cell_differences(picture: Picture) -> NDArray[np.float32]:
    """Return [64] by how much each of 8 x 8 cells of a picture is exceeded by its neighbour to the right."""
    grey = Image.fromarray(to_channels(picture, 1).pixels[0])
    cells = np.asarray(grey.resize((_COLUMNS, _ROWS), Image.Resampling.BOX), dtype=np.float32)  # [row, column]
    differences: NDArray[np.float32] = np.diff(cells, axis=1).reshape(_BITS)
    return differences


def _alike(differences: NDArray[np.float32], most_bits: int) -> NDArray[np.int64]:
    """Return for each row of [picture, bit] a number that it shares with all that are alike, directly or by others.

    Rows are alike that have structure and nearly the same signs.
    """
    structured = np.flatnonzero((np.abs(differences) > _GREY_LEVEL).sum(axis=1) >= _LEAST_STRUCTURE)
    signs = np.where(differences[structured] > 0, np.float32(1), np.float32(-1))
    shared = np.arange(len(signs))
    for start in range(0, len(signs), _AT_ONCE):
        block = signs[start : start + _AT_ONCE]
        is_near = (_BITS - block @ signs.T) / 2 <= most_bits  # [picture of the block, picture]
        for row in is_near:
            numbers = np.unique(shared[row])
            if len(numbers) > 1:
                shared[np.isin(shared, numbers)] = numbers[0]
    found = np.arange(len(differences))
    found[structured] = structured[shared]
    return found
