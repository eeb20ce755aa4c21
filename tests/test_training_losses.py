"""Losses by name, and what each of them weighs."""

import itertools

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_fixtures import CONFIG

from hydra_detect.errors import InputError
from hydra_detect.training.losses import (
    LossContext,
    alphas,
    focal_loss,
    list_losses,
    loss_named,
    torchvision_loss,
)
from hydra_detect.training.step import Predictions


def context(*frequencies, **settings):
    """Return what a loss is given beside a batch."""
    return LossContext(config=attrs.evolve(CONFIG, **settings), frequencies=frequencies)


def predictions(labels, *, classes=2, seed=0):
    """Return random predictions for proposals of these labels; as many anchors, every second an object."""
    source = torch.Generator().manual_seed(seed)

    def numbers(*shape):
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    of, objects = torch.tensor(labels, dtype=torch.int64), sum(label > 0 for label in labels)
    return Predictions(
        objectness=numbers(len(of)),
        is_object=(torch.arange(len(of)) % 2).double(),
        anchor_deltas=numbers(len(of) // 2, 4),
        anchor_targets=numbers(len(of) // 2, 4),
        class_logits=numbers(len(of), classes + 1),
        labels=of,
        box_deltas=numbers(objects, 4),
        box_targets=numbers(objects, 4),
    )


@pytest.mark.parametrize("loss", [torchvision_loss, focal_loss])
def test_nothing_to_take_them_over(loss):
    """Without anchors, proposals and objects each part is 0, and no NaN."""
    parts = loss(predictions([]), context(3, 4))
    assert {name: float(value) for name, value in parts.items()} == {
        "objectness": 0, "proposal": 0, "class": 0, "box": 0,
    }  # fmt: skip


@pytest.mark.parametrize("loss", [torchvision_loss, focal_loss])
def test_backgrounds_alone(loss):
    """Without any object the class part still counts what is taken for one, and the box part is 0."""
    parts = loss(predictions([0, 0, 0]), context(3, 4))
    assert parts["class"] > 0
    assert parts["box"] == 0


def test_torchvisions_parts_are_means():
    """Classes are cross entropy, objectness its binary form, boxes smooth L1 that turns at a ninth."""
    batch = predictions([0, 1, 2, 0, 1, 0])
    parts = torchvision_loss(batch, context(3, 4))
    chosen = batch.class_logits.softmax(dim=1)[range(6), batch.labels]
    assert float(parts["class"]) == pytest.approx(float(-chosen.log().mean()))
    sure = torch.where(batch.is_object > 0, batch.objectness, -batch.objectness).sigmoid()
    assert float(parts["objectness"]) == pytest.approx(float(-sure.log().mean()))
    for name, one, other in (
        ("box", batch.box_deltas, batch.box_targets),
        ("proposal", batch.anchor_deltas, batch.anchor_targets),
    ):
        apart = (one - other).abs()
        smooth = torch.where(apart < 1 / 9, apart**2 * 9 / 2, apart - 1 / 18)
        assert float(parts[name]) == pytest.approx(float(smooth.sum() / 6))


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 99))
def test_focal_without_focus_is_cross_entropy(labels, seed):
    """With gamma 0 and no alpha it is cross entropy divided by the objects instead of by all proposals."""
    batch, settings = predictions(labels, seed=seed), context(3, 4, focal_gamma=0)
    scale = len(labels) / max(1, sum(label > 0 for label in labels))
    plain, focal = torchvision_loss(batch, settings), focal_loss(batch, settings)
    assert float(focal["class"]) == pytest.approx(float(plain["class"]) * scale, rel=1e-9)
    assert all(torch.equal(focal[name], plain[name]) for name in ("objectness", "proposal", "box"))


def test_focal_by_hand():
    """Each proposal weighs the alpha of its label times what is missing from its probability, to the power gamma."""
    batch = predictions([0, 2, 1, 0])
    found = focal_loss(batch, context(3, 4, focal_gamma=2.5, focal_alpha="0.1,0.4,0.5"))["class"]
    chosen = batch.class_logits.softmax(dim=1)[range(4), batch.labels]
    weights = torch.tensor([0.1, 0.5, 0.4, 0.1], dtype=torch.float64)
    assert float(found) == pytest.approx(float((weights * (1 - chosen) ** 2.5 * -chosen.log()).sum() / 2), rel=1e-6)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 99), st.floats(0, 5))
def test_focus_only_takes_weight_away(labels, seed, gamma):
    """Whatever gamma is, the focal class part is no more than without focus, and finite."""
    batch = predictions(labels, seed=seed)
    focused, plain = (focal_loss(batch, context(3, 4, focal_gamma=g))["class"] for g in (gamma, 0.0))
    assert 0 <= focused <= plain * (1 + 1e-9)
    assert torch.isfinite(focused)


def test_forms_of_alpha():
    """Alpha may be left out, one number for all classes with the rest for the background, or one per label."""
    assert alphas(context(3, 4)) == (1, 1, 1)
    assert alphas(context(3, 4, focal_alpha="0.25")) == (0.75, 0.25, 0.25)
    assert alphas(context(3, 4, focal_alpha=" 0.1, 0.4 ,2")) == (0.1, 0.4, 2)
    assert alphas(context(3, 4, focal_alpha="dynamic"))[0] == 1


@pytest.mark.parametrize(
    "text", ["0.1,0.9", "1,2,3,4", "0", "1", "1.5", "-0.1,0.5,0.5", "nan", "inf,1,1", "much", "0.5;"]
)
def test_other_alphas_are_refused(text):
    """Weights that are no positive numbers, or not one for each label, are refused with what may be given."""
    with pytest.raises(InputError, match="there are 2 classes beside the background") as caught:
        focal_loss(predictions([1]), context(3, 4, focal_alpha=text))
    assert repr(text) in caught.value.found
    assert "dynamic" in caught.value.remedy


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=10))
def test_dynamic_alphas(counts):
    """They are positive with mean 1 over the classes; the more often a class is labelled, the less it weighs."""
    background, *classes = alphas(context(*counts, focal_alpha="dynamic"))
    assert background == 1
    assert all(value > 0 for value in classes)
    assert sum(classes) / len(classes) == pytest.approx(1)
    by_count = [alpha for _count, alpha in sorted(zip(counts, classes, strict=True), key=lambda pair: pair[0])]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(by_count))


def test_dynamic_alphas_by_hand():
    """A class labelled ten times as often weighs about a tenth, as long as both are far from ten thousand."""
    _background, rare, frequent = alphas(context(5, 50, focal_alpha="dynamic"))
    assert rare / frequent == pytest.approx(10, rel=0.01)


def test_names():
    """Both are listed and found by name; one that is given is found in that call alone."""
    assert {"torchvision", "focal"} <= set(list_losses())
    assert (loss_named("torchvision"), loss_named("focal")) == (torchvision_loss, focal_loss)
    assert loss_named("mine", {"mine": focal_loss}) is focal_loss
    with pytest.raises(InputError, match=r"find 'mine' among losses"):
        loss_named("mine")
