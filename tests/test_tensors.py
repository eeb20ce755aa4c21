"""Tensors as values: bytes that keep what numpy had, and a digest that depends on everything but order."""

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import raw_tensors, tensor_sets

from hydra_detect.errors import CorruptError, RecordError
from hydra_detect.tensors import ITEM_BYTES, RawTensor, check_finite, nbytes, tensors_digest

DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "U8": "u1", "BOOL": "?"}
BFLOAT16 = {"one": 0x3F80, "largest": 0x7F7F, "tiny": 0x0001, "minus zero": 0x8000}
BFLOAT16_NOT_FINITE = {"inf": 0x7F80, "minus inf": 0xFF80, "nan": 0x7FC0, "signalling nan": 0x7F81, "minus nan": 0xFFFF}


@pytest.mark.parametrize(("dtype", "code"), DTYPES.items())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("order", "<>")
def test_numpy_round_trip(dtype, code, shape, order):
    """Bytes, dtype and shape of an array come back as they were, in whichever byte order it came."""
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(np.dtype(code).newbyteorder(order))
    raw = RawTensor.of(array)
    assert (raw.dtype, raw.shape, raw.nbytes) == (dtype, shape, array.size * ITEM_BYTES[dtype])
    back = np.frombuffer(raw.data, dtype=np.dtype(code).newbyteorder("<")).reshape(shape)
    assert np.array_equal(back, array)
    assert RawTensor.of(raw) is raw


def test_strides_do_not_matter():
    """A transposed view is stored in row-major order."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert RawTensor.of(array.T) == RawTensor.of(array.T.copy())
    assert RawTensor.of(array.T) != RawTensor.of(array)


@pytest.mark.parametrize(
    "value", [np.zeros(2, "c8"), np.zeros(2, "u2"), np.array(["owl"]), np.array([None]), [[1], [2, 3]]]
)
def test_other_kinds_are_refused(value):
    """A dtype that no artifact holds, and what is no array at all, are refused."""
    with pytest.raises(RecordError, match=r"^cannot store a tensor: "):
        RawTensor.of(value)


def test_what_torch_will_not_give_to_numpy_is_refused():
    """A bfloat16 or trainable torch tensor is refused with the way round."""
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, requires_grad=True)):
        with pytest.raises(RecordError, match="raw_tensors takes every dtype"):
            RawTensor.of(tensor)


@pytest.mark.parametrize(("dtype", "size"), ITEM_BYTES.items())
@pytest.mark.parametrize("shift", [-1, 1])
def test_wrong_number_of_bytes(dtype, size, shift):
    """As many bytes as dtype and shape say, or none at all."""
    with pytest.raises(
        CorruptError, match=rf"{dtype} \[2, 3\] needs {6 * size} bytes and {6 * size + shift} were given"
    ):
        RawTensor(dtype, (2, 3), b"\0" * (6 * size + shift))


def test_odd_dtypes_and_shapes():
    """An unknown dtype is refused, and so are negative axes whose product would fit."""
    with pytest.raises(ValueError, match="'dtype' must be in"):
        RawTensor("F8", (1,), b"\0")
    with pytest.raises(CorruptError, match=r"its shape is \[-2, -3\]"):
        RawTensor("U8", (-2, -3), b"\0" * 6)


@pytest.mark.parametrize("code", ["f8", "f4", "f2"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_floats_that_are_not_finite(code, bad):
    """NaN and infinity are found in every float dtype, and huge and subnormal numbers are no such thing."""
    facts = np.finfo(code)
    fine = np.array([0, -0.0, facts.max, facts.min, facts.smallest_subnormal], dtype=code)
    assert RawTensor.of(fine).is_finite()
    assert not RawTensor.of(np.append(fine, np.array(bad, dtype=code))).is_finite()


@pytest.mark.parametrize("bits", BFLOAT16.values(), ids=BFLOAT16)
def test_bfloat16_that_is_finite(bits):
    """Finite bfloat16 numbers are finite although numpy cannot read them."""
    assert RawTensor("BF16", (1,), bits.to_bytes(2, "little")).is_finite()


@pytest.mark.parametrize("bits", BFLOAT16_NOT_FINITE.values(), ids=BFLOAT16_NOT_FINITE)
def test_bfloat16_that_is_not_finite(bits):
    """NaN and infinity are found among finite bfloat16 numbers."""
    assert not RawTensor("BF16", (3,), b"\x80\x3f" + bits.to_bytes(2, "little") + b"\0\0").is_finite()


@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_nothing_is_finite(dtype):
    """A tensor without elements is finite."""
    assert RawTensor(dtype, (0, 4), b"").is_finite()


@pytest.mark.parametrize("dtype", ["I64", "I32", "U8", "BOOL"])
def test_whole_numbers_are_finite(dtype):
    """Whole numbers are finite whatever their bits are."""
    assert RawTensor(dtype, (2,), b"\xff" * 2 * ITEM_BYTES[dtype]).is_finite()


def test_check_finite_names_every_broken_tensor():
    """The refusal names all tensors with NaN or infinity, and none of the others."""
    tensors = {name: RawTensor.of(np.float32(value)) for name, value in (("b", np.nan), ("a", np.inf), ("c", 1.0))}
    with pytest.raises(CorruptError, match="NaN or infinity in 2 of 3 tensors: a, b") as caught:
        check_finite(tensors, "create a head")
    assert caught.value.asked == "create a head"
    assert caught.value.facts["tensors"] == ["a", "b"]
    check_finite({"c": tensors["c"]}, "create a head")
    check_finite({}, "create a head")


def test_known_digest():
    """The digest is the one written down, today and in every later version."""
    tensors = {"b": RawTensor("F32", (1, 2), bytes(8)), "a": RawTensor("U8", (), b"\1")}
    assert tensors_digest(tensors).hex == "1473a707ff263c91e9181b3e59d8535e580c58013c1c52d4b2ea95db19612f98"
    assert tensors_digest({}).hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(tensor_sets, st.randoms(use_true_random=False))
def test_digest_does_not_depend_on_order(tensors, random):
    """The order of the mapping and the kind of buffer change nothing."""
    items = list(tensors.items())
    random.shuffle(items)
    again = {name: attrs.evolve(tensor, data=memoryview(tensor.data)) for name, tensor in items}
    assert tensors_digest(again) == tensors_digest(tensors)
    assert nbytes(again) == nbytes(tensors) == sum(len(tensor.data) for tensor in tensors.values())


@given(tensor_sets, st.text(st.characters(exclude_categories=("Cs",)), max_size=5), raw_tensors())
def test_digest_depends_on_the_set(tensors, name, tensor):
    """Another tensor, or another value under a name, is another digest; the same one is the same."""
    changed = {**tensors, name: tensor}
    assert (tensors_digest(changed) == tensors_digest(tensors)) == (changed == tensors)


@pytest.mark.parametrize(
    "other",
    [
        {"b": RawTensor("F32", (2, 1), bytes(8))},
        {"a": RawTensor("I32", (2, 1), bytes(8))},
        {"a": RawTensor("F32", (1, 2), bytes(8))},
        {"a": RawTensor("F32", (2,), bytes(8))},
        {"a": RawTensor("F32", (2, 1), bytes(7) + b"\1")},
        {"a": RawTensor("F32", (2, 1), bytes(8)), "": RawTensor("U8", (0,), b"")},
        {},
    ],
)
def test_digest_depends_on_everything(other):
    """Name, dtype, shape, number of axes and bytes all enter the digest."""
    assert tensors_digest(other) != tensors_digest({"a": RawTensor("F32", (2, 1), bytes(8))})
