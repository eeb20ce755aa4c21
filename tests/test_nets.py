"""Networks built from records: strict weights, stated levels, pooling without memory, devices."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from originals import SETTINGS, small
from torchvision.ops import MultiScaleRoIAlign

from hydra_detect.checkpoints.recognise import recognise
from hydra_detect.checkpoints.settings import SplitSettings, resolve
from hydra_detect.contracts import BackboneContract, Level
from hydra_detect.errors import CheckpointError, DeviceError, IncompatibleError, RecordError
from hydra_detect.names import Digest
from hydra_detect.nets.backbones import Backbone, levels_of
from hydra_detect.nets.devices import choose_device, choose_dtype
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.pooling import PyramidRoIAlign
from hydra_detect.nets.state import module_bytes, raw_tensors, torch_tensors
from hydra_detect.tensors import RawTensor

LEVELS = [Level(name=str(place), channels=6, stride=4 * 2**place) for place in range(4)]


@pytest.fixture(scope="module")
def facts():
    """What is known of the small test detector, and its tensors."""
    model = small()
    found = recognise({name: tuple(v.shape) for name, v in model.state_dict().items()}, "a.pth")
    return resolve(found, SplitSettings.of(SETTINGS), "a.pth"), raw_tensors(model.state_dict())


def contract_of(facts, **changes):
    """The backbone contract of the small test detector."""
    values = {
        "digest": Digest("0" * 64),
        "architecture": facts.architecture,
        "preprocessing": facts.preprocessing,
        "levels": levels_of(facts.architecture),
    }
    return BackboneContract(**{**values, **changes})


def part(raw, prefix):
    """The tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in raw.items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_tensors_survive_the_way_to_bytes_and_back(dtype, shape):
    """Any dtype and shape, scalars and empty ones too, comes back bit for bit with memory of its own."""
    value = (torch.rand(shape) * 100).to(dtype)
    raw = raw_tensors({"a": value})
    (again,) = torch_tensors(raw).values()
    assert again.dtype == dtype
    assert again.shape == value.shape
    assert torch.equal(again, value)


def test_weights_lie_where_torch_puts_them():
    """Tensors made from bytes begin at multiples of 64 bytes, as torch's own do, wherever the bytes began."""
    data = b"x" + np.arange(100, dtype="<f4").tobytes()
    for _ in range(20):
        (value,) = torch_tensors({"a": RawTensor("F32", (100,), memoryview(data)[1:])}).values()
        assert value.data_ptr() % 64 == 0
        assert torch.equal(value, torch.arange(100.0))


def test_layout_in_memory_does_not_matter():
    """Transposed, strided and channels-last tensors give the bytes of their contiguous form."""
    value = torch.rand(2, 3, 4, 5)
    for same in (value.permute(1, 0, 2, 3).permute(1, 0, 2, 3), value.contiguous(memory_format=torch.channels_last)):
        assert raw_tensors({"a": same}) == raw_tensors({"a": value})


def test_dtypes_that_an_artifact_cannot_hold_are_refused():
    """A complex or sparse tensor is refused by name."""
    for value in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse()):
        with pytest.raises(RecordError, match="'odd'"):
            raw_tensors({"odd": value})


def test_a_network_takes_its_weights_strictly(facts):
    """Missing, unexpected and misshapen tensors are all listed at once, sorted."""
    resolved, raw = facts
    head = {name: value for name, value in raw.items() if not name.startswith("backbone.")}
    broken = dict(head)
    del broken["rpn.head.cls_logits.bias"]
    broken["another"] = RawTensor.of(np.zeros(1, np.float32))
    broken["roi_heads.box_head.fc7.bias"] = RawTensor.of(np.zeros(3, np.float32))
    with pytest.raises(CheckpointError) as caught:
        RCNNHead.load(resolved.head, levels_of(resolved.architecture), broken)
    assert "1 missing: rpn.head.cls_logits.bias" in caught.value.found
    assert "1 unexpected: another" in caught.value.found
    assert "fc7.bias is [3] instead of [24]" in caught.value.found


def test_networks_are_frozen_and_in_evaluation_mode(facts):
    """A loaded backbone or head has no gradients, no training mode, and float32 weights."""
    resolved, raw = facts
    backbone = Backbone(contract_of(resolved), part(raw, "backbone."))
    head = RCNNHead.load(
        resolved.head, levels_of(resolved.architecture), {k: v for k, v in raw.items() if "backbone" not in k}
    )
    for module in (backbone, head):
        assert not any(value.requires_grad for value in module.parameters())
        assert not any(inner.training for inner in module.modules())
        assert {value.dtype for value in module.parameters()} == {torch.float32}


def test_building_uses_no_random_numbers(facts):
    """Building networks leaves torch's random state as it was."""
    resolved, raw = facts
    before = torch.random.get_rng_state()
    Backbone(contract_of(resolved), part(raw, "backbone."))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_maps_that_contradict_the_contract_are_refused(facts):
    """A record whose levels are not what the network gives is refused with both."""
    resolved, raw = facts
    wrong = (*levels_of(resolved.architecture)[:-1], Level(name="other", channels=16, stride=64))
    backbone = Backbone(contract_of(resolved, levels=wrong), part(raw, "backbone."))
    with pytest.raises(IncompatibleError, match="'other'"):
        backbone([backbone.prepare(torch.rand(3, 64, 64))])


def test_anchors_for_another_number_of_levels_are_refused(facts):
    """A head whose anchors are for other levels than the backbone's is refused at building."""
    resolved, _raw = facts
    with pytest.raises(RecordError, match="anchors for 5 levels"):
        RCNNHead(resolved.head, LEVELS)


def test_memory_is_measured_from_the_tensors():
    """A module's bytes are those of its parameters and buffers, shared ones counted once."""
    one, two = torch.nn.Linear(3, 5), torch.nn.BatchNorm2d(4)
    assert module_bytes(one) == 4 * (15 + 5)
    assert module_bytes(two) == 4 * 16 + 8
    shared = torch.nn.Sequential(one, one, two)
    assert module_bytes(shared) == module_bytes(one) + module_bytes(two)


def random_boxes(count, size, seed):
    """Boxes of all sizes, from one pixel to many times the picture."""
    source = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=source) * size
    sides = torch.exp(torch.rand(count, 2, generator=source) * math.log(16 * size)) + 1  # below and beyond all levels
    return torch.cat([corners, corners + sides], dim=1)


@given(count=st.integers(0, 40), seed=st.integers(0, 1000), images=st.integers(1, 3))
def test_pooling_equals_torchvisions_on_ordinary_pictures(count, seed, images):
    """Features pooled with stated strides equal torchvision's inferred ones bit for bit, empty proposals too."""
    source = torch.Generator().manual_seed(seed)
    maps = {
        level.name: torch.randn(images, 6, 256 // level.stride, 320 // level.stride, generator=source)
        for level in LEVELS
    }
    boxes = [random_boxes(count, 256, seed + place) for place in range(images)]
    ours = PyramidRoIAlign(LEVELS, size=7, sampling_ratio=2)(maps, boxes)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)(maps, boxes, [(256, 320)] * images)
    assert torch.equal(ours, theirs)


def test_pooling_does_not_depend_on_the_first_picture():
    """After an elongated first picture torchvision's pooling changes for good; ours gives the same as before."""
    maps = {level.name: torch.randn(1, 6, 256 // level.stride, 320 // level.stride) for level in LEVELS}
    odd = {level.name: torch.randn(1, 6, 32 // level.stride, 1344 // level.stride) for level in LEVELS}
    boxes, thin = [random_boxes(50, 256, 1)], [torch.tensor([[0.0, 0.0, 100.0, 13.0]])]
    ours, theirs = PyramidRoIAlign(LEVELS, size=7, sampling_ratio=2), MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    fresh = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)(maps, boxes, [(256, 320)])
    ours(odd, thin)
    theirs(odd, thin, [(13, 1333)])
    assert torch.equal(ours(maps, boxes), fresh)
    assert not torch.equal(theirs(maps, boxes, [(256, 320)]), fresh)


def test_one_level_alone_can_be_pooled_from():
    """With a single level no sizes are compared."""
    maps = {"1": torch.randn(1, 6, 32, 40)}
    boxes = [random_boxes(5, 256, 0)]
    ours = PyramidRoIAlign(LEVELS[1:2], size=5, sampling_ratio=2)(maps, boxes)
    assert torch.equal(ours, MultiScaleRoIAlign(["1"], 5, 2)(maps, boxes, [(256, 320)]))


def test_devices_and_dtypes_that_are_not_there_are_refused():
    """An unknown or absent device or dtype is refused by name, saying what to use."""
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in {"cpu", "cuda"}
    for name in ("cuda:99", "warp", "xla:0", ""):
        with pytest.raises(DeviceError, match="device") as caught:
            choose_device(name)
        assert "'cpu'" in caught.value.remedy
    assert choose_dtype(None) == choose_dtype("float32") == choose_dtype(torch.float32) == torch.float32
    for dtype in ("float8", torch.int64, "int8"):
        with pytest.raises(DeviceError, match="not offered"):
            choose_dtype(dtype)
