"""Tensor files that are written as a whole and checked as they are read."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect.training import tensor_files

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw):
    """Draw tensors by name: of several dtypes, empty ones and single numbers among them."""
    shapes = st.lists(st.integers(0, 3), max_size=3)
    found = {}
    for name in draw(st.lists(st.text("ab.0", min_size=1, max_size=4), unique=True, max_size=4)):
        shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
        found[name] = torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
    return found


FACTS = st.dictionaries(st.sampled_from(["size", "state", "ä"]), st.text(st.characters(exclude_categories=["Cs"])))


@given(tensors(), FACTS)
def test_round_trip(tmp_path_factory, written, facts):
    """What was written is read: each tensor in its dtype and shape, each fact, and nothing besides."""
    path = tmp_path_factory.getbasetemp() / "sealed" / "a.file"
    tensor_files.save(path, written, facts)
    found, said = tensor_files.load(path)
    assert said == facts
    assert found.keys() == written.keys()
    for name, tensor in written.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found[name], tensor)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.file"]


@given(tensors(), FACTS)
def test_the_order_does_not_count(written, facts):
    """The checksum is the same in whatever order tensors and facts stand."""
    backwards = [dict(reversed(part.items())) for part in (written, facts)]
    assert tensor_files.checksum(written, facts) == tensor_files.checksum(*backwards)


def test_all_of_it_counts():
    """Another value, shape, dtype, name or fact has another checksum."""
    one = torch.tensor([1.0, 2.0])
    variants = (
        ({"a": one}, {"b": "c"}), ({"a": one.flip(0)}, {"b": "c"}), ({"a": one[None]}, {"b": "c"}),
        ({"a": one.view(torch.int32)}, {"b": "c"}), ({"c": one}, {"b": "c"}), ({"a": one}, {"b": "d"}),
        ({"a": one}, {}), ({"a": one, "b": one[:0]}, {"b": "c"}),
    )  # fmt: skip
    assert len({tensor_files.checksum(*variant) for variant in variants}) == len(variants)


def test_what_is_damaged_is_refused_once(tmp_path):
    """A changed file is refused, unless it is known already; one that is missing is missing."""
    path = tmp_path / "a.file"
    with pytest.raises(FileNotFoundError):
        tensor_files.load(path)
    tensor_files.save(path, {"a": torch.zeros(3)}, {})
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its checksum is another"):
        tensor_files.load(path)
    assert len(tensor_files.load(path, is_known=True)[0]["a"]) == 3
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match="incomplete"):
        tensor_files.load(path, is_known=True)


def test_several_write_at_once(tmp_path):
    """Whoever writes has a file of its own to begin with: several at once in one folder do not disturb each other."""
    wrong = []

    def write(number):
        for round_ in range(100):
            written = {"a": torch.full((4,), float(number))}
            tensor_files.save(tmp_path / str(number), written, {"round": str(round_)})
            found, facts = tensor_files.load(tmp_path / str(number))
            if facts != {"round": str(round_)} or not torch.equal(found["a"], written["a"]):
                wrong.append((number, round_))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert len(list(tmp_path.iterdir())) == 4
