"""Losses by name: callables from predictions to named parts, whose sum is what a step goes down.

A user's own loss is any callable of the same signature. Configuration files name it where an installed package
declares it as an entry point of the group `hydra_detect.losses`, or where it is passed in under a name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn import functional

from hydra_detect.errors import InputError, TrainingError, listed
from hydra_detect.training.extensions import LOSSES, form, found, names

if TYPE_CHECKING:
    from torch import Tensor

    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.step import Predictions

_BETA = 1 / 9  # where torchvision's smooth L1 turns from square to straight
_EFFECTIVE = 0.9999  # Cui et al. 2019, arXiv:1901.05555: the effective number of samples is (1 - b**n) / (1 - b)


@attrs.frozen(kw_only=True)
class LossContext:
    """What a loss may need beside a batch.

    Args:
        config: The training's settings.
        frequencies: Labelled boxes of each class in the whole training role; that of label 1 first.

    """

    config: TrainingConfig
    frequencies: tuple[int, ...]


Loss = Callable[["Predictions", LossContext], Mapping[str, "Tensor"]]
"""Returns scalars by name; their sum is minimised, and each is reported under its name."""


def torchvision_loss(predictions: Predictions, context: LossContext) -> Mapping[str, Tensor]:  # noqa: ARG001  one signature
    """Return the four losses of torchvision's Faster R-CNN; nothing to take them over gives 0, not NaN."""
    classes = functional.cross_entropy(predictions.class_logits, predictions.labels, reduction="sum")
    return {
        **_proposal_losses(predictions),
        "class": classes / max(1, len(predictions.labels)),
        "box": _box_loss(predictions),
    }


def focal_loss(predictions: Predictions, context: LossContext) -> Mapping[str, Tensor]:
    """Return torchvision's losses with the focal one for classes (Lin et al. 2017, arXiv:1708.02002), over softmax.

    Each proposal weighs alpha of its label times (1 - p)**gamma, where p is the probability of its label; the sum is
    divided by the number of object proposals, as in the paper.
    """
    logs = functional.log_softmax(predictions.class_logits, dim=1)
    chosen = logs.gather(1, predictions.labels[:, None])[:, 0]  # [proposal]
    alpha = torch.tensor(alphas(context), dtype=logs.dtype, device=logs.device)
    weights = alpha[predictions.labels] * (1 - chosen.exp()) ** context.config.focal_gamma
    objects = max(1, len(predictions.box_targets))
    return {
        **_proposal_losses(predictions),
        "class": -(weights * chosen).sum() / objects,
        "box": _box_loss(predictions),
    }


def alphas(context: LossContext) -> tuple[float, ...]:
    """Return the focal loss's weight of each label, the background first; all of them positive.

    "dynamic" weighs a class by the inverse of its effective number of samples in the whole training role
    (arXiv:1901.05555), scaled to a mean of 1 over the classes, and the background by 1.

    Raises:
        InputError: If the setting is no such weights, or not one for each label.

    """
    text, classes = context.config.focal_alpha.strip(), len(context.frequencies)
    if not text:
        return (1.0,) * (classes + 1)
    if text == "dynamic":
        inverse = [(1 - _EFFECTIVE) / (1 - _EFFECTIVE ** max(1, count)) for count in context.frequencies]
        return (1.0, *(value * classes / sum(inverse) for value in inverse))
    try:
        values = tuple(float(item) for item in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        values = (1 - values[0], *values * classes)
    if len(values) != classes + 1 or not all(0 < value < float("inf") for value in values):
        found_ = f"focal_alpha is {text!r:.60}, and there are {classes} classes beside the background"
        remedy = 'Give "dynamic", one number between 0 and 1, or a positive one for each label, the background first.'
        raise InputError("set the focal loss", found_, remedy)
    return values


def _proposal_losses(predictions: Predictions) -> dict[str, Tensor]:
    anchors = max(1, len(predictions.objectness))
    apart = functional.smooth_l1_loss(
        predictions.anchor_deltas, predictions.anchor_targets, beta=_BETA, reduction="sum"
    )
    objects = functional.binary_cross_entropy_with_logits(
        predictions.objectness, predictions.is_object, reduction="sum"
    )
    return {"objectness": objects / anchors, "proposal": apart / anchors}


def _box_loss(predictions: Predictions) -> Tensor:
    apart = functional.smooth_l1_loss(predictions.box_deltas, predictions.box_targets, beta=_BETA, reduction="sum")
    return apart / max(1, len(predictions.labels))


def checked(parts: object, *, name: str) -> Mapping[str, Tensor]:
    """Return what a loss returned.

    Args:
        parts: What that was.
        name: Of the loss.

    Raises:
        TrainingError: If it is not scalars by name.

    """
    if not isinstance(parts, Mapping) or not parts:
        problem = f"{form(parts)} without any part" if isinstance(parts, Mapping) else form(parts)
    else:
        wrong = [f"{key!r:.60} is {form(value)}" for key, value in parts.items() if not _is_part(key, value)]
        if not wrong:
            return parts
        problem = f"parts of which {listed(wrong)}"
    remedy = "Return a mapping of text to tensors of one number each, as {'class': tensor(0.7)}."
    raise TrainingError(f"train with loss {name!r:.60}", f"it returned {problem}", remedy, loss=name)


def _is_part(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor) and value.numel() == 1


BUILT_IN: Mapping[str, Loss] = {"torchvision": torchvision_loss, "focal": focal_loss}


def list_losses() -> list[str]:
    """Return the names that `TrainingConfig.loss` may have: our own, and those that installed packages declare."""
    return names(BUILT_IN, LOSSES)


def loss_named(name: str, given: Mapping[str, Loss] | None = None) -> Loss:
    """Return the loss of a name: given, our own, or an installed package's.

    Raises:
        InputError: If there is none of that name, or two.

    """
    loss: Loss = found(name, BUILT_IN, group=LOSSES, given=given)
    return loss
