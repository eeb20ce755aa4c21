"""Who learns from what: four roles, or cross-validation where there are too few samples for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.groups import connected
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import (
    TOLD,
    TRUSTED,
    Split,
    SplitSample,
    check_enough,
    needed,
    require,
    roles_before,
    thin_classes,
)
from hydra_detect.data.splits import split as deal
from hydra_detect.errors import InputError, listed
from hydra_detect.lifecycle import beside
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT
from hydra_detect.storage import heads

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Samples
    from hydra_detect.names import Digest
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


def remembered(
    store: Store, head: str, contract: BackboneContract | None, samples: Samples | None = None
) -> Split | None:
    """Return the roles that samples had for the versions of a head, and for the original of its backbone.

    A sample that any of these learnt from is "train" for ever, and so is what belongs together with it: the same sample
    under another id, its picture, its group, as it was recorded or as the samples at hand have it now. What belongs to
    a sample that was for testing is for testing. Of others the newest role counts.

    Args:
        store: Where they are.
        head: The head.
        contract: Of the backbone; None where there is none yet.
        samples: Those at hand: by their groups, too, others belong together. Others whose data set has no picture in
            common with them are known by picture and named group alone, under ids that none of these has. None for
            those of the newest version.

    """
    splits = [*of_original(store, contract), *_of_head(store, head)]
    *sets, own = _data_sets([*map(_pictures_of, splits), {sample.picture_digest for sample in samples or ()}])
    own = sets[-1] if sets and samples is None else own
    rows = [
        (None if one.is_elsewhere else number, one)
        for number, split in zip(sets, splits, strict=True)
        for one in split.samples
    ]
    facts = [_keys(number, one.id, one.picture, one.group) for number, one in rows]
    present = [_keys(own, one.id, one.picture_digest, one.group) for one in samples or ()]
    newest = {}
    for places in connected([*facts, *present]):
        known = {
            (rows[place][0], rows[place][1].id): rows[place][1] for place in places if place < len(rows)
        }  # in order
        roles = [rows[place][1].role for place in places if place < len(rows)]
        common = _common([one.role for one in known.values()], has_learnt=Role.TRAIN in roles)
        newest.update({key: attrs.evolve(one, role=common or one.role) for key, one in known.items()})
    found = {one.id: one for (number, _name), one in newest.items() if number in {own, None}}
    taken = {*found, *(sample.id for sample in samples or ())}
    for (number, _name), one in newest.items():
        if number not in {own, None}:
            moved = _moved(one, str(number), taken)
            found[moved.id] = moved
    return Split(samples=tuple(found[name] for name in sorted(found)), shares={Role.TRAIN: 1.0}) if found else None


def _pictures_of(split: Split) -> set[Digest]:
    return {one.picture for one in split.samples if not one.is_elsewhere}


def _data_sets(pictures: Sequence[set[Digest]]) -> list[int]:
    """Return for each lot of samples the number of its data set: that of all with which it shares a picture."""
    numbers = {place: number for number, places in enumerate(connected(pictures)) for place in places}
    return [numbers[place] for place in range(len(pictures))]


def _keys(data_set: int | None, name: str, picture: Digest, group: str) -> list[tuple[object, ...]]:
    """Return by what a sample is known: an id such as "0001.png" says nothing in another data set."""
    keys: list[tuple[object, ...]] = [("picture", picture)]
    if data_set is not None:
        keys += [("id", data_set, name), ("group", data_set, group)]
    return keys if group == name else [*keys, ("group", group)]


def _moved(one: SplitSample, mark: str, taken: Collection[str]) -> SplitSample:
    """Return a sample of another data set, under an id that none of this one has."""
    name = f"{one.id}#{mark}" if one.id in taken else one.id
    return attrs.evolve(one, id=name, group=name if one.group == one.id else one.group, is_elsewhere=True)


def _common(roles: Sequence[Role], *, has_learnt: bool) -> Role | None:
    """Return the one role of samples that belong together; None where each may keep its own, which is the same."""
    if has_learnt:
        return Role.TRAIN
    if len(set(roles)) < 2:  # noqa: PLR2004  one role, or none
        return None
    return Role.TEST if Role.TEST in roles else roles[-1]


def known_to(own: Split, earlier: Sequence[Split]) -> Split:
    """Return a split that knows, beside its own samples, those that its weights and its backbone have seen before.

    Args:
        own: The roles for one training.
        earlier: Those for what it starts from. What these learnt from is "train", whatever use it has now. Those of
            another data set, with no picture in common, get other ids: nothing is taken for what only has its name.

    """
    rows = {one.id: one for one in own.samples}
    places = {one.picture: one.id for one in own.samples}
    for split in earlier:
        is_same_data = not _pictures_of(own).isdisjoint(_pictures_of(split))
        for one in split.samples:
            is_known = one.is_elsewhere or is_same_data
            new = one if is_known else _moved(one, split.digest.short, rows)
            name = places.setdefault(one.picture, new.id)
            mine = rows.setdefault(name, new)
            if one.role == Role.TRAIN and mine.role != Role.TRAIN:
                rows[name] = attrs.evolve(mine, role=Role.TRAIN)
    return attrs.evolve(own, samples=tuple(rows[name] for name in sorted(rows)))


def _of_head(store: Store, head: str) -> list[Split]:
    """Return the splits that the versions of a head keep, oldest first."""
    versions = [heads.find(store, f"{head}@{number}") for number in store.head(head).numbers()]
    splits = [beside.split_of(store, version) for version in versions]
    return [split for split in splits if split is not None]


def of_original(store: Store, contract: BackboneContract | None) -> list[Split]:
    """Return the splits of versions that came out of the original with this backbone, active or not."""
    if contract is None:
        return []
    every = [heads.find(store, f"{name}@{n}") for name in heads.names(store) for n in store.head(name).numbers()]
    originals = [one for one in every if one.record.source and not contract.differences(one.record.backbone)]
    splits = [beside.split_of(store, version) for version in originals]
    return [split for split in splits if split is not None]
