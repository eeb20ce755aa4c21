"""What engines say beside boxes: how long it took, and what lies in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.nets.heads import HeadOutput


@attrs.frozen
class Found:
    """What heads found in a batch.

    Args:
        outputs: For each head, one output for each picture.
        seconds: For each head, what it alone took.
        shared: Seconds of what heads share beyond the backbone.

    """

    outputs: Sequence[Sequence[HeadOutput]]
    seconds: Sequence[float]
    shared: float


@attrs.frozen
class Memory:
    """Bytes in memory, measured from the tensors themselves.

    Args:
        backbone: The shared network.
        heads: Name to what is the head's own.
        references: What compact heads lean on: once, however many do.

    """

    backbone: int
    heads: Mapping[str, int]
    references: int = 0

    @property
    def total(self) -> int:
        """Backbone, all heads and what they lean on together."""
        return self.backbone + sum(self.heads.values()) + self.references
