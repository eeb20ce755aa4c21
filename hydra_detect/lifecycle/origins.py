"""Which head a training starts from, and on which backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.errors import IncompatibleError, NotFoundError, near_matches
from hydra_detect.lifecycle.beside import seen_samples, split_of
from hydra_detect.loading import whole_tensors
from hydra_detect.names import HeadRef
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads
from hydra_detect.training.start import Origin, plain_origin

if TYPE_CHECKING:
    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Samples
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.backbones import StoredBackbone
    from hydra_detect.storage.store import Store

AUTO, ACTIVE, FRESH = "auto", "active", "fresh"


@attrs.frozen(kw_only=True)
class Beginning:
    """What a training starts from.

    Args:
        backbone: The backbone that it is made on.
        origin: Settings and weights.
        told: What that is, for the report: "owl@3", or "fresh".
        active: The active version of the head, if there is one.
        version: The version that the weights are of; None if they are random.
        reference: The version that a compact head leans on; None for a full one.
        spoilt: Why figures of what starts from here are no evidence; empty if they are.
        doubt: Why they may be none; empty if nothing speaks against them.

    """

    backbone: StoredBackbone
    origin: Origin
    told: str
    active: VersionRecord | None
    version: VersionRecord | None = None
    reference: VersionRecord | None = None
    spoilt: str = ""
    doubt: str = ""


def begin(store: Store, head: str, *, init: str, backbone: str | None) -> Beginning:
    """Find what a training starts from.

    Args:
        store: Where.
        head: The head that is trained; there need be none of that name yet.
        init: "auto" for the active version, or for a new head for another head of the same backbone; "active";
            "fresh" for random weights; or a reference such as "owl@3".
        backbone: Name of the backbone for a new head; needed only where the store has several.

    Raises:
        NotFoundError: If there is no such head, version or backbone, or it is not clear which backbone is meant.
        IncompatibleError: If the head to start from belongs to another backbone.

    """
    active = _active(store, head)
    if active is not None and backbone is None:
        backbone = active.record.backbone_name
    stored = backbones.find(store, backbones.only(store) if backbone is None else backbone)
    contract = stored.record.contract
    relative = active if active is not None and fits(active, contract) else _sibling(store, contract)
    if init == FRESH:
        origin = Origin(settings=relative.record.settings) if relative else plain_origin(contract)
        return Beginning(backbone=stored, origin=origin, told=FRESH, active=active)
    if init == AUTO and relative is None:
        return Beginning(backbone=stored, origin=plain_origin(contract), told=FRESH, active=active)
    if init == ACTIVE and active is None:
        remedy = "Leave init out, or name a head to start from."
        raise NotFoundError(f"start from the active version of {head!r}", "it has none", remedy)
    chosen = named(store, init) if init not in {AUTO, ACTIVE} else active if init == ACTIVE else relative
    assert chosen is not None  # noqa: S101  each way to None has returned or raised
    version = heads.find(store, chosen.ref)
    if not fits(version, contract):
        raise IncompatibleError(
            f"start from {version.ref}",
            f"it belongs to another backbone: {'; '.join(contract.differences(version.record.backbone))}",
            f"Start from a head of {stored.name!r}, or from init='fresh'.",
        )
    origin = _origin(store, version)
    return Beginning(backbone=stored, origin=origin, told=str(version.ref), active=active, version=version)


def _origin(store: Store, version: VersionRecord) -> Origin:
    """Return a version as one to start from."""
    record = version.record
    return Origin(settings=record.settings, class_names=record.class_names, tensors=whole_tensors(store, version))


def judged_on(store: Store, beginning: Beginning, judged: Samples, *, init: str) -> Beginning:
    """Return a beginning for a training that will be judged on these samples.

    With "auto" it never starts from weights that have learnt from one of them: another head's are taken then, or random
    ones. What a caller named is taken all the same, and said to be spoilt.

    Args:
        store: Where the heads are.
        beginning: As `begin` found it.
        judged: The samples that figures will be of.
        init: What the caller asked for.

    """
    if beginning.version is None:
        return beginning
    seen = seen_samples(store, beginning.version, judged, allowed=Role.TEST)
    if not seen:
        return _doubted(store, beginning)
    if init != AUTO:
        told = f"{len(seen)} of the {len(judged)} samples measured on were used to make {beginning.version.ref}"
        return attrs.evolve(beginning, spoilt=f"{told}, from which it starts: no evidence of quality")
    for version in relatives(store, beginning.backbone.record.contract):
        if not seen_samples(store, version, judged, allowed=Role.TEST):
            return _doubted(store, _from(store, version, beginning))
    return attrs.evolve(beginning, origin=Origin(settings=beginning.origin.settings), told=FRESH, version=None)


def _doubted(store: Store, beginning: Beginning) -> Beginning:
    """Return a beginning that says so if nobody knows what its weights have learnt from."""
    if beginning.version is None or split_of(store, beginning.version) is not None:
        return beginning
    told = f"{beginning.version.ref}, from which it starts, keeps no split: it may have learnt from these samples"
    return attrs.evolve(beginning, doubt=told)


def _from(store: Store, version: VersionRecord, beginning: Beginning) -> Beginning:
    origin = _origin(store, version)
    return attrs.evolve(beginning, origin=origin, told=str(version.ref), version=version)


def named(store: Store, init: str) -> VersionRecord:
    """Return the version that a caller named as the beginning."""
    known = heads.names(store)
    if HeadRef.parse(init).name not in known:
        remedy = near_matches(init, [AUTO, ACTIVE, FRESH, *known])
        raise NotFoundError(f"start from {init!r:.80}", "the store has no such head", remedy)
    return heads.find(store, init)


def _active(store: Store, head: str) -> VersionRecord | None:
    """Return the active version of a head; None where there is no head yet, or none is active."""
    item = store.head(head)
    if not item.numbers() or item.pointer().active is None:
        return None
    return heads.find(store, HeadRef(head))


def _sibling(store: Store, contract: BackboneContract) -> VersionRecord | None:
    """Return the active version of another head of this backbone: the one that was split with it, if it is there."""
    return next(iter(relatives(store, contract)), None)


def relatives(store: Store, contract: BackboneContract) -> list[VersionRecord]:
    """Return the active versions of all heads of this backbone, those first that were split from an original."""
    versions = [heads.find(store, HeadRef(name)) for name in HeadRegistry(store).fitting(contract)]
    return sorted(versions, key=lambda version: version.record.source is None)


def fits(version: VersionRecord, contract: BackboneContract) -> bool:
    """Whether a version runs on a backbone."""
    return not contract.differences(version.record.backbone)
