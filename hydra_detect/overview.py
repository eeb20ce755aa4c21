"""Heads and versions at a glance, as values: what lists and tables are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.names import Digest  # noqa: TC001  the codec reads annotations as it runs

if TYPE_CHECKING:
    from hydra_detect.records import VersionRecord


@attrs.frozen(kw_only=True)
class HeadInfo:
    """A head at a glance.

    Args:
        head: Its name.
        active: Number of the active version, None if none was ever promoted.
        versions: Numbers of all versions, ascending.
        class_names: Classes of the active version, or of the newest where none is active.
        backbone: Name of the backbone it was made on.
        backbone_digest: Canonical digest of that backbone's tensors.
        nbytes: Bytes on disk of its weights.
        created_at: When that version was made, UTC.
        leans_on: The version that a compact head leans on, as it was called when this one was made; "" for a full one.
        problem: What keeps the head from being read, if anything does; then nothing but its name is known, and its
            versions if they could be listed.

    """

    head: str
    active: int | None
    versions: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    backbone: str = ""
    backbone_digest: Digest | None = None
    nbytes: int = 0
    created_at: str = ""
    leans_on: str = ""
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> HeadInfo:
        """Read what `to_dict` returns.

        Raises:
            RecordError: If a field is missing or of the wrong kind.

        """
        return codec.from_dict(cls, value, "the summary of a head")


@attrs.frozen(kw_only=True)
class VersionStatus:
    """A version among the others of its head.

    Args:
        number: Its number.
        is_active: Whether it is the active one; None if the head's state cannot be read.
        is_previous: Whether a rollback would make it active; None as above.
        pinned_for: The reasons for which it is pinned, one for each pin; none if the head's state cannot be read.
        record: What is known of it; None if it cannot be read.
        problem: What keeps it from being read, if anything does.

    """

    number: int
    is_active: bool | None
    is_previous: bool | None
    pinned_for: tuple[str, ...] = ()
    record: VersionRecord | None = None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the same keys, whatever is known."""
        version = self.record
        return {
            "version": self.number,
            "active": self.is_active,
            "previous": self.is_previous,
            "pinned_for": list(self.pinned_for),
            "created_at": version and version.created_at,
            "actor": version and version.actor,
            "parent": version and version.parent,
            "nbytes": version and version.nbytes,
            "class_names": version and list(version.record.class_names),
            "sample_count": version and version.record.sample_count,
            "claimed_metrics": version and dict(version.record.claimed_metrics),
            "notes": version and version.record.notes,
            "leans_on": version and version.record.leans_on,
            "digest": version and str(version.manifest),
            "problem": self.problem,
        }


@attrs.frozen(kw_only=True)
class HeadStatus:
    """All versions of a head, and which of them is active.

    Args:
        head: Its name.
        active: Number of the active version; None if none is, or that cannot be read.
        previous: Number of the version that a rollback would make active; None as above.
        versions: All versions, ascending.
        problem: What keeps the head's state from being read, if anything does.

    """

    head: str
    active: int | None
    previous: int | None
    versions: tuple[VersionStatus, ...]
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all of it could be read."""
        return not self.problem and not any(version.problem for version in self.versions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "head": self.head,
            "active": self.active,
            "previous": self.previous,
            "versions": [version.to_dict() for version in self.versions],
            "problem": self.problem,
        }
