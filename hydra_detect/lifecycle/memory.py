"""What is remembered of samples: the roles that they had for earlier versions, whatever they are called by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.groups import connected
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import Split, SplitSample
from hydra_detect.lifecycle import beside
from hydra_detect.storage import heads

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Samples
    from hydra_detect.names import Digest
    from hydra_detect.storage.store import Store


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
    rows = [(None if one.is_elsewhere else number, one)
            for number, split in zip(sets, splits, strict=True) for one in split.samples]  # fmt: skip
    facts = [_keys(number, one.id, one.picture, one.group) for number, one in rows]
    present = [_keys(own, one.id, one.picture_digest, one.group) for one in samples or ()]
    roles: dict[int, Role] = {}
    for places in connected([*facts, *present]):
        there = [place for place in places if place < len(rows)]  # oldest first
        newest = {(rows[place][0], rows[place][1].id, rows[place][1].picture): place for place in there}.values()
        has_learnt = any(rows[place][1].role == Role.TRAIN for place in there)
        common = _common([rows[place][1].role for place in newest], has_learnt=has_learnt)
        roles |= {place: common or rows[place][1].role for place in newest}
    kept = [(rows[place][0], attrs.evolve(rows[place][1], role=roles[place])) for place in sorted(roles)]
    found = {one.id: one for number, one in kept if number == own}  # an id with another picture now has the newest
    taken = {*found, *(sample.id for sample in samples or ())}
    for one in [one for _number, one in kept if found.get(one.id) is not one]:
        moved = _moved(one, taken)
        found[moved.id] = moved
        taken.add(moved.id)
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


def _moved(one: SplitSample, taken: Collection[str]) -> SplitSample:
    """Return a sample of another data set, under an id that none of this one has."""
    name = f"{one.id}#{one.picture.short}" if one.id in taken else one.id
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
            is_own = is_same_data and not one.is_elsewhere
            mine = [places[one.picture]] if one.picture in places else []
            mine += [one.id] if is_own and one.id in rows else []
            for name in mine if one.role == Role.TRAIN else ():
                rows[name] = attrs.evolve(rows[name], role=Role.TRAIN)
            if one.picture not in places:  # which is another now, or one of another data set
                new = one if is_own and one.id not in rows else _moved(one, rows)
                rows[new.id], places[one.picture] = new, new.id
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
