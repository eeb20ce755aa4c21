"""From a record and its tensors to a network that runs, or the reason why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.records import BackboneRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.records import HeadRecord
    from hydra_detect.tensors import RawTensor


def build(record: BackboneRecord | HeadRecord, tensors: Mapping[str, RawTensor]) -> Backbone | RCNNHead:
    """Build the network that a record describes, with these weights, on the CPU.

    Args:
        record: What the artifact says of itself.
        tensors: Its weights.

    Raises:
        CheckpointError: If names or shapes are not those of the network; all of them are listed.
        RecordError: If the record describes no network.

    """
    if isinstance(record, BackboneRecord):
        return Backbone(record.contract, tensors)
    return build_head(record, tensors)


def build_head(record: HeadRecord, tensors: Mapping[str, RawTensor]) -> RCNNHead:
    """Build a head, as `build` does."""
    return RCNNHead.load(record.settings, record.backbone.levels, tensors)
