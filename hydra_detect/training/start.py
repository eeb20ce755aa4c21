"""What a head starts from: the settings and weights of another, or random weights.

A layer is taken over where it means the same in both: what judges anchors, where the anchors are the same; what judges
classes, row by row for classes of the same name. What moves the edges of a box asks little of what is in it: for a
class that the other head does not know it begins as the mean over those that it knows. The rest begins at random.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import torch_tensors
from hydra_detect.records import HeadSettings
from hydra_detect.training.anchors import Anchors, chosen_anchors, usual_anchors
from hydra_detect.training.chance import seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.nets.compact import Lean
    from hydra_detect.nets.heads import Sampling
    from hydra_detect.tensors import RawTensor
    from hydra_detect.training.config import TrainingConfig

LEAST_SCORE = 0.01
"""Below it a trained head drops boxes unasked: low, so that calibration and precision see what it is unsure of."""

_CLASS_ROWS, _BOX_ROWS = "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"
ANCHOR_ROWS = ("rpn.head.cls_logits", "rpn.head.bbox_pred")
"""Layers whose weights mean something only together with the anchors that they judge."""

_CORNERS = 4
_PRESELECTED, _REFINED = 300, 150  # of a compact head unless asked otherwise: what it is to be fast with


@attrs.frozen(kw_only=True)
class Origin:
    """A head to start from.

    Args:
        settings: What it computes with beside its weights.
        class_names: Its classes.
        tensors: Its weights, written out where it is a compact one; None for random ones.

    """

    settings: HeadSettings
    class_names: tuple[str, ...] = ()
    tensors: Mapping[str, RawTensor] | None = None


def plain_origin(contract: BackboneContract) -> Origin:
    """Return torchvision's default head for a backbone, with random weights."""
    anchors = usual_anchors([level.stride for level in contract.levels])
    settings = HeadSettings(
        label_count=2,
        anchor_sizes=anchors.sizes,
        aspect_ratios=anchors.ratios,
        roi_levels=tuple(level.name for level in contract.levels[:-1]),
    )
    return Origin(settings=settings)


def settings_for(
    origin: Origin,
    contract: BackboneContract,
    *,
    classes: int,
    config: TrainingConfig,
    sides: NDArray[np.float64],
    seed: int,
) -> HeadSettings:
    """Return the settings of a new head.

    Args:
        origin: What it starts from.
        contract: Of its backbone.
        classes: How many classes it has.
        config: Which anchors it is to have.
        sides: [label, (width, height)] of the training labels, pixels of the network input.
        seed: Of the first centres.

    Raises:
        InputError: If anchors are given for another number of levels.

    """
    strides = [level.stride for level in contract.levels]
    anchors = chosen_anchors(config, anchors_of(origin.settings), strides, sides, seed=seed)
    own, most = origin.settings, (_PRESELECTED, _REFINED) if config.kind == "compact" else (math.inf, math.inf)
    return attrs.evolve(
        own,
        label_count=classes + 1,
        score_threshold=LEAST_SCORE,
        anchor_sizes=anchors.sizes,
        aspect_ratios=anchors.ratios,
        rpn_pre_nms_top_n=config.preselected or int(min(own.rpn_pre_nms_top_n, most[0])),
        rpn_post_nms_top_n=config.refined or int(min(own.rpn_post_nms_top_n, most[1])),
        rpn_score_threshold=own.rpn_score_threshold if config.least_objectness < 0 else config.least_objectness,
    )


def anchors_of(settings: HeadSettings) -> Anchors:
    """Return the anchors of a head."""
    return Anchors(sizes=settings.anchor_sizes, ratios=settings.aspect_ratios)


def start_head(
    origin: Origin,
    settings: HeadSettings,
    contract: BackboneContract,
    *,
    class_names: Sequence[str],
    sampling: Sampling,
    seed: int,
    lean: Lean | None = None,
) -> RCNNHead:
    """Build a head with the weights that it starts from, written out, on the CPU.

    Args:
        origin: Where they come from.
        settings: Of the new head.
        contract: Of its backbone.
        class_names: Of the new head.
        sampling: What its losses are taken over.
        seed: Of the random ones.
        lean: What a compact head will lean on: what its origin does not say begins as in that, but for predictors.

    """
    with seeded(seed):
        head = RCNNHead(settings, contract.levels, sampling=sampling, device="cpu").float()
    own = head.state_dict()
    theirs = {} if origin.tensors is None else torch_tensors(origin.tensors)
    if lean is not None:
        theirs = {**lean.reference.weights, **theirs}
    has_same_anchors = anchors_of(settings) == anchors_of(origin.settings)
    for name, tensor in theirs.items():
        layer = name.rsplit(".", 1)[0]
        if name not in own:  # a reference may have layers that this head has not
            continue
        if layer in {_CLASS_ROWS, _BOX_ROWS}:
            _copy_rows(own[name], tensor.float(), origin.class_names, class_names, is_box=layer == _BOX_ROWS)
        elif own[name].shape == tensor.shape and (layer not in ANCHOR_ROWS or has_same_anchors):
            own[name].copy_(tensor)
    return head


def _copy_rows(own: Tensor, theirs: Tensor, their_names: Sequence[str], names: Sequence[str], *, is_box: bool) -> None:
    """Copy the rows of classes that both have, in place, and those of the background where there are any such.

    Rows of box edges that only the new head has become the mean over the classes of the other.
    """
    width = _CORNERS if is_box else 1
    mine, others = own.view(len(names) + 1, width, -1), theirs.view(len(their_names) + 1, width, -1)
    if is_box:
        mine[1:].copy_(others[1:].mean(dim=0))
    shared = {label: their_names.index(name) + 1 for label, name in enumerate(names, start=1) if name in their_names}
    for label, other in ({0: 0} | shared).items() if shared else ():
        mine[label].copy_(others[other])
