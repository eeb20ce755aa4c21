"""Who learns from what: four roles, or cross-validation where there are too few samples for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import (
    TOLD,
    TRUSTED,
    Split,
    check_enough,
    needed,
    require,
    roles_before,
    thin_classes,
)
from hydra_detect.data.splits import split as deal
from hydra_detect.errors import InputError, listed
from hydra_detect.lifecycle.memory import remembered
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT

if TYPE_CHECKING:
    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Samples
    from hydra_detect.storage.store import Store


@attrs.frozen(kw_only=True)
class Plan:
    """How samples are used.

    Args:
        method: "held-out", or "cross-validation".
        split: The role of each sample; for cross-validation "train", but for those that were for testing before.
        samples: All of them.
        doubts: What a caller's split makes doubtful, or why there are no four roles; a sentence each.

    """

    method: str
    split: Split
    samples: Samples
    doubts: tuple[str, ...] = ()

    @property
    def judged(self) -> Samples:
        """The samples that figures are of."""
        return self.take(Role.TEST if self.method == HELD_OUT else Role.TRAIN)

    def take(self, role: Role) -> Samples:
        """Return the samples of a role."""
        return self.split.take(self.samples, role)


def plan(
    store: Store,
    head: str,
    samples: Samples,
    *,
    given: Split | None,
    seed: int,
    validation: str = "auto",
    contract: BackboneContract | None = None,
) -> Plan:
    """Decide how samples are used.

    Samples that an earlier version of the head knew keep their roles: what was test stays test, and what the weights
    of any version have learnt from is for learning alone. Samples that the backbone was trained with keep theirs too.

    Args:
        store: Where the earlier versions are.
        head: The head.
        samples: All that there are, in whatever order.
        given: A split of the caller's; None to make one.
        seed: Of the split.
        validation: As `TrainingConfig` has it; a given split is held out whatever it says.
        contract: Of the backbone; None where there is none yet.

    Raises:
        InputError: If there are too few samples to learn anything from, or for what is asked; or if the given split
            leaves a role without.
        RoleError: If the samples have another role than train, or some that belong together had two before.

    """
    require(samples, Role.TRAIN, asked=f"train {head!r}")
    check_enough(samples)
    samples = attrs.evolve(samples, items=sorted(samples, key=lambda sample: sample.id))
    previous = remembered(store, head, contract, samples)
    if given is not None:
        return _as_given(head, Plan(method=HELD_OUT, split=given, samples=samples), previous)
    if validation == CROSS_VALIDATION:
        return _crosswise(samples, previous, seed)
    own = Plan(method=HELD_OUT, split=deal(samples, seed=seed, previous=previous), samples=samples)
    trouble = _trouble(own, each=TRUSTED if validation == "auto" else TOLD)
    if not trouble:
        return own
    if validation == "auto":
        return _crosswise(samples, previous, seed, why=trouble)
    raise InputError(f"train {head!r} with a test role", trouble, 'Label more, or set `validation` to "auto".')


def _trouble(own: Plan, *, each: int) -> str:
    """Return why four roles are not to be had; empty if they are."""
    thin = ", ".join(f"{count} of {name!r}" for name, count in thin_classes(own.samples, each).items())
    if thin:
        return f"there are too few labelled groups for four roles ({thin}; {needed(each)} of each class are enough)"
    if any(own.take(role).labelled < each for role in (Role.SELECT, Role.CALIBRATE, Role.TEST)):
        return "most samples were learnt from before, and too few are left for the other roles"
    return ""


def _crosswise(samples: Samples, previous: Split | None, seed: int, *, why: str = "") -> Plan:
    """Plan cross-validation over all that was never for testing."""
    own = Plan(method=CROSS_VALIDATION, split=_for_training(samples, previous, seed), samples=samples)
    doubts = [f"{why}: the figures are those of cross-validation, of heads like this one"] if why else []
    tested = len(own.take(Role.TEST))
    if tested:
        doubts.append(f"{tested} samples that were for testing before are left out: nothing learns from them")
        check_enough(own.take(Role.TRAIN))
    return attrs.evolve(own, doubts=tuple(doubts))


def _for_training(samples: Samples, previous: Split | None, seed: int) -> Split:
    """Give all samples to training, but for those that were for testing before."""
    if previous:
        previous = attrs.evolve(previous, samples=tuple(one for one in previous.samples if one.role == Role.TEST))
    return deal(samples, shares={Role.TRAIN: 1.0}, seed=seed, previous=previous)


def _as_given(head: str, own: Plan, previous: Split | None) -> Plan:
    """Refuse before the training a split by which it could not be finished; tell what it makes doubtful."""
    lacking = [role for role in (Role.TRAIN, Role.CALIBRATE) if not own.take(role).labelled]
    lacking += [] if own.take(Role.TEST) else [Role.TEST]
    if lacking:
        found = f"the given split has no labelled sample for {' and '.join(lacking)}"
        raise InputError(f"train {head!r}", found, "Give those roles samples, or leave the split out.")
    doubts, before = [], roles_before(own.split, previous) if previous else {}
    spent = [name for name, role in own.split.roles.items() if Role.TEST in before.get(name, ()) and role != Role.TEST]
    if spent:
        doubts.append(f"{len(spent)} samples that were for testing before have another use now: {listed(spent)}")
    stale = [name for name, role in own.split.roles.items() if role == Role.TEST and Role.TRAIN in before.get(name, ())]
    if stale:
        found = f"{len(stale)} test samples were learnt from before, by the backbone or another version"
        doubts.append(f"{found}: {listed(stale)}")
    return attrs.evolve(own, doubts=tuple(doubts))
