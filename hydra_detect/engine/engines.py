"""The engines by name, and what each of them does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hydra_detect.engine.exact import ExactEngine
from hydra_detect.engine.fast import FastEngine
from hydra_detect.errors import DeviceError, near_matches
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

    from hydra_detect.engine.found import Found, Memory
    from hydra_detect.nets.backbones import Backbone, Features, Prepared
    from hydra_detect.nets.compact import Reference
    from hydra_detect.records import HeadRecord
    from hydra_detect.tensors import RawTensor


class Engine(Protocol):
    """A backbone, and a way to run heads over what it makes. A head has the form that its engine gave it."""

    name: str
    backbone: Backbone
    device: torch.device
    dtype: torch.dtype

    def load(self, record: HeadRecord, raw: Mapping[str, RawTensor], reference: Callable[[], Reference | None]) -> Any:
        """Return a head as this engine runs it."""

    def encode(self, pictures: Sequence[Prepared]) -> Features:
        """Run the backbone once over pictures of one padded size."""

    def detect(self, features: Features, heads: Sequence[tuple[Any, float]]) -> Found:
        """Run heads, each with the score that its boxes have to be above."""

    def memory(self, heads: Mapping[str, Any]) -> Memory:
        """Measure what the backbone, heads and what they lean on take."""


ENGINES: Mapping[str, Callable[..., Engine]] = {"exact": ExactEngine, "fast": FastEngine}


def choose(engine: str) -> Callable[..., Engine]:
    """Return the engine of this name.

    Raises:
        DeviceError: If there is none.

    """
    if not isinstance(engine, str) or engine not in ENGINES:
        raise DeviceError(f"use engine {shown(engine)}", "there is no such engine", near_matches(str(engine), ENGINES))
    return ENGINES[engine]
