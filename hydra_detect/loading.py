"""From a store to networks that run, with what they lean on; and what came from elsewhere, run once."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import TYPE_CHECKING

import torch
from torchvision.models.detection.image_list import ImageList

from hydra_detect.errors import CheckpointError, CorruptError, HydraDetectError
from hydra_detect.nets.backbones import Backbone, Prepared
from hydra_detect.nets.building import build, build_head
from hydra_detect.nets.compact import Reference
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import BackboneRecord
from hydra_detect.storage import heads, references

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hydra_detect.names import Digest
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.records import HeadRecord, VersionRecord
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_CPU = torch.device("cpu")
_TRIED, _FEW = 128, 16  # pixels a side, proposals


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


def try_out_backbone(record: BackboneRecord, tensors: Mapping[str, RawTensor]) -> None:
    """Build a backbone that came from elsewhere, and run it once over a small picture of noise.

    Raises:
        CheckpointError: If names or shapes are not those of the network.
        RecordError: If the record describes no network.
        IncompatibleError: If its maps are not those that the record states.
        CorruptError: If what comes out is no number.

    """
    with _building(), torch.inference_mode():
        network = Backbone(record.contract, tensors)
        channels, source = record.contract.architecture.in_channels, torch.Generator().manual_seed(0)
        pixels = torch.randn(1, channels, _TRIED, _TRIED, generator=source)  # a black one would hide what overflows
        _check_numbers(network([Prepared(pixels, (_TRIED, _TRIED), (_TRIED, _TRIED))]).maps.values())


def try_out_head(
    record: HeadRecord,
    tensors: Mapping[str, RawTensor],
    reference: tuple[HeadRecord, Mapping[str, RawTensor]] | None = None,
) -> None:
    """Build a head that came from elsewhere, and run it once over small maps of noise, as far as a few proposals.

    Args:
        record: What it says of itself.
        tensors: Its weights.
        reference: Record and weights of what a compact head leans on.

    Raises:
        CheckpointError: If names or shapes are not those of the network.
        IncompatibleError: If a compact head leans on another reference, or on one of another shape.
        RecordError: If the record describes no network.
        CorruptError: If what comes out is no number.

    """
    lean, sides = None, {one.name: (one.channels, max(1, _TRIED // one.stride)) for one in record.backbone.levels}
    with _building(), torch.inference_mode():
        if reference is not None:
            own, weights = reference
            lean = Reference.of(own.tensors, own.settings, own.backbone.levels, weights)
        head, source = build_head(record, tensors, reference=lean).whole(), torch.Generator().manual_seed(0)
        maps = {name: torch.randn(1, many, side, side, generator=source) for name, (many, side) in sides.items()}
        logits, deltas = head.rpn.head(list(maps.values()))
        proposals, _losses = head.rpn(ImageList(torch.zeros(1, 1, _TRIED, _TRIED), [(_TRIED, _TRIED)]), maps)
        few = [boxes[:_FEW] for boxes in proposals]
        _check_numbers([*logits, *deltas, *proposals, *head.score(maps, few)])


@contextlib.contextmanager
def _building() -> Iterator[None]:
    """Say of a network that torch refuses to build or to run that it is none: its record may be anybody's."""
    try:
        yield
    except HydraDetectError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        found = f"its record describes none that can be built and run: {str(error)[:200]!r}"
        raise CheckpointError("try out a network", found, "Ask whoever made it.") from None


def _check_numbers(tensors: Iterable[torch.Tensor]) -> None:
    if not all(bool(torch.isfinite(one).all()) for one in tensors):
        found = "not all that it computes is finite"
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
