"""Retention: which versions of a head are kept, and why; a pure function of what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import InputError, listed
from hydra_detect.names import one_line, shown, whole_number

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
        waiting: Of those taken away, versions whose files could not be deleted yet; the next writer does it.
        is_dry_run: Whether nothing was done.

    """

    head: str
    removed: Mapping[int, int]
    kept: Mapping[int, str]
    waiting: tuple[int, ...] = ()
    is_dry_run: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes freed, or to be freed."""
        return sum(size for number, size in self.removed.items() if number not in self.waiting)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "head": self.head,
            "dry_run": self.is_dry_run,
            "removed": [{"version": number, "nbytes": size} for number, size in self.removed.items()],
            "kept": [{"version": number, "reason": reason} for number, reason in self.kept.items()],
            "waiting": list(self.waiting),
            "nbytes": self.nbytes,
        }

    def __str__(self) -> str:
        """One line for each version, and the sum."""
        verb = "would remove" if self.is_dry_run else "removed"
        lines = [f"{verb} {self.head}@{number} ({size / 1e6:.2f} MB)" for number, size in self.removed.items()]
        lines += [
            f"{self.head}@{number} could not be deleted yet; whoever writes next does it" for number in self.waiting
        ]
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
    most = whole_number(keep)
    if type(most) is not int or most < 1:
        raise InputError("prune", f"keep is {shown(keep)}", "Give a whole number from 1.")
    latest = sorted(numbers)[-most:]
    pins = {number: listed(pin.reason for pin in pointer.pins if pin.version == number) for number in pointer.pinned}
    reasons = {}
    for number in sorted(numbers):
        if number == pointer.active:
            reasons[number] = "it is active"
        elif number == pointer.previous:
            reasons[number] = "a rollback would make it active"
        elif number in pins:
            reasons[number] = f"it is pinned{f' ({pins[number]})' if pins[number] else ''}"
        elif number in latest:
            reasons[number] = "it is the last" if most == 1 else f"it is one of the last {most}"
    return reasons
