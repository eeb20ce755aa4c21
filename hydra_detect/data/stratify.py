"""Stratify: deal groups of samples to parts so that each part has its share of every class.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, doi:10.1007/978-3-642-23808-6_10) deals the rarest
label first, each time to the part that lacks most of it; labels here are classes, pairs of classes that occur together
(Szymanski and Kajdanowicz 2017, PMLR 74), background, and the mere being a sample. What is dealt here are whole
groups, whose sizes the first deal cannot foresee; so single groups are then moved as long as that brings the parts
nearer to their shares. Nothing is random: equal input gives equal parts, and the order of the groups breaks ties.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_ROUNDING = 1e-9
_MOST_ROUNDS = 10  # two or three are the rule
_MOST_PAIRS = 256  # the most frequent pairs; the work grows with them, and of rare ones no part has a fair share


def deal(
    present: NDArray[np.bool_],
    groups: Sequence[Sequence[int]],
    *,
    shares: Sequence[float],
    fixed: Sequence[int] | None = None,
) -> list[int]:
    """Deal groups to parts.

    A class that has as many groups as there are parts, or more, comes to every part, unless rarer classes prevent it.

    Args:
        present: [sample, class]; whether a sample has a box of a class.
        groups: The numbers of the samples of each group; each sample is in one.
        shares: Of each part, of all samples; they add up to 1, and a part of share 0 is dealt nothing.
        fixed: The part that each group is in already, -1 for those that are to be dealt; all are by default.

    Returns:
        The part of each group.

    """
    counts, plain = _count(present, groups)
    parts = np.full(len(groups), -1) if fixed is None else np.array(fixed, dtype=np.int64).reshape(-1)
    table = _Table.of(counts, plain, shares)
    for group in np.flatnonzero(parts >= 0):
        table.put(int(group), int(parts[group]))
    while table.left.any():
        label = int(np.where(table.left > 0, table.left, table.left.max() + 1).argmin())
        of_label = np.flatnonzero(table.waiting & (counts[:, label] > 0))
        for group in of_label[np.argsort(-counts[of_label, label], kind="stable")]:  # large ones while there is room
            parts[group] = table.best_part(int(group), label)
            table.put(int(group), int(parts[group]))
    free = range(len(groups)) if fixed is None else [group for group, part in enumerate(fixed) if part < 0]
    for _round in range(_MOST_ROUNDS):
        if not sum(table.improve(group, parts) for group in free):
            break
    return [int(part) for part in parts]


def _count(present: NDArray[np.bool_], groups: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], int]:
    """Count the samples of each label in each group.

    Returns:
        [group, label]; and how many of the labels, from the first on, every part should have: classes, background and
        samples at all, but no pairs.

    """
    samples, classes = present.shape
    background = ~present.any(axis=1)
    plain = [*present.T, background, np.ones(samples, dtype=bool)]  # [label][sample]
    pairs = [present[:, a] & present[:, b] for a, b in itertools.combinations(range(classes), 2)]
    pairs = sorted(pairs, key=lambda pair: -int(pair.sum()))[:_MOST_PAIRS]
    labels = np.array([*plain, *(pair for pair in pairs if pair.any())], dtype=np.int64)  # [label, sample]
    counts = np.array([labels[:, list(group)].sum(axis=1) for group in groups], dtype=np.int64)
    return counts.reshape(len(groups), len(labels)), len(plain)


@attrs.define
class _Table:
    """What lies on the table while groups are dealt.

    Args:
        counts: [group, label] samples.
        plain: So many labels, from the first on, should come to every part.
        open: [part] whether it is dealt anything.
        share: [label, part] samples that it ought to have.
        held: [label, part] samples that it has.
        waiting: [group] whether it is still to be dealt.
        left: [label] groups with such samples that are still to be dealt.

    """

    counts: NDArray[np.int64]
    plain: int
    open: NDArray[np.bool_]
    share: NDArray[np.float64]
    held: NDArray[np.int64]
    waiting: NDArray[np.bool_]
    left: NDArray[np.int64]

    @classmethod
    def of(cls, counts: NDArray[np.int64], plain: int, shares: Sequence[float]) -> _Table:
        """Lay everything out: all groups wait, and every part lacks all of its share."""
        share = counts.sum(axis=0)[:, None] * np.array(shares, dtype=np.float64)[None]
        return cls(
            counts=counts,
            plain=plain,
            open=np.array(shares) > 0,
            share=share,
            held=np.zeros(share.shape, dtype=np.int64),
            waiting=np.ones(len(counts), dtype=bool),
            left=(counts > 0).sum(axis=0),
        )

    def put(self, group: int, part: int) -> None:
        """Give a group to a part."""
        self.held[:, part] += self.counts[group]
        self.waiting[group] = False
        self.left -= self.counts[group] > 0

    def best_part(self, group: int, label: int) -> int:
        """Return the part that lacks most of the label, then of the group's other labels, then of everything."""
        candidates = np.flatnonzero(self._candidates(group))
        lacks, own = self.share - self.held, self.counts[group] > 0  # [label, part], [label]
        order = [(lacks[label, part], lacks[own, part].sum(), lacks[self.plain - 1, part]) for part in candidates]
        return int(candidates[max(range(len(order)), key=lambda place: order[place])])

    def improve(self, group: int, parts: NDArray[np.int64]) -> bool:
        """Move a group, if that brings the parts nearer to their shares; tell whether it was moved.

        How far they are from them is the sum of (held - share)^2 / share over labels and open parts.
        """
        here, own = int(parts[group]), self.counts[group]
        alone = (own > 0) & (self.held[:, here] == own)
        if alone[: self.plain].any():  # the part would be left without a class
            return False
        scale = 1 / np.maximum(self.share, _ROUNDING)
        excess = self.held - self.share
        after_leaving = (own * (own - 2 * excess[:, here]) * scale[:, here]).sum()
        after_coming = (own[:, None] * (own[:, None] + 2 * excess) * scale).sum(axis=0)  # [part]
        after_coming[~self.open | (np.arange(len(self.open)) == here)] = np.inf
        there = int(after_coming.argmin())
        if after_leaving + after_coming[there] >= -_ROUNDING:
            return False
        self.held[:, here] -= own
        self.held[:, there] += own
        parts[group] = there
        return True

    def _candidates(self, group: int) -> NDArray[np.bool_]:
        """Return [part], leaving out those that would take the last chance of another to see a class at all."""
        labels = np.flatnonzero(self.counts[group, : self.plain] > 0)
        candidates = self.open
        for label in labels[np.argsort(self.left[labels], kind="stable")]:
            unserved = self.open & (self.held[label] == 0)
            if self.left[label] <= unserved.sum() and (candidates & unserved).any():
                candidates = candidates & unserved
        return candidates
