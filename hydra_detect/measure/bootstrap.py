"""Bootstrap: how far a figure would move had other pictures been drawn (Efron 1979).

Whole groups of pictures are drawn again and again, as many as there are, with replacement: pictures of one recording
or slide are alike, and drawn one by one they would make an interval look narrower than it is. The interval is from the
2.5th to the 97.5th percentile of the draws in which the figure is defined.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect import fields
from hydra_detect.codec import Record
from hydra_detect.errors import InputError
from hydra_detect.measure import columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hydra_detect.measure.columns import Doubles, Integers

_PERCENTILES = (2.5, 97.5)
_LEAST_GROUPS = 2


@attrs.frozen(kw_only=True)
class Figure(Record):
    """A share from 0 to 1 and the 95 % interval of its bootstrap, None where it could not be taken."""

    value: float = attrs.field(converter=fields.one_float, validator=fields.SHARE)
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """As people write it: 0.953 (0.915 to 0.986)."""
        return f"{self.value:.3f}" + ("" if self.low is None else f" ({self.low:.3f} to {self.high:.3f})")


def figure(value: float, draws: Doubles) -> Figure:
    """Return a figure with the interval of its draws.

    Args:
        value: The figure itself, on all pictures.
        draws: [D] the same on each draw, NaN where it is not defined; none give no interval.

    """
    known = draws[~np.isnan(draws)]
    if not len(known):
        return Figure(value=value)
    low, high = np.percentile(known, _PERCENTILES).tolist()
    return Figure(value=value, low=low, high=high)


@attrs.frozen
class Groups:
    """Which pictures belong together.

    Args:
        of_image: [P] int64, the group of each picture, from 0.
        count: How many groups there are.

    """

    of_image: Integers
    count: int

    @classmethod
    def of(cls, names: Sequence[str]) -> Groups:
        """Number the groups that P pictures name."""
        known, numbers = np.unique(np.array(names, dtype=np.str_), return_inverse=True)
        return cls(numbers.astype(np.int64), len(known))

    def add_up(self, counts: Integers) -> Integers:
        """Add up counts [P, ...] of the pictures of each group: [G, ...]."""
        total = np.zeros((self.count, *counts.shape[1:]), dtype=np.int64)
        np.add.at(total, self.of_image, counts)
        return total

    def draw(self, draws: int, *, seed: int) -> Integers:
        """Draw groups with replacement, as many as there are.

        Args:
            draws: How often, D.
            seed: The same seed gives the same draws.

        Returns:
            [D, G] int64, how often each group was drawn; [0, G] of fewer than two groups, which nothing follows from.

        Raises:
            InputError: If `draws` is negative, or the seed is none.

        """
        seed = fields.check_seed(seed)
        if draws < 0:
            raise InputError("draw groups", f"the number of draws is {draws}", "Give a whole number from 0.")
        if self.count < _LEAST_GROUPS:
            return np.zeros((0, self.count), dtype=np.int64)
        source = np.random.default_rng(seed)
        return source.multinomial(self.count, [1 / self.count] * self.count, size=draws)


def rates(counts: NDArray[Any]) -> tuple[Doubles, Doubles, Doubles]:
    """Return precision, recall and F1 of counts.

    Args:
        counts: [..., 3] true positives, false positives and false negatives.

    Returns:
        Three arrays [...] float64; NaN where there is nothing to take a share of.

    """
    hits, alarms, missed = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    return (
        columns.shares(hits, hits + alarms, otherwise=math.nan),
        columns.shares(hits, hits + missed, otherwise=math.nan),
        columns.shares(2 * hits, 2 * hits + alarms + missed, otherwise=math.nan),
    )
