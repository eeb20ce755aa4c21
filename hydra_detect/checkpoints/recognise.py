"""Recognise a torchvision Faster R-CNN from its keys and shapes alone.

What a shape can tell is read from it; what it cannot (strides, thresholds, anchors, eps) is left to the settings.
Other kinds of detector are refused by name.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import CheckpointError, listed

if TYPE_CHECKING:
    from collections.abc import Mapping

SUPPORTED = "Supported is torchvision's Faster R-CNN with a ResNet-FPN or MobileNetV3-Large-FPN backbone."
BACKBONE_PREFIX = "backbone."
_FPN = "backbone.fpn."
_BODY = "backbone.body."
_BOX = "roi_heads.box_head."
_STEM_CHANNELS = 64
_CONV_AXES = 4
# MobileNetV3-Large: the first module of `features` with each number of output channels (torchvision takes these).
_MOBILENET_FIRST = {16: "0", 24: "2", 40: "4", 80: "7", 112: "11", 160: "13", 960: "16"}

# First match wins: a mask head also has box-head keys, and every RetinaNet has what looks like an FCOS.
_OTHERS = (
    ("Keypoint R-CNN", r"roi_heads\.keypoint_"),
    ("Mask R-CNN", r"roi_heads\.mask_"),
    ("a Detectron2 model", r"(proposal_generator|backbone\.bottom_up|roi_heads\.box_predictor\.cls_score_)"),
    ("an MMDetection model", r"(rpn_head\.rpn_conv|roi_head\.bbox_head|bbox_head\.|neck\.)"),
    ("FCOS", r"head\.regression_head\.bbox_ctrness"),
    ("RetinaNet", r"head\.classification_head\.(cls_logits|conv)"),
    ("SSD or SSDlite", r"head\.classification_head\.module_list"),
    ("DETR or one of its kin", r"(transformer\.|class_embed|query_embed)"),
    ("an Ultralytics YOLO model", r"(model\.)?model\.\d+\.(conv|cv1|m)\b"),
    ("an image classifier", r"(fc|classifier(\.\d+)?)\.weight"),
)


@attrs.frozen(kw_only=True)
class Recognised:
    """What keys and shapes tell of a Faster R-CNN.

    `body_channels` are the channels of the maps that enter the pyramid, finest first; the other fields are those of
    `records.Architecture` and `records.HeadSettings`.
    """

    body: str
    block: str | None
    layers: tuple[int, ...]
    groups: int
    width_per_group: int
    in_channels: int
    norm: str
    body_channels: tuple[int, ...]
    return_layers: tuple[str, ...]
    pyramid_channels: int
    pyramid_norm: bool
    rpn_conv_depth: int
    anchors_per_location: int
    label_count: int
    box_head: str
    box_convolutions: tuple[int, ...]
    box_widths: tuple[int, ...]
    box_norm: bool
    roi_size: int


def recognise(shapes: Mapping[str, tuple[int, ...]], file: str) -> Recognised:
    """Recognise the network.

    Args:
        shapes: Tensor names, as torchvision has them today, to shapes.
        file: Where they came from, for messages.

    Raises:
        CheckpointError: Naming what the file seems to be instead, or which tensors are missing.

    """
    asked = f"split {file}"
    _refuse_others(shapes, asked)
    try:
        return Recognised(**_body(shapes, asked), **_pyramid(shapes, asked), **_rpn(shapes), **_box(shapes, asked))
    except KeyError as error:
        raise CheckpointError(
            asked, f"tensor {error.args[0]!r} is missing, which every Faster R-CNN has", SUPPORTED
        ) from None
    except (ValueError, IndexError, ZeroDivisionError):
        raise CheckpointError(asked, "its tensors have shapes that no Faster R-CNN has", SUPPORTED) from None


def _refuse_others(shapes: Mapping[str, tuple[int, ...]], asked: str) -> None:
    ours = any(name.startswith("rpn.head.") for name in shapes) and any(name.startswith(_BOX) for name in shapes)
    for what, pattern in _OTHERS:
        if any(re.match(pattern, name) for name in shapes) and (not ours or "R-CNN" in what):
            raise CheckpointError(asked, f"it is {what}", SUPPORTED)
    if not ours:
        raise CheckpointError(
            asked, f"it has no region proposal network and box head; its tensors are {listed(shapes)}", SUPPORTED
        )
    if not any(name.startswith(_FPN) for name in shapes):
        raise CheckpointError(asked, "it is a Faster R-CNN without a feature pyramid (FPN)", SUPPORTED)
    extra = [name for name in shapes if name.startswith("backbone.fpn.extra_blocks.")]
    if extra:
        raise CheckpointError(asked, f"its pyramid has levels of its own beyond the body: {listed(extra)}", SUPPORTED)


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """Return how many consecutive numbers, from 0, stand where `pattern` has its group."""
    found = {int(match[1]) for name in shapes if (match := re.match(pattern, name))}
    return next(number for number in range(len(found) + 1) if number not in found)


def _body(shapes: Mapping[str, tuple[int, ...]], asked: str) -> dict[str, Any]:
    batch = any(name.startswith(_BODY) and name.endswith(".num_batches_tracked") for name in shapes)
    levels = _count(shapes, r"backbone\.fpn\.inner_blocks\.(\d+)\.0\.weight")
    channels = tuple(shapes[f"{_FPN}inner_blocks.{place}.0.weight"][1] for place in range(levels))
    common = {"norm": "batch" if batch else "frozen", "body_channels": channels}
    if f"{_BODY}layer1.0.conv1.weight" in shapes:
        return common | _resnet(shapes, channels, asked)
    if f"{_BODY}0.0.weight" in shapes and f"{_BODY}1.block.0.0.weight" in shapes:
        return common | _mobilenet(shapes, channels, asked)
    names = [name for name in shapes if name.startswith(_BODY)]
    raise CheckpointError(asked, f"its backbone is neither ResNet nor MobileNetV3-Large: {listed(names)}", SUPPORTED)


def _resnet(shapes: Mapping[str, tuple[int, ...]], channels: tuple[int, ...], asked: str) -> dict[str, Any]:
    block = "bottleneck" if f"{_BODY}layer1.0.conv3.weight" in shapes else "basic"
    stages = [_count(shapes, rf"backbone\.body\.layer{stage}\.(\d+)\.conv1\.weight") for stage in (1, 2, 3, 4)]
    layers = tuple(count for count in stages if count)
    width, per_group, *_kernel = shapes[f"{_BODY}layer1.0.conv2.weight"]
    groups = width // per_group
    outputs = {
        shapes[f"{_BODY}layer{stage}.0.conv{3 if block == 'bottleneck' else 2}.weight"][0]: f"layer{stage}"
        for stage in range(1, len(layers) + 1)
    }
    unknown = [number for number in channels if number not in outputs]
    if unknown:
        raise CheckpointError(
            asked, f"its pyramid takes maps of {list(channels)} channels and its ResNet has {list(outputs)}", SUPPORTED
        )
    return {
        "body": "resnet",
        "block": block,
        "layers": layers,
        "groups": groups,
        "width_per_group": width // groups if block == "bottleneck" else _STEM_CHANNELS,
        "in_channels": shapes[f"{_BODY}conv1.weight"][1],
        "return_layers": tuple(outputs[number] for number in channels),
    }


def _mobilenet(shapes: Mapping[str, tuple[int, ...]], channels: tuple[int, ...], asked: str) -> dict[str, Any]:
    unknown = [number for number in channels if number not in _MOBILENET_FIRST]
    if unknown:
        raise CheckpointError(
            asked,
            f"its pyramid takes maps of {list(channels)} channels, which MobileNetV3-Large has not "
            f"({list(_MOBILENET_FIRST)})",
            SUPPORTED,
        )
    return {
        "body": "mobilenet_v3_large",
        "block": None,
        "layers": (),
        "groups": 1,
        "width_per_group": _STEM_CHANNELS,
        "in_channels": shapes[f"{_BODY}0.0.weight"][1],
        "return_layers": tuple(_MOBILENET_FIRST[number] for number in channels),
    }


def _pyramid(shapes: Mapping[str, tuple[int, ...]], asked: str) -> dict[str, Any]:
    first = shapes[f"{_FPN}inner_blocks.0.0.weight"]
    if len(first) != _CONV_AXES:
        raise CheckpointError(asked, f"the pyramid's first convolution has shape {list(first)}", SUPPORTED)
    return {
        "pyramid_channels": first[0],
        "pyramid_norm": f"{_FPN}inner_blocks.0.1.running_mean" in shapes,
    }


def _rpn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    return {
        "rpn_conv_depth": _count(shapes, r"rpn\.head\.conv\.(\d+)\.0\.weight"),
        "anchors_per_location": shapes["rpn.head.cls_logits.weight"][0],
    }


def _box(shapes: Mapping[str, tuple[int, ...]], asked: str) -> dict[str, Any]:
    channels = shapes[f"{_FPN}inner_blocks.0.0.weight"][0]
    label_count = shapes["roi_heads.box_predictor.cls_score.weight"][0]
    if f"{_BOX}fc6.weight" in shapes:
        width, inputs = shapes[f"{_BOX}fc6.weight"]
        return {
            "label_count": label_count,
            "box_head": "mlp",
            "box_convolutions": (),
            "box_widths": (width, shapes[f"{_BOX}fc7.weight"][0]),
            "box_norm": False,
            "roi_size": _roi_size(inputs, channels, asked),
        }
    # FastRCNNConvFCHead: numbered convolution blocks, a flatten without weights, then linear layers at odd distance.
    depth = _count(shapes, r"roi_heads\.box_head\.(\d+)\.0\.weight")
    convolutions = tuple(shapes[f"{_BOX}{place}.0.weight"][0] for place in range(depth))
    linear = sorted(
        int(match[1]) for name in shapes if (match := re.fullmatch(r"roi_heads\.box_head\.(\d+)\.weight", name))
    )
    inputs = shapes[f"{_BOX}{linear[0]}.weight"][1]
    return {
        "label_count": label_count,
        "box_head": "conv_fc",
        "box_convolutions": convolutions,
        "box_widths": tuple(shapes[f"{_BOX}{place}.weight"][0] for place in linear),
        "box_norm": f"{_BOX}0.1.running_mean" in shapes,
        "roi_size": _roi_size(inputs, convolutions[-1] if convolutions else channels, asked),
    }


def _roi_size(inputs: int, channels: int, asked: str) -> int:
    size = math.isqrt(inputs // channels)
    if size < 1 or size * size * channels != inputs:
        raise CheckpointError(
            asked, f"its box head takes {inputs} numbers, which is no square of {channels} channels", SUPPORTED
        )
    return size
