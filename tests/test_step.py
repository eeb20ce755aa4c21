"""One look at a batch: what torchvision's own training would compute, and nothing besides."""

import attrs
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign
from training_fixtures import (
    ARCHITECTURE,
    CLASSES,
    CONFIG,
    SAMPLING,
    SETTINGS,
    TRAIN,
    backbone,
    cache,
    head,
    learn_shapes,
    task,
)

from hydra_detect.training import patches
from hydra_detect.training.features import FrozenFeatures, stack
from hydra_detect.training.source import CachedSource
from hydra_detect.training.step import predict

WIDE = (0, 1, 3)  # numbers of samples: one shape, two, none


def seen(folder, numbers, *, dtype="float32"):
    """Return samples as a training sees them."""
    source = CachedSource(FrozenFeatures(backbone(), cache(folder), dtype=dtype), CLASSES, views=("plain",))
    return [source.plain(TRAIN[number]) for number in numbers]


def theirs(ours):
    """Return torchvision's own two stages in training, with the weights of ours."""
    channels = ARCHITECTURE.pyramid_channels
    limits = {"training": SAMPLING.proposals, "testing": SETTINGS.rpn_post_nms_top_n}
    anchors = AnchorGenerator(SETTINGS.anchor_sizes, SETTINGS.aspect_ratios)
    rpn = RegionProposalNetwork(
        anchors,
        RPNHead(channels, 3),
        fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=SAMPLING.rpn_batch, positive_fraction=0.5,
        pre_nms_top_n=limits, post_nms_top_n=limits, nms_thresh=SETTINGS.rpn_nms_threshold,
    )  # fmt: skip
    roi = RoIHeads(
        MultiScaleRoIAlign(["0", "1"], 7, 2),
        TwoMLPHead(channels * 49, 32),
        FastRCNNPredictor(32, 3),
        fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=SAMPLING.box_batch, positive_fraction=0.25,
        bbox_reg_weights=None, score_thresh=0.05, nms_thresh=0.5, detections_per_img=100,
    )  # fmt: skip
    rpn.load_state_dict(ours.rpn.state_dict(), strict=True)
    roi.load_state_dict(ours.roi_heads.state_dict(), strict=True)
    return rpn.train(), roi.train()


def their_losses(ours, batch, seed):
    """Return torchvision's four losses of a batch, under our names, and the gradient of their sum."""
    rpn, roi = theirs(ours)
    features = stack([one.encoded for one in batch])
    targets = [{"boxes": one.boxes, "labels": one.labels} for one in batch]
    torch.manual_seed(seed)
    proposals, first = rpn(features.images, features.maps, targets)
    _, second = roi(features.maps, proposals, features.images.image_sizes, targets)
    losses = {
        "objectness": first["loss_objectness"],
        "proposal": first["loss_rpn_box_reg"],
        "class": second["loss_classifier"],
        "box": second["loss_box_reg"],
    }
    sum(losses.values()).backward()
    gradients = {f"rpn.{n}": p.grad for n, p in rpn.named_parameters()}
    gradients |= {f"roi_heads.{n}": p.grad for n, p in roi.named_parameters()}
    return {name: float(value.detach()) for name, value in losses.items()}, gradients


def our_losses(ours, batch, seed, folder):
    """Return our losses of a batch, and the gradient of their sum."""
    torch.manual_seed(seed)
    losses = task(folder).losses(ours, batch)
    sum(losses.values()).backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    return {name: float(value.detach()) for name, value in losses.items()}, gradients


@pytest.mark.parametrize("numbers", [WIDE, (0,), (3,), (1, 1)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_and_gradients_are_torchvisions(tmp_path, numbers, seed):
    """The four losses, and every gradient, equal those of torchvision's own modules on the same draw."""
    ours = head(seed).train()
    batch = seen(tmp_path, numbers)
    assert len({one.encoded.padded_size for one in batch}) == 1
    found, gradients = our_losses(ours, batch, seed, tmp_path)
    expected, wanted = their_losses(ours, batch, seed)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found["class"] > 0
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, wanted[name], rtol=1e-4, atol=1e-7), name


def test_a_trained_head_too(tmp_path):
    """So they do for weights that find objects, with float16 features."""
    config = attrs.evolve(CONFIG, epochs=8, learning_rate=1e-2)
    ours = head()
    ours.load_state_dict(learn_shapes(tmp_path, config=config).network.state_dict())
    ours.train().requires_grad_(requires_grad=True)
    batch = seen(tmp_path, WIDE, dtype="float16")
    found, _ = our_losses(ours, batch, 7, tmp_path)
    expected, _ = their_losses(ours, batch, 7)
    assert found == pytest.approx(expected, rel=1e-6)
    assert found["box"] > 0


@pytest.mark.parametrize("is_sparse", [True, False])
def test_a_training_keeps_no_whole_map(tmp_path, monkeypatch, is_sparse):
    """A step of a head on frozen features runs the convolution over whole maps without a gradient."""
    if not is_sparse:
        monkeypatch.setattr(patches, "is_enough", lambda *_: False)
    network = head().train()
    kept = []
    network.rpn.head.conv.register_forward_hook(lambda _module, _given, found: kept.append(found.requires_grad))
    losses = task(tmp_path).losses(network, seen(tmp_path, (0, 1)))
    sum(losses.values()).backward()
    assert set(kept) == {not is_sparse}
    assert network.rpn.head.conv[0][0].weight.grad.abs().sum() > 0


def test_pictures_of_several_sizes_weigh_the_same(tmp_path):
    """A batch of two padded sizes has the mean of both sizes' losses, each weighed by its pictures."""
    ours, job = head().train(), task(tmp_path)
    wide, tall = seen(tmp_path, (0, 3, 1)), seen(tmp_path, (2,))
    assert (wide[0].encoded.padded_size, tall[0].encoded.padded_size) == ((48, 64), (64, 48))
    with torch.no_grad():
        torch.manual_seed(4)
        together = job.losses(ours, [wide[0], tall[0], *wide[1:]])
        torch.manual_seed(4)
        first, second = job.losses(ours, wide), job.losses(ours, tall)
    for name, value in together.items():
        assert float(value) == pytest.approx((3 * float(first[name]) + float(second[name])) / 4, rel=1e-6)
        assert first[name] != second[name]


def test_what_is_predicted_has_the_stated_shapes(tmp_path):
    """Objects come first among the anchors, deltas and targets belong to objects alone, labels are those of boxes."""
    batch = seen(tmp_path, WIDE[:2])
    torch.manual_seed(0)
    found = predict(head().train(), stack([one.encoded for one in batch]), batch)
    objects = int(found.is_object.sum())
    assert found.is_object.tolist() == [1.0] * objects + [0.0] * (len(found.is_object) - objects)
    assert found.anchor_deltas.shape == found.anchor_targets.shape == (objects, 4)
    assert found.class_logits.shape == (len(found.labels), 3)
    assert found.box_deltas.shape == found.box_targets.shape == (int((found.labels > 0).sum()), 4)
    assert set(found.labels.tolist()) == {0, 1, 2}
    assert not found.anchor_targets.requires_grad
    assert not found.box_targets.requires_grad
    assert len(found.is_object) <= 2 * SAMPLING.rpn_batch


def test_the_box_deltas_are_those_of_the_own_label(tmp_path):
    """Deltas of an object's proposal are predicted for its label, not for another class."""
    batch = seen(tmp_path, (1,))
    ours = head().train()
    rows = ours.roi_heads.box_predictor.bbox_pred
    torch.nn.init.zeros_(rows.weight)
    with torch.no_grad():
        rows.bias.copy_(torch.arange(12.0))
    found = predict(ours, stack([one.encoded for one in batch]), batch)
    labels = found.labels[found.labels > 0]
    assert found.box_deltas.tolist() == [[4.0 * label + place for place in range(4)] for label in labels.tolist()]
    assert set(labels.tolist()) == {1, 2}


def test_no_proposal_at_all(tmp_path):
    """A background that the first stage proposes nothing on is no crash: classes and boxes cost nothing there."""
    silent = attrs.evolve(SETTINGS, rpn_score_threshold=1.0)
    batch = seen(tmp_path, (3,))
    assert len(batch[0].boxes) == 0
    losses = task(tmp_path).losses(head(settings=silent).train(), batch)
    assert {name for name, value in losses.items() if value == 0} == {"class", "box", "proposal"}
    assert losses["objectness"] > 0
    sum(losses.values()).backward()
