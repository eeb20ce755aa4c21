"""What people know as `from_pretrained`, `save_pretrained` and `push_to_hub`: a detector with its heads, as a whole.

In a folder that is a store of just these; on a Hub it is one repository with the backbone at the top, and its heads as
a pack below it.
"""

from __future__ import annotations

import graphlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.arriving import Arrival, ArrivingHead, held_as
from hydra_detect.errors import ConflictError, HubError, InputError, NotFoundError, listed
from hydra_detect.hub import client, origins
from hydra_detect.hub.channels import promote_release
from hydra_detect.hub.failures import NO_FILE
from hydra_detect.hub.pull import pull, pull_backbone
from hydra_detect.hub.push import push_backbone, push_to_pack
from hydra_detect.hub.refs import HubRef, is_hub_ref
from hydra_detect.hub.searching import list_pack
from hydra_detect.names import HeadRef, listed_refs
from hydra_detect.storage import backbones, files, heads, layout, owners, references
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.hub.cards import About
    from hydra_detect.hub.push import Pushed
    from hydra_detect.records import VersionRecord

STORE_VARIABLE = "HYDRA_DETECT_STORE"


def default_store() -> Path:
    """Return the store that is pulled into unless another is named: $HYDRA_DETECT_STORE, or one at home."""
    return Path(os.environ.get(STORE_VARIABLE) or Path.home() / ".cache" / "hydra-detect" / "store")


def gathered(
    source: str,
    heads: Iterable[str | HeadRef | HubRef] | None,
    *,
    store: str | os.PathLike[str] | Store | None,
    allow_older: bool,
    endpoint: str | None,
) -> tuple[Store, str | None, list[HeadRef] | None]:
    """Return a store that has a backbone and heads, pulled where they are missing; the backbone's name, and versions.

    Args:
        source: "org/backbone", or a folder that `save_pretrained` wrote.
        heads: References on the Hub, or names in the store; None for all heads of a pack that `source` is.
        store: Where they are put; None for `default_store`.
        allow_older: As for `pull`.
        endpoint: Address of the Hub.

    """
    asked = None if heads is None else [str(ref) for ref in listed_refs(heads)]
    if Path(source).is_dir():
        if store is not None:
            found = f"{source} is a folder, and a store of its own"
            raise InputError(f"load {source}", found, "Leave out store=, or name a repository on a Hub.")
        place, name = Store.open(source), None
    else:
        place = Store.create(default_store() if store is None else store)
        name = pull_backbone(source, place, endpoint=endpoint)
        asked = _of_pack(place, HubRef.parse(source), endpoint) if asked is None else asked
    if asked is None:
        return place, name, None
    there = [
        pull(ref, place, allow_older=allow_older, endpoint=endpoint) if is_hub_ref(ref) else HeadRef.parse(ref)
        for ref in asked
    ]
    return place, name, there


def _of_pack(store: Store, source: HubRef, endpoint: str | None) -> list[str]:
    """Return the heads of a pack, without those there for others to lean on.

    Each is the one in production; where a commit, branch or other tag is named, the one that lies there. A release
    names the backbone alone, which has only one. Offline these are the ones that were pulled so.
    """
    if source.release is not None:
        source = attrs.evolve(source, revision="")
    if client.is_offline():
        return _pulled_of_pack(store, source, client.Hub(endpoint).endpoint)
    try:
        found = list_pack(source, endpoint=endpoint)
    except NotFoundError as error:
        if error.facts.get("kind") != NO_FILE:
            raise
        return []  # it has no index, and is no pack
    return [str(attrs.evolve(source, head=name)) for name, glance in found.items() if not glance.is_reference]


def _pulled_of_pack(store: Store, source: HubRef, endpoint: str) -> list[str]:
    """Return the heads of a pack that were pulled by a reference; none where nothing of it was pulled but its backbone.

    Raises:
        HubError: If heads of it are there, and none by this reference.

    """
    there = {
        one.place.head
        for _ref, one in origins.pulled(store)
        if (one.endpoint, one.place.repo) == (endpoint, source.repo)
    }
    asked = [attrs.evolve(source, head=name) for name in sorted(filter(None, there))]
    found = [str(ref) for ref in asked if origins.remembered(store, endpoint, ref, None)]
    if asked and not found:
        told = f"of its heads {listed([ref.head for ref in asked])} were pulled, and by another reference than this"
        raise HubError(f"take the heads of {source} offline", told, "Pull it once online, or name heads=[...].")
    return found


def save(
    source: Store, contract: BackboneContract, versions: Iterable[VersionRecord], folder: str | os.PathLike[str]
) -> Path:
    """Write a new store that holds a backbone and versions of heads, each the active one there.

    They are numbered anew. The store is written beside the folder and then given its name: it is there whole, or not.

    Args:
        source: Where they are.
        contract: Weights and settings of the backbone.
        versions: One of each head.
        folder: Of the new store.

    Raises:
        NotFoundError: If the source has no such backbone any more.
        ConflictError: If there is a store already.
        StoreError: If the folder holds other things, or the disk is full or not writable.

    """
    target, asked = Path(folder).absolute(), f"save a detector to {folder}"
    if Store.find(target) is not None:
        raise ConflictError(asked, "there is a store already", "Name a new or an empty folder.")
    stored = backbones.find(source, _backbone_name(source, contract, asked))
    aside = target.with_name(f".{target.name}-{owners.staging_name()}")
    with files.explained(asked):
        try:
            manager = VersionManager(Store.create(aside))
            backbones.publish(manager.store, stored.name, stored.record, backbones.tensors(source, stored))
            for version in versions:
                made = _arrival(source, version).add_to(manager, is_same=lambda one, record: one.record == record)
                manager.promote(made.head, made.number)
            if target.exists():
                target.rmdir()  # empty, or it would have been refused; Windows renames onto nothing that is there
            source.disk.rename(aside, target)
        finally:
            files.discard(source.disk, aside)  # gone already after a success
    return target


def publish(
    store: Store,
    contract: BackboneContract,
    versions: Iterable[VersionRecord],
    repo: str,
    *,
    private: bool,
    message: str,
    about: About | None,
    sign_with: str | os.PathLike[str] | None,
    endpoint: str | None,
) -> list[Pushed]:
    """Publish a backbone and versions of heads as one repository: it at the top, and each of them in the pack below.

    The versions are in production there from then on. `save` has the first arguments, `push.push` the others.
    """
    facts: dict[str, Any] = {"message": message, "about": about, "sign_with": sign_with, "endpoint": endpoint}
    loaded = {version.ref: version for version in versions}
    asked = f"publish a detector as {repo}"
    leans = {one.ref: references.find(store, one.record, asked) for one in loaded.values() if one.record.compact}
    in_order = _in_order({one.ref: one for one in leans.values()} | loaded, leans)
    stored = backbones.find(store, _backbone_name(store, contract, asked))
    found = [push_backbone(store, stored.name, repo, private=private, **facts)]
    places = {origins.identity(stored.record): found[0].place}
    for one in in_order:
        made = push_to_pack(store, one, repo, is_reference=one.ref not in loaded, places=places, **facts)
        places[origins.identity(one.record)] = made.place
        found.append(made)
    for one in loaded.values():  # whoever takes the whole takes these
        promote_release(HubRef(repo, one.head, f"v{one.number}"), endpoint=endpoint)
    return found


def _in_order(whole: Mapping[HeadRef, VersionRecord], leans: Mapping[HeadRef, VersionRecord]) -> list[VersionRecord]:
    """Return versions so that what is leant on comes first, and releases of one head go up.

    There is such an order, since they came into the store in one.
    """
    order: graphlib.TopologicalSorter[HeadRef] = graphlib.TopologicalSorter()
    for ref in sorted(whole, key=str):
        lower = [other for other in whole if other.name == ref.name and (other.version or 0) < (ref.version or 0)]
        order.add(ref, *lower, *([leans[ref].ref] if ref in leans else []))
    order.prepare()
    in_order: list[VersionRecord] = []
    while order.is_active():
        ready = sorted(order.get_ready(), key=str)
        in_order += [whole[ref] for ref in ready]
        order.done(*ready)
    return in_order


def _backbone_name(store: Store, contract: BackboneContract, asked: str) -> str:
    name = held_as(store, contract)
    if name is None:
        raise NotFoundError(asked, "its store has its backbone no more", "Put that into the store again.")
    return name


def _arrival(store: Store, version: VersionRecord) -> Arrival:
    """Return a version with what it leans on, as it goes into another store that has its backbone."""
    leant = references.find(store, version.record, f"save {version.ref}") if version.record.compact else None
    return Arrival(head=_head(store, version), reference=_head(store, leant) if leant else None)


def _head(store: Store, version: VersionRecord) -> ArrivingHead:
    item = store.head(version.head)
    beside = [name for name in version.files if name not in {layout.TENSORS, layout.RECORD}]
    return ArrivingHead(
        name=version.head,
        record=version.record,
        tensors=heads.tensors(store, version),
        files={name: item.read(version, name) for name in beside},
    )
