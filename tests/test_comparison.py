"""Comparing versions: claims, sizes, settings, and how far each tensor moved."""

import json
import math

import attrs
import numpy as np
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from store_fixtures import a_record, create, flip, some_tensors

from hydra_detect import comparison
from hydra_detect.comparison import _difference
from hydra_detect.errors import CorruptError, NotFoundError
from hydra_detect.records import CompactForm, OperatingPolicy
from hydra_detect.storage import layout
from hydra_detect.tensors import ITEM_BYTES, RawTensor

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
moderate = st.floats(-1e6, 1e6, width=32)


@pytest.fixture(autouse=True, params=[3, comparison._PIECE], ids=["in pieces", "at once"])
def _pieces(request):
    """Run each test twice: tensors are compared piece by piece, and here the pieces are of three numbers, or one."""
    whole = comparison._PIECE
    comparison._PIECE = request.param
    yield
    comparison._PIECE = whole


def raw(values, dtype="F32"):
    """Return a tensor of these values."""
    if dtype == "BF16":  # the upper halves of float32, which the values given here are exact in
        data = (np.asarray(values, dtype="<f4").view("<u4") >> 16).astype("<u2").tobytes()
        return RawTensor("BF16", np.shape(values), data)
    array = np.asarray(values, dtype=NUMPY[dtype])
    return RawTensor(dtype, array.shape, array.tobytes())


def publish(manager, tensors, **changes):
    """Publish a version with these tensors."""
    return manager.create("owl", tensors, a_record(tensors, **changes))


# One tensor


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=3), elements=moderate))
def test_a_tensor_against_itself(values):
    """A tensor equals itself: nothing moved."""
    found = _difference(raw(values), raw(values.copy()))
    assert found.is_equal
    assert (found.largest, found.relative) == (0, 0)


sevens = arrays.arrays(np.float32, 7, elements=moderate)


@given(sevens, sevens)
def test_differences_are_those_of_numpy(a, b):
    """The largest difference is the same both ways, and both figures are those of the definition."""
    there, back = _difference(raw(a), raw(b)), _difference(raw(b), raw(a))
    moved = b.astype(np.float64) - a
    assert there.largest == back.largest == np.abs(moved).max()
    assert there.is_equal == back.is_equal == bool((a == b).all())
    if np.linalg.norm(a.astype(np.float64)):
        expected = np.linalg.norm(moved) / np.linalg.norm(a.astype(np.float64))
        assert there.relative == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_compact_versions(manager):
    """Of two compact versions the differences are compared that their factors make, which many factors make."""
    owl = create(manager)
    up, down = np.array([[2.0], [0]], dtype=np.float32), np.array([[1.0, 3, 5]], dtype=np.float32)
    form = CompactForm(reference=owl.record.tensors, reference_ref=str(owl.ref), ranks={"fc6": 1})
    for one, other in ((up, down), (up * 4, down / 4), (up, down * 2)):
        tensors = {"fc6.up": raw(one), "fc6.down": raw(other), "bias": raw([1.0])}
        manager.create("fox", tensors, a_record(tensors, compact=form))
    same, moved = (manager.compare("fox", 1, number) for number in (2, 3))
    name = f"fc6.weight - {owl.record.tensors.short}"
    assert list(same.layers) == ["bias", name]
    assert same.layers[name].is_equal
    assert (moved.layers[name].largest, moved.layers[name].relative) == (10, 1)
    full = manager.compare("owl", 1, create(manager, seed=2).number)
    assert "compact" not in full.changed


@pytest.mark.parametrize(
    "factors",
    [
        {},
        {"fc6.up": np.zeros((4, 1), "f4")},
        {"fc6.up": np.zeros((4, 1), "f2"), "fc6.down": np.zeros((1, 4), "f2")},
        {"fc6.up": np.zeros((4, 2), "f4"), "fc6.down": np.zeros((1, 4), "f4")},
        {"fc6.up": np.zeros(4, "f4"), "fc6.down": np.zeros((1, 4), "f4")},
        {"fc6.up": np.zeros((20_000, 1), "f4"), "fc6.down": np.zeros((1, 20_000), "f4")},
    ],
    ids=["none", "one", "of another dtype", "of other shapes", "no matrices", "too large a product"],
)
def test_what_are_no_factors(manager, factors):
    """Tensors that cannot be multiplied, or to more than a version may hold, are compared as they are."""
    owl = create(manager)
    form = CompactForm(reference=owl.record.tensors, reference_ref=str(owl.ref), ranks={"fc6": 1})
    for value in (1.0, 2.0):
        tensors = {**{name: RawTensor.of(array) for name, array in factors.items()}, "bias": raw([value])}
        manager.create("fox", tensors, a_record(tensors, compact=form))
    found = manager.compare("fox", 1, 2)
    assert sorted(found.layers) == ["bias", *sorted(factors)]
    assert found.layers["bias"].largest == 1


def test_pieces_of_a_large_tensor():
    """Numbers in every piece of a tensor count, each once: at its begin, at its end, in a piece that is not full."""
    for length in range(1, 11):
        for place in range(length):
            a, b = np.ones(length), np.ones(length)
            b[place] = 3
            found = _difference(raw(a), raw(b))
            assert (found.largest, found.is_equal) == (2, False)
            assert found.relative == pytest.approx(2 / math.sqrt(length))


@pytest.mark.parametrize("numbers", [[1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1], [1e-9, 1, 1e9, 1, 1e-9, 5, 1e9]])
def test_norms_do_not_depend_on_where_the_largest_number_is(numbers):
    """The measure that keeps squares within bounds grows with the largest number so far, whichever piece it is in."""
    zeros, values = np.zeros(len(numbers)), np.array(numbers)
    found = _difference(raw(values, "F64"), raw(values * 1.5, "F64"))
    assert found.relative == pytest.approx(0.5)
    assert _difference(raw(values, "F64"), raw(zeros, "F64")).relative == pytest.approx(1)


@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_every_dtype(dtype):
    """The numbers of every dtype that an artifact can hold are compared as what they are."""
    a, b = [0, 1, 1, 0, 1], [1, 1, 0, 0, 0]
    found = _difference(raw(a, dtype), raw(b, dtype))
    assert (found.largest, found.is_equal) == (1, False)
    assert found.relative == pytest.approx(1)
    assert _difference(raw(a, dtype), raw(a, dtype)).is_equal


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_fractions_and_signs(dtype):
    """Negative numbers and fractions are read as such: -1.5 against 0.5 differs by 2."""
    found = _difference(raw([-1.5], dtype), raw([0.5], dtype))
    assert found.largest == 2
    assert found.relative == pytest.approx(4 / 3)


def test_zero_against_something():
    """Where nothing was, there is no relative difference, rather than a division by zero."""
    found = _difference(raw([0.0, 0.0]), raw([3.0, 4.0]))
    assert (found.largest, found.relative) == (4, None)


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_tensors_without_numbers_and_scalars(shape):
    """Empty tensors are equal, and a scalar is a tensor like any other."""
    assert _difference(raw(np.zeros(shape)), raw(np.zeros(shape))).is_equal
    assert _difference(raw(np.zeros(())), raw(np.ones(()))).largest == 1


@pytest.mark.parametrize(
    ("a", "b"), [(np.zeros((2, 3)), np.zeros((3, 2))), (np.zeros(3), np.zeros((3, 1))), (np.zeros(0), np.zeros((0, 1)))]
)
def test_other_shapes(a, b):
    """Tensors of other shapes are not compared number by number, however many numbers they have."""
    found = _difference(raw(a), raw(b))
    assert (found.shapes, found.largest, found.relative, found.is_equal) == ((a.shape, b.shape), None, None, False)


@pytest.mark.parametrize(
    ("a", "b", "dtype", "largest", "relative"),
    [
        (2**60, 2**60 + 1, "I64", 1, 2**-60), (2**63 - 1, 2**63 - 2, "I64", 1, 2**-63),
        (2**62, -(2**62), "I64", 2**63, 2), (2**63 - 1, -(2**63), "I64", 2**64, 2), (-(2**63), 0, "I64", 2**63, 1),
        (2**31 - 1, -(2**31), "I32", 2**32 - 1, 2), (255, 0, "U8", 255, 1), (0, 1e200, "F64", 1e200, None),
        (1e200, 2e200, "F64", 1e200, 1), (1e-200, 3e-200, "F64", 2e-200, 2), (5e-324, 0, "F64", 5e-324, 1),
        (1e308, -1e308, "F64", None, None), (3.0e38, -3.0e38, "F32", 6.0e38, 2), (3.0e38, -3.0e38, "BF16", 6.0e38, 2),
        (1e-40, 0, "F32", 1e-40, 1), (65504, -65504, "F16", 131008, 2), (6e-8, 0, "F16", 5.9604645e-8, 1),
        (-0.0, 0.0, "F32", 0, 0),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 4])
def test_numbers_beyond_the_usual(a, b, dtype, largest, relative, place):
    """Numbers that float64 cannot tell apart, or whose squares it cannot hold, are told as what they are."""
    one, other = [0] * 5, [0] * 5
    one[place], other[place] = a, b
    found = _difference(raw(one, dtype), raw(other, dtype))
    assert found.largest == (largest if largest is None else pytest.approx(largest, rel=0.02, abs=0))  # bfloat16
    assert found.relative == (relative if relative is None else pytest.approx(relative, rel=1e-6, abs=0))
    assert found.is_equal == (largest == 0)
    json.dumps([found.largest, found.relative], allow_nan=False)
    assert _difference(raw(one, dtype), raw(one, dtype)).is_equal


def test_what_is_beyond_every_float_in_one_piece():
    """A difference that no float can hold is told as none, whatever the other pieces hold, and is no equality."""
    one, other = [1.0, 1.0, 1.0, 1e308, 1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 1.0, -1e308, 1.0, 1.0, 1.0, 1.0]
    for a, b in ((one, other), (one[::-1], other[::-1])):
        found = _difference(raw(a, "F64"), raw(b, "F64"))
        assert (found.largest, found.relative, found.is_equal) == (None, None, False)


@pytest.mark.parametrize("place", [0, 7])
def test_what_is_no_number_is_never_equal(place):
    """NaN, which only a damaged store can hold, is told as a difference, from itself too."""
    one = [1.0] * 8
    one[place] = math.nan
    for other in (one, [1.0] * 8):
        found = _difference(raw(one, "F32"), raw(other, "F32"))
        assert (found.largest, found.relative, found.is_equal) == (None, None, False)


# Two versions


def test_equal_versions(manager):
    """Two versions of the same weights and facts differ in nothing but their numbers."""
    create(manager)
    create(manager)
    found = manager.compare("owl", 1, 2)
    assert (found.head, found.a, found.b, found.changed, found.claimed_metrics) == ("owl", 1, 2, {}, {})
    assert all(layer.is_equal for layer in found.layers.values())
    assert str(found).splitlines()[-1] == "  2 of 2 tensors are equal"


def test_a_version_against_itself(filled):
    """A version can be compared with itself."""
    found = filled.compare("owl", 1, 1)
    assert (found.changed, found.nbytes[0]) == ({}, found.nbytes[1])
    assert all(layer.is_equal for layer in found.layers.values())


def test_differences_are_of_the_first_version(filled):
    """What is relative is so to the first version named, and the order is that of the call."""
    there, back = filled.compare("owl", 1, 2), filled.compare("owl", 2, 1)
    assert [found.layers["box.weight"].relative for found in (there, back)] == [2, pytest.approx(2 / 3)]
    assert (there.a, there.b, back.a, back.b) == (1, 2, 2, 1)


def test_what_differs(manager):
    """Claims, sizes, settings and facts that differ are told by name, with both values, and each layer's difference."""
    tensors = some_tensors()
    publish(manager, tensors, claimed_metrics={"f1": 0.9, "old": 1.0}, notes="first", libraries={"torch": "2.11"})
    other = {**some_tensors(), "box.weight": raw(np.full((2, 3), 1.0)), "new": raw([1.0])}
    settings = attrs.evolve(a_record(tensors).settings, nms_threshold=0.25)
    policy = OperatingPolicy(score_threshold=0.4)
    publish(
        manager, other, claimed_metrics={"f1": 0.8, "new": 0.5}, notes="second", settings=settings,
        operating_policy=policy, class_names=("owl", "red fox"),
    )  # fmt: skip
    found = manager.compare("owl", 1, 2)
    assert found.claimed_metrics == {"f1": (0.9, 0.8), "new": (None, 0.5), "old": (1.0, None)}
    assert found.changed["notes"] == ("first", "second")
    assert found.changed["settings.nms_threshold"] == (0.5, 0.25)
    assert found.changed["libraries"] == ({"torch": "2.11"}, {})
    assert set(found.changed) == {"notes", "settings.nms_threshold", "libraries", "operating_policy"}
    assert found.nbytes[0] < found.nbytes[1]
    assert {name: layer.is_equal for name, layer in found.layers.items()} == {
        "box.count": True, "box.weight": False, "new": False,
    }  # fmt: skip
    assert (found.layers["box.weight"].largest, found.layers["box.weight"].relative) == (0.5, 1.0)
    assert found.layers["new"].shapes == (None, (1,))


def test_as_text_and_as_json(manager):
    """For people each difference is a line; for programs all of it is plain JSON."""
    first = {**some_tensors(), "gone": raw([1.0]), "half": raw([0.5])}
    publish(manager, first, claimed_metrics={"f1": 0.9}, notes="first")
    half = RawTensor("F16", (1,), np.array([0.5], np.float16).tobytes())
    publish(manager, {**some_tensors(), "box.weight": raw(np.full((2, 3), 1.0)), "half": half}, notes="second")
    found = manager.compare("owl", 1, 2)
    assert str(found).splitlines()[1:] == [
        "  claimed f1: 0.9 -> none",
        "  notes: first -> second",
        "  box.weight: largest difference 0.5, 100.00% of it",
        "  gone: shapes (1,) -> none",
        "  half: F32 -> F16, largest difference 0, 0.00% of it",
        "  1 of 4 tensors are equal",
    ]
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(plain) == ["head", "a", "b", "nbytes", "claimed_metrics", "changed", "layers"]
    assert (plain["head"], plain["a"], plain["b"], plain["nbytes"]) == ("owl", 1, 2, list(found.nbytes))
    assert plain["claimed_metrics"] == {"f1": [0.9, None]}
    assert plain["layers"]["gone"] == {
        "shapes": [[1], None], "dtypes": ["F32", None], "largest": None, "relative": None,
    }  # fmt: skip
    assert plain["changed"] == {"notes": ["first", "second"]}


def test_versions_that_cannot_be_compared(filled):
    """A missing version and a damaged one are told as such, and nothing is guessed from half of the facts."""
    with pytest.raises(NotFoundError, match="'owl' has no version 3"):
        filled.compare("owl", 1, 3)
    flip(filled.store.layout.item(layout.HEADS, "owl").version(2) / layout.TENSORS)
    with pytest.raises(CorruptError, match=r"cannot read model\.safetensors of owl@2"):
        filled.compare("owl", 1, 2)
