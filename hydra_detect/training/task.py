"""What is to be learnt, and from what; and the loss of a batch of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import torch

from hydra_detect.nets.heads import Sampling
from hydra_detect.training.features import stack
from hydra_detect.training.losses import LossContext, checked
from hydra_detect.training.step import predict, predict_and_detect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from hydra_detect.data.samples import Samples
    from hydra_detect.nets.backbones import Features
    from hydra_detect.nets.compact import Lean
    from hydra_detect.nets.heads import HeadOutput, RCNNHead
    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.features import Seen
    from hydra_detect.training.losses import Loss
    from hydra_detect.training.source import Source
    from hydra_detect.training.step import Predictions

Encoder = Callable[["RCNNHead", "Features"], "Features"]
"""From what a source gives to the maps that a head reads; the network that learns may have a part in it."""


def frozen(_network: RCNNHead, features: Features) -> Features:
    """Return features as they are: a frozen backbone has made them (an `Encoder`)."""
    return features


def sampling(config: TrainingConfig) -> Sampling:
    """Return what a training takes its losses over."""
    return Sampling(rpn_batch=config.rpn_batch, box_batch=config.box_batch, proposals=config.proposals)


@attrs.frozen(kw_only=True)
class Task:
    """What is to be learnt, and from what.

    Args:
        network: With the weights that it starts from; it is changed.
        source: What turns samples into what the network sees.
        encoder: What becomes of that before the head reads it.
        lean: What a compact head will lean on, and how; None for a full one.
        train: Samples to learn from.
        select: Samples that tell which epoch is best; None to take the last.
        loss: What is minimised.
        config: All settings.
        seed: Of every random choice.
        stage: Which of several trainings this is, for the progress.

    """

    network: RCNNHead
    source: Source
    encoder: Encoder = frozen
    lean: Lean | None = None
    train: Samples
    select: Samples | None
    loss: Loss
    config: TrainingConfig
    seed: int
    stage: str = ""

    @functools.cached_property
    def context(self) -> LossContext:
        """What the loss may need beside a batch."""
        counts = self.train.box_counts
        return LossContext(config=self.config, frequencies=tuple(counts[name] for name in self.train.class_names))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def losses(self, network: RCNNHead, seen: Sequence[Seen]) -> dict[str, Tensor]:
        """Return the loss of pictures by part; those of one padded size run together, and all weigh the same.

        Args:
            network: The one that learns, or the average of its weights.
            seen: The pictures.

        Raises:
            TrainingError: If the loss does not return scalars by name.

        """
        groups: dict[tuple[int, int], list[Seen]] = {}
        for one in seen:
            groups.setdefault(one.encoded.padded_size, []).append(one)
        sums: dict[str, Tensor] = {}
        for group in groups.values():
            with self._precision():
                features = self.encoder(network, stack([one.encoded for one in group]))
                predictions = predict(network, features, group)
            for name, value in self._parts(predictions).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * (len(group) / len(seen))
        return sums

    def judged(self, network: RCNNHead, seen: Seen, *, score_threshold: float) -> tuple[dict[str, Tensor], HeadOutput]:
        """Return the loss of one picture by part, and what is detected in it; in float32.

        Args:
            network: The one that learns, or the average of its weights, in evaluation mode.
            seen: The picture.
            score_threshold: Drop boxes that do not score above it.

        Raises:
            TrainingError: If the loss does not return scalars by name.

        """
        features = self.encoder(network, stack([seen.encoded]))
        predictions, output = predict_and_detect(network, features, seen, score_threshold=score_threshold)
        return dict(self._parts(predictions)), output

    def _parts(self, predictions: Predictions) -> Mapping[str, Tensor]:
        return checked(self.loss(predictions, self.context), name=self.config.loss)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """Return mixed precision where the device has it and the settings allow it."""
        is_plain = self.config.precision == "float32" or self.device.type != "cuda"
        if is_plain or not torch.cuda.is_bf16_supported(including_emulation=False):
            return contextlib.nullcontext()
        # Without a cache: what a pass without gradients has cast must not be taken by the one with them.
        return torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False)
