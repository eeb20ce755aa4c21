"""Groups: which samples must stay together, because one would give the other away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from hydra_detect.data.samples import Sample


def connected(keys: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """Join items that share a key, directly or through others (union-find).

    Args:
        keys: For each item what it may share.

    Returns:
        The numbers of the items of each joined group, ascending; groups in order of their first item.

    """
    parent = list(range(len(keys)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    owner: dict[Hashable, int] = {}
    for item, own in enumerate(keys):
        for key in own:
            first, second = sorted((root(item), root(owner.setdefault(key, item))))
            parent[second] = first
    joined: dict[int, list[int]] = {}
    for item in range(len(keys)):
        joined.setdefault(root(item), []).append(item)
    return list(joined.values())


def together(samples: Sequence[Sample]) -> list[list[int]]:
    """Return the numbers of the samples that must not come apart: of one group, or with the same picture."""
    return connected([(("group", sample.group), ("picture", sample.picture_digest)) for sample in samples])
