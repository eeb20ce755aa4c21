"""The exact engine: torchvision's own operations in torchvision's own order, bit for bit. It is what proofs run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from hydra_detect.engine.found import Found, Memory
from hydra_detect.engine.stopwatch import Stopwatch
from hydra_detect.nets import devices
from hydra_detect.nets.building import build_head
from hydra_detect.nets.compact import CompactHead
from hydra_detect.nets.state import module_bytes, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hydra_detect.nets.backbones import Backbone, Features, Prepared
    from hydra_detect.nets.compact import Reference
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.records import HeadRecord
    from hydra_detect.tensors import RawTensor


class ExactEngine:
    """Runs heads one after another, each as it stands; a compact one is written out while it runs.

    Args:
        backbone: The shared network, on its device.
        device: Where everything runs.
        dtype: What convolutions and matrix products compute in; other than float32 by `torch.autocast`.

    """

    name = "exact"

    def __init__(self, backbone: Backbone, *, device: torch.device, dtype: torch.dtype) -> None:
        self.backbone = backbone
        self.device = device
        self.dtype = dtype

    def load(
        self, record: HeadRecord, raw: Mapping[str, RawTensor], reference: Callable[[], Reference | None]
    ) -> RCNNHead:
        """Return a head as this engine runs it.

        Args:
            record: What it says of itself.
            raw: Its weights.
            reference: Gives what a compact head leans on.

        """
        return build_head(record, raw, reference=reference()).to(self.device)

    def encode(self, pictures: Sequence[Prepared]) -> Features:
        """Run the backbone once over pictures of one padded size."""
        with self._precision():
            features: Features = self.backbone(pictures)
        devices.wait(self.device)
        return features

    def detect(self, features: Features, heads: Sequence[tuple[RCNNHead, float]]) -> Found:
        """Run heads, each with the score that its boxes have to be above."""
        watch, outputs = Stopwatch(len(heads)), []
        for place, (head, threshold) in enumerate(heads):
            whole = head.whole()  # in float32, whatever it runs in
            with self._precision():
                outputs.append(whole(features, score_threshold=threshold))
            devices.wait(self.device)
            watch.mark(place)
        return Found(outputs, watch.heads, watch.shared)

    def memory(self, heads: Mapping[str, RCNNHead]) -> Memory:
        """Measure what the backbone, heads and what they lean on take."""
        leant = {
            head.lean.reference.digest: head.lean.reference for head in heads.values() if isinstance(head, CompactHead)
        }
        return Memory(
            module_bytes(self.backbone),
            {name: tensor_bytes(_own(head)) for name, head in heads.items()},
            tensor_bytes([weight for reference in leant.values() for weight in reference.weights.values()]),
        )

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def _own(head: RCNNHead) -> list[torch.Tensor]:
    leant = {id(layer.weight) for layer in head.low_rank.values()} if isinstance(head, CompactHead) else set()
    return [tensor for tensor in (*head.parameters(), *head.buffers()) if id(tensor) not in leant]
