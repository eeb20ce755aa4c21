"""Which full head a new compact head leans on."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.errors import IncompatibleError, NotFoundError
from hydra_detect.lifecycle.beside import seen_samples
from hydra_detect.lifecycle.origins import fits, named, relatives
from hydra_detect.storage import files, references

if TYPE_CHECKING:
    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Samples
    from hydra_detect.lifecycle.origins import Beginning
    from hydra_detect.records import HeadSettings, VersionRecord
    from hydra_detect.storage.store import Store


def leaning(store: Store, beginning: Beginning, judged: Samples, *, reference: str | None) -> Beginning:
    """Return a beginning with what a compact head is to lean on.

    Unless one is named, that is what the head's active version leans on, else what most heads of the backbone lean on,
    else a full head, the one that was split from the original first; of those that have its layers one that has not
    learnt from the samples that figures will be of, if there is such a one.

    Args:
        store: Where the heads are.
        beginning: What the training starts from.
        judged: The samples that figures will be of.
        reference: What the caller asked for.

    Raises:
        NotFoundError: If there is no such version, no full head of this backbone, or the store has lost what the head's
            active version leans on.
        IncompatibleError: If the one that is named is a compact head, or belongs to another backbone.

    """
    contract, settings = beginning.backbone.record.contract, beginning.origin.settings
    active = beginning.active
    chosen = [_named(store, reference, contract)] if reference else _choices(store, active, contract, settings)
    for version in chosen:
        if not seen_samples(store, version, judged, allowed=Role.TEST):
            return attrs.evolve(beginning, reference=version)
    told = f"samples measured on were used to make {chosen[0].ref}, on which it leans: no evidence of quality"
    return attrs.evolve(beginning, reference=chosen[0], spoilt=beginning.spoilt or told)


def reference_for(store: Store, full: VersionRecord, reference: str | None) -> VersionRecord:
    """Return what the compact form of a full version is to lean on: what is named, or the best choice.

    Raises:
        NotFoundError: If there is no such version, or no other full head of this backbone.
        IncompatibleError: If the one that is named is a compact head, or belongs to another backbone.

    """
    contract, settings = full.record.backbone, full.record.settings
    chosen = [_named(store, reference, contract)] if reference else _choices(store, None, contract, settings)
    others = [version for version in chosen if version.record.tensors != full.record.tensors]
    if not others and reference:
        found = f"{reference} is the same head, and nothing can lean on itself"
        raise NotFoundError(f"compress {full.ref}", found, "Name another full head of its backbone, or none.")
    if not others:
        found = f"{full.ref} is the only full head of this backbone, and cannot lean on itself"
        raise NotFoundError(f"compress {full.ref}", found, "Train or split another one, or leave it full.")
    return others[0]


def _named(store: Store, reference: str, contract: BackboneContract) -> VersionRecord:
    version, asked = named(store, reference), f"lean on {reference!r:.80}"
    if version.record.compact:
        found = f"it is a compact head itself, which leans on {version.record.compact.reference_ref}"
        raise IncompatibleError(asked, found, f"Lean on {version.record.compact.reference_ref}, or expand it first.")
    if not fits(version, contract):
        found = f"it belongs to another backbone: {'; '.join(contract.differences(version.record.backbone))}"
        raise IncompatibleError(asked, found, "Name a head of this backbone.")
    return version


def _choices(
    store: Store, active: VersionRecord | None, contract: BackboneContract, settings: HeadSettings
) -> list[VersionRecord]:
    """Return the versions that a compact head of a backbone may lean on, the best choice first.

    Those that have not its layers are among them only where none has: they will be refused by name.
    """
    every = relatives(store, contract)
    compact = {version.record.compact.reference: version for version in every if version.record.compact}
    counted = Counter(version.record.compact.reference for version in every if version.record.compact)
    found = []
    if active is not None and active.record.compact and fits(active, contract):
        found.append(references.find(store, active.record, f"lean on what {active.ref} leans on"))
    for digest, _count in counted.most_common():
        with contextlib.suppress(NotFoundError, IncompatibleError), files.unless_damaged():
            found.append(references.find(store, compact[digest].record, "lean on it"))
    found += [version for version in every if not version.record.compact]
    if not found:
        remedy = "Train or split a full head first: a compact one is kept as what differs from it."
        raise NotFoundError("make a compact head", "there is no full head of this backbone to lean on", remedy)
    fitting = [version for version in found if version.record.settings.has_layers_of(settings)]
    return list({version.ref: version for version in fitting or found}.values())
