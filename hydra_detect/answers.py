"""From what heads found to `Detections`, and the thresholds at which they answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect.detections import Detections, Timing
from hydra_detect.errors import InputError, NotFoundError, near_matches
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_detect import batches
    from hydra_detect.nets.heads import HeadOutput, RCNNHead
    from hydra_detect.records import VersionRecord


@attrs.frozen
class LoadedHead:
    """A head in memory: the version it is, its network, and whether it follows what is active in the store."""

    version: VersionRecord
    network: RCNNHead
    follows: bool


def detections(job: batches.Job, found: Sequence[tuple[LoadedHead, HeadOutput]], timing: Timing) -> Detections:
    """Return what all heads found in one picture as one value."""
    parts = [_of_head(head, output, image_size=job.prepared.original_size, source=job.source) for head, output in found]
    empty = Detections(image_size=job.prepared.original_size, source=job.source)
    return attrs.evolve(Detections.concat([empty, *parts]), timing=timing)


def _of_head(head: LoadedHead, output: HeadOutput, *, image_size: tuple[int, int], source: str | None) -> Detections:
    labels = output.labels.cpu().numpy()
    names = head.version.record.class_names
    return Detections(
        boxes=output.boxes.float().cpu().numpy(),
        scores=output.scores.float().cpu().numpy(),
        labels=labels,
        label_names=[names[label - 1] for label in labels],  # label 0 is the background, which no head returns
        heads=[head.version.head] * len(labels),
        head_versions=[head.version.number] * len(labels),
        image_size=image_size,
        source=source,
    )


def threshold(name: str, head: LoadedHead, given: float | Mapping[str, float] | None) -> float:
    """Return the score above which a head answers: as given for it, or its own."""
    own = head.version.record.score_threshold
    if given is None:
        return own
    return float(given.get(name, own)) if isinstance(given, Mapping) else float(given)


def check_thresholds(given: float | Mapping[str, float] | None, heads: Mapping[str, LoadedHead]) -> None:
    """See that thresholds are probabilities, each of a loaded head.

    Raises:
        NotFoundError: If a head is not loaded.
        InputError: If a threshold is no number from 0 to 1.

    """
    if given is None:
        return
    named: Mapping[str, Any] = given if isinstance(given, Mapping) else {"all heads": given}
    for name, value in named.items():
        if named is given and name not in heads:
            raise NotFoundError(f"set the threshold of {shown(name)}", "it is not loaded", near_matches(name, heads))
        if not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
            found = f"the score threshold of {name} is {shown(value)}"
            raise InputError("predict", found, "Give a number from 0 to 1.")
