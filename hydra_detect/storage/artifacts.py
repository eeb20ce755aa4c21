"""Artifacts: tensors as safetensors bytes, checked before anything is allocated.

Equal tensors give equal bytes: no metadata is written, because its order is not stable. A file from a stranger is
judged by its header alone first: size, names, dtypes, shapes and offsets.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

from hydra_detect import codec
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.tensors import ITEM_BYTES, RawTensor, check_finite, tensors_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.names import Digest

MAX_TENSORS_BYTES = 1 << 30
MAX_HEADER_BYTES = codec.MAX_JSON_BYTES
MAX_TENSORS = 2048
_MAX_AXES = 8
_MAX_MARKS = 16 * MAX_TENSORS
"""Commas and brackets in a header: a tensor needs 14, and 1 MiB of them would be half a second's work."""
_LENGTH_BYTES = 8


def encode_tensors(tensors: Mapping[str, RawTensor]) -> bytes:
    """Return tensors as the bytes of a safetensors file; equal tensors give equal bytes, today and later.

    Written here and not by the safetensors package, whose raw interface changed between its versions and whose numpy
    one has no bfloat16: that equal tensors give equal bytes is a promise of ours. Larger elements come first, so that
    each tensor is aligned.

    Raises:
        RecordError: For tensors that `decode_tensors` would refuse: too many, too large, ill named.

    """
    header, data, place = {}, [], 0
    for name in sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name].dtype], name)):
        tensor = tensors[name]
        offsets = [place, place + tensor.nbytes]
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        data.append(tensor.data)
        place = offsets[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    text += b" " * (-len(text) % _LENGTH_BYTES)
    whole = b"".join([struct.pack("<Q", len(text)), text, *data])
    try:
        decode_tensors(whole, "the tensors again")
    except CorruptError as error:
        raise RecordError("store these tensors", error.found, "Give fewer of them, or plainer names.") from None
    return whole


def decode_tensors(data: bytes, what: str) -> dict[str, RawTensor]:
    """Read the bytes of a safetensors file, sorted by name; the tensors are views into `data`.

    Raises:
        CorruptError: If the header is oversized, no JSON, names a tensor twice, has a dtype or shape that an
            artifact cannot hold, or does not cover the rest of the file exactly.

    """
    asked = f"read {what}"
    if len(data) > MAX_TENSORS_BYTES:
        raise _corrupt(asked, f"it has {len(data)} bytes, the limit is {MAX_TENSORS_BYTES}")
    header, start = read_header(data, asked)
    view = memoryview(data)
    tensors, ends = {}, []
    for name, entry in sorted(header.items()):
        dtype, shape, (begin, end) = _checked_entry(name, entry, asked)
        ends.append((begin, end))
        if start + end > len(data):
            raise _corrupt(asked, f"tensor {name!r:.80} reaches beyond the end of the file")
        tensors[name] = RawTensor(dtype, shape, view[start + begin : start + end])
    covered = 0
    for begin, end in sorted(ends):
        if begin != covered:
            raise _corrupt(asked, "its tensors overlap or leave a hole")
        covered = end
    if start + covered != len(data):
        raise _corrupt(asked, f"{len(data) - start - covered} bytes follow its last tensor")
    return tensors


def encode_weights(tensors: Mapping[str, RawTensor], digest: Digest, asked: str) -> bytes:
    """Return the weights of a version as bytes, once they are seen to be finite and those that its record names.

    Raises:
        CorruptError: If they are not.
        RecordError: As for `encode_tensors`.

    """
    data = encode_tensors(tensors)  # first, because it refuses what has no digest either
    check_finite(tensors, asked)
    found = tensors_digest(tensors)
    if found != digest:
        raise CorruptError(
            asked,
            f"the record names tensors {digest.short}... and these have {found.short}...",
            "Make the record from these tensors.",
        )
    return data


def decode_weights(data: bytes, digest: Digest, what: str) -> dict[str, RawTensor]:
    """Read the weights of a version: as `decode_tensors`, then finite values, then the digest that its record names.

    Raises:
        CorruptError: If they are not what was published.

    """
    tensors = decode_tensors(data, what)
    check_finite(tensors, f"load {what}")
    if tensors_digest(tensors) != digest:
        raise CorruptError(f"load {what}", "their digest is not the one in the record", "Restore it from a copy.")
    return tensors


def read_header(data: bytes, asked: str) -> tuple[dict[str, Any], int]:
    """Return a safetensors header, its metadata left out, and where the tensor data begins.

    Raises:
        CorruptError: If the header is oversized, truncated or no JSON object with unique keys.

    """
    if len(data) < _LENGTH_BYTES:
        raise _corrupt(asked, f"it has {len(data)} bytes, too few for a safetensors file")
    (length,) = struct.unpack("<Q", data[:_LENGTH_BYTES])
    if length > MAX_HEADER_BYTES or _LENGTH_BYTES + length > len(data):
        raise _corrupt(asked, f"its header claims {length} bytes; the file has {len(data)}, the limit is 1 MiB")
    text = data[_LENGTH_BYTES : _LENGTH_BYTES + length]
    try:
        header = codec.loads(text, "its header", has_only_sizes=True, most_marks=_MAX_MARKS)
    except CorruptError as error:
        raise _corrupt(asked, f"of its header, {error.found}") from None
    if not isinstance(header, dict):
        raise _corrupt(asked, "its header is no JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _corrupt(asked, f"it holds {len(header)} tensors, the limit is {MAX_TENSORS}")
    return header, _LENGTH_BYTES + length


def _checked_entry(name: str, entry: Any, asked: str) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(number) is int and 0 <= number <= MAX_TENSORS_BYTES for number in (*shape, begin, end))
        fits = whole and len(shape) <= _MAX_AXES and end - begin == ITEM_BYTES[dtype] * math.prod(shape)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise _corrupt(asked, f"tensor {name!r:.80} has an entry that an artifact cannot hold: {entry!r:.160}")
    return dtype, shape, (begin, end)


def _corrupt(asked: str, found: str) -> CorruptError:
    return CorruptError(asked, found, "Restore the file from a copy, or make it anew.")
