"""The parts of the fast engine, each against torch's or torchvision's own."""

import pytest
import torch
import training_fixtures
from hypothesis import given
from hypothesis import strategies as st
from originals import mobilenet, second_form, small
from torch import nn
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import FrozenBatchNorm2d, nms, roi_align
from training_fixtures import SETTINGS

from hydra_detect.engine import suppression, waitless, winograd
from hydra_detect.engine.convolutions import Direct, Winograd, chosen, filled
from hydra_detect.engine.decoding import decoded, resized
from hydra_detect.engine.folding import fold_norms
from hydra_detect.engine.roi_align import Table, pooled
from hydra_detect.engine.stopwatch import Stopwatch
from hydra_detect.engine.suppression import ROUNDS, Lot, survivors
from hydra_detect.nets.backbones import Features
from hydra_detect.nets.heads import RCNNHead

sides = st.integers(1, 23)


def seeded(seed):
    """Return a source of random numbers."""
    return torch.Generator().manual_seed(seed)


@given(
    seed=st.integers(0, 2**16),
    boxes=st.integers(1, 40),
    labels=st.integers(1, 4),
    weights=st.sampled_from([(10.0, 10.0, 5.0, 5.0), (1.0, 1.0, 1.0, 1.0), (1.0, 3.0, 7.0, 0.3)]),
    spread=st.sampled_from([0.1, 3.0, 40.0]),
)
def test_decoded(seed, boxes, labels, weights, spread):
    """Deltas of any size make of boxes what torchvision makes of them, to the bit."""
    source, coder = seeded(seed), BoxCoder(weights)
    corners = torch.rand(boxes, 4, generator=source) * 800
    corners[:, 2:] += corners[:, :2]
    deltas = torch.randn(boxes, 4 * labels, generator=source) * spread
    assert torch.equal(decoded(coder, deltas, corners), coder.decode(deltas, [corners]).view(boxes, labels, 4))


def test_decoded_nothing():
    """Of no boxes nothing is made, of as many labels."""
    assert decoded(BoxCoder((1.0, 1.0, 1.0, 1.0)), torch.zeros(0, 8), torch.zeros(0, 4)).shape == (0, 2, 4)


@given(
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)), wanted=st.tuples(sides, sides), seed=st.integers(0, 99)
)
def test_resized(size, wanted, seed):
    """Boxes are brought to the size of the picture as torchvision does it, to the bit."""
    boxes = torch.rand(9, 4, generator=seeded(seed)) * 2000
    assert torch.equal(resized(boxes, size, wanted), resize_boxes(boxes, size, wanted))


def a_map(height, width, channels=5, seed=0):
    """Return a map with channels last."""
    values = torch.randn(1, channels, height, width, generator=seeded(seed))
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("way", [Winograd(), Direct()], ids=["winograd", "direct"])
@given(height=sides, width=sides, outputs=st.lists(st.integers(1, 9), min_size=1, max_size=3), seed=st.integers(0, 9))
def test_convolutions(way, height, width, outputs, seed):
    """Each way gives what conv2d gives, whatever the size of the map, for each of several kernels."""
    level = a_map(height, width, seed=seed)
    weights = [torch.randn(out, 5, 3, 3, generator=seeded(seed + place)) for place, out in enumerate(outputs)]
    bands = list(way.bands(level, [way.ready(way.kernel(weight)) for weight in weights]))
    for place, weight in enumerate(weights):
        found = way.in_rows([band[place] for band in bands], height, width)
        wanted = functional.conv2d(level, weight, padding=1)[0].permute(1, 2, 0).reshape(height * width, -1)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_many_bands():
    """A map of many bands is put together in order."""
    level, weight = a_map(61, 187, channels=3), torch.randn(4, 3, 3, 3, generator=seeded(1))
    bands = list(winograd.bands(level, [winograd.transformed(winograd.laid_out(weight))]))
    assert len(bands) > 5
    found = winograd.in_rows([band[0] for band in bands], 61, 187)
    wanted = functional.conv2d(level, weight, padding=1)[0].permute(1, 2, 0).reshape(61 * 187, -1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_kernel_beside_others_gives_the_same_bits():
    """What a kernel gives does not depend on those that are given with it."""
    level = a_map(40, 50, channels=32)
    weights = [torch.randn(16, 32, 3, 3, generator=seeded(place)) for place in range(4)]
    kernels = [winograd.transformed(winograd.laid_out(weight)) for weight in weights]
    together = [torch.cat([band[place] for band in winograd.bands(level, kernels)]) for place in range(4)]
    for kernel, found in zip(kernels, together, strict=True):
        alone = torch.cat([band[0] for band in winograd.bands(level, [kernel])])
        assert torch.equal(alone, found)


def test_which_way():
    """Winograd's way loses digits in half precision, and a GPU has its own: both take the direct one."""
    assert isinstance(chosen(torch.device("cpu"), torch.float32), Winograd)
    assert isinstance(chosen(torch.device("cpu"), torch.bfloat16), Direct)
    assert isinstance(chosen(torch.device("cuda"), torch.float32), Direct)


@pytest.mark.parametrize(("rows", "wanted"), [(0, 0), (1, 16), (16, 16), (17, 32), (32, 32)])
def test_filled(rows, wanted):
    """Thin weights are filled up with zeros to what takes no longer."""
    weight = torch.ones(rows, 3)
    found = filled(weight)
    assert found.shape == (wanted, 3)
    assert float(found.sum()) == weight.sum()


boxes = st.lists(
    st.tuples(st.floats(-90, 400), st.floats(-90, 400), st.floats(0, 300), st.floats(0, 300)), min_size=0, max_size=12
)


@given(boxes=boxes, size=st.sampled_from([1, 3, 7]), samples=st.sampled_from([1, 2, 3]), seed=st.integers(0, 9))
def test_roi_align(boxes, size, samples, seed):
    """Crops are torchvision's, of every level, for boxes without area and boxes far outside too."""
    maps = {str(k): a_map(40 >> k, 50 >> k, channels=6, seed=seed + k) for k in range(3)}
    scales = [1 / 8, 1 / 16, 1 / 32]
    rows = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=torch.float32).reshape(-1, 4)
    levels = torch.arange(len(rows)) % 3
    found = pooled(Table.of(maps, scales), rows, levels, size=size, samples=samples)
    assert found.shape == (len(rows), size * size, 6)
    for place, (box, level) in enumerate(zip(rows, levels.tolist(), strict=True)):
        roi = torch.cat([torch.zeros(1), box])[None]
        wanted = roi_align(maps[str(level)].contiguous(), roi, size, scales[level], samples)[0]
        torch.testing.assert_close(found[place], wanted.flatten(1).T, rtol=1e-3, atol=1e-3)


def test_edges_of_a_map():
    """A sample up to one position outside takes the edge's value, and beyond that none."""
    level = {"0": torch.ones(1, 1, 4, 4)}
    inside = torch.tensor([[-0.9, 0.0, 0.1, 1.0]])
    outside = torch.tensor([[-9.0, 0.0, -5.0, 1.0]])
    table, zero = Table.of(level, [1.0]), torch.zeros(1, dtype=torch.int64)
    assert float(pooled(table, inside, zero, size=1, samples=1)) == 1.0
    assert float(pooled(table, outside, zero, size=1, samples=1)) == 0.0


@pytest.mark.parametrize("build", [small, second_form, mobilenet])
def test_folded_norms(build):
    """A backbone whose norms are folded has no norm, and makes the same maps to rounding."""
    network = build().backbone.eval()
    picture = torch.rand(1, 3, 64, 96, generator=seeded(0))
    with torch.no_grad():
        before = network(picture)
        fold_norms(network)
        after = network(picture)
    assert not any(isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d) for part in network.modules())
    for name, level in before.items():
        torch.testing.assert_close(after[name], level, rtol=1e-4, atol=1e-4)


def test_a_norm_behind_a_convolution_with_a_bias():
    """The bias of a convolution goes through its norm, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        nn.init.uniform_(network[1].weight, 2, 3)
        nn.init.uniform_(network[1].running_mean, 2, 3)
    picture = torch.rand(1, 3, 8, 8, generator=seeded(0))
    with torch.no_grad():
        before = network(picture)
        fold_norms(network)
        torch.testing.assert_close(network(picture), before, rtol=1e-5, atol=1e-5)


def test_detections_of_unsettled_proposals_are_unsettled():
    """What was chosen from proposals that more repetitions would change is not settled, however clear the rest is."""
    head = RCNNHead(SETTINGS, training_fixtures.backbone().contract.levels)
    image = ImageList(torch.zeros(1, 3, 48, 64), [(48, 64)])
    picture = Features({}, image, [(48, 64)])
    boxes = torch.tensor([[0.0, 0, 10, 10], [30, 30, 40, 40]])
    scored = torch.tensor([[0.0, 5, 0], [0, 0, 5]]), torch.zeros(2, 12)
    for is_settled in (True, False):
        proposals = waitless.Masked(
            boxes, torch.ones(2), torch.ones(2, dtype=torch.int64), torch.tensor([True, True]), torch.tensor(is_settled)
        )
        (found,) = waitless.chosen([(head, 0.5)], picture, [proposals], [scored])
        assert bool(found.is_settled) == is_settled
        (output,) = waitless.fetched([found])
        assert (output is not None) == is_settled
        if output:
            assert output.labels.tolist() == [1, 2]
            torch.testing.assert_close(output.boxes, boxes)


def test_a_stopwatch():
    """Time is booked where it is said to belong, and nowhere twice."""
    watch = Stopwatch(2)
    watch.mark(None)
    watch.mark(1)
    watch.mark(1)
    assert watch.shared > 0
    assert watch.heads[0] == 0
    assert watch.heads[1] > 0


@given(boxes=boxes, seed=st.integers(0, 99), limit=st.sampled_from([0.3, 0.5, 0.7]))
def test_survivors_are_those_of_greedy_suppression(boxes, seed, limit):
    """A fixed number of boxes and a mask give what torchvision's suppression gives."""
    rows = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=torch.float32).reshape(-1, 4)
    valid = torch.rand(len(rows), generator=seeded(seed)) > 0.2
    others = [Lot(rows[: len(rows) // 2], valid[: len(rows) // 2], 0.1), Lot(rows.flip(0), valid, 0.9)]
    (kept, is_settled), *_rest = survivors([Lot(rows, valid, limit), *others])
    assert torch.equal(kept, survivors([Lot(rows, valid, limit)])[0][0])
    own = torch.where(valid)[0]
    order = torch.linspace(1, 0.5, len(rows))  # best first
    wanted = own[nms(rows[own], order[own], limit)].sort().values
    assert is_settled
    assert torch.equal(torch.where(kept)[0], wanted)


def test_a_long_chain_is_not_settled():
    """Boxes each of which is suppressed by the one before need as many repetitions: that there were too few is said."""
    chain = torch.tensor([[4.0 * place, 0, 4.0 * place + 10, 10] for place in range(2 * ROUNDS)])
    valid = torch.ones(2 * ROUNDS, dtype=torch.bool)
    (_kept, first), (kept, second) = survivors([Lot(chain, valid, 0.4), Lot(chain[:ROUNDS], valid[:ROUNDS], 0.4)])
    assert not first
    assert second
    assert kept.tolist() == [place % 2 == 0 for place in range(ROUNDS)]


def test_many_lots_are_suppressed_in_several_turns(monkeypatch):
    """However many boxes may be held against each other at a time, each lot comes out as it does alone."""
    source = seeded(3)
    corners = torch.rand(40, 2, generator=source) * 50
    rows = torch.cat([corners, corners + 15], dim=1)
    lots = [Lot(rows[:count], torch.ones(count, dtype=torch.bool), 0.3) for count in (40, 3, 0, 17)]
    alone = [survivors([lot])[0] for lot in lots]
    for most in (1, 40**2, 1 << 20):
        monkeypatch.setattr(suppression, "_MOST_PAIRS", most)
        together = survivors(lots)
        assert all(torch.equal(one[0], other[0]) for one, other in zip(alone, together, strict=True))
    assert survivors([]) == []
