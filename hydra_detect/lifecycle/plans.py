"""Who learns from what: four roles, or cross-validation where there are too few samples for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.groups import connected
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import Split, check_enough, fits_four_roles, require
from hydra_detect.data.splits import split as deal
from hydra_detect.errors import InputError, listed
from hydra_detect.lifecycle import beside
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import heads

if TYPE_CHECKING:
    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Samples
    from hydra_detect.storage.store import Store

_LEAST = 2  # labelled samples of a role, below which it says nothing


@attrs.frozen(kw_only=True)
class Plan:
    """How samples are used.

    Args:
        method: "held out", or "cross-validation".
        split: The role of each sample; for cross-validation all of them are "train".
        samples: All of them.
        doubts: What a caller's split makes doubtful, a sentence each.

    """

    method: str
    split: Split
    samples: Samples
    doubts: tuple[str, ...] = ()

    @property
    def judged(self) -> Samples:
        """The samples that figures are of."""
        return self.take(Role.TEST) if self.method == HELD_OUT else self.samples

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
        contract: Of the backbone; None where there is none yet.

    Raises:
        InputError: If there are too few samples to learn anything from, or the given split leaves a role without.
        RoleError: If the samples have another role than train, or some that belong together had two before.

    """
    require(samples, Role.TRAIN, asked=f"train {head!r}")
    check_enough(samples)
    samples = attrs.evolve(samples, items=sorted(samples, key=lambda sample: sample.id))
    previous = remembered(store, head, contract)
    if given is not None:
        return _as_given(head, Plan(method=HELD_OUT, split=given, samples=samples), previous)
    if fits_four_roles(samples):
        own = Plan(method=HELD_OUT, split=deal(samples, seed=seed, previous=previous), samples=samples)
        # Where most of the samples were learnt from before, new ones may be too few for the other roles.
        if all(own.take(role).labelled >= _LEAST for role in (Role.SELECT, Role.CALIBRATE, Role.TEST)):
            return own
    return Plan(method=CROSS_VALIDATION, split=deal(samples, shares={Role.TRAIN: 1.0}, seed=seed), samples=samples)


def _as_given(head: str, own: Plan, previous: Split | None) -> Plan:
    """Refuse before the training a split by which it could not be finished; tell what it makes doubtful."""
    lacking = [role for role in (Role.TRAIN, Role.CALIBRATE) if not own.take(role).labelled]
    lacking += [] if own.take(Role.TEST) else [Role.TEST]
    if lacking:
        found = f"the given split has no labelled sample for {' and '.join(lacking)}"
        raise InputError(f"train {head!r}", found, "Give those roles samples, or leave the split out.")
    tested = {one.id for one in previous.samples if one.role == Role.TEST} if previous else set()
    spent = [name for name, role in own.split.roles.items() if name in tested and role != Role.TEST]
    if not spent:
        return own
    told = f"{len(spent)} samples that were for testing before have another use in the given split: {listed(spent)}"
    return attrs.evolve(own, doubts=(told,))


def remembered(store: Store, head: str, contract: BackboneContract | None) -> Split | None:
    """Return the roles that samples had for the versions of a head, and for the original of its backbone.

    A sample that any of these learnt from is "train" for ever, and so is what belongs together with it: the same sample
    under another id, its picture, its group. Of others the newest role counts.
    """
    every = [sample for split in (*_of_original(store, contract), *_of_head(store, head)) for sample in split.samples]
    facts = [(("id", one.id), ("picture", one.picture), ("group", one.group)) for one in every]
    newest = {}
    for places in connected(facts):
        is_learnt = any(every[place].role == Role.TRAIN for place in places)
        for one in (every[place] for place in places):  # oldest first
            newest[one.id] = attrs.evolve(one, role=Role.TRAIN) if is_learnt else one
    rows = sorted(newest.values(), key=lambda one: one.id)
    return Split(samples=tuple(rows), shares={Role.TRAIN: 1.0}) if rows else None


def _of_head(store: Store, head: str) -> list[Split]:
    """Return the splits that the versions of a head keep, oldest first."""
    versions = [heads.find(store, f"{head}@{number}") for number in store.head(head).numbers()]
    splits = [beside.split_of(store, version) for version in versions]
    return [split for split in splits if split is not None]


def _of_original(store: Store, contract: BackboneContract | None) -> list[Split]:
    """Return the splits of heads that came out of the original with this backbone."""
    found = []
    for name in HeadRegistry(store).fitting(contract) if contract is not None else ():
        version = heads.find(store, name)
        split = beside.split_of(store, version) if version.record.source is not None else None
        found += [split] if split is not None else []
    return found
