"""Run the proof: on a split before it is published, and on what lies in a store at any later time."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec, pictures
from hydra_detect.checkpoints.noise import ProofInput, seeded_inputs
from hydra_detect.checkpoints.parity import (
    ParityReport,
    compare,
    outputs_digest,
    thread_count,
)
from hydra_detect.checkpoints.reader import Checkpoint
from hydra_detect.checkpoints.trace import trace_original, trace_rebuilt
from hydra_detect.checkpoints.zoo import read_original
from hydra_detect.codec import Record
from hydra_detect.errors import CheckpointError, InputError, NotFoundError, RecordError
from hydra_detect.loading import whole_tensors
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.devices import environment
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.original import build_original, load_original
from hydra_detect.registry import HeadRegistry, check_fits
from hydra_detect.storage import backbones, heads
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch
    from torchvision.models.detection import FasterRCNN

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.names import Digest, HeadRef
    from hydra_detect.records import HeadSettings, VersionRecord
    from hydra_detect.tensors import RawTensor

_BELOW_ANY_SCORE = -1.0
_BATCH = 3


@attrs.frozen(kw_only=True)
class Rebuilt:
    """A backbone and a head as they were read back from their artifacts."""

    contract: BackboneContract
    settings: HeadSettings
    backbone: Mapping[str, RawTensor]
    head: Mapping[str, RawTensor]

    def modules(self) -> tuple[Backbone, RCNNHead]:
        """Build both, with every box kept."""
        head = RCNNHead.load(self.settings, self.contract.levels, self.head)
        _keep_every_box(head)
        return Backbone(self.contract, self.backbone), head

    def original(self, state: Mapping[str, torch.Tensor]) -> FasterRCNN:
        """Build torchvision's model of the same settings with the original's tensors and every box kept."""
        model = build_original(self.contract.architecture, self.contract.preprocessing, self.settings)
        load_original(model, state)
        _keep_every_box(model)
        return model


def _keep_every_box(detector: RCNNHead | FasterRCNN) -> None:
    """Lower both score thresholds below any score: a proof needs detections on every input."""
    detector.rpn.score_thresh = _BELOW_ANY_SCORE
    detector.roi_heads.score_thresh = _BELOW_ANY_SCORE


def prove(
    rebuilt: Rebuilt,
    state: Mapping[str, torch.Tensor],
    *,
    inputs: Iterable[object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ParityReport:
    """Compare a rebuilt detector with torchvision's model holding the original's own tensors.

    Args:
        rebuilt: What was read back from the artifacts.
        state: The original state dict.
        inputs: Further pictures to compare on, anything that `predict` takes.
        progress: Called with inputs done and inputs in all.

    """
    batches, seeded = _proof_inputs(rebuilt, inputs)
    backbone, head = rebuilt.modules()
    return compare(
        batches,
        functools.partial(trace_original, rebuilt.original(state)),
        functools.partial(trace_rebuilt, backbone, head),
        seeded=seeded,
        progress=progress,
    )


def _proof_inputs(rebuilt: Rebuilt, inputs: Iterable[object] | None) -> tuple[list[ProofInput], int]:
    channels = rebuilt.contract.architecture.in_channels
    batches = seeded_inputs(channels)
    extra, by_size = [], defaultdict(list)
    for place, picture in enumerate(pictures.iter_pictures(inputs) if inputs is not None else (), start=1):
        fitting = pictures.to_channels(picture, channels)
        extra.append(ProofInput(picture.source or f"input {place}", [fitting.pixels]))
        by_size[fitting.image_size].append(fitting.pixels)
    together = next((same[:_BATCH] for same in by_size.values() if len(same) >= _BATCH), None)
    if together:
        extra.append(ProofInput(f"{_BATCH} inputs of one size, as a batch", together))
    return [*batches, *extra], len(batches)


@attrs.frozen(kw_only=True)
class Verification(Record):
    """The outcome of `verify` for one head.

    `proven` is the only success. `against` says what the head was compared with: the original checkpoint, or the
    outputs of it that were recorded when it was split.
    """

    head: str
    version: int
    proven: bool
    against: str
    reason: str
    report: ParityReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values: dict[str, Any] = codec.to_dict(self)
        return values

    def __str__(self) -> str:
        """Return one line, and the table of stages where there is one."""
        mark = "proven" if self.proven else "NOT PROVEN"
        line = f"{self.head}@{self.version}: {mark} against {self.against}: {self.reason}"
        return f"{line}\n{self.report}" if self.report else line


def verify(
    store: str | os.PathLike[str] | Store,
    head: str | HeadRef,
    *,
    against: str | os.PathLike[str] | Checkpoint | None = None,
    inputs: Iterable[object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    endpoint: str | None = None,
) -> Verification:
    """Prove once more that a stored head and its backbone are the original.

    Args:
        store: The store, or its path.
        head: Head, or one version of it.
        against: The original: its path, `torchvision:NAME`, an `hf://`, or what `read_checkpoint` returns. Without it,
            outputs are compared with those recorded when it was split.
        inputs: Further pictures to compare on; needs `against`.
        progress: Called with inputs done and inputs in all.
        endpoint: Address of the Hub that an `hf://` is on; None for the client's own ($HF_ENDPOINT).

    Raises:
        NotFoundError: If there is no such head, or no such original.
        CheckpointError: If the original cannot be read.
        CorruptError: If a stored file is damaged.
        IncompatibleError: If the stored backbone is not the one the head was made on.
        InputError: If `inputs` are given without `against`.

    """
    store = Store.open(store)
    version = heads.find(store, head)
    rebuilt = read_rebuilt(store, version)
    if against is None:
        if inputs is not None:
            raise InputError(
                "verify on further pictures", "there is no original to compare with", "Give the original (--against)."
            )
        return _verify_recorded(version, rebuilt, progress)
    original = _original(against, endpoint)
    said = _own_words(version, original)
    try:
        report = prove(rebuilt, original.tensors, inputs=inputs, progress=progress)
    except CheckpointError as error:  # the checkpoint is of another network
        return _verdict(version, original.file, reason=f"its tensors do not fit ({error.found})", proven=False)
    reason = said if report.equal else f"{len(report.failures)} differences; {said}"
    return _verdict(version, original.file, reason=reason, proven=report.equal, report=report)


def verify_all(
    store: str | os.PathLike[str] | Store,
    heads: Sequence[str] | None = None,
    *,
    against: str | os.PathLike[str] | Checkpoint | None = None,
    inputs: Iterable[object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    endpoint: str | None = None,
) -> list[Verification]:
    """Verify several heads.

    Args:
        store: The store, or its path.
        heads: Heads or versions; None for every head with an active version.
        against: As for `verify`.
        inputs: As for `verify`.
        progress: As for `verify`, anew for each head.
        endpoint: As for `verify`.

    Raises:
        NotFoundError: If there is no such head, or none at all.

    """
    store = Store.open(store)
    inputs = None if inputs is None else list(pictures.iter_pictures(inputs))  # each head is compared on all of them
    checkpoint = None if against is None else _original(against, endpoint)
    chosen = heads or [info.head for info in HeadRegistry(store).infos() if info.active is not None or info.problem]
    if not chosen:
        raise NotFoundError("verify the heads", f"the store {store.root} has none", "Split an original into it first.")
    return [verify(store, head, against=checkpoint, inputs=inputs, progress=progress) for head in chosen]


def compare_with_original(
    store: str | os.PathLike[str] | Store,
    head: str | HeadRef,
    checkpoint: str | os.PathLike[str] | Checkpoint,
    *,
    inputs: Iterable[object] | None = None,
    endpoint: str | None = None,
) -> ParityReport:
    """Compare a stored head and its backbone with the checkpoint they came from, stage by stage.

    Args:
        store: The store, or its path.
        head: Head, or one version of it.
        checkpoint: The original: its path, `torchvision:NAME`, an `hf://`, or what `read_checkpoint` returns.
        inputs: Further pictures to compare on, anything that `predict` takes.
        endpoint: As for `verify`.

    Returns:
        The report; it is a proof exactly when `report.equal`.

    Raises:
        CheckpointError: If the checkpoint cannot be read, or is of another network.

    """
    store = Store.open(store)
    version = heads.find(store, head)
    return prove(read_rebuilt(store, version), _original(checkpoint, endpoint).tensors, inputs=inputs)


def _original(given: str | os.PathLike[str] | Checkpoint, endpoint: str | None) -> Checkpoint:
    return given if isinstance(given, Checkpoint) else read_original(given, endpoint=endpoint)


def read_rebuilt(store: Store, version: VersionRecord) -> Rebuilt:
    """Read a version and the backbone it was made on from the store, checked byte for byte.

    Raises:
        NotFoundError: If the backbone is not in the store, or what a compact head leans on.
        IncompatibleError: If it is not the one the head was made on.
        CorruptError: If a file is damaged.

    """
    backbone = backbones.find(store, version.record.backbone_name)
    check_fits(version, backbone.record.contract)
    return Rebuilt(
        contract=backbone.record.contract,
        settings=version.record.settings,
        backbone=backbones.tensors(store, backbone),
        head=whole_tensors(store, version),
    )


def _verify_recorded(
    version: VersionRecord, rebuilt: Rebuilt, progress: Callable[[int, int], None] | None
) -> Verification:
    recorded = version.record.parity
    against = "the recorded outputs of the original"
    if recorded is None:
        reason = "no proof was recorded: this head was not split from an original"
        return _verdict(version, against, reason=reason, proven=False)
    if not recorded.equal:
        return _verdict(version, against, reason="the recorded proof is itself a failure", proven=False)
    with thread_count(recorded.environment.threads):
        here = environment()
        differing = _differing_outputs(rebuilt, recorded.outputs, progress)
    if not differing:
        reason = f"bit-equal on all {len(recorded.outputs)} seeded inputs"
        return _verdict(version, against, reason=reason, proven=True)
    where = "here and when it was split" if here == recorded.environment else f"then {recorded.environment}, now {here}"
    advice = (
        "" if here == recorded.environment else "; last bits depend on these, so compare with the checkpoint itself"
    )
    reason = f"other outputs on {', '.join(differing)} ({where}{advice})"
    return _verdict(version, against, reason=reason, proven=False)


def _differing_outputs(
    rebuilt: Rebuilt, recorded: Mapping[str, Digest], progress: Callable[[int, int], None] | None
) -> list[str]:
    batches = seeded_inputs(rebuilt.contract.architecture.in_channels)
    if {item.name for item in batches} != set(recorded):
        raise RecordError(
            "verify the recorded outputs",
            f"they are of inputs {sorted(recorded)} and this version of hydra-detect makes "
            f"{sorted(item.name for item in batches)}",
            "Compare with the checkpoint itself (--against).",
        )
    backbone, head = rebuilt.modules()
    differing = []
    for place, item in enumerate(batches):
        trace = trace_rebuilt(backbone, head, item.tensors())
        if outputs_digest(trace) != recorded[item.name]:
            differing.append(item.name)
        if progress:
            progress(place + 1, len(batches))
    return differing


def _own_words(version: VersionRecord, against: Checkpoint) -> str:
    source = version.record.source
    if source is None:
        return "the head's record names no source file"
    same = source.sha256 == against.sha256
    return "the very file it was split from" if same else f"another file than the one it was split from ({source.file})"


def _verdict(
    version: VersionRecord, against: str, *, reason: str, proven: bool, report: ParityReport | None = None
) -> Verification:
    return Verification(
        head=version.head, version=version.number, proven=proven, against=against, reason=reason, report=report
    )
