"""What a training uses beside samples and settings: what a user may bring along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.training.extensions import AUGMENTATIONS, LOSSES, installed, text_digest

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from hydra_detect.training.augment import Augmentation
    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.losses import Loss


@attrs.frozen(kw_only=True)
class Tools:
    """What a training uses, and what a user may bring along.

    Args:
        losses: Losses by name, beside those of `list_losses()`.
        augmentations: Augmentations by name, beside those of `list_augmentations()`.
        cache: Folder of the feature files; None for `default_cache()`.
        cancel: Stops the training once it is set.

    """

    losses: Mapping[str, Loss] = attrs.field(factory=dict)
    augmentations: Mapping[str, Augmentation] = attrs.field(factory=dict)
    cache: Path | None = None
    cancel: threading.Event | None = None

    def code(self, config: TrainingConfig) -> dict[str, str]:
        """Return what tells the code of each loss and augmentation from another: with another it is another training.

        Args:
            config: By whose names installed packages are used.

        """
        every: dict[str, object] = {f"loss {name}": value for name, value in self.losses.items()}
        every |= {f"augmentation {name}": value for name, value in self.augmentations.items()}
        digests = {name: text_digest(value) for name, value in sorted(every.items())}
        wanted = [(LOSSES, config.loss), *((AUGMENTATIONS, name) for name in config.augmented_by)]
        packages = {name: installed(name, group) for group, name in wanted}
        return digests | {name: package for name, package in packages.items() if package}
