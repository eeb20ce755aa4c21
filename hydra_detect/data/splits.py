"""Splits: which sample has which role, written down, and kept when samples are added.

A `Split` is a partition: no sample has two roles, and what belongs together (one group, one picture) has one. It
depends on seed, ids, labels and groups, not on the order of the samples. What was test stays test.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.data.groups import together
from hydra_detect.data.samples import Role, Samples, as_role
from hydra_detect.data.stratify import deal
from hydra_detect.errors import InputError, RoleError, listed
from hydra_detect.names import Digest, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hydra_detect.data.samples import Sample

DEFAULT_SHARES: Mapping[Role, float] = MappingProxyType(
    {Role.TRAIN: 0.60, Role.SELECT: 0.15, Role.CALIBRATE: 0.15, Role.TEST: 0.10}
)
"""Share of the samples that each role gets unless asked otherwise."""

LEAST = 5
"""Fewest labelled samples that a head is trained from."""

TOLD, TRUSTED = 2, 5
"""Labelled groups of every class in the smallest role: what tells anything at all, and what four roles are worth."""

_ASKED = "split samples"
_ROUNDING = 1e-6


@attrs.frozen(kw_only=True)
class SplitSample(Record):
    """One sample as it was when it was split: its id, its picture, picture and labels together, its group, its role.

    `is_elsewhere`: it is of another data set than those that were split, and had another id there.
    """

    id: str
    picture: Digest
    digest: Digest
    group: str
    role: Role = attrs.field(converter=as_role)
    is_elsewhere: bool = False


def _named_shares(values: Mapping[Any, Any]) -> dict[str, float]:
    return {str(as_role(name)): fields.one_float(value) for name, value in values.items()}


@attrs.frozen(kw_only=True)
class Split(Record):
    """Who has which role.

    Args:
        samples: All of them, by id.
        seed: Of the deal.
        shares: What was asked for, by role; for an author's own lists what they amount to.

    """

    samples: tuple[SplitSample, ...]
    seed: int = attrs.field(default=0, validator=fields.SEED)
    shares: Mapping[str, float] = attrs.field(converter=_named_shares, validator=[fields.finite_values, fields.shares])

    def __attrs_post_init__(self) -> None:
        """Refuse one id with two roles."""
        if len(self.roles) < len(self.samples):
            raise InputError("make a split", "an id stands twice in it", "Give each sample one role.")

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return codec.digest_of(codec.to_dict(self))

    @property
    def roles(self) -> dict[str, Role]:
        """The role of each sample, by id."""
        return {sample.id: sample.role for sample in self.samples}

    @property
    def counts(self) -> dict[Role, int]:
        """Number of samples of each role."""
        held = [sample.role for sample in self.samples]
        return {role: held.count(role) for role in Role}

    def take(self, samples: Samples, role: Role | str) -> Samples:
        """Return those of the samples that have this role, for this use; other labels may be chosen meanwhile.

        Raises:
            InputError: If one was not split, or its picture is another now.

        """
        wanted, known = as_role(role), {sample.id: sample for sample in self.samples}
        strange = [s.id for s in samples if s.id not in known or s.picture_digest != known[s.id].picture]
        if strange:
            found = f"{len(strange)} samples were not split, or their pictures are others now: {_some(strange)}"
            raise InputError(f"take the samples for {wanted}", found, "Split again, with this split as previous.")
        return samples[[place for place, s in enumerate(samples) if known[s.id].role == wanted]].with_role(wanted)


def split(
    samples: Samples,
    *,
    shares: Mapping[Role, float] | Mapping[str, float] = DEFAULT_SHARES,
    seed: int = 0,
    previous: Split | None = None,
) -> Split:
    """Deal samples to roles, balanced over classes, their combinations and background.

    Args:
        samples: All that there are, those of the previous split too.
        shares: Share of each role, together 1; a role that is not named gets none.
        seed: Another one deals otherwise.
        previous: Samples that it knows, by id or by picture, keep their roles, and new ones of a known group join it;
            the others are dealt so that the whole comes near the shares.

    Raises:
        InputError: If the shares are no shares, or the seed is none.
        RoleError: If samples that belong together had two roles before.

    """
    parts, seed = _checked_shares(shares), fields.check_seed(seed)
    groups = _ordered(samples, seed)
    before = {} if previous is None else _memory(previous)
    fixed = [_role_before([samples[i] for i in group], before) for group in groups]
    order = [*parts, *(role for role in Role if role not in parts)]  # a role of before may have no share any more
    dealt = deal(
        _present(samples),
        groups,
        shares=[parts.get(role, 0.0) for role in order],
        fixed=[-1 if role is None else order.index(role) for role in fixed],
    )
    roles = {samples[i].id: order[part] for group, part in zip(groups, dealt, strict=True) for i in group}
    return _split_of(samples, roles, seed=seed, shares=parts)


def given(samples: Samples, roles: Mapping[Role, Iterable[str]] | Mapping[str, Iterable[str]]) -> Split:
    """Return the split of an author's own lists.

    Args:
        samples: All that have a role.
        roles: The ids of each role.

    Raises:
        InputError: If an id is unknown, or a sample has no role.
        RoleError: If a sample, or what belongs together, has two roles.

    """
    asked, known = "use the given split", {sample.id for sample in samples}
    found_roles: dict[str, Role] = {}
    for name, ids in roles.items():
        role = as_role(name)
        for one in [ids] if isinstance(ids, str) else ids:
            if found_roles.setdefault(one, role) != role:
                raise RoleError(asked, f"{shown(one)} is in {found_roles[one]} and in {role}", "Give it one role.")
    unknown, missing = found_roles.keys() - known, known - found_roles.keys()
    if unknown or missing:
        found = f"ids that no sample has: {_some(unknown)}; samples in no list: {_some(missing)}"
        remedy = "Give ids as the samples have them, and only the samples that are used."
        raise InputError(asked, found, remedy, unknown=sorted(unknown), missing=sorted(missing))
    for group in together(samples):
        _one_role({found_roles[samples[i].id]: samples[i].id for i in group}, asked)
    held = list(found_roles.values())
    shares = {role: held.count(role) / max(1, len(held)) for role in Role}
    return _split_of(samples, found_roles, seed=0, shares=shares)


def folds(samples: Samples, *, count: int = 5, seed: int = 0) -> list[tuple[Samples, Samples]]:
    """Divide samples for cross-validation: each is held out exactly once, and groups stay together.

    Args:
        samples: Those to divide.
        count: Number of folds; lowered to the number of groups.
        seed: Another one divides otherwise.

    Returns:
        For each fold the part to train with (role train) and the part that is held out (no role: its predictions
        serve calibration and test alike), balanced as by `split`.

    Raises:
        InputError: If count is below 2, there are not two groups, or the seed is none.

    """
    groups = _ordered(samples, fields.check_seed(seed))
    folds_made = min(count, len(groups))
    if folds_made < 2:  # noqa: PLR2004  one to learn from, one to measure with
        found = f"{count} folds of {len(groups)} groups were asked for"
        raise InputError("cross-validate", found, "Give samples of at least two groups, and at least two folds.")
    dealt = deal(_present(samples), groups, shares=[1 / folds_made] * folds_made)
    part_of = np.empty(len(samples), dtype=np.int64)  # [sample]
    for group, part in zip(groups, dealt, strict=True):
        part_of[group] = part
    held_out = [part_of == part for part in range(folds_made)]
    return [(samples[~mask].with_role(Role.TRAIN), samples[mask].with_role(None)) for mask in held_out]


def require(samples: Samples, *allowed: Role, asked: str) -> None:
    """Refuse samples whose role is another than the work they are given to; samples without a role serve for any.

    Args:
        samples: What was given.
        allowed: Roles for this work.
        asked: What the work is, as a phrase ("train a head").

    Raises:
        RoleError: Naming the role that they have and those that are allowed.

    """
    if samples.role is not None and samples.role not in allowed:
        wanted = " or ".join(allowed)
        remedy = f"Give samples of the role {wanted}, as Split.take returns them."
        raise RoleError(asked, f"the samples have the role {samples.role}", remedy, role=str(samples.role))


def require_disjoint(first: Samples, second: Samples, *, asked: str) -> None:
    """Refuse two sets of samples that share an id or a picture.

    Args:
        first: One.
        second: The other.
        asked: What they are given to, as a phrase ("measure a head").

    Raises:
        RoleError: Naming what they share.

    """
    ids, pictures = {sample.id for sample in first}, {sample.picture_digest for sample in first}
    shared = [sample.id for sample in second if sample.id in ids or sample.picture_digest in pictures]
    if shared:
        found = f"{len(shared)} samples are in both sets, by id or by picture: {_some(shared)}"
        raise RoleError(asked, found, "Use each sample for one thing: split(...) deals them.", shared=sorted(shared))


def check_enough(samples: Samples) -> None:
    """Refuse samples that are too few to learn from and to be measured with.

    Raises:
        InputError: If fewer than `LEAST` have a box, or all of these belong to one group.

    """
    groups = [group for group in together(samples) if any(len(samples[i].truth) for i in group)]
    remedy = f"Label at least {LEAST} pictures; from {needed()} of each class on each role has samples of its own."
    if samples.labelled < LEAST:
        found = f"{samples.labelled} of {len(samples)} have a box, and {LEAST} are the least"
        raise InputError("learn from these samples", found, remedy, labelled=samples.labelled)
    if len(groups) < 2:  # noqa: PLR2004  one to learn from, one to measure with
        found = "all samples with a box belong to one group, or are one picture"
        raise InputError("learn from these samples", found, "Label pictures of another group too.")


def needed(each: int = TRUSTED) -> int:
    """Return how many labelled groups of a class give so many to the smallest role, at the default shares."""
    return math.ceil(each / min(DEFAULT_SHARES.values()))


def thin_classes(samples: Samples, each: int = TRUSTED) -> dict[str, int]:
    """Return how many labelled groups those classes have that have too few for four roles.

    A class of which nothing is labelled does not count: data sets list some that they do not use.

    Args:
        samples: All that there are.
        each: How many every role is to hold of every class.

    """
    present = _present(samples)
    groups_of = sum((present[group].any(axis=0).astype(int) for group in together(samples)), 0 * present.sum(axis=0))
    counts = dict(zip(samples.class_names, map(int, groups_of), strict=True))
    return {name: count for name, count in counts.items() if 0 < count < needed(each)}


def fits_four_roles(samples: Samples, each: int = TRUSTED) -> bool:
    """Tell whether four roles would each have so many of every class; with fewer, cross-validate with `folds`."""
    return samples.labelled > 0 and not thin_classes(samples, each)


def _present(samples: Samples) -> NDArray[np.bool_]:
    """Return [sample, class] whether it has a box of the class."""
    held = [set(sample.truth.label_names) for sample in samples]
    rows = [[name in names for name in samples.class_names] for names in held]
    return np.array(rows, dtype=bool).reshape(len(samples), len(samples.class_names))


def _ordered(samples: Samples, seed: int) -> list[list[int]]:
    """Return the groups, each by id, in an order that the seed and the ids decide: this is all its chance."""

    def place(group: Sequence[int]) -> str:
        return hashlib.sha256(f"{seed} {samples[group[0]].id}".encode()).hexdigest()

    return sorted((sorted(group, key=lambda i: samples[i].id) for group in together(samples)), key=place)


def _memory(previous: Split) -> dict[tuple[str, Any], Role]:
    """Return the role that each id, picture and group had."""
    facts = [(sample.role, ("id", sample.id), ("picture", sample.picture), ("group", sample.group))
             for sample in previous.samples]  # fmt: skip
    return {key: role for role, *keys in facts for key in keys}


def roles_before(now: Split, before: Split) -> dict[str, set[Role]]:
    """Return for each sample of a split, by id, the roles that it, its picture and its group had in one before."""
    known = _memory(before)
    keys = {one.id: (("id", one.id), ("picture", one.picture), ("group", one.group)) for one in now.samples}
    return {name: {known[key] for key in own if key in known} for name, own in keys.items()}


def _role_before(group: Sequence[Sample], before: Mapping[tuple[str, Any], Role]) -> Role | None:
    holders = {
        before[key]: sample.id
        for sample in group
        for key in (("id", sample.id), ("picture", sample.picture_digest), ("group", sample.group))
        if key in before
    }
    return _one_role(holders, _ASKED)


def _one_role(holders: Mapping[Role, str], asked: str) -> Role | None:
    if len(holders) > 1:
        (role, one), (other_role, other) = sorted(holders.items())[:2]
        found = f"{shown(one)} is in {role} and {shown(other)} in {other_role}, and they belong together"
        remedy = "They share a group or a picture: give both one role, or leave one out."
        raise RoleError(asked, found, remedy, samples=[one, other])
    return next(iter(holders), None)


def _split_of(samples: Samples, roles: Mapping[str, Role], *, seed: int, shares: Mapping[Role, float]) -> Split:
    rows = [
        SplitSample(id=s.id, picture=s.picture_digest, digest=s.digest, group=s.group, role=roles[s.id])
        for s in sorted(samples, key=lambda sample: sample.id)
    ]
    return Split(samples=tuple(rows), seed=seed, shares=shares)


def _checked_shares(shares: Mapping[Any, float]) -> dict[Role, float]:
    parts = {as_role(name): share for name, share in shares.items()}
    if not all(0 <= share <= 1 for share in parts.values()) or abs(sum(parts.values()) - 1) > _ROUNDING:
        found = f"the shares are {shown({str(role): share for role, share in parts.items()})}"
        raise InputError(_ASKED, found, "Give shares from 0 to 1 that add up to 1.")
    return parts


def _some(ids: Iterable[str]) -> str:
    return listed(map(shown, ids)) or "none"
