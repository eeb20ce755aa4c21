"""A head: from the shared feature maps to boxes, scores and labels.

Region proposal network and box head of Faster R-CNN (Ren et al. 2015, arXiv:1506.01497), from torchvision's own
parts. A head holds no state between calls, so threads may share it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import resize_boxes

from hydra_detect.errors import RecordError
from hydra_detect.nets.backbones import norm_layer
from hydra_detect.nets.pooling import PyramidRoIAlign
from hydra_detect.nets.state import load_strict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.contracts import Level
    from hydra_detect.nets.backbones import Features
    from hydra_detect.records import HeadSettings
    from hydra_detect.tensors import RawTensor


@attrs.frozen(kw_only=True)
class Sampling:
    """What the losses of a training are taken over, with torchvision's defaults; prediction uses none of it.

    Args:
        rpn_foreground: Overlap with a labelled box from which an anchor is an object.
        rpn_background: Overlap below which it is background; between the two it is neither.
        rpn_batch: Anchors per picture.
        rpn_positive: Largest share of objects among them.
        proposals: Proposals per picture that the box head chooses from.
        box_foreground: Overlap with a labelled box from which a proposal is that object.
        box_batch: Proposals per picture.
        box_positive: Largest share of objects among them.

    """

    rpn_foreground: float = 0.7
    rpn_background: float = 0.3
    rpn_batch: int = 256
    rpn_positive: float = 0.5
    proposals: int = 2000
    box_foreground: float = 0.5
    box_batch: int = 512
    box_positive: float = 0.25


DEFAULT_SAMPLING = Sampling()


@attrs.frozen
class HeadOutput:
    """What a head found in one picture, best score first.

    Args:
        boxes: [N, 4] xyxy float32, pixels of the picture as given.
        scores: [N] float32.
        labels: [N] int64, from 1.

    """

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


class _RPNHead(RPNHead):
    """torchvision's RPN head with float32 outputs: in mixed precision boxes must not be decoded in 8 bits."""

    def forward(self, x: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        objectness, deltas = super().forward(x)
        return [level.float() for level in objectness], [level.float() for level in deltas]


def build_rpn(settings: HeadSettings, channels: int, sampling: Sampling = DEFAULT_SAMPLING) -> RegionProposalNetwork:
    """Build the proposal network, on whichever device is the default."""
    return RegionProposalNetwork(
        AnchorGenerator(settings.anchor_sizes, settings.aspect_ratios),
        _RPNHead(channels, settings.anchors_per_location, conv_depth=settings.rpn_conv_depth),
        fg_iou_thresh=sampling.rpn_foreground,
        bg_iou_thresh=sampling.rpn_background,
        batch_size_per_image=sampling.rpn_batch,
        positive_fraction=sampling.rpn_positive,
        pre_nms_top_n={"training": sampling.proposals, "testing": settings.rpn_pre_nms_top_n},
        post_nms_top_n={"training": sampling.proposals, "testing": settings.rpn_post_nms_top_n},
        nms_thresh=settings.rpn_nms_threshold,
        score_thresh=settings.rpn_score_threshold,
    )


def build_box_head(settings: HeadSettings, channels: int) -> nn.Module:
    """Build the layers between pooled features and predictor: torchvision's first or second form."""
    if settings.box_head == "mlp":
        return TwoMLPHead(channels * settings.roi_size**2, settings.box_widths[0])
    return FastRCNNConvFCHead(
        (channels, settings.roi_size, settings.roi_size),
        list(settings.box_convolutions),
        list(settings.box_widths),
        norm_layer=norm_layer("batch", settings.box_norm_eps) if settings.box_norm else None,
    )


def build_predictor(settings: HeadSettings) -> FastRCNNPredictor:
    """Build the last two linear layers: class logits and box deltas."""
    return FastRCNNPredictor(settings.box_widths[-1], settings.label_count)


class RCNNHead(nn.Module):
    """One head over the maps of `levels`; its state dict has torchvision's own names.

    Args:
        settings: What it computes with beside its weights.
        levels: The maps of its backbone.
        sampling: What a training takes its losses over.
        device: Where it is built: on "meta" it has shapes alone, elsewhere torchvision's own random weights.

    """

    def __init__(
        self,
        settings: HeadSettings,
        levels: Sequence[Level],
        *,
        sampling: Sampling = DEFAULT_SAMPLING,
        device: str = "meta",
    ) -> None:
        super().__init__()
        self.settings, self.levels = settings, tuple(levels)
        channels = levels[0].channels
        with torch.device(device):
            self.rpn = build_rpn(settings, channels, sampling)
            self.roi_heads = RoIHeads(
                PyramidRoIAlign(
                    _roi_levels(settings, levels), size=settings.roi_size, sampling_ratio=settings.roi_sampling_ratio
                ),
                build_box_head(settings, channels),
                build_predictor(settings),
                fg_iou_thresh=sampling.box_foreground,
                bg_iou_thresh=sampling.box_foreground,
                batch_size_per_image=sampling.box_batch,
                positive_fraction=sampling.box_positive,
                bbox_reg_weights=settings.box_coder_weights,
                score_thresh=settings.score_threshold,
                nms_thresh=settings.nms_threshold,
                detections_per_img=settings.detections_per_image,
            )

    @classmethod
    def load(cls, settings: HeadSettings, levels: Sequence[Level], raw: Mapping[str, RawTensor]) -> RCNNHead:
        """Build a head and give it its weights: float32, frozen, in evaluation mode."""
        head = cls(settings, levels)
        load_strict(head, raw, "the head")
        return head

    def whole(self) -> RCNNHead:
        """Return the head with all its weights written out: this one is."""
        return self

    def forward(self, features: Features, *, score_threshold: float | None = None) -> list[HeadOutput]:
        """Detect in a batch.

        Args:
            features: What the backbone made of the batch.
            score_threshold: Drop boxes that do not score above it; None for the one in the settings.

        Returns:
            One output per picture.

        """
        maps = {name: level.float() for name, level in features.maps.items()}  # in float32 already, but for autocast
        proposals, _ = self.rpn(features.images, maps)
        return self.choose(features, proposals, self.score(maps, proposals), score_threshold=score_threshold)

    def score(
        self, maps: Mapping[str, torch.Tensor], proposals: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class logits [proposal, label] and box deltas [proposal, label * 4] of the proposals of a batch."""
        pooled = self.roi_heads.box_roi_pool(maps, proposals)  # [proposal, channel, 7, 7]
        logits, deltas = self.roi_heads.box_predictor(self.roi_heads.box_head(pooled))
        return logits.float(), deltas.float()

    def choose(
        self,
        features: Features,
        proposals: list[torch.Tensor],
        scored: tuple[torch.Tensor, torch.Tensor],
        *,
        score_threshold: float | None,
    ) -> list[HeadOutput]:
        """Turn proposals and what `score` says of them into detections, as `forward` does."""
        sizes = features.images.image_sizes
        boxes, scores, labels = self._selector(score_threshold).postprocess_detections(*scored, proposals, sizes)
        return [
            HeadOutput(resize_boxes(box, size, original), score, label)
            for box, score, label, size, original in zip(
                boxes, scores, labels, sizes, features.original_sizes, strict=True
            )
        ]

    def _selector(self, score_threshold: float | None) -> RoIHeads:
        if score_threshold is None or score_threshold == self.roi_heads.score_thresh:
            return self.roi_heads
        # A shallow copy shares all weights; setting the threshold on the module itself would race with other threads.
        selector = copy.copy(self.roi_heads)
        selector.score_thresh = score_threshold
        return selector


def _roi_levels(settings: HeadSettings, levels: Sequence[Level]) -> list[Level]:
    chosen = [level for level in levels if level.name in settings.roi_levels]
    if not chosen or len(settings.anchor_sizes) != len(levels):
        raise RecordError(
            "build the head",
            f"it pools from levels {list(settings.roi_levels)} and has anchors for {len(settings.anchor_sizes)} "
            f"levels; the backbone has {[level.name for level in levels]}",
            "Give anchor sizes and aspect ratios for each level of the pyramid, the pooled one included.",
        )
    return chosen
