"""From a record and its tensors to a network that runs, or the reason why not."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

import torch

from hydra_detect.errors import CorruptError, IncompatibleError
from hydra_detect.nets.backbones import Backbone, Prepared
from hydra_detect.nets.compact import CompactHead, Lean, Reference
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import BackboneRecord
from hydra_detect.storage import heads, references

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hydra_detect.names import Digest
    from hydra_detect.records import HeadRecord, VersionRecord
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_CPU = torch.device("cpu")
_TRIED = 128  # pixels a side


def build(
    record: BackboneRecord | HeadRecord, tensors: Mapping[str, RawTensor], *, reference: Reference | None = None
) -> Backbone | RCNNHead:
    """Build the network that a record describes, with these weights, on the CPU.

    Args:
        record: What the artifact says of itself.
        tensors: Its weights.
        reference: What a compact head leans on.

    Raises:
        CheckpointError: If names or shapes are not those of the network; all of them are listed.
        IncompatibleError: If a compact head leans on another reference, or on one of another shape.
        RecordError: If the record describes no network.

    """
    if isinstance(record, BackboneRecord):
        return Backbone(record.contract, tensors)
    return build_head(record, tensors, reference=reference)


def build_head(record: HeadRecord, tensors: Mapping[str, RawTensor], *, reference: Reference | None = None) -> RCNNHead:
    """Build a head, as `build` does."""
    form, levels = record.compact, record.backbone.levels
    if form is None:
        return RCNNHead.load(record.settings, levels, tensors)
    if reference is None or reference.digest != form.reference:
        raise IncompatibleError(
            "build a compact head",
            f"it leans on the tensors {form.reference.short}, and was given "
            f"{reference.digest.short if reference else 'no reference'}",
            f"Give the weights of {form.reference_ref}, as it was when this head was made.",
        )
    lean = Lean(reference=reference, ranks=form.ranks)
    return CompactHead.restored(record.settings, levels, tensors, lean=lean)


class Shelf:
    """The references that are in memory: each is read once, however many heads lean on it, and freed with the last.

    Args:
        store: Where they are.
        device: Where their weights are held.

    """

    def __init__(self, store: Store, device: torch.device = _CPU) -> None:
        self.store, self.device = store, device
        self._held: weakref.WeakValueDictionary[Digest, Reference] = weakref.WeakValueDictionary()
        self._reading = threading.Lock()

    def reference(self, record: HeadRecord, asked: str) -> Reference | None:
        """Return what a head leans on; None for a full one.

        Raises:
            NotFoundError: If the store does not have it.
            IncompatibleError: If it was made for another backbone.
            CorruptError: If it is damaged.

        """
        if record.compact is None:
            return None
        with self._reading:
            known = self._held.get(record.compact.reference)
            return known or self._read(references.find(self.store, record, asked))

    def of(self, version: VersionRecord) -> Reference:
        """Return a version of a full head as one to lean on.

        Raises:
            CorruptError: If it is damaged.

        """
        with self._reading:
            return self._held.get(version.record.tensors) or self._read(version)

    def _read(self, version: VersionRecord) -> Reference:
        facts, raw = version.record, heads.tensors(self.store, version)
        reference = Reference.of(facts.tensors, facts.settings, facts.backbone.levels, raw).to(self.device)
        self._held[reference.digest] = reference
        return reference

    def network(self, version: VersionRecord, raw: Mapping[str, RawTensor]) -> RCNNHead:
        """Build a version of a head with its weights, and what it leans on.

        Raises:
            NotFoundError: If the store does not have what it leans on.
            IncompatibleError: If that was made for another backbone.
            CorruptError: If it is damaged.

        """
        reference = self.reference(version.record, f"load {version.ref}")
        return build_head(version.record, raw, reference=reference).to(self.device)


def whole_tensors(store: Store, version: VersionRecord) -> dict[str, RawTensor]:
    """Return the weights of a version by torchvision's names: those of a compact one written out.

    Raises:
        NotFoundError: If the store does not have what it leans on.
        IncompatibleError: If that was made for another backbone.
        CorruptError: If any of it is damaged.

    """
    raw = heads.tensors(store, version)
    if version.record.compact is None:
        return raw
    return raw_tensors(Shelf(store).network(version, raw).whole().state_dict())


def try_out(
    backbone: tuple[BackboneRecord, Mapping[str, RawTensor]],
    head: tuple[HeadRecord, Mapping[str, RawTensor]] | None = None,
    reference: tuple[HeadRecord, Mapping[str, RawTensor]] | None = None,
) -> None:
    """Build the networks of what came from elsewhere, and run them once over a small black picture.

    Args:
        backbone: Its record and weights.
        head: Those of a head that was made on it, if there is one.
        reference: Those of what a compact head leans on.

    Raises:
        CheckpointError: If names or shapes are not those of the network.
        IncompatibleError: If a compact head leans on another reference, or on one of another shape.
        RecordError: If a record describes no network.
        CorruptError: If what comes out is no number.

    """
    record, tensors = backbone
    network = Backbone(record.contract, tensors)
    pixels = torch.zeros(1, record.contract.architecture.in_channels, _TRIED, _TRIED)
    with torch.inference_mode():
        features = network([Prepared(pixels, (_TRIED, _TRIED), (_TRIED, _TRIED))])
        numbers = list(features.maps.values())
        if head:
            lean = reference and Reference.of(
                reference[0].tensors, reference[0].settings, reference[0].backbone.levels, reference[1]
            )
            made = build_head(*head, reference=lean or None).whole()
            proposals, _losses = made.rpn(features.images, features.maps)
            numbers += [*proposals, *made.score(features.maps, proposals)]
    if not all(bool(torch.isfinite(one).all()) for one in numbers):
        found = "what it makes of a black picture is not all finite"
        raise CorruptError("try out a network", found, "Ask whoever made it.")


def builder(store: Store) -> Callable[[BackboneRecord | HeadRecord, Mapping[str, RawTensor]], object]:
    """Return what builds any network of a store, and raises where it cannot be built."""
    shelf, last = Shelf(store), None

    def made(record: BackboneRecord | HeadRecord, tensors: Mapping[str, RawTensor]) -> object:
        nonlocal last  # held, so that of many heads that lean on the same each finds it read
        if isinstance(record, BackboneRecord):
            return build(record, tensors)
        reference = shelf.reference(record, "build the head")
        last = reference or last
        return build(record, tensors, reference=reference)

    return made
