"""Where things came from and where they are: kept in the store, so that nobody is asked twice.

A pulled version has its origin beside it, written with it by one rename. Where a store's own weights lie on a Hub is
remembered by their digest; that is believed of no weights but these, and looked up again where it is lost.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
from attrs import validators as check

from hydra_detect import codec
from hydra_detect.arriving import sound
from hydra_detect.codec import Record
from hydra_detect.errors import HydraDetectError
from hydra_detect.hub.documents import Place
from hydra_detect.names import Digest
from hydra_detect.storage import backbones, files, heads, layout, owners

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hydra_detect.hub.refs import HubRef
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store

_LIMIT = 64 << 10
_TEXT = check.and_(check.instance_of(str), check.max_len(400))


@attrs.frozen(kw_only=True)
class Origin(Record):
    """Where a version was pulled from.

    Args:
        endpoint: Address of the Hub.
        place: Repository, commit, and which head of a pack.
        revision: What was asked for: "v3", "main", a commit, or "" for what was in production.
        release: Number of the release there.
        config: SHA-256 of its config.json, which lists that of each other file.
        signer: Name of the key whose signature was checked; "" if none was.

    """

    endpoint: str = attrs.field(validator=_TEXT)
    place: Place
    revision: str = attrs.field(default="", validator=_TEXT)
    release: int = attrs.field(validator=[check.ge(1), check.le(layout.HIGHEST)])
    config: Digest
    signer: str = attrs.field(default="", validator=_TEXT)

    def is_of(self, endpoint: str, ref: HubRef) -> bool:
        """Whether it is what a reference says, or said when it was asked for."""
        if (self.endpoint, self.place.repo, self.place.head) != (endpoint, ref.repo, ref.head):
            return False
        return ref.revision in {self.revision, self.place.commit} or ref.release == self.release

    def __str__(self) -> str:
        """Return it in one line: what it is there, and at which commit."""
        where = f"{self.place.repo}/{self.place.head}" if self.place.head else self.place.repo
        signed = f", signed by {self.signer}" if self.signer else ""
        return f"{where}@v{self.release}, commit {self.place.commit[:12]} of {self.endpoint}{signed}"


@attrs.frozen(kw_only=True)
class Known(Record):
    """Where weights lie on a Hub."""

    endpoint: str = attrs.field(validator=_TEXT)
    place: Place


def origin_of(store: Store, version: VersionRecord) -> Origin | None:
    """Return where a version was pulled from; None if it was made here.

    Raises:
        CorruptError: If that is damaged.

    """
    if layout.ORIGIN not in version.files:
        return None
    data = store.head(version.head).read(version, layout.ORIGIN)
    return codec.decode(Origin, data, f"{layout.ORIGIN} of {version.ref}", limit=_LIMIT)


def pulled(store: Store) -> Iterator[tuple[VersionRecord, Origin]]:
    """Yield the versions that were pulled, the newest of each head first; what is damaged is passed over."""
    for name in heads.names(store):
        for version in reversed(sound(store, name)):
            with files.unless_damaged():
                origin = origin_of(store, version)
                if origin:
                    yield version, origin


def pinned(store: Store, endpoint: str, ref: HubRef) -> VersionRecord | None:
    """Return the version that a reference was when it was pulled; None if it was not."""
    return next((version for version, origin in pulled(store) if origin.is_of(endpoint, ref)), None)


def at(store: Store, endpoint: str, place: Place) -> VersionRecord | None:
    """Return the version that was pulled from a place."""
    return next((one for one, origin in pulled(store) if (origin.endpoint, origin.place) == (endpoint, place)), None)


def held_backbone(store: Store, endpoint: str, ref: HubRef) -> str | None:
    """Return the name of a backbone that came from a repository, or went there: such a one has one content for ever."""
    for name in backbones.names(store):
        with files.unless_damaged():
            place = where(store, endpoint, backbones.find(store, name).record.tensors)
            if place is None or (place.repo, place.head) != (ref.repo, ref.head):
                continue
            if ref.revision in {"", "v1", place.commit}:
                return name
    return None


def newest_release(store: Store, endpoint: str, ref: HubRef) -> int:
    """Return the highest release of a repository's head that was pulled; 0 if none was."""
    wanted = (endpoint, ref.repo, ref.head)
    found = [one.release for _version, one in pulled(store) if (one.endpoint, one.place.repo, one.place.head) == wanted]
    return max(found, default=0)


def remember(store: Store, endpoint: str, digest: Digest, place: Place) -> None:
    """Remember where weights lie. That is a help, and no more: where it cannot be written, it is asked for again."""
    target = store.layout.on_hub(digest)
    aside = store.layout.staging / owners.staging_name()
    with contextlib.suppress(OSError, HydraDetectError):
        store.check_writable("remember where weights lie on a Hub")
        try:
            files.make_branch(store.disk, store.root, store.layout.staging, target.parent)
            files.write_new(store.disk, aside, codec.encode(Known(endpoint=endpoint, place=place)))
            store.disk.replace(aside, target)
        finally:
            files.discard(store.disk, aside)


def where(store: Store, endpoint: str, digest: Digest) -> Place | None:
    """Return where weights lie on a Hub, if that was remembered of this one."""
    target = store.layout.on_hub(digest)
    with files.unless_damaged():
        data = files.read_whole(target, limit=_LIMIT, asked=f"read {target}")
        known = codec.decode(Known, data, str(target), limit=_LIMIT)
        return known.place if known.endpoint == endpoint else None
    return None
