"""Validators and converters for the fields of records: what a number, a list or a figure may be.

Equal values must give equal text, or equal records would have different digests; so every number has one form.
"""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators as check

from hydra_detect.errors import InputError, RecordError
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def finite(_instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    """Refuse NaN and infinity (an attrs validator)."""
    if not math.isfinite(value):
        raise RecordError(f"set {attribute.name}", f"it is {value}", "Give a finite number.")


def bounded(low: float, high: float) -> Any:
    """Return a validator for numbers from `low` to `high`."""
    return check.and_(check.ge(low), check.le(high))


def each(*rules: Any) -> Any:
    """Return a validator that asks the rules of each element."""
    return check.deep_iterable(check.and_(*rules))


def integers(values: Iterable[int]) -> tuple[int, ...]:
    """Return numbers as a tuple."""
    return tuple(values)


def texts(values: Iterable[str]) -> tuple[str, ...]:
    """Return texts as a tuple."""
    return tuple(values)


def one_float(value: Any) -> float:
    """Return a number as a float: 32 and 32.0, 0.0 and -0.0 are one value and must be one text."""
    return float(value) + 0.0


def floats(values: Any) -> tuple[float, ...]:
    """Return numbers as a tuple of floats."""
    return tuple(one_float(value) for value in values)


def named_floats(values: Mapping[str, Any]) -> dict[str, float]:
    """Return named numbers as floats."""
    return {name: one_float(value) for name, value in values.items()}


def integer_rows(rows: Iterable[Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    """Return rows of whole numbers as tuples."""
    return tuple(tuple(row) for row in rows)


def float_rows(rows: Any) -> tuple[tuple[float, ...], ...]:
    """Return rows of numbers as tuples of floats."""
    return tuple(floats(row) for row in rows)


SHARE = bounded(0.0, 1.0)
COUNT = bounded(1, 1_000_000)
POSITIVE = [check.gt(0), finite]
MOST_SEED = 2**63 - 1  # torch and numpy take it, and so does JSON of every other language
SEED = bounded(0, MOST_SEED)


def check_seed(seed: Any) -> int:
    """Return what random numbers may be drawn from, as Python's own whole number.

    Raises:
        InputError: If it is no whole number from 0 to `MOST_SEED`.

    """
    is_whole = not isinstance(seed, bool) and isinstance(seed, numbers.Integral)
    if is_whole and 0 <= seed <= MOST_SEED:
        return int(seed)
    remedy = f"Give a whole number from 0 to {MOST_SEED}; the same seed gives the same numbers."
    raise InputError("draw random numbers", f"the seed is {shown(seed)}", remedy)


def finite_values(_instance: Any, attribute: attrs.Attribute[Any], values: Mapping[str, float] | None) -> None:
    """Refuse a figure that is NaN or infinite: it was not measured, and JSON could not hold it."""
    for name, value in (values or {}).items():
        if not math.isfinite(value):
            raise RecordError(f"set {attribute.name}", f"{name!r:.80} is {value}", "Leave out what was not measured.")


def shares(_instance: Any, attribute: attrs.Attribute[Any], values: Mapping[str, float]) -> None:
    """Refuse a figure that is no share from 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise RecordError(f"set {attribute.name}", f"{name!r:.80} is {value}", "Give a number from 0 to 1.")
