"""What an engine found, and how long it took."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

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
