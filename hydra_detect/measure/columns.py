"""Columns: the read-only numpy arrays that the values of this room are made of, and the shares taken of them."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]

SAME = attrs.cmp_using(eq=np.array_equal)
"""How attrs compares two columns: as a whole."""


def flags(values: Any) -> Flags:
    """Return a read-only copy as bool."""
    return _frozen(values, np.bool_)


def floats(values: Any) -> Floats:
    """Return a read-only copy as float32."""
    return _frozen(values, np.float32)


def doubles(values: Any) -> Doubles:
    """Return a read-only copy as float64."""
    return _frozen(values, np.float64)


def integers(values: Any) -> Integers:
    """Return a read-only copy as int64."""
    return _frozen(values, np.int64)


def shares(parts: Any, wholes: Any, *, otherwise: float = 0.0) -> Doubles:
    """Return parts / wholes as float64, each of one shape; `otherwise` where there is nothing to take a share of."""
    divisors = np.asarray(wholes)
    return np.divide(parts, divisors, out=np.full(divisors.shape, otherwise), where=divisors > 0)


def _frozen(values: Any, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.flags.writeable = False
    return array
