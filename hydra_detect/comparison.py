"""Comparing two versions of a head: facts, sizes, settings, and how far the weights of each layer moved."""

from __future__ import annotations

import math
from collections.abc import Mapping  # noqa: TC003  the codec reads annotations as it runs
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.names import one_line
from hydra_detect.storage import artifacts, layout
from hydra_detect.tensors import ITEM_BYTES, RawTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from hydra_detect.records import CompactForm, VersionRecord
    from hydra_detect.storage.store import Store

_SHOWN_DIGITS = 4
_PIECE = 1 << 18
_MATRIX = 2  # axes


@attrs.frozen(kw_only=True)
class LayerDifference:
    """How one tensor differs between two versions.

    Args:
        shapes: The two shapes; None where a version has no such tensor.
        dtypes: The two dtypes, as safetensors names them: "F32"; None as above.
        largest: Largest absolute difference; None where the shapes differ, or where it is beyond every float.
        relative: Euclidean norm of the difference over that of the first version's tensor; None as above, or where
            that norm is 0 and the difference is not.

    """

    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    dtypes: tuple[str | None, str | None]
    largest: float | None
    relative: float | None

    @property
    def is_equal(self) -> bool:
        """Whether both have the same numbers in the same shape and dtype."""
        return self.shapes[0] == self.shapes[1] and self.dtypes[0] == self.dtypes[1] and self.largest == 0


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
        layers: By tensor name. Of a compact version the difference from its reference takes the place of the two
            factors, of which many make the same: "NAME.weight - DIGEST".

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
    first, second = _tensors(store, a), _tensors(store, b)
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


def _tensors(store: Store, version: VersionRecord) -> Mapping[str, RawTensor]:
    """Return the weights as they were published; finite, and those of the record, they were then."""
    data = store.head(version.head).read(version, layout.TENSORS)
    tensors = artifacts.decode_tensors(data, f"the weights of {version.head}@{version.number}")
    form = version.record.compact
    return tensors if form is None else _multiplied(tensors, form)


def _multiplied(tensors: Mapping[str, RawTensor], form: CompactForm) -> Mapping[str, RawTensor]:
    """Return the tensors of a compact version, its differences multiplied out; what are no factors stay as they are."""
    import numpy as np  # here and not above: the store is listed without it

    found = dict(tensors)
    for name in form.ranks:
        up, down = (found.get(f"{name}.{factor}") for factor in ("up", "down"))
        if up is None or down is None or not _are_factors(up, down):
            continue
        first, second = (np.frombuffer(one.data, dtype="<f4").reshape(one.shape) for one in (up, down))
        found[f"{name}.weight - {form.reference.short}"] = RawTensor.of(first @ second)
        del found[f"{name}.up"], found[f"{name}.down"]
    return found


def _are_factors(up: RawTensor, down: RawTensor) -> bool:
    """Whether two tensors can be multiplied, and their product held: a store says so of no record by itself."""
    if up.dtype != "F32" or down.dtype != "F32" or len(up.shape) != _MATRIX or len(down.shape) != _MATRIX:
        return False
    product = up.shape[0] * down.shape[1] * ITEM_BYTES["F32"]
    return up.shape[1] == down.shape[0] and product <= artifacts.MAX_TENSORS_BYTES


def _facts(version: VersionRecord) -> dict[str, Any]:
    """Return the facts of a record that are worth comparing, settings on the same level."""
    facts: dict[str, Any] = codec.to_dict(version.record)
    settings = facts.pop("settings")
    for name in ("tensors", "claimed_metrics", "parity", "source"):
        facts.pop(name)
    facts["compact"] = str(version.record.compact) if version.record.compact else None
    return {**facts, **{f"settings.{name}": value for name, value in settings.items()}}


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (a.get(name), b.get(name)) for name in sorted({*a, *b})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _difference(a: RawTensor | None, b: RawTensor | None) -> LayerDifference:
    import numpy as np  # as above

    shapes, dtypes = (a.shape if a else None, b.shape if b else None), (a.dtype if a else None, b.dtype if b else None)
    if a is None or b is None or a.shape != b.shape:
        return LayerDifference(shapes=shapes, dtypes=dtypes, largest=None, relative=None)
    moved, size = _Norm(), _Norm()
    with np.errstate(over="ignore"):  # the largest float against its opposite
        for first, second in zip(_pieces(a), _pieces(b), strict=True):
            moved.add(second - first)
            size.add(first)
    relative = 0.0 if moved.norm == 0 else moved.norm / size.norm if size.norm else math.inf
    return LayerDifference(shapes=shapes, dtypes=dtypes, largest=_finite(moved.largest), relative=_finite(relative))


def _pieces(tensor: RawTensor) -> Iterator[NDArray[Any]]:
    """Yield the numbers of a tensor, flat, piece by piece: as float64, or as Python's own where that would round."""
    import numpy as np  # as above

    kinds = {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "BF16": "<u2",
        "I64": "<i8",
        "I32": "<i4",
        "U8": "u1",
        "BOOL": "u1",
    }
    whole = np.frombuffer(tensor.data, dtype=kinds[tensor.dtype])
    for first in range(0, whole.size, _PIECE):
        piece = whole[first : first + _PIECE]
        if tensor.dtype == "BF16":  # the upper half of a float32, which numpy has
            piece = (piece.astype("<u4") << 16).view("<f4")
        yield piece.astype(object if tensor.dtype == "I64" else np.float64)


class _Norm:
    """The largest of many numbers, and their Euclidean norm, also where no float can hold their squares."""

    def __init__(self) -> None:
        self.largest = self._squares = 0.0

    def add(self, numbers: NDArray[Any]) -> None:
        """Add some numbers."""
        largest = float(abs(numbers).max())
        if math.isnan(largest):  # beyond every number: it is never equal
            largest = math.inf
        if largest > self.largest:  # what was added so far was measured by the largest of then
            self._squares *= (self.largest / largest) ** 2
            self.largest = largest
        if 0 < self.largest < math.inf:
            self._squares += float(((numbers / self.largest) ** 2).sum())

    @property
    def norm(self) -> float:
        """The norm."""
        return self.largest * self._squares**0.5 if self.largest < math.inf else self.largest


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _pair(values: tuple[Any, Any]) -> str:
    return one_line(" -> ".join("none" if value is None else f"{value}" for value in values))


def _layer(layer: LayerDifference) -> str:
    if layer.largest is None:
        return f"shapes {_pair(layer.shapes)}"
    dtypes = "" if layer.dtypes[0] == layer.dtypes[1] else f"{_pair(layer.dtypes)}, "
    relative = "" if layer.relative is None else f", {layer.relative:.2%} of it"
    return f"{dtypes}largest difference {layer.largest:.{_SHOWN_DIGITS}g}{relative}"
