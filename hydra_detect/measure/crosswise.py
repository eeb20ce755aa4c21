"""Crosswise: reading what several heads found, each with a policy of its own, by one policy for all.

In cross-validation each fold has its own temperature and thresholds, fitted to the other folds. Figures and curves of
all folds together need one scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from hydra_detect.measure.calibration import logits, sigmoid
from hydra_detect.measure.policy import accepted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.detections import Detections
    from hydra_detect.measure.columns import Floats
    from hydra_detect.records import OperatingPolicy


def as_read_by(own: OperatingPolicy, found: Sequence[Detections], common: OperatingPolicy) -> list[Detections]:
    """Return detections with raw scores such that the common policy judges them exactly as their own policy would.

    On the scale of logits both policies are lines; a score's distance from the threshold, in units of its own
    temperature, is kept, and rounding carries none over the threshold. Order within a class stays. (Where the common
    policy lets everything count, down to a score of 0, no score can say otherwise.)

    Args:
        own: The policy that was fitted for what found them.
        found: With raw scores.
        common: The policy that they will be read by.

    """
    edges = {name: _least_counting(common, name) for one in found for name in one.label_names.tolist()}
    return [attrs.evolve(one, scores=_moved(one, own, common, edges)) for one in found]


def _moved(one: Detections, own: OperatingPolicy, common: OperatingPolicy, edges: Mapping[str, np.float32]) -> Floats:
    names = one.label_names.tolist()
    from_, to = (logits(np.array([policy.threshold(name) for name in names])) for policy in (own, common))
    distance = logits(one.scores.astype(np.float64)) / own.temperature - from_
    moved = sigmoid((distance + to) * common.temperature).astype(np.float32)
    least = np.array([edges[name] for name in names], dtype=np.float32)
    below = np.nextafter(least, np.float32(0))
    return np.where(accepted(one.scores, names, policy=own), np.maximum(moved, least), np.minimum(moved, below))


def _least_counting(policy: OperatingPolicy, name: str) -> np.float32:
    """Return the lowest raw score of a class that counts, by bisection: positive floats are ordered as their bits."""
    low, high = 0, int(np.float32(1).view(np.int32))
    while low < high:
        middle = (low + high) // 2
        if accepted([np.int32(middle).view(np.float32)], [name], policy=policy)[0]:
            high = middle
        else:
            low = middle + 1
    return np.int32(high).view(np.float32)
