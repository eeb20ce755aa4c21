"""Anchors from what lies around them: what the whole proposal network says there, and its gradient."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.rpn import RPNHead, concat_box_prediction_layers

from hydra_detect.training import patches


def dense(network, maps, anchors):
    """Return what torchvision's own passes over whole maps say of anchors."""
    objectness, deltas = concat_box_prediction_layers(*network(maps))
    return objectness[anchors, 0], deltas[anchors]


def loud(network):
    """Give a network weights and biases of order 1, so that a wrong one cannot hide."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return network


sizes = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3)


@settings(max_examples=40)
@given(sizes=sizes, images=st.integers(1, 3), kinds=st.integers(1, 3), seed=st.integers(0, 99))
def test_what_the_whole_network_says(sizes, images, kinds, seed):
    """Logits, deltas and every gradient are those of the whole maps: at borders, of any anchors in any order."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = loud(RPNHead(5, kinds))
        maps = [torch.randn(images, 5, *size) for size in sizes]
        every = images * kinds * sum(height * width for height, width in sizes)
        anchors = torch.randint(every, (max(1, every // 2),))
    results = []
    for way in (dense, patches.predicted):
        network.zero_grad()
        logits, deltas = way(network, maps, anchors)
        (logits.sigmoid().sum() + deltas.square().sum()).backward()
        results.append([logits, deltas, *(parameter.grad for parameter in network.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_no_anchors():
    """Of no anchors nothing is said."""
    logits, deltas = patches.predicted(RPNHead(5, 3), [torch.randn(1, 5, 4, 4)], torch.arange(0))
    assert (logits.shape, deltas.shape) == ((0,), (0, 4))


def test_when_it_is_enough():
    """Where a network before it learns, too, where nothing learns, or a second convolution follows, it is not."""
    plain, maps = RPNHead(5, 3), [torch.randn(1, 5, 4, 4)]
    assert patches.is_enough(plain, maps)
    assert not patches.is_enough(RPNHead(5, 3, conv_depth=2), maps)
    assert not patches.is_enough(plain, [maps[0].clone().requires_grad_()])
    with torch.no_grad():
        assert not patches.is_enough(plain, maps)


def test_in_mixed_precision():
    """In bfloat16 the gradients are those of the whole maps, after a pass without gradients in the same context."""
    torch.manual_seed(0)
    network, maps = loud(RPNHead(5, 3)), [torch.randn(2, 5, 6, 7), torch.randn(2, 5, 3, 4)]
    anchors, results = torch.randperm(2 * 3 * (42 + 12))[:60], []
    for way in (dense, patches.predicted):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            with torch.no_grad():
                network(maps)
            logits, deltas = way(network, maps, anchors)
        (logits.float().sigmoid().sum() + deltas.float().square().mean()).backward()
        results.append([parameter.grad for parameter in network.parameters()])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=0.1, atol=0.1)
        assert one.abs().sum() > 0
