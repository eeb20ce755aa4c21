"""What passes through a detector, stage by stage: the same list of tensors from ours and from torchvision's.

Forward hooks watch the modules that both have; the modules watched belong to one proof and to no other thread.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn
    from torchvision.models.detection import FasterRCNN

    from hydra_detect.nets.backbones import Backbone
    from hydra_detect.nets.heads import RCNNHead

Trace = dict[str, list[torch.Tensor]]
"""Stage name to its tensors, in the order in which they arise."""

FINAL_STAGES = ("boxes", "scores", "labels")


@contextlib.contextmanager
def _watched(modules: dict[nn.Module, Callable[[Any], Trace]]) -> Iterator[Trace]:
    seen: Trace = {}

    def note(pick: Callable[[Any], Trace]) -> Any:
        return lambda _module, _inputs, output: seen.update(pick(output))

    hooks = [module.register_forward_hook(note(pick)) for module, pick in modules.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _levels(maps: dict[str, torch.Tensor]) -> Trace:
    return {f"level {name}": [value] for name, value in maps.items()}


def _rpn_head(output: Any) -> Trace:
    objectness, deltas = output
    return {"objectness": list(objectness), "rpn deltas": list(deltas)}


def _proposals(output: Any) -> Trace:
    return {"proposals": list(output[0])}


def _predictor(output: Any) -> Trace:
    logits, deltas = output
    return {"class logits": [logits], "box deltas": [deltas]}


@torch.inference_mode()
def trace_original(model: FasterRCNN, pictures: Sequence[torch.Tensor]) -> Trace:
    """Run torchvision's model on one batch.

    Args:
        model: The original.
        pictures: Of one size, each [channel, height, width] float32.

    """
    modules = {
        model.transform: lambda output: {"transform": [output[0].tensors]},
        model.backbone: _levels,
        model.rpn.head: _rpn_head,
        model.rpn: _proposals,
        model.roi_heads.box_predictor: _predictor,
    }
    with _watched(modules) as seen:
        results = model(list(pictures))
    return {**seen, **{stage: [result[stage] for result in results] for stage in FINAL_STAGES}}


@torch.inference_mode()
def trace_rebuilt(backbone: Backbone, head: RCNNHead, pictures: Sequence[torch.Tensor]) -> Trace:
    """Run our backbone and head on one batch, the way the detector does."""
    modules = {
        backbone.network: _levels,
        head.rpn.head: _rpn_head,
        head.rpn: _proposals,
        head.roi_heads.box_predictor: _predictor,
    }
    with _watched(modules) as seen:
        features = backbone([backbone.prepare(picture) for picture in pictures])
        results = head(features)
    final = {stage: [getattr(result, stage) for result in results] for stage in FINAL_STAGES}
    return {"transform": [features.images.tensors], **seen, **final}
