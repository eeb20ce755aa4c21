"""The plain torchvision model that a backbone and a head came from: what the proof compares with.

torchvision's own `FasterRCNN` does the computing, with its own transform, RPN, RoIAlign and RoI heads. Backbone and
box head come from torchvision's constructors too, through the same functions that build ours: what the proof can
find is a tensor, a setting or a step that changed, not settings that were wrong to begin with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from hydra_detect.errors import CheckpointError
from hydra_detect.nets.backbones import build_network
from hydra_detect.nets.heads import build_box_head, build_predictor
from hydra_detect.nets.state import mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.contracts import Architecture, Preprocessing
    from hydra_detect.records import HeadSettings


def build_original(architecture: Architecture, preprocessing: Preprocessing, settings: HeadSettings) -> FasterRCNN:
    """Build torchvision's model on the meta device."""
    backbone = build_network(architecture)
    with torch.device("meta"):
        return FasterRCNN(
            backbone,
            min_size=preprocessing.min_size,
            max_size=preprocessing.max_size,
            image_mean=list(preprocessing.mean),
            image_std=list(preprocessing.std),
            size_divisible=preprocessing.size_divisor,
            rpn_anchor_generator=AnchorGenerator(settings.anchor_sizes, settings.aspect_ratios),
            rpn_head=RPNHead(
                architecture.pyramid_channels, settings.anchors_per_location, conv_depth=settings.rpn_conv_depth
            ),
            rpn_pre_nms_top_n_test=settings.rpn_pre_nms_top_n,
            rpn_post_nms_top_n_test=settings.rpn_post_nms_top_n,
            rpn_nms_thresh=settings.rpn_nms_threshold,
            rpn_score_thresh=settings.rpn_score_threshold,
            box_roi_pool=MultiScaleRoIAlign(
                featmap_names=list(settings.roi_levels),
                output_size=settings.roi_size,
                sampling_ratio=settings.roi_sampling_ratio,
            ),
            box_head=build_box_head(settings, architecture.pyramid_channels),
            box_predictor=build_predictor(settings),
            box_score_thresh=settings.score_threshold,
            box_nms_thresh=settings.nms_threshold,
            box_detections_per_img=settings.detections_per_image,
            bbox_reg_weights=settings.box_coder_weights,
        )


def load_original(model: FasterRCNN, state: Mapping[str, torch.Tensor]) -> FasterRCNN:
    """Give the model its weights as torchvision does: allocate, then copy strictly; float32, evaluation mode.

    Raises:
        CheckpointError: Listing every tensor that is missing, unexpected or of wrong shape.

    """
    expected = {name: value.shape for name, value in model.state_dict().items()}
    problems = mismatch(expected, {name: tensor.shape for name, tensor in state.items()})
    if problems:
        raise CheckpointError("build the original", problems, "Give the checkpoint that this head was split from.")
    model = model.to_empty(device="cpu").float()
    model.load_state_dict(dict(state), strict=True)
    return model.eval().requires_grad_(requires_grad=False)
