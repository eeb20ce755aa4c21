"""Artifacts: bytes that are stable and standard, and files from strangers that meet only our refusal."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import tensor_sets

from hydra_detect import codec
from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.names import Digest
from hydra_detect.storage import artifacts
from hydra_detect.tensors import ITEM_BYTES, RawTensor, tensors_digest

SMALL = {"w": RawTensor.of(np.array([1, 2], dtype=np.float32)), "n": RawTensor.of(np.array(3, dtype=np.int64))}


DOCS = Path(__file__).parents[1] / "docs"


def packed(header, data=b"", length=None):
    """Return the bytes of a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    """Return the header's entry of one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@given(tensor_sets, st.randoms(use_true_random=False))
def test_round_trip(tensors, random):
    """Tensors come back as they went, and equal tensors are equal bytes in whatever order they come."""
    data = artifacts.encode_tensors(tensors)
    again = artifacts.decode_tensors(data, "it")
    assert again == tensors
    assert list(again) == sorted(tensors)
    items = list(tensors.items())
    random.shuffle(items)
    assert artifacts.encode_tensors(dict(items)) == data
    assert tensors_digest(again) == tensors_digest(tensors)


def test_bytes_are_those_of_the_first_day():
    """The bytes are written down here, so that no later version changes them unseen."""
    data = artifacts.encode_tensors(SMALL)
    header = (
        b'{"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}'
    )
    padded = header + b" " * (-len(header) % 8)
    assert data == struct.pack("<Q", len(padded)) + padded + struct.pack("<qff", 3, 1, 2)


@pytest.mark.parametrize("dtype", ITEM_BYTES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_dtype_and_shape(dtype, shape):
    """Each dtype that an artifact may hold comes back, without elements and without axes too."""
    tensor = RawTensor(dtype, shape, bytes(range(ITEM_BYTES[dtype] * int(np.prod(shape, dtype=int)))))
    assert artifacts.decode_tensors(artifacts.encode_tensors({"a": tensor}), "it") == {"a": tensor}


def test_no_tensors():
    """No tensors at all are ordinary bytes."""
    assert artifacts.decode_tensors(artifacts.encode_tensors({}), "it") == {}


@given(tensor_sets)
def test_safetensors_reads_ours(tensors):
    """The official package reads our bytes as the same arrays."""
    theirs = safetensors.numpy.load(artifacts.encode_tensors(tensors))
    assert {name: RawTensor.of(array) for name, array in theirs.items()} == tensors


@given(tensor_sets)
def test_we_read_those_of_safetensors(tensors):
    """We read what the official package writes, metadata or not."""
    arrays = {name: np.frombuffer(t.data, dtype="<f4").reshape(t.shape) for name, t in tensors.items()}
    for metadata in (None, {"format": "np"}):
        assert artifacts.decode_tensors(safetensors.numpy.save(arrays, metadata=metadata), "it") == tensors


def test_torch_and_safetensors():
    """Files of `safetensors.torch`, bfloat16 among them, are read by us, and ours by it."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("safetensors.torch")
    tensors = {
        "b": torch.tensor([[1.5, -2.0]], dtype=torch.bfloat16), "h": torch.tensor([0.5], dtype=torch.float16),
        "f": torch.arange(4.0), "i": torch.tensor(7), "u": torch.tensor([1], dtype=torch.uint8),
        "t": torch.tensor([True, False]), "empty": torch.zeros(0, 3),
    }  # fmt: skip
    ours = artifacts.decode_tensors(theirs.save(tensors, metadata={"format": "pt"}), "it")
    assert {name: raw.dtype for name, raw in ours.items()} == {
        "b": "BF16", "h": "F16", "f": "F32", "i": "I64", "u": "U8", "t": "BOOL", "empty": "F32",
    }  # fmt: skip
    back = theirs.load(artifacts.encode_tensors(ours))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


HOSTILE = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "zero header": packed(b""),
    "header of blanks": packed(b" " * 8),
    "huge length": packed(b"{}", length=(1 << 64) - 1),
    "length of a terabyte": packed(b"{}", length=1 << 40),
    "length beyond the end": packed(b"{}", length=3),
    "length of half a header": packed({"a": entry()}, b"1234", length=5),
    "header of 2 MiB": packed(b" " * (2 << 20)),
    "pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07builtin\x94.",
    "zip": b"PK\x03\x04" + bytes(60),
    "no JSON": packed(b"owl"),
    "no UTF-8": packed(b'{"\xff": 1}'),
    "byte order mark": packed(b"\xef\xbb\xbf{}"),
    "NaN": packed(b'{"a": NaN}'),
    "long number": packed(b'{"a": ' + b"9" * 100_000 + b"}"),
    "deep": packed(b'{"a":' * 150_000),
    "deep and closed": packed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a list": packed([]),
    "a number": packed(1),
    "null": packed(None),
    "a name twice": packed(b'{"a": %s, "a": %s}' % ((json.dumps(entry()).encode(),) * 2), b"1234"),
    "a key twice": packed(b'{"a": {"dtype": "F32", "dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"1234"),
    "half a surrogate": packed(b'{"\\ud800": %s}' % json.dumps(entry()).encode(), b"1234"),
    "too many tensors": packed({str(n): entry(shape=[0], offsets=[0, 0]) for n in range(2049)}),
    "entry is null": packed({"a": None}),
    "entry is a list": packed({"a": [1, 2]}),
    "entry is a text": packed({"a": "dtype"}),
    "entry is empty": packed({"a": {}}),
    "no shape": packed({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"),
    "unknown dtype": packed({"a": entry("F8_E4M3", [4])}, b"1234"),
    "dtype in small letters": packed({"a": entry("f32")}, b"1234"),
    "dtype is a list": packed({"a": entry(["F32"])}, b"1234"),
    "dtype is null": packed({"a": entry(None)}, b"1234"),
    "shape is a text": packed({"a": entry(shape="1")}, b"1234"),
    "shape is an object": packed({"a": entry(shape={"1": 1})}, b"1234"),
    "shape is a number": packed({"a": entry(shape=1)}, b"1234"),
    "shape is nested": packed({"a": entry(shape=[[1]])}, b"1234"),
    "negative axes": packed({"a": entry(shape=[-1, -1])}, b"1234"),
    "axis is true": packed({"a": entry(shape=[True])}, b"1234"),
    "axis is a float": packed({"a": entry(shape=[1.0])}, b"1234"),
    "nine axes": packed({"a": entry(shape=[1] * 9)}, b"1234"),
    "shape overflows 64 bits": packed({"a": entry(shape=[1 << 32, 1 << 32], offsets=[0, 0])}),
    "shape wraps to one element": packed({"a": entry(shape=[(1 << 62) + 1], offsets=[0, 4])}, b"1234"),
    "shape of long numbers": packed({"a": entry(shape=[10**4000] * 8, offsets=[0, 4])}, b"1234"),
    "offsets are one": packed({"a": entry(offsets=[4])}, b"1234"),
    "offsets are three": packed({"a": entry(offsets=[0, 4, 4])}, b"1234"),
    "offsets are texts": packed({"a": entry(offsets=["0", "4"])}, b"1234"),
    "offsets are null": packed({"a": entry(offsets=None)}, b"1234"),
    "offsets are floats": packed({"a": entry(offsets=[0.0, 4.0])}, b"1234"),
    "offsets run backwards": packed({"a": entry(offsets=[4, 0])}, b"1234"),
    "offsets before the data": packed({"a": entry(offsets=[-4, 0])}, b"1234"),
    "offsets beyond the file": packed({"a": entry(offsets=[4, 8])}, b"1234"),
    "too few bytes": packed({"a": entry()}, b"123"),
    "too many bytes": packed({"a": entry(offsets=[0, 5])}, b"12345"),
    "overlap": packed({"a": entry(), "b": entry()}, b"1234"),
    "overlap by half": packed({"a": entry(), "b": entry(offsets=[2, 6])}, b"123456"),
    "hole": packed({"a": entry(), "b": entry(offsets=[8, 12])}, b"123456789012"),
    "hole at the front": packed({"a": entry(offsets=[4, 8])}, b"12345678"),
    "trailing byte": packed({"a": entry()}, b"12345"),
    "data without tensors": packed({}, b"1"),
    "metadata only, with data": packed({"__metadata__": {"a": "b"}}, b"1234"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(data):
    """A malformed file of any kind is refused by one error of ours, in a short sentence."""
    with pytest.raises(CorruptError, match="cannot read the weights: ") as caught:
        artifacts.decode_tensors(data, "the weights")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (packed(b"{}", length=3), "its header claims 3 bytes; the file has 10, the limit is 1 MiB"),
        (packed(b" " * (2 << 20)), "its header claims 2097152 bytes; the file has 2097160, the limit is 1 MiB"),
        (packed(b'{"a":[' + b"," * 65_536 + b"]}"), "of its header, it has more than 32768 commas and brackets"),
    ],
)
def test_headers_that_are_not_even_parsed(data, found):
    """A header that is cut off, too long, or too much work is refused for that."""
    with pytest.raises(CorruptError) as caught:
        artifacts.decode_tensors(data, "it")
    assert caught.value.found == found


@pytest.mark.parametrize("depth", range(950, 1000))
def test_depths_at_the_edge_of_recursion(depth):
    """Nesting that Python can just about parse is refused as well as that which it cannot."""
    with pytest.raises(CorruptError, match="cannot read it: "):
        artifacts.decode_tensors(packed(b'{"a":' + b"[" * depth + b"]" * depth + b"}"), "it")


def test_every_truncation():
    """A file cut short at any length, or longer than it was, is refused."""
    data = artifacts.encode_tensors(SMALL)
    for broken in [*(data[:size] for size in range(len(data))), data + b"\0", data + data]:
        with pytest.raises(CorruptError, match="cannot read it: "):
            artifacts.decode_tensors(broken, "it")


def test_every_flipped_bit():
    """Every flipped bit of a file is refused, or gives tensors with another digest."""
    data = artifacts.encode_tensors(SMALL)
    digest, seen = tensors_digest(SMALL), 0
    for place in range(8 * len(data)):
        broken = bytearray(data)
        broken[place // 8] ^= 1 << place % 8
        try:
            tensors = artifacts.decode_tensors(bytes(broken), "it")
        except CorruptError:
            continue
        seen += 1
        assert tensors_digest(tensors) != digest
    assert seen >= 8 * 16  # all bits of the numbers themselves are lawful values


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_bytes_meet_only_our_errors(header, data):
    """Whatever a file holds, it is read or refused as damaged."""
    try:
        tensors = artifacts.decode_tensors(packed(header, data), "it")
    except CorruptError as error:
        assert error.asked == "read it"  # noqa: PT017  both ways are lawful
    else:
        assert sum(tensor.nbytes for tensor in tensors.values()) == len(data)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"__metadata__": RawTensor("U8", (1,), b"\1")}, "bytes follow its last tensor"),
        ({"\ud800": RawTensor("U8", (0,), b"")}, "no valid JSON"),
        ({"x" * (1 << 20): RawTensor("U8", (0,), b"")}, "its header claims"),
        ({str(n): RawTensor("U8", (0,), b"") for n in range(2049)}, "2049 tensors, the limit is 2048"),
        ({"a": RawTensor("U8", (1,) * 9, b"\1")}, "an entry that an artifact cannot hold"),
    ],
    ids=["metadata", "surrogate", "long name", "many", "axes"],
)
def test_what_could_not_be_read_is_not_written(tensors, found):
    """Tensors that no one could read again are refused before they reach a disk."""
    with pytest.raises(RecordError, match="cannot store these tensors: ") as caught:
        artifacts.encode_tensors(tensors)
    assert found in caught.value.found


def test_files_beyond_the_limit(monkeypatch):
    """A file larger than an artifact may be is neither written nor read."""
    data = artifacts.encode_tensors(SMALL)
    monkeypatch.setattr(artifacts, "MAX_TENSORS_BYTES", len(data) - 1)
    with pytest.raises(CorruptError, match=f"it has {len(data)} bytes, the limit is {len(data) - 1}"):
        artifacts.decode_tensors(data, "it")
    with pytest.raises(RecordError, match=f"it has {len(data)} bytes"):
        artifacts.encode_tensors(SMALL)


def test_decode_weights():
    """Weights are those that their record names, with finite values alone, whatever their file proves of itself."""
    data, digest = artifacts.encode_tensors(SMALL), tensors_digest(SMALL)
    assert artifacts.decode_weights(data, digest, "it") == SMALL
    with pytest.raises(CorruptError, match="cannot load it: their digest is not the one in the record"):
        artifacts.decode_weights(data, Digest("0" * 64), "it")
    broken = {"w": RawTensor.of(np.array([1, np.nan], dtype=np.float32))}
    with pytest.raises(CorruptError, match="cannot load it: NaN or infinity in 1 of 1 tensors: w"):
        artifacts.decode_weights(artifacts.encode_tensors(broken), tensors_digest(broken), "it")


def test_encode_weights():
    """Weights are written only if they are those that their record names, with finite values alone."""
    assert artifacts.encode_weights(SMALL, tensors_digest(SMALL), "write it") == artifacts.encode_tensors(SMALL)
    with pytest.raises(CorruptError, match="cannot write it: the record names tensors 000000000000"):
        artifacts.encode_weights(SMALL, Digest("0" * 64), "write it")
    broken = {"w": RawTensor.of(np.array([np.inf], dtype=np.float32))}
    with pytest.raises(CorruptError, match="cannot write it: NaN or infinity in 1 of 1 tensors: w"):
        artifacts.encode_weights(broken, tensors_digest(broken), "write it")


def test_the_limits_are_those_of_the_guide():
    """The number of tensors and the sizes that the documents state are the ones that are held."""
    kept, sent = ((DOCS / name).read_text() for name in ("concepts/artifacts.md", "how-to/bundle.md"))
    assert f"At most {artifacts.MAX_TENSORS} tensors" in kept
    single, listing, whole = codec.MAX_JSON_BYTES >> 20, codec.MAX_LIST_BYTES >> 20, artifacts.MAX_TENSORS_BYTES >> 30
    assert f"a file above {single} MiB ({listing} MiB for those beside a head" in kept
    limits = f"({single} MiB for the manifest and the records, {listing} MiB for each other `.json`, {whole} GiB of"
    assert limits in sent
