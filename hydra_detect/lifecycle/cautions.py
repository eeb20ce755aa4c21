"""What a person should know about samples before they believe in a head that learnt from them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.duplicates import group_near_duplicates
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import LEAST
from hydra_detect.errors import listed
from hydra_detect.measure.metrics import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Hashable

    from hydra_detect.data.samples import Samples
    from hydra_detect.lifecycle.plans import Plan
    from hydra_detect.training.anchors import Coverage

_GOOD_COVERAGE = 0.9


def cautions(samples: Samples, anchors: Coverage) -> list[str]:
    """Return what is doubtful about samples and the anchors that they are learnt with, a sentence each.

    Args:
        samples: Those that are learnt from.
        anchors: How well anchors resemble their labels.

    """
    said = []
    if not samples.backgrounds:
        said.append(
            "no sample to learn from is without labels: a head that never saw a background finds something everywhere"
        )
    if anchors.boxes and anchors.at_half < _GOOD_COVERAGE:
        said.append(f"{anchors.at_half:.0%} of the labels resemble an anchor: anchors='kmeans' fits them")
    unused = [name for name, count in samples.box_counts.items() if not count]
    if unused:
        said.append(f"no box to learn from is of {listed(unused)}: the head cannot learn to find any")
    few = {name: count for name, count in samples.box_counts.items() if 0 < count < LEAST}
    if few:
        said.append("very few labels: " + ", ".join(f"{count} of {name}" for name, count in few.items()))
    if samples.skipped:
        said.append("left out on reading: " + ", ".join(f"{count} {what}" for what, count in samples.skipped.items()))
    return said


def torn_duplicates(plan: Plan) -> list[str]:
    """Return what is doubtful about a plan by which pictures that look almost the same lie on both sides, if any do.

    Args:
        plan: The test role is one side, all others are the other; in cross-validation each group is one.

    """
    is_held_out = plan.method == HELD_OUT
    used, roles = plan.samples if is_held_out else plan.judged, plan.split.roles
    alone = attrs.evolve(used, items=[attrs.evolve(sample, group=sample.id) for sample in used])
    alike = {sample.id: sample.group for sample in group_near_duplicates(alone)}
    sides: defaultdict[str, set[Hashable]] = defaultdict(set)
    for sample in used:
        sides[alike[sample.id]].add(roles[sample.id] == Role.TEST if is_held_out else sample.group)
    torn = [sample.id for sample in plan.judged if len(sides[alike[sample.id]]) > 1]
    if not torn:
        return []
    told = f"{len(torn)} of the {len(plan.judged)} samples measured on look almost like others that were learnt from"
    return [f"{told}, and the figures are too good: group them (--near-duplicates, or group_near_duplicates)"]
