"""From a record and its tensors to the network that they describe, or the reason why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect.errors import IncompatibleError
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.compact import CompactHead, Lean, Reference
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.records import BackboneRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.records import HeadRecord
    from hydra_detect.tensors import RawTensor


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
