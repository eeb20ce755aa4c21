"""`pull` and `pull_backbone`: from a Hub into a store, whole and checked, or not at all.

What is asked for is a commit from the first answer on, and stays that one: a release or commit that was pulled is never
asked for again. All that comes is checked before any of it is kept, and becomes a candidate: its own figures promote
nothing.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.arriving import Arrival, held_as
from hydra_detect.errors import ConflictError, HubError, IncompatibleError, NotFoundError
from hydra_detect.hub import client, origins, receiving, signing
from hydra_detect.hub.client import Hub
from hydra_detect.hub.documents import BackboneConfig, HeadConfig, Place, strangers_own
from hydra_detect.hub.origins import Origin
from hydra_detect.hub.refs import HubRef
from hydra_detect.hub.resolving import check_age, check_tag, is_the_release, located
from hydra_detect.hub.snapshots import Snapshot
from hydra_detect.names import HeadRef, check_name
from hydra_detect.storage import backbones, files, locks, references
from hydra_detect.storage import layout as stored
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from hydra_detect.arriving import ArrivingHead
    from hydra_detect.contracts import BackboneContract
    from hydra_detect.hub.receiving import Opened
    from hydra_detect.records import HeadRecord, VersionRecord


def pull(
    ref: str | HubRef,
    store: str | os.PathLike[str] | Store,
    *,
    name: str | None = None,
    allow_older: bool = False,
    endpoint: str | None = None,
    actor: str = "",
) -> HeadRef:
    """Put a release of a head into a store as a new version, with the backbone and reference that it needs.

    The new version is not promoted. Beside it lies where it came from. A release or commit that was pulled before is
    returned without asking anybody; offline (HF_HUB_OFFLINE=1) that holds for every reference that was pulled.

    Args:
        ref: "org/hydra-whistle@v3", "org/pack/whistle@v3"; after the "@" any tag, branch or commit. Without it, what is
            in production there.
        store: The store, or its path; it is made if the folder is missing or empty.
        name: Name of the head here; None for the one that it has there, with its namespace behind it if that is
            another head here.
        allow_older: Take a release that is older than one which was pulled before; needed where a branch leads to it,
            and for each one of a namespace whose key is pinned.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).
        actor: Who is at work, for the history; left out, $HYDRA_DETECT_ACTOR, or user@host.

    Returns:
        The version: "whistle@1".

    Raises:
        NameInvalidError: If a name is not allowed.
        NotFoundError: If there is no such repository, revision or head, as far as this login can see.
        CorruptError: If a byte is another than its commit says, a file is too large, or weights hold NaN or infinity.
        RecordError: If a config has a key that there is not, or is of a newer version.
        IncompatibleError: If backbone or reference are not those that the head names.
        CheckpointError: If names or shapes of the weights are not those of the network that its record describes.
        ConflictError: If it is older than one that was pulled before, its tag stands elsewhere, or every name for it
            belongs to something else here.
        ExtraMissingError: If its namespace is held to a key, and model-signing is not installed.
        InputError: If the endpoint is neither https nor on this machine.
        HubError: If access was refused, there was no answer, or it is no repository of hydra-detect.
        StoreError: If the disk is full or not writable.

    """
    wanted, hub = HubRef.parse(ref), Hub(endpoint)
    if name is not None:
        check_name(name)
    found = _pulled(Store.find(store), hub, wanted, name)
    if found:
        return found.ref
    asked, place = located(hub, wanted)
    store = Store.create(store)
    before, what = origins.at(store, hub.endpoint, place, name), f"pull {wanted}"
    if before and _is_signed(before[1]) and asked.release in {None, before[1].seen_release}:
        version, origin = before
        check_age(store, hub, wanted, asked, origin.release, allow_older=allow_older)
    else:
        release = receiving.opened(Snapshot(hub, place.repo, place.commit), place.head, HeadConfig)
        check_tag(asked, release, what)
        check_age(store, hub, wanted, asked, release.config.release, allow_older=allow_older)
        version = _taken(store, hub, asked, release, name=name, actor=actor)
    own = origins.origin_of(store, version)  # the same release may have come at another commit
    for meant in {wanted, asked}:
        origins.remember_ref(store, hub.endpoint, meant, own.place if own else place)
    return version.ref


def _taken(
    store: Store, hub: Hub, asked: HubRef, release: Opened[HeadConfig], *, name: str | None, actor: str
) -> VersionRecord:
    """Put a release into the store with all that it needs, once it is seen to be whole and to run."""
    there = origins.published(store, hub.endpoint, release.place, release.digest, name)
    if there and _is_signed(there[1]):
        return there[0]
    record = release.config.record
    has_backbone = held_as(store, record.backbone, likely=record.backbone_name) is not None
    backbone = None if has_backbone else _backbone(hub, release)
    is_release = backbone is not None and is_the_release(hub, backbone.place)  # asked before anything is kept
    arrival = _arrival(store, hub, asked, release, backbone)
    _try_out(store, arrival)
    with _naming(store):
        arrival = _named(store, hub, arrival, release, name)
        version = arrival.add_to(
            VersionManager(store, actor=actor),
            backbone=_backbone_name(store, record.backbone, likely=record.backbone_name),
            is_same=lambda one, _record: _is_of(store, one, hub, release),
        )
    _remember(store, hub, arrival, release)
    if backbone:
        _remember_backbone(store, hub, backbone, is_release=is_release)
    return version


def pull_backbone(
    ref: str | HubRef,
    store: str | os.PathLike[str] | Store,
    *,
    name: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Put a backbone into a store, and return its name there; one that is there is not asked for again.

    Args:
        ref: "org/backbone", "org/backbone@v1"; after the "@" any tag, branch or commit.
        store: The store, or its path; it is made if the folder is missing or empty.
        name: Its name here; None for the one that it has there, or one like it if that is another backbone here.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Raises:
        NameInvalidError: If a name is not allowed.
        NotFoundError: If there is no such repository or revision, as far as this login can see.
        CorruptError: If a byte is another than its commit says, a file is too large, or weights hold NaN or infinity.
        RecordError: If its config has a key that there is not, or is of a newer version.
        CheckpointError: If names or shapes of the weights are not those of the network that its record describes.
        ConflictError: If the name belongs to another backbone here, or its tag stands at another one than the release.
        ExtraMissingError: If its namespace is held to a key, and model-signing is not installed.
        InputError: If the endpoint is neither https nor on this machine.
        HubError: If access was refused, there was no answer, or it is no backbone.
        StoreError: If the disk is full or not writable.

    """
    from hydra_detect.loading import try_out_backbone

    wanted, hub = HubRef.parse(ref), Hub(endpoint)
    if name is not None:
        check_name(name, "backbone")
    there = Store.find(store)
    if there and (wanted.is_fixed or not wanted.revision or client.is_offline()):
        known = origins.held_backbone(there, hub.endpoint, wanted, name)
        if known:
            return known
    _check_may_ask(wanted)
    asked, commit = _located_backbone(hub, wanted)
    release = receiving.opened(Snapshot(hub, wanted.repo, commit), wanted.head, BackboneConfig)
    check_tag(asked, release, f"pull {wanted}")
    store, record = Store.create(store), release.config.record
    held = held_as(store, record.contract, likely=name or release.config.name)
    if held is None or (name and held != name):
        held = name or _backbone_name(store, record.contract, likely=release.config.name)
        backbones.check_free(store, held, record)
        arriving, _signer = receiving.backbone(release)
        with strangers_own():
            try_out_backbone(arriving.record, arriving.tensors)
        backbones.publish(store, held, arriving.record, arriving.tensors)
    _remember_backbone(store, hub, release, is_release=asked.release == 1)
    if wanted.revision:
        origins.remember_ref(store, hub.endpoint, wanted, release.place)
    return held


def _located_backbone(hub: Hub, wanted: HubRef) -> tuple[HubRef, str]:
    """Return what is asked for, the one release if no revision is, and the commit that it is just now."""
    if not wanted.revision:
        release = attrs.evolve(wanted, revision="v1")
        with contextlib.suppress(NotFoundError):  # whoever publishes it just now has not come to the tag yet
            return release, hub.commit_of(wanted.repo, release.tag)
    return wanted, hub.commit_of(wanted.repo, wanted.tag)


def _remember_backbone(store: Store, hub: Hub, there: Opened[BackboneConfig], *, is_release: bool) -> None:
    """Remember where a backbone lies, and if it is the release there, that it is what the repository's name means."""
    origins.remember(store, hub.endpoint, there.config.record, there.place)
    if is_release:
        origins.remember_backbone(store, hub.endpoint, there.place)


def _pulled(store: Store | None, hub: Hub, wanted: HubRef, name: str | None) -> VersionRecord | None:
    """Return what was pulled already, where that answers for ever, or where nobody may be asked."""
    if store and (wanted.is_fixed or client.is_offline()):
        found = origins.remembered(store, hub.endpoint, wanted, name)
        if found and _is_signed(found[1]):
            return found[0]
    _check_may_ask(wanted)
    return None


def _is_signed(origin: Origin) -> bool:
    """Whether a version is as its namespace has to be by now: it may have been pulled before a key was pinned."""
    return bool(origin.signer) or signing.pinned_key(origin.place.repo) is None


def _check_may_ask(wanted: HubRef) -> None:
    if client.is_offline():
        found = "it was not pulled yet, and the client was told to ask nobody (HF_HUB_OFFLINE)"
        raise HubError(f"pull {wanted}", found, "Pull it once while that is not set.")


def _arrival(
    store: Store, hub: Hub, asked: HubRef, release: Opened[HeadConfig], backbone: Opened[BackboneConfig] | None
) -> Arrival:
    """Return the head with all that it needs and the store has not, each by the commit and digest that it names."""
    return Arrival(
        head=_head(hub, release, revision=asked.revision),
        backbone=receiving.backbone(backbone)[0] if backbone else None,
        reference=_reference(store, hub, release),
    )


def _head(hub: Hub, release: Opened[HeadConfig], *, revision: str) -> ArrivingHead:
    """Return a head with its origin beside it: what it is at which revision."""
    head, signer = receiving.head(release)
    origin = Origin(
        endpoint=hub.endpoint,
        place=release.place,
        revision=revision,
        release=release.config.release,
        config=release.digest,
        signer=signer,
    )
    return attrs.evolve(head, files={**head.files, stored.ORIGIN: codec.encode(origin)})


def _backbone_name(store: Store, contract: BackboneContract, *, likely: str) -> str:
    """Return what a backbone is called here: as it is, or as there unless another one is called so."""
    # Looked at first: it may be the same one, which somebody else brings just now.
    new = f"{likely[:40]}-{contract.digest.short}" if backbones.is_taken(store, likely) else likely
    return held_as(store, contract, likely=likely) or new


@contextlib.contextmanager
def _naming(store: Store) -> Iterator[None]:
    """Choose names and use them alone: of two heads of one name that come at once, each is to have its own."""
    path, asked = store.layout.lock("naming", "heads"), "name what was pulled"
    with files.explained(asked):
        files.ensure_folder(store.disk, path.parent, asked)
    with locks.held(path, asked):
        yield


def _named(store: Store, hub: Hub, arrival: Arrival, release: Opened[HeadConfig], name: str | None) -> Arrival:
    """Return what came under the names that it gets here."""
    head, reference, place = arrival.head, arrival.reference, release.config.reference
    head = attrs.evolve(head, name=name or _free_name(store, hub, head.name, release.place))
    if reference and place:
        reference = attrs.evolve(reference, name=_free_name(store, hub, reference.name, place))
    return attrs.evolve(arrival, head=head, reference=reference)


def _free_name(store: Store, hub: Hub, there: str, place: Place) -> str:
    """Return what a head is called here: as there, or if that is something else here, with its namespace behind it.

    Raises:
        ConflictError: If both are something else.

    """
    owner = re.sub(r"[^a-z0-9]+", "-", place.repo.partition("/")[0].lower()).strip("-")
    for name in (there, f"{there[:30]}-{owner[:30]}"):
        is_taken = bool(store.head(name).numbers())  # first, as with backbones
        theirs = {(one.endpoint, one.place.repo, one.place.head) for _ref, one in origins.pulled(store, name)}
        if not is_taken or (hub.endpoint, place.repo, place.head) in theirs:
            return name
    found = f"the store has another head {there!r}, and another {name!r}"
    raise ConflictError(f"pull {place}", found, "Say what to call it here: name=... (--name).")


def _backbone(hub: Hub, release: Opened[HeadConfig]) -> Opened[BackboneConfig]:
    """Open the backbone that a head names, where it says.

    Raises:
        IncompatibleError: If another one lies there.

    """
    place = release.config.backbone
    there = receiving.opened(Snapshot(hub, place.repo, place.commit), place.head, BackboneConfig)
    differences = there.config.record.contract.differences(release.config.record.backbone)
    if differences:
        found = f"{place}, which it names as its backbone, is another one: {'; '.join(differences)}"
        raise IncompatibleError(f"pull {release.place}", found, "Ask whoever published it.", differences=differences)
    return there


def _reference(store: Store, hub: Hub, release: Opened[HeadConfig]) -> ArrivingHead | None:
    """Return the full head that a compact one names, from where it says; None where the store has it.

    Raises:
        IncompatibleError: If another one lies there.

    """
    record, place = release.config.record, release.config.reference
    if record.compact is None or place is None or _has_reference(store, record):
        return None
    there = receiving.opened(Snapshot(hub, place.repo, place.commit), place.head, HeadConfig)
    own = there.config.record
    differences = own.backbone.differences(record.backbone)
    if own.tensors != record.compact.reference or own.compact or differences:
        found = f"{place}, which it names as what it leans on, is another head: {own.tensors.short}"
        raise IncompatibleError(f"pull {release.place}", found, "Ask whoever published it.", differences=differences)
    return _head(hub, there, revision=place.commit)


def _has_reference(store: Store, record: HeadRecord) -> bool:
    with contextlib.suppress(NotFoundError), files.unless_damaged():
        references.find(store, record, "see whether it is there")
        return True
    return False


def _try_out(store: Store, arrival: Arrival) -> None:
    """Build what came and run it once, before anything of it is kept."""
    from hydra_detect.loading import try_out_backbone, try_out_head  # torch is loaded where something came, not before

    record, own = arrival.head.record, arrival.reference
    with strangers_own():
        if arrival.backbone:
            try_out_backbone(arrival.backbone.record, arrival.backbone.tensors)
        if own:
            try_out_head(own.record, own.tensors)
    reference = (own.record, own.tensors) if own else None
    if record.compact and not reference:
        version, weights = references.load(store, record, f"try out {arrival.head.name}")
        reference = version.record, weights
    with strangers_own():
        try_out_head(record, arrival.head.tensors, reference)


def _is_of(store: Store, version: VersionRecord, hub: Hub, release: Opened[HeadConfig]) -> bool:
    """Whether a version was pulled from there with the same config, be it at another commit: others publish, too."""
    origin = origins.origin_of(store, version)
    return origin is not None and origin.is_release(hub.endpoint, release.place, release.digest) and _is_signed(origin)


def _remember(store: Store, hub: Hub, arrival: Arrival, release: Opened[HeadConfig]) -> None:
    """Remember where the heads lie that came, for whoever publishes what needs them: what was seen to be there."""
    config = release.config
    origins.remember(store, hub.endpoint, config.record, release.place)
    if arrival.reference and config.reference:
        origins.remember(store, hub.endpoint, arrival.reference.record, config.reference)
