"""Tensors as plain values: bytes with a dtype and a shape, and one canonical digest over a set of them.

History, storage and the Hub move tensors about without computing on them, so they need no torch. The digest is
taken over names, dtypes, shapes and bytes in sorted order; it does not depend on the file a tensor came from.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs

from hydra_detect.errors import CorruptError, RecordError, listed
from hydra_detect.names import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""The dtypes an artifact may hold, named as safetensors names them, with the bytes of one element."""

_AXIS_END = 1 << 63
_BF16_EXPONENT = 0x7F80  # all of these bits set means infinite or NaN

_NUMPY_TO_DTYPE = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}


def _axes(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(map(int, values))


def _plausible_axes(_instance: object, _attribute: object, value: tuple[int, ...]) -> None:
    # Two negative axes would make a plausible product, and so would one beyond every file beside one of 0.
    if any(not 0 <= axis < _AXIS_END for axis in value):
        raise CorruptError(
            "read a tensor", f"its shape is {list(value)}", "Read the file again; if it stays so, the file is damaged."
        )


@attrs.frozen
class RawTensor:
    """The bytes of one tensor, little-endian, in row-major order.

    Args:
        dtype: One of `ITEM_BYTES`.
        shape: Sizes of the axes; `()` for a scalar.
        data: Exactly as many bytes as dtype and shape imply.

    """

    dtype: str = attrs.field(validator=attrs.validators.in_(ITEM_BYTES))
    shape: tuple[int, ...] = attrs.field(converter=_axes, validator=_plausible_axes)
    data: bytes | memoryview = attrs.field(repr=False)

    @data.validator
    def _check(self, _attribute: object, value: bytes | memoryview) -> None:
        expected = ITEM_BYTES[self.dtype] * math.prod(self.shape)
        if len(value) != expected:
            raise CorruptError(
                "read a tensor",
                f"{self.dtype} {list(self.shape)} needs {expected} bytes and {len(value)} were given",
                "Read the file again; if it stays so, the file is damaged.",
            )

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return `value` as raw bytes: a RawTensor, a numpy array, or anything `numpy.asarray` reads.

        A CPU torch tensor is read so too, but for bfloat16, which numpy has not:
        `hydra_detect.nets.state.raw_tensors` takes whole state dicts of any dtype.

        Raises:
            RecordError: For a dtype that an artifact cannot hold, or something that is no array to numpy.

        """
        if isinstance(value, cls):
            return value
        import numpy as np  # here and not above: a third of the time in which heads are listed

        try:
            array = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:  # bfloat16, ragged lists, a tensor with gradient
            remedy = "Detach it and move it to the CPU; hydra_detect.nets.state.raw_tensors takes every dtype."
            raise RecordError("store a tensor", str(error)[:200], remedy) from None
        dtype = _NUMPY_TO_DTYPE.get(array.dtype.name)
        if dtype is None:
            raise RecordError(
                "store a tensor",
                f"its dtype is {array.dtype}",
                f"Convert it to one of {listed(_NUMPY_TO_DTYPE)} first.",
            )
        return cls(dtype, array.shape, np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return len(self.data)

    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite; whole numbers always are finite."""
        import numpy as np  # as in `of`

        if self.dtype == "BF16":  # numpy has no bfloat16
            bits = np.frombuffer(self.data, dtype="<u2")
            return not bool(np.any((bits & _BF16_EXPONENT) == _BF16_EXPONENT))
        if not self.dtype.startswith("F"):
            return True
        return bool(np.isfinite(np.frombuffer(self.data, dtype=f"<f{ITEM_BYTES[self.dtype]}")).all())


def tensors_digest(tensors: Mapping[str, RawTensor]) -> Digest:
    """Return the canonical digest of a set of tensors.

    SHA-256 over, for each name in sorted order: the length of the UTF-8 name, the name, the length of the dtype,
    the dtype, the number of axes, each axis, the bytes. All lengths are 8-byte little-endian.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        for text in (name.encode(), tensor.dtype.encode()):
            total.update(struct.pack("<Q", len(text)) + text)
        total.update(struct.pack(f"<{1 + len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        total.update(tensor.data)
    return Digest(total.hexdigest())


def nbytes(tensors: Mapping[str, RawTensor]) -> int:
    """Bytes of all tensors together."""
    return sum(tensor.nbytes for tensor in tensors.values())


def raw_weights(tensors: Mapping[str, Any], asked: str) -> dict[str, RawTensor]:
    """Return weights by name: `RawTensor`, numpy arrays or CPU tensors.

    Raises:
        RecordError: If there are none, or one is no tensor or has no name.

    """
    remedy = "Give the weights of the head by name."
    if not isinstance(tensors, Mapping) or not tensors:
        raise RecordError(asked, "it has no tensors", remedy)
    if not all(isinstance(name, str) for name in tensors):
        raise RecordError(asked, "a tensor has a name that is no text", remedy)
    return {name: RawTensor.of(value) for name, value in tensors.items()}


def check_finite(tensors: Mapping[str, RawTensor], asked: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        CorruptError: Naming every tensor that holds one.

    """
    broken = [name for name, tensor in tensors.items() if not tensor.is_finite()]
    if broken:
        raise CorruptError(
            asked,
            f"NaN or infinity in {len(broken)} of {len(tensors)} tensors: {listed(broken)}",
            "Take an earlier checkpoint: a training run that diverged leaves such weights behind.",
            tensors=sorted(broken),
        )
