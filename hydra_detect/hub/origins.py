"""Where things came from and where they are: kept in the store, so that nobody is asked twice.

A pulled version has its origin beside it, written with it by one rename. Where a store's own backbones and heads lie on
a Hub is remembered by what they are; that is believed of nothing else, and looked up again where it is lost.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs
from attrs import validators as check

from hydra_detect import codec
from hydra_detect.codec import Record
from hydra_detect.errors import NotFoundError
from hydra_detect.hub import refs
from hydra_detect.hub.documents import Place
from hydra_detect.names import Digest, HeadRef
from hydra_detect.records import BackboneRecord, HeadRecord
from hydra_detect.storage import backbones, derived, files, heads, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hydra_detect.hub.refs import HubRef
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.manifests import Published
    from hydra_detect.storage.store import Store

_LIMIT = 64 << 10
_TEXT = check.and_(check.instance_of(str), check.max_len(400))
_MOST_PLACES = 20


@attrs.frozen(kw_only=True)
class Origin(Record):
    """Where a version was pulled from.

    Args:
        endpoint: Address of the Hub.
        place: Repository, commit, and which head of a pack.
        revision: What was asked for: "v3", "main" or a commit; of what was in production its release.
        release: The number that its config claims there; proven where `revision` is that release.
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
        """Whether it is what a reference says, or said when it was asked for.

        A release is what its tag led to: what merely claims a number, on a branch or at a commit, is none.
        """
        if (self.endpoint, self.place.repo, self.place.head) != (endpoint, ref.repo, ref.head):
            return False
        return bool(ref.revision) and ref.revision in {self.revision, self.place.commit}

    @property
    def seen_release(self) -> int | None:
        """The release that its tag led to; None if it was asked for as something else."""
        return self.release if self.revision == f"v{self.release}" else None

    def is_release(self, endpoint: str, place: Place, config: Digest) -> bool:
        """Whether it is what lies at a place, with the same config, be it at another commit: others publish, too."""
        there = (self.endpoint, self.place.repo, self.place.head, self.config)
        return there == (endpoint, place.repo, place.head, config)

    def __str__(self) -> str:
        """Return it in one line: what it is there, and at which commit."""
        where = refs.HubRef(self.place.repo, self.place.head, self.revision)
        signed = f", signed by {self.signer}" if self.signer else ""
        return f"{where}, commit {self.place.commit[:12]} of {self.endpoint}{signed}"


@attrs.frozen(kw_only=True)
class Known(Record):
    """Where something lies on Hubs: first that where it was seen first."""

    places: tuple[tuple[str, Place], ...] = ()


def origin_of(store: Store, version: VersionRecord) -> Origin | None:
    """Return where a version was pulled from; None if it was made here.

    Raises:
        CorruptError: If that is damaged.

    """
    return _origin(store.head(version.head), version)


def pulled(store: Store, head: str | None = None) -> Iterator[tuple[HeadRef, Origin]]:
    """Yield the versions that were pulled, the newest of each head first; what is damaged is passed over.

    Args:
        store: The store.
        head: Its name here; None for every head.

    """
    for name in heads.names(store) if head is None else [head]:
        item = store.head(name)
        for number in reversed(item.numbers()):
            with contextlib.suppress(NotFoundError), files.unless_damaged():
                origin = _origin(item, item.manifest(number))  # not the record: of hundreds few are asked for
                if origin:
                    yield HeadRef(name, number), origin


def _origin(item: Item, version: Published) -> Origin | None:
    if layout.ORIGIN not in version.files:
        return None
    what = f"{layout.ORIGIN} of {item.name}@{version.number}"
    return codec.decode(Origin, item.read(version, layout.ORIGIN), what, limit=_LIMIT)


def remembered(store: Store, endpoint: str, ref: HubRef, head: str | None) -> tuple[VersionRecord, Origin] | None:
    """Return the version that a reference was when it was last asked for, under a name or any; None if it was not."""
    place = place_of_ref(store, endpoint, ref)
    found = at(store, endpoint, place, head) if place else None
    return found or _first(store, head, lambda origin: origin.is_of(endpoint, ref))


def at(store: Store, endpoint: str, place: Place, head: str | None) -> tuple[VersionRecord, Origin] | None:
    """Return the version that was pulled from a place, under a name or any."""
    return _first(store, head, lambda origin: (origin.endpoint, origin.place) == (endpoint, place))


def published(
    store: Store, endpoint: str, place: Place, config: Digest, head: str | None
) -> tuple[VersionRecord, Origin] | None:
    """Return the version that was pulled from a repository with a config, at whatever commit."""
    return _first(store, head, lambda origin: origin.is_release(endpoint, place, config))


def _first(store: Store, head: str | None, is_it: Callable[[Origin], bool]) -> tuple[VersionRecord, Origin] | None:
    for ref, origin in pulled(store, head):
        if is_it(origin):
            with contextlib.suppress(NotFoundError), files.unless_damaged():
                return heads.find(store, ref), origin
    return None


def newest_release(store: Store, endpoint: str, ref: HubRef, *, is_held: bool) -> int:
    """Return the highest release that was pulled of a head there, by its tag or by the same branch; 0 if none was.

    Args:
        store: Where they are.
        endpoint: Address of the Hub.
        ref: The head, and the branch.
        is_held: Whether its namespace is held to a key: then whatever was signed has its number from there.

    """
    wanted = (endpoint, ref.repo, ref.head)
    theirs = [one for _ref, one in pulled(store) if (one.endpoint, one.place.repo, one.place.head) == wanted]
    proven = [
        one.release
        for one in theirs
        if one.revision == ref.revision or (is_held and one.signer) or _is_seen(store, endpoint, one)
    ]
    return max(proven, default=0)


def _is_seen(store: Store, endpoint: str, origin: Origin) -> bool:
    """Whether the tag of a release led to a version, be it that it came as something else."""
    if origin.seen_release is not None:
        return True
    place = origin.place
    return place_of_ref(store, endpoint, refs.HubRef(place.repo, place.head, f"v{origin.release}")) == place


def identity(record: BackboneRecord | HeadRecord) -> Digest:
    """Return what tells a backbone, or a head on its backbone, from every other: weights, settings and all."""
    if isinstance(record, BackboneRecord):
        return codec.digest_of(codec.to_dict(record.contract))
    return codec.digest_of({"tensors": str(record.tensors), "backbone": codec.to_dict(record.backbone)})


def remember(store: Store, endpoint: str, record: BackboneRecord | HeadRecord, place: Place) -> None:
    """Remember where something lies, for whoever publishes what needs it."""
    _remember(store, identity(record), (endpoint, place))


def remember_ref(store: Store, endpoint: str, ref: HubRef, place: Place) -> None:
    """Remember what a reference was when it was asked for, for when nobody may be asked."""
    _remember(store, _of_ref(endpoint, ref), (endpoint, place), is_only=True)


def _of_ref(endpoint: str, ref: HubRef) -> Digest:
    return codec.digest_of([endpoint, str(ref)])


def _remember(store: Store, key: Digest, where: tuple[str, Place], *, is_only: bool = False) -> None:
    """Write what is known; where it cannot be written, it is asked for again."""
    there = () if is_only else _known(store, key)
    if where in there:
        return
    known, target = Known(places=(*there, where)[:_MOST_PLACES]), store.layout.on_hub(key)
    derived.keep(store, target, codec.encode(known), "remember where something lies on a Hub")


def places(store: Store, endpoint: str, record: BackboneRecord | HeadRecord) -> list[Place]:
    """Return where something lies on a Hub, as it is remembered: first where it was seen first."""
    return [place for where, place in _known(store, identity(record)) if where == endpoint]


def place_of_ref(store: Store, endpoint: str, ref: HubRef) -> Place | None:
    """Return what a reference was when it was last asked for; None if it never was."""
    return next((place for where, place in _known(store, _of_ref(endpoint, ref)) if where == endpoint), None)


def _known(store: Store, key: Digest) -> tuple[tuple[str, Place], ...]:
    target = store.layout.on_hub(key)
    with files.unless_damaged():
        data = files.read_whole(target, limit=_LIMIT, asked=f"read {target}")
        return codec.decode(Known, data, str(target), limit=_LIMIT).places
    return ()


def remember_backbone(store: Store, endpoint: str, place: Place) -> None:
    """Remember that a place holds the one release of a backbone, which is all that its repository ever means."""
    for revision in ("", "v1"):
        remember_ref(store, endpoint, refs.HubRef(place.repo, place.head, revision), place)


def held_backbone(store: Store, endpoint: str, ref: HubRef, named: str | None) -> str | None:
    """Return the backbone that a reference was when it was asked for, or that was published as it, by a name or any."""
    asked = place_of_ref(store, endpoint, ref)
    for name in backbones.names(store) if named is None else [named]:
        with files.unless_damaged():
            there = places(store, endpoint, backbones.find(store, name).record)
            own = [one for one in there if (one.repo, one.head) == (ref.repo, ref.head)]
            if asked in own or ref.revision in {one.commit for one in own}:
                return name
    return None
