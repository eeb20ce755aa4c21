"""Retention: which versions of a head are kept, and why; a pure function of what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import InputError
from hydra_detect.names import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.storage.pointers import Pointer

DEFAULT_KEEP = 5


@attrs.frozen(kw_only=True)
class PruneReport:
    """What a pruning took away, or would take away.

    Args:
        head: The head.
        removed: Versions taken away: number to bytes on disk.
        kept: Versions kept: number to the reason.
        is_dry_run: Whether nothing was done.

    """

    head: str
    removed: Mapping[int, int]
    kept: Mapping[int, str]
    is_dry_run: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes freed, or to be freed."""
        return sum(self.removed.values())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "head": self.head,
            "dry_run": self.is_dry_run,
            "removed": [{"version": number, "nbytes": size} for number, size in self.removed.items()],
            "kept": [{"version": number, "reason": reason} for number, reason in self.kept.items()],
            "nbytes": self.nbytes,
        }

    def __str__(self) -> str:
        """One line for each version, and the sum."""
        verb = "would remove" if self.is_dry_run else "removed"
        lines = [f"{verb} {self.head}@{number} ({size / 1e6:.2f} MB)" for number, size in self.removed.items()]
        lines += [one_line(f"kept {self.head}@{number}: {reason}") for number, reason in self.kept.items()]
        freed = f"{self.nbytes / 1e6:.2f} MB {'would be' if self.is_dry_run else 'were'} freed"
        return "\n".join([*lines, freed if self.removed else "nothing to remove"])


def kept(numbers: Sequence[int], pointer: Pointer, *, keep: int = DEFAULT_KEEP) -> dict[int, str]:
    """Return the versions that stay, with the first reason that keeps each.

    Args:
        numbers: All versions of the head.
        pointer: Its state.
        keep: How many of the highest numbers stay; by number, not by the order of file names or dates.

    Raises:
        InputError: If `keep` is no whole number from 1.

    """
    if type(keep) is not int or keep < 1:
        raise InputError("prune", f"keep is {keep!r:.60}", "Give a whole number from 1.")
    latest = sorted(numbers)[-keep:]
    pins = {pin.version: pin.reason for pin in pointer.pins}
    reasons = {}
    for number in sorted(numbers):
        if number == pointer.active:
            reasons[number] = "it is active"
        elif number == pointer.previous:
            reasons[number] = "a rollback would make it active"
        elif number in pins:
            reasons[number] = f"it is pinned{f' ({pins[number]})' if pins[number] else ''}"
        elif number in latest:
            reasons[number] = f"it is one of the last {keep}"
    return reasons
