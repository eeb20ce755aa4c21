"""Comparing two versions of a head: facts, sizes, settings, and how far the weights of each layer moved."""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003  the codec reads annotations as it runs
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.names import one_line
from hydra_detect.storage import heads, layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_SHOWN_DIGITS = 4


@attrs.frozen(kw_only=True)
class LayerDifference:
    """How one tensor differs between two versions.

    Args:
        shapes: The two shapes; None where a version has no such tensor.
        largest: Largest absolute difference; None where the shapes differ, or where it is beyond every float.
        relative: Euclidean norm of the difference over that of the first version's tensor; None as above, or where
            that norm is 0 and the difference is not.

    """

    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    largest: float | None
    relative: float | None

    @property
    def is_equal(self) -> bool:
        """Whether both have the same numbers in the same shape."""
        return self.shapes[0] == self.shapes[1] and self.largest == 0


@attrs.frozen(kw_only=True)
class Comparison:
    """Two versions of a head, `a` and `b`.

    Args:
        head: Its name.
        a: First version.
        b: Second version.
        nbytes: Bytes on disk of the weights.
        claimed_metrics: By name, what the makers of the two versions said; None where one said nothing. These are
            claims: only figures measured on the same samples can be compared.
        changed: By field of the record, the two values where they differ; settings as `settings.NAME`.
        layers: By tensor name.

    """

    head: str
    a: int
    b: int
    nbytes: tuple[int, int]
    claimed_metrics: Mapping[str, tuple[float | None, float | None]]
    changed: Mapping[str, tuple[Any, Any]]
    layers: Mapping[str, LayerDifference]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    def __str__(self) -> str:
        """The differences, one a line."""
        moved = {name: layer for name, layer in self.layers.items() if not layer.is_equal}
        sizes = " and ".join(f"{size / 1e6:.2f} MB" for size in self.nbytes)
        lines = [f"{self.head}@{self.a} and {self.head}@{self.b}: {sizes}"]
        lines += [f"  claimed {name}: {_pair(values)}" for name, values in self.claimed_metrics.items()]
        lines += [f"  {name}: {_pair(values)}" for name, values in self.changed.items()]
        lines += [f"  {name}: {_layer(layer)}" for name, layer in moved.items()]
        return "\n".join([*lines, f"  {len(self.layers) - len(moved)} of {len(self.layers)} tensors are equal"])


def compare(store: Store, a: VersionRecord, b: VersionRecord) -> Comparison:
    """Compare two versions of a head, weights included.

    Raises:
        CorruptError: If the weights of one are damaged.

    """
    first, second = heads.tensors(store, a), heads.tensors(store, b)
    metrics = sorted({*a.record.claimed_metrics, *b.record.claimed_metrics})
    return Comparison(
        head=a.head,
        a=a.number,
        b=b.number,
        nbytes=(a.files[layout.TENSORS][0], b.files[layout.TENSORS][0]),
        claimed_metrics={
            name: (a.record.claimed_metrics.get(name), b.record.claimed_metrics.get(name)) for name in metrics
        },
        changed=_changed(_facts(a), _facts(b)),
        layers={name: _difference(first.get(name), second.get(name)) for name in sorted({*first, *second})},
    )


def _facts(version: VersionRecord) -> dict[str, Any]:
    """Return the facts of a record that are worth comparing, settings on the same level."""
    facts: dict[str, Any] = codec.to_dict(version.record)
    settings = facts.pop("settings")
    for name in ("tensors", "claimed_metrics", "parity", "source"):
        facts.pop(name)
    return {**facts, **{f"settings.{name}": value for name, value in settings.items()}}


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (a.get(name), b.get(name)) for name in sorted({*a, *b})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _difference(a: RawTensor | None, b: RawTensor | None) -> LayerDifference:
    import numpy as np  # here and not above: the store is listed without it

    shapes = (a.shape if a else None, b.shape if b else None)
    if a is None or b is None or a.shape != b.shape:
        return LayerDifference(shapes=shapes, largest=None, relative=None)
    first, second = _numbers(a), _numbers(b)
    if not first.size:
        return LayerDifference(shapes=shapes, largest=0.0, relative=0.0)
    with np.errstate(over="ignore"):  # the largest float against its opposite
        moved = second - first
    norm, size = _norm(moved), _norm(first)
    relative = 0.0 if norm == 0 else norm / size if size else math.inf
    return LayerDifference(shapes=shapes, largest=_finite(float(abs(moved).max())), relative=_finite(relative))


def _norm(numbers: NDArray[Any]) -> float:
    """Return the Euclidean norm, also of numbers whose squares no float can hold."""
    largest = float(abs(numbers).max())
    return largest * float(((numbers / largest) ** 2).sum()) ** 0.5 if 0 < largest < math.inf else largest


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _numbers(tensor: RawTensor) -> NDArray[Any]:
    """Return the numbers of a tensor, flat: as float64, or as Python's own where float64 would round them."""
    import numpy as np

    if tensor.dtype == "BF16":  # the upper half of a float32, which numpy has
        bits = np.frombuffer(tensor.data, dtype="<u2").astype("<u4") << 16
        return bits.view("<f4").astype(np.float64)
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "u1"}
    exact = object if tensor.dtype == "I64" else np.float64
    return np.frombuffer(tensor.data, dtype=kinds[tensor.dtype]).astype(exact)


def _pair(values: tuple[Any, Any]) -> str:
    return one_line(" -> ".join("none" if value is None else f"{value}" for value in values))


def _layer(layer: LayerDifference) -> str:
    if layer.largest is None:
        return f"shapes {_pair(layer.shapes)}"
    relative = "" if layer.relative is None else f", {layer.relative:.2%} of it"
    return f"largest difference {layer.largest:.{_SHOWN_DIGITS}g}{relative}"
