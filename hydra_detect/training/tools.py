"""What a training uses beside samples and settings: what a user may bring along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from hydra_detect.training.augment import Augmentation
    from hydra_detect.training.losses import Loss
    from hydra_detect.training.progress import Progress


@attrs.frozen(kw_only=True)
class Tools:
    """What a training uses, and what a user may bring along.

    Args:
        losses: Losses by name, beside those of `list_losses()`.
        augmentations: Augmentations by name, beside those of `list_augmentations()`.
        cache: Folder of the feature files; None for `default_cache()`.
        progress: Called after each epoch.
        cancel: Stops the training once it is set.

    """

    losses: Mapping[str, Loss] = attrs.field(factory=dict)
    augmentations: Mapping[str, Augmentation] = attrs.field(factory=dict)
    cache: Path | None = None
    progress: Progress | None = None
    cancel: threading.Event | None = None
