"""Compact heads: differences from a reference that is held once, and the full heads that they stand for."""

import numpy as np
import pytest
import torch
import training_fixtures
from hypothesis import given
from hypothesis import strategies as st
from training_fixtures import SAMPLING, SETTINGS

from hydra_detect.errors import CheckpointError, IncompatibleError, RecordError
from hydra_detect.nets.compact import CompactHead, Lean, LowRank, Reference, factors, project, shared_layers
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import raw_tensors
from hydra_detect.tensors import tensors_digest

LAYERS = {"rpn.head.conv.0.0": 2, "roi_heads.box_head.fc6": 3, "roi_heads.box_head.fc7": 0}


def levels():
    """Return the maps of the tiny backbone."""
    return training_fixtures.backbone().contract.levels


def a_full_head(seed=0):
    """Return a full head with random weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = RCNNHead(SETTINGS, levels(), sampling=SAMPLING, device="cpu")
    return head.eval().requires_grad_(requires_grad=False)


def a_reference(seed=0):
    """Return a reference from such a head."""
    raw = raw_tensors(a_full_head(seed).state_dict())
    return Reference.of(tensors_digest(raw), SETTINGS, levels(), raw)


def a_compact_head(seed=1, ranks=None, reference=None):
    """Return a compact head with random weights."""
    lean = Lean(reference=reference or a_reference(), ranks=LAYERS if ranks is None else ranks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = CompactHead(SETTINGS, levels(), lean=lean, device="cpu")
        for layer in head.low_rank.values():
            torch.nn.init.normal_(layer.up, std=0.1)
            torch.nn.init.normal_(layer.down, std=0.1)
    return head.eval().requires_grad_(requires_grad=False)


def features():
    """Return what the tiny backbone makes of a picture."""
    backbone = training_fixtures.backbone()
    with torch.no_grad():
        return backbone([backbone.prepare(torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)))])


def test_what_is_kept():
    """Differences and biases are kept, the reference's weights are not, and whole layers and predictors are whole."""
    head = a_compact_head(ranks={"roi_heads.box_head.fc6": 3})
    state = head.state_dict()
    assert state["roi_heads.box_head.fc6.up"].shape == (32, 3)
    assert state["roi_heads.box_head.fc6.down"].shape == (3, 16 * 49)
    assert "roi_heads.box_head.fc6.weight" not in state
    assert "roi_heads.box_head.fc6.bias" in state
    assert state["roi_heads.box_head.fc7.weight"].shape == (32, 32)
    assert state["rpn.head.conv.0.0.weight"].shape == (16, 16, 3, 3)
    assert state["roi_heads.box_predictor.cls_score.weight"].shape == (3, 32)


def test_shared_layers_are_those_between_features_and_predictors():
    """What may be a difference is neither a predictor nor a norm."""
    assert sorted(shared_layers(a_full_head())) == sorted(LAYERS)


def test_written_out():
    """The whole of a compact head is a plain head with the reference's weights plus the product of the factors."""
    head, reference = a_compact_head(), a_reference()
    whole = head.whole()
    assert type(whole) is RCNNHead
    assert whole.whole() is whole
    state, own = whole.state_dict(), head.state_dict()
    for name, rank in LAYERS.items():
        weight = reference.weights[f"{name}.weight"]
        difference = (own[f"{name}.up"] @ own[f"{name}.down"]).view_as(weight)
        assert torch.equal(state[f"{name}.weight"], weight + difference)
        assert bool(difference.any()) == bool(rank)
    assert torch.equal(state["rpn.head.conv.0.0.bias"], own["rpn.head.conv.0.0.bias"])
    assert not any(parameter.requires_grad for parameter in whole.parameters())


def test_in_two_parts_it_is_the_same_function():
    """Run in two parts, as in training, a compact head says what its written-out form says, to rounding."""
    head = a_compact_head()
    maps = features()
    for ours, theirs in zip(
        head.rpn.head([*maps.maps.values()]), head.whole().rpn.head([*maps.maps.values()]), strict=True
    ):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    boxes = [torch.tensor([[2.0, 3, 30, 40], [0, 0, 64, 48]])]
    for one, other in zip(head.score(maps.maps, boxes), head.whole().score(maps.maps, boxes), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_without_a_difference_it_is_the_reference():
    """With factors of zero and the predictors of its reference, a compact head is the reference bit for bit."""
    full = a_full_head()
    head = a_compact_head()
    own = {name: value for name, value in full.state_dict().items() if name in head.state_dict()}
    zeros = {
        name: torch.zeros_like(value) for name, value in head.state_dict().items() if name.endswith((".up", ".down"))
    }
    head.load_state_dict({**own, **zeros}, strict=True)
    maps = features()
    with torch.no_grad():
        (one,), (other,) = head.whole()(maps, score_threshold=0.0), full(maps, score_threshold=0.0)
    assert len(one.boxes)
    assert torch.equal(one.boxes, other.boxes)
    assert torch.equal(one.scores, other.scores)


def test_to_bytes_and_back():
    """A compact head from its own tensors and its reference is the same head."""
    head = a_compact_head()
    again = CompactHead.restored(SETTINGS, levels(), raw_tensors(head.state_dict()), lean=head.lean)
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), again.state_dict().values(), strict=True))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_tensors_of_another_form():
    """The tensors of a full head, or of another rank, make no compact head: all that is wrong is listed."""
    head = a_compact_head()
    with pytest.raises(CheckpointError, match=r"missing: .*fc6\.down.*unexpected: .*fc6\.weight"):
        CompactHead.restored(SETTINGS, levels(), raw_tensors(a_full_head().state_dict()), lean=head.lean)
    other = a_compact_head(ranks={**LAYERS, "roi_heads.box_head.fc6": 4})
    with pytest.raises(CheckpointError, match=r"fc6\.down is \[4, 784\] instead of \[3, 784\]"):
        CompactHead.restored(SETTINGS, levels(), raw_tensors(other.state_dict()), lean=head.lean)


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ({"roi_heads.box_head.fc7": 33}, r"layer 'roi_heads\.box_head\.fc7' of shape \[32, 32\] is to have rank 33"),
        ({"roi_heads.box_head.fc7": -1}, "rank -1. Give a rank from 0 to 32"),
        ({"roi_heads.box_head.fc8": 1}, r"no layer 'roi_heads\.box_head\.fc8'.*Did you mean"),
        ({"rpn.head.cls_logits": 1}, r"no layer 'rpn\.head\.cls_logits'"),
    ],
)
def test_ranks_that_no_layer_has(ranks, told):
    """A rank beyond its layer's, and a layer that may not be reduced, are refused."""
    with pytest.raises(RecordError, match=told):
        a_compact_head(ranks=ranks)


def test_a_reference_of_other_shapes():
    """A reference that does not fit is refused: what is missing or of another shape is listed."""
    reference = a_reference()
    narrow = {name: value for name, value in reference.weights.items() if "fc7" not in name}
    narrow["roi_heads.box_head.fc6.weight"] = torch.zeros(16, 784)
    with pytest.raises(
        IncompatibleError, match=r"missing: .*fc7\.weight.*fc6\.weight is \[16, 784\] instead of \[32, 784\]"
    ):
        a_compact_head(reference=Reference(reference.digest, narrow))


def test_the_nearest_compact_head():
    """A full head that a compact one stands for gives that one back; others come as near as their ranks allow."""
    head = a_compact_head()
    again = CompactHead.nearest(head.whole(), head.lean)
    for name, value in head.whole().state_dict().items():
        torch.testing.assert_close(again.whole().state_dict()[name], value, rtol=1e-4, atol=1e-5)
    full, lean = a_full_head(5), head.lean
    near = CompactHead.nearest(full, lean).whole().state_dict()
    for name, rank in LAYERS.items():
        reference, weight = lean.reference.weights[f"{name}.weight"], full.state_dict()[f"{name}.weight"]
        values = torch.linalg.svdvals((weight - reference).flatten(1).double())
        lost = (near[f"{name}.weight"] - weight).double().norm()
        assert float(lost) == pytest.approx(float((values[rank:] ** 2).sum().sqrt()), rel=1e-3)


def test_projection():
    """A projected head is what its nearest compact head stands for, and projecting it again changes nothing."""
    full, lean = a_full_head(5), a_compact_head().lean
    wanted = CompactHead.nearest(full, lean).whole().state_dict()
    project(full, lean)
    once = {name: value.clone() for name, value in full.state_dict().items()}
    project(full, lean)
    for name, value in full.state_dict().items():
        torch.testing.assert_close(once[name], wanted[name], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(value, once[name], rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_differences_alone():
    """What learns is a head's own: its reference has no gradient, and is no parameter."""
    head = a_compact_head().requires_grad_(requires_grad=True)
    maps = features()
    scores, _boxes = head.score(maps.maps, [torch.tensor([[2.0, 3, 30, 40]])])
    scores.sum().backward()
    layer = head.low_rank["roi_heads.box_head.fc6"]
    assert layer.up.grad is not None
    assert layer.up.grad.any()
    assert not layer.weight.requires_grad
    assert isinstance(layer, LowRank)


@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 100))
def test_factors_are_the_nearest(rank, inner, seed):
    """The product of the factors is as near as singular values allow (Eckart and Young)."""
    source = np.random.default_rng(seed)
    matrix = source.normal(size=(12, inner)) @ source.normal(size=(inner, 30))
    up, down = factors(torch.tensor(matrix), rank)
    assert up.shape == (12, rank)
    assert down.shape == (rank, 30)
    values = np.linalg.svd(matrix, compute_uv=False)
    error = np.linalg.norm(matrix - (up.double() @ down.double()).numpy())
    assert error <= np.sqrt((values[rank:] ** 2).sum()) + 1e-4 * values[0]


@given(st.integers(1, 6), st.integers(0, 100))
def test_factors_by_importance(rank, seed):
    """Where some elements matter more, the product is nearer to the matrix there than without knowing it."""
    source = np.random.default_rng(seed)
    matrix = torch.tensor(source.normal(size=(12, 30)))
    importance = torch.ones(12, 30, dtype=torch.float64)
    importance[:3] *= 1e4
    importance[:, :5] *= 1e4
    weights = importance.sqrt()
    known, plain = factors(matrix, rank, importance), factors(matrix, rank)
    errors = [float(((up.double() @ down.double() - matrix) * weights).norm()) for up, down in (known, plain)]
    assert errors[0] <= errors[1] * 1.01


def test_importance_of_nothing():
    """Where no element has moved any loss, all matter alike."""
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    for one, other in zip(factors(matrix, 2, torch.zeros(5, 7)), factors(matrix, 2), strict=True):
        torch.testing.assert_close(one, other)


def test_factors_of_nothing():
    """The factors of no difference are no difference."""
    up, down = factors(torch.zeros(5, 7), 2)
    assert not (up @ down).any()
