"""Who learns from what: four roles, or cross-validation where there are too few samples for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import check_enough, fits_four_roles, require
from hydra_detect.data.splits import split as deal
from hydra_detect.errors import InputError
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

    @property
    def judged(self) -> Samples:
        """The samples that figures are of."""
        return self.take(Role.TEST) if self.method == HELD_OUT else self.samples

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
        InputError: If there are too few samples to learn anything from, or the given split leaves a role without.
        RoleError: If the samples have another role than train, or some that belong together had two before.

    """
    require(samples, Role.TRAIN, asked=f"train {head!r}")
    check_enough(samples)
    if given is not None:
        return _as_given(head, Plan(method=HELD_OUT, split=given, samples=samples))
    previous = previous_split(store, head)
    if fits_four_roles(samples):
        return Plan(method=HELD_OUT, split=deal(samples, seed=seed, previous=previous), samples=samples)
    return Plan(method=CROSS_VALIDATION, split=deal(samples, shares={Role.TRAIN: 1.0}, seed=seed), samples=samples)


def _as_given(head: str, own: Plan) -> Plan:
    """Refuse before the training a split by which it could not be finished."""
    lacking = [role for role in (Role.TRAIN, Role.CALIBRATE) if not own.take(role).labelled]
    lacking += [] if own.take(Role.TEST) else [Role.TEST]
    if lacking:
        found = f"the given split has no labelled sample for {' and '.join(lacking)}"
        raise InputError(f"train {head!r}", found, "Give those roles samples, or leave the split out.")
    return own


def previous_split(store: Store, head: str) -> Split | None:
    """Return the split of the newest version of a head that has one with roles; None where there is none."""
    item = store.head(head)
    for number in reversed(item.numbers()):
        split = beside.split_of(store, heads.find(store, f"{head}@{number}"))
        if split is not None and split.counts[Role.TEST]:
            return split
    return None
