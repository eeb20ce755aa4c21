"""One look at a batch: what the head predicts where, and what it should have.

The two stages of Faster R-CNN in training (Ren et al. 2015, arXiv:1506.01497), from torchvision's own parts: anchors
and proposals are matched to labelled boxes by overlap, and a sample of both is what a loss is taken over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torchvision.models.detection.rpn import concat_box_prediction_layers

from hydra_detect.training import patches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hydra_detect.nets.backbones import Features
    from hydra_detect.nets.heads import HeadOutput, RCNNHead
    from hydra_detect.training.features import Seen


@attrs.frozen(kw_only=True)
class Predictions:
    """What a loss is taken over: a sample of anchors and of proposals of a batch, predicted and wanted.

    Deltas are those of torchvision's box coders: shifts of the centre in units of the box, logarithms of the sides.

    Args:
        objectness: [anchor] logits of the sampled anchors.
        is_object: [anchor] float32, 1 for an object and 0 for background.
        anchor_deltas: [object anchor, 4], from the anchor to the box.
        anchor_targets: [object anchor, 4].
        class_logits: [proposal, label]; label 0 is the background.
        labels: [proposal] int64.
        box_deltas: [object proposal, 4], from the proposal to the box, of the proposal's own label.
        box_targets: [object proposal, 4].

    """

    objectness: Tensor
    is_object: Tensor
    anchor_deltas: Tensor
    anchor_targets: Tensor
    class_logits: Tensor
    labels: Tensor
    box_deltas: Tensor
    box_targets: Tensor


def predict(head: RCNNHead, features: Features, batch: Sequence[Seen]) -> Predictions:
    """Run a head over pictures of one padded size, as torchvision does in training.

    Which anchors and proposals are sampled is drawn from torch's own random numbers.

    Args:
        head: The network.
        features: Maps of the pictures.
        batch: The same pictures, for their labels.

    """
    targets = _targets(batch)
    proposals, anchors = _first_stage(head, features, targets)
    candidates, rows, *wanted = _sampled(head, proposals, targets)
    drawn = [boxes[row] for boxes, row in zip(candidates, rows, strict=True)]
    return _predictions(anchors, head.score(features.maps, drawn), wanted)


def predict_and_detect(
    head: RCNNHead, features: Features, seen: Seen, *, score_threshold: float
) -> tuple[Predictions, HeadOutput]:
    """Run a head over one picture once, for its loss and for its detections: both are of the same proposals.

    Args:
        head: The network, in evaluation mode.
        features: Maps of the picture.
        seen: The picture, for its labels.
        score_threshold: Drop boxes that do not score above it.

    """
    targets = _targets([seen])
    proposals, anchors = _first_stage(head, features, targets)
    (candidates,), (rows,), *wanted = _sampled(head, proposals, targets)
    logits, deltas = head.score(features.maps, [candidates])
    own = len(proposals[0])  # the labelled boxes come after them, and are nothing that was found
    (output,) = head.choose(features, proposals, (logits[:own], deltas[:own]), score_threshold=score_threshold)
    return _predictions(anchors, (logits[rows], deltas[rows]), wanted), output


def _targets(batch: Sequence[Seen]) -> list[dict[str, Tensor]]:
    return [{"boxes": seen.boxes, "labels": seen.labels} for seen in batch]


def _sampled(
    head: RCNNHead, proposals: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Sample proposals for the box loss, as torchvision does in training.

    Returns:
        For each picture its proposals with the labelled boxes after them, and the rows that were drawn; for all that
        were drawn their labels, and for the objects among them the wanted deltas.

    """
    roi = head.roi_heads
    boxes = [target["boxes"] for target in targets]
    candidates = roi.add_gt_proposals(proposals, boxes)
    nearest, labels = roi.assign_targets_to_proposals(candidates, boxes, [target["labels"] for target in targets])
    rows = roi.subsample(labels)
    wanted = []
    for own, near, label, box, row in zip(candidates, nearest, labels, boxes, rows, strict=True):
        objects = row[label[row] > 0]
        wanted.append(roi.box_coder.encode_single(box[near[objects]], own[objects]))
    drawn = torch.cat([label[row] for label, row in zip(labels, rows, strict=True)])
    return candidates, rows, drawn, torch.cat(wanted)


def _predictions(
    anchors: tuple[Tensor, Tensor, Tensor, Tensor], scored: tuple[Tensor, Tensor], wanted: Sequence[Tensor]
) -> Predictions:
    objectness, is_object, anchor_deltas, anchor_targets = anchors
    (logits, deltas), (labels, box_targets) = scored, wanted
    objects = torch.where(labels > 0)[0]
    return Predictions(
        objectness=objectness,
        is_object=is_object,
        anchor_deltas=anchor_deltas,
        anchor_targets=anchor_targets,
        class_logits=logits,
        labels=labels,
        box_deltas=deltas.view(*logits.shape, 4)[objects, labels[objects]],
        box_targets=box_targets,
    )


def _first_stage(
    head: RCNNHead, features: Features, targets: list[dict[str, Tensor]]
) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return proposals, and of a sample of anchors: logits, whether an object, deltas and wanted deltas of objects."""
    rpn, maps = head.rpn, list(features.maps.values())
    is_sparse = patches.is_enough(rpn.head, maps)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not is_sparse):
        per_level, level_deltas = rpn.head(maps)
    anchors = rpn.anchor_generator(features.images, maps)
    anchor_counts = [level[0].numel() for level in per_level]
    objectness, deltas = concat_box_prediction_layers(per_level, level_deltas)  # [image * anchor, 1 or 4]
    with torch.no_grad():
        boxes = rpn.box_coder.decode(deltas, anchors).view(len(anchors), -1, 4)  # [image, anchor, 4]
        proposals, _scores = rpn.filter_proposals(boxes, objectness, features.images.image_sizes, anchor_counts)
        labels, matched = rpn.assign_targets_to_anchors(anchors, targets)
        positive, negative = rpn.fg_bg_sampler(labels)
        objects = torch.where(torch.cat(positive))[0]
        sampled = torch.cat([objects, torch.where(torch.cat(negative))[0]])
        wanted = torch.cat(rpn.box_coder.encode(matched, anchors))[objects]
    if is_sparse:
        logits, moves = patches.predicted(rpn.head, maps, sampled)
    else:
        logits, moves = objectness[sampled, 0], deltas[sampled]
    return proposals, (logits, torch.cat(labels)[sampled], moves[: len(objects)], wanted)
