"""Recognising detectors by keys and shapes, at their real sizes, on the meta device."""

import pytest
import torch
from originals import detector, full_size, mobilenet, resnet18, second_form
from torch import nn
from torchvision.models import resnet18 as classifier
from torchvision.models.detection import (
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    fcos_resnet50_fpn,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    retinanet_resnet50_fpn,
    retinanet_resnet50_fpn_v2,
    ssd300_vgg16,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.ops import FrozenBatchNorm2d

from hydra_detect.checkpoints.recognise import recognise
from hydra_detect.checkpoints.settings import SplitSettings, resolve
from hydra_detect.errors import CheckpointError
from hydra_detect.nets.backbones import build_network, levels_of
from hydra_detect.nets.heads import RCNNHead


def shapes(model):
    """Tensor names to shapes."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def rebuilt(model, **settings):
    """Recognise a model, build ours from what was recognised, and return ours' shapes and the facts."""
    found = recognise(shapes(model), "a.pth")
    facts = resolve(found, SplitSettings.of(settings), "a.pth")
    network = build_network(facts.architecture)
    ours = {f"backbone.{name}": shape for name, shape in shapes(network).items()}
    return ours | shapes(RCNNHead(facts.head, levels_of(facts.architecture))), facts


def on_meta(make, **arguments):
    """Build one of torchvision's detectors without memory."""
    with torch.device("meta"):
        return make(weights=None, weights_backbone=None, **arguments)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "wide_resnet50_2",
        "wide_resnet101_2",
    ],
)
def test_each_resnet_is_recognised_and_rebuilt_shape_for_shape(name):
    """Every ResNet of torchvision is named rightly and rebuilt with exactly its keys and shapes."""
    model = full_size(name)
    ours, facts = rebuilt(model)
    assert facts.architecture.name == name
    assert ours == shapes(model)
    assert facts.architecture.norm == "frozen"


@pytest.mark.parametrize(
    ("make", "name", "box_head"),
    [
        (fasterrcnn_resnet50_fpn, "resnet50", "mlp"),
        (fasterrcnn_resnet50_fpn_v2, "resnet50", "conv_fc"),
        (fasterrcnn_mobilenet_v3_large_fpn, "mobilenet_v3_large", "mlp"),
        (fasterrcnn_mobilenet_v3_large_320_fpn, "mobilenet_v3_large", "mlp"),
    ],
)
@pytest.mark.parametrize("classes", [2, 91])
def test_each_detector_of_torchvision_is_rebuilt_with_its_own_settings(make, name, box_head, classes):
    """The four constructors of torchvision are rebuilt shape for shape, with the settings of the model itself."""
    model = on_meta(make, num_classes=classes)
    ours, facts = rebuilt(model, preset=make.__name__)
    assert (facts.architecture.name, facts.head.box_head, facts.head.label_count) == (name, box_head, classes)
    assert ours == shapes(model)
    assert facts.preprocessing.min_size == model.transform.min_size[0]
    assert facts.preprocessing.max_size == model.transform.max_size
    assert facts.head.anchor_sizes == model.rpn.anchor_generator.sizes
    assert facts.head.rpn_score_threshold == model.rpn.score_thresh
    assert facts.head.rpn_pre_nms_top_n == model.rpn._pre_nms_top_n["testing"]
    assert facts.head.rpn_post_nms_top_n == model.rpn._post_nms_top_n["testing"]
    assert facts.head.detections_per_image == model.roi_heads.detections_per_img
    assert list(facts.head.roi_levels) == model.roi_heads.box_roi_pool.featmap_names


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (detector(resnet18(norm=FrozenBatchNorm2d)), {"norm": "frozen"}),
        (detector(resnet18(norm=nn.BatchNorm2d)), {"norm": "batch"}),
        (detector(resnet18(channels=1), image_mean=[0.4], image_std=[0.2]), {"in_channels": 1}),
        (detector(resnet18(width=24)), {"pyramid_channels": 24}),
        (second_form(), {"pyramid_norm": True}),
        (mobilenet(), {"return_layers": ("13", "16"), "body_channels": (160, 960)}),
    ],
    ids=["frozen", "batch", "one-channel", "width-24", "second-form", "mobilenet"],
)
def test_variants_are_read_from_shapes(model, expected):
    """Norm kind, first-layer channels, pyramid width and returned layers come from keys and shapes."""
    transform = model.transform
    sizes, ratios = model.rpn.anchor_generator.sizes, model.rpn.anchor_generator.aspect_ratios
    ours, facts = rebuilt(
        model, mean=transform.image_mean, std=transform.image_std, anchor_sizes=sizes, aspect_ratios=ratios
    )
    assert ours == shapes(model)
    assert {name: getattr(facts.architecture, name) for name in expected} == expected


def test_a_pyramid_that_leaves_out_stages_is_rebuilt():
    """A pyramid over layers 2 and 3 alone is rebuilt, with the body cut off where torchvision cuts it."""
    model = detector(resnet18(layers=(2, 3)), sizes=((8,), (16,), (32,)), ratios=((0.5, 1.0, 2.0),) * 3)
    ours, facts = rebuilt(model, anchor_sizes=((8,), (16,), (32,)))
    assert ours == shapes(model)
    assert facts.architecture.return_layers == ("layer2", "layer3")
    assert [level.stride for level in levels_of(facts.architecture)] == [8, 16, 32]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (maskrcnn_resnet50_fpn, "Mask R-CNN"),
        (keypointrcnn_resnet50_fpn, "Keypoint R-CNN"),
        (retinanet_resnet50_fpn, "RetinaNet"),
        (retinanet_resnet50_fpn_v2, "RetinaNet"),
        (fcos_resnet50_fpn, "FCOS"),
        (ssd300_vgg16, "SSD"),
        (ssdlite320_mobilenet_v3_large, "SSD"),
    ],
)
def test_other_detectors_are_refused_by_name(make, name):
    """Other detectors of torchvision are refused, each by its own name, saying what is supported."""
    with pytest.raises(CheckpointError, match=name) as caught:
        recognise(shapes(on_meta(make)), "a.pth")
    assert "Supported is torchvision's Faster R-CNN" in caught.value.remedy


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["proposal_generator.rpn_head.conv.weight", "backbone.bottom_up.res2.0.conv1.weight"], "Detectron2"),
        (["rpn_head.rpn_conv.weight", "roi_head.bbox_head.fc_cls.weight"], "MMDetection"),
        (["model.0.conv.weight", "model.22.cv2.0.0.conv.weight"], "Ultralytics"),
        (["transformer.encoder.layers.0.linear1.weight", "class_embed.weight"], "DETR"),
        (list(classifier(weights=None).state_dict()), "image classifier"),
        (["something.weight"], "no region proposal network"),
    ],
)
def test_foreign_names_are_refused_by_name(keys, name):
    """Other libraries' checkpoints are refused by the name of what they seem to be."""
    with pytest.raises(CheckpointError, match=name):
        recognise(dict.fromkeys(keys, (1,)), "a.pth")


def test_a_detector_without_a_pyramid_is_refused():
    """A Faster R-CNN on a single map is refused as such."""
    keys = {name: shape for name, shape in shapes(full_size("resnet18")).items() if ".fpn." not in name}
    with pytest.raises(CheckpointError, match="without a feature pyramid"):
        recognise(keys, "a.pth")


@pytest.mark.parametrize(
    "key",
    ["rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight", "backbone.fpn.inner_blocks.0.0.weight"],
)
def test_a_missing_key_part_is_named(key):
    """Without a tensor that recognition needs, the error names that tensor or what it makes unclear."""
    keys = shapes(full_size("resnet18"))
    del keys[key]
    with pytest.raises(CheckpointError, match=r"missing|pyramid|shapes"):
        recognise(keys, "a.pth")
