"""Who learns from what: four roles, or cross-validation where there are too few samples for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import check_enough, fits_four_roles
from hydra_detect.data.splits import split as deal
from hydra_detect.lifecycle import beside
from hydra_detect.storage import heads

if TYPE_CHECKING:
    from hydra_detect.data.samples import Samples
    from hydra_detect.data.splits import Split
    from hydra_detect.storage.store import Store

HELD_OUT, CROSS_VALIDATION = "held out", "cross-validation"


@attrs.frozen(kw_only=True)
class Plan:
    """How samples are used.

    Args:
        method: "held out", or "cross-validation".
        split: The role of each sample; for cross-validation all of them are "train".
        samples: All of them.

    """

    method: str
    split: Split
    samples: Samples

    def take(self, role: Role) -> Samples:
        """Return the samples of a role."""
        return self.split.take(self.samples, role)


def plan(store: Store, head: str, samples: Samples, *, given: Split | None, seed: int) -> Plan:
    """Decide how samples are used.

    Samples that an earlier version of the head knew keep their roles: what was test stays test.

    Args:
        store: Where the earlier versions are.
        head: The head.
        samples: All that there are.
        given: A split of the caller's; None to make one.
        seed: Of the split.

    Raises:
        InputError: If there are too few samples to learn anything from.
        RoleError: If samples that belong together had two roles before.

    """
    check_enough(samples)
    if given is not None:
        return Plan(method=HELD_OUT, split=given, samples=samples)
    previous = previous_split(store, head)
    if fits_four_roles(samples):
        return Plan(method=HELD_OUT, split=deal(samples, seed=seed, previous=previous), samples=samples)
    return Plan(method=CROSS_VALIDATION, split=deal(samples, shares={Role.TRAIN: 1.0}, seed=seed), samples=samples)


def previous_split(store: Store, head: str) -> Split | None:
    """Return the split of the newest version of a head that has one with roles; None where there is none."""
    item = store.head(head)
    for number in reversed(item.numbers()):
        split = beside.split_of(store, heads.find(store, f"{head}@{number}"))
        if split is not None and split.counts[Role.TEST]:
            return split
    return None
