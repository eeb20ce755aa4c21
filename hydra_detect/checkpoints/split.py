"""Split an original into a backbone and a head, prove it, and only then publish.

Reads like the sentence: read, recognise, resolve, sort, encode, prove, publish. Nothing is written before the proof
holds.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.checkpoints.proof import Rebuilt, prove
from hydra_detect.checkpoints.recognise import BACKBONE_PREFIX, recognise
from hydra_detect.checkpoints.settings import Resolved, SplitSettings, resolve
from hydra_detect.checkpoints.zoo import HUB_SCHEME, read_original
from hydra_detect.contracts import BackboneContract
from hydra_detect.environment import libraries
from hydra_detect.errors import CheckpointError, ConflictError, CorruptError, ParityError, RecordError, listed
from hydra_detect.names import HeadRef, check_name
from hydra_detect.nets.backbones import build_network, levels_of
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import mismatch, raw_tensors
from hydra_detect.records import BackboneRecord, HeadRecord, SourceRecord
from hydra_detect.storage import artifacts, backbones, files, layout
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, check_finite, nbytes, tensors_digest
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hydra_detect.checkpoints.parity import ParityReport
    from hydra_detect.checkpoints.reader import Checkpoint
    from hydra_detect.records import VersionRecord

_COUNTER = ".num_batches_tracked"  # BatchNorm's, the only whole numbers in a detector


@attrs.frozen(kw_only=True)
class SplitReport:
    """What a split made, how large it is, what was assumed, and the proof.

    Sizes are bytes as measured: of the original file, and of the tensors' files in the store. `is_active` is whether
    the new version was made the active one of its head.
    """

    head: HeadRef
    is_active: bool
    backbone: str
    backbone_is_new: bool
    architecture: str
    class_names: tuple[str, ...]
    original_bytes: int
    backbone_bytes: int
    head_bytes: int
    assumed: tuple[str, ...]
    parity: ParityReport
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "head": self.head.name,
            "version": self.head.version,
            "active": self.is_active,
            "backbone": self.backbone,
            "backbone_is_new": self.backbone_is_new,
            "architecture": self.architecture,
            "class_names": list(self.class_names),
            "original_bytes": self.original_bytes,
            "backbone_bytes": self.backbone_bytes,
            "head_bytes": self.head_bytes,
            "assumed": list(self.assumed),
            "parity": codec.to_dict(self.parity) | {"equal": self.parity.equal},
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        """Return what a person wants to see after a split."""
        kept = "new" if self.backbone_is_new else "there already, shared"
        lines = [
            f"{self.head}: {self.architecture}, classes {', '.join(self.class_names)}",
            f"  original  {self.original_bytes / 1e6:8.2f} MB",
            f"  backbone  {self.backbone_bytes / 1e6:8.2f} MB  {self.backbone!r}, {kept}",
            f"  head      {self.head_bytes / 1e6:8.2f} MB",
            *(f"  assumed: {item}" for item in self.assumed),
        ]
        if not self.is_active:
            lines.append(f"  another version is active; 'hydra-detect promote {self.head.name} {self.head.version}'")
        return "\n".join([*lines, str(self.parity)])


def split_checkpoint(  # noqa: PLR0913  each is a question of its own that a user may have
    path: str | os.PathLike[str],
    store: str | os.PathLike[str] | Store,
    *,
    head: str,
    backbone: str = "default",
    class_names: Sequence[str] | None = None,
    settings: SplitSettings | Mapping[str, Any] | str | None = None,
    parity_inputs: Iterable[object] | None = None,
    keep_original: bool = False,
    attachments: Mapping[str, bytes] | None = None,
    progress: Callable[[int, int], None] | None = None,
    actor: str = "",
    endpoint: str | None = None,
) -> SplitReport:
    """Split a trained torchvision Faster R-CNN into a frozen backbone and a head, and prove that nothing changed.

    Args:
        path: A `.pth`, `.pt` or `.safetensors` file, `torchvision:NAME` for torchvision's own weights, or
            `hf://ORG/REPO/FILE.safetensors@REVISION` for one on a Hub.
        store: The store, or the path of one; a new or empty folder becomes one.
        head: Name for the head; if there is such a head, this becomes its next version. Where no version is active it
            becomes the active one; where one is, nothing here has measured which is better (see `decide`).
        backbone: Name for the backbone; if there is one with the same weights and settings, it is shared.
        class_names: Names of the classes without the background, in the order of their labels.
        settings: What the weights cannot tell: a `SplitSettings`, a mapping of its fields, or a preset's name.
        parity_inputs: Pictures to prove it on beside the seeded ones, anything that `predict` takes.
        keep_original: Keep a copy of the original file beside the head.
        attachments: Further small files to keep beside it, by name.
        progress: Called with proof inputs done and in all.
        actor: Who is at work, for the history.
        endpoint: Address of the Hub that an `hf://` is on; None for the client's own ($HF_ENDPOINT).

    Returns:
        What was made, with measured sizes and the parity report.

    Raises:
        NameInvalidError: If a name is not allowed, that of an attachment included.
        CheckpointError: If the file cannot be read, is no such detector, or contradicts the settings.
        CorruptError: If a tensor holds NaN or infinity, or the head's state in the store is damaged.
        ConflictError: If the backbone's name belongs to another backbone.
        ParityError: If the rebuilt detector differs from the original; nothing is written.
        StoreError: If the store cannot be written.

    """
    started = time.perf_counter()
    check_name(head)
    check_name(backbone, "backbone")
    wanted = SplitSettings.of(settings)
    source = read_original(path, endpoint=endpoint)
    parts = _sort(source, _resolve(source, wanted))
    names = _class_names(source, class_names, head, parts)
    _check_store(store, head, backbone, parts)
    rebuilt = _read_back(parts)
    report = _prove(rebuilt, source, parity_inputs, progress)
    record = parts.head_record(source, backbone, names, wanted, report)
    codec.encode(record)  # refused here, if at all: from the next line on something is written
    beside = {**(attachments or {}), layout.PARITY: codec.encode(report)}
    beside |= _original_file(source) if keep_original else {}
    store = Store.create(store)
    stored = backbones.publish(store, backbone, parts.backbone_record(source), rebuilt.backbone)
    manager = VersionManager(store, actor=actor)
    version = manager.create(head, rebuilt.head, record, attachments=beside)
    return SplitReport(
        head=HeadRef(head, version.number),
        is_active=_promote_first(manager, version),
        backbone=stored.name,
        backbone_is_new=stored.is_new,
        architecture=rebuilt.contract.architecture.name,
        class_names=record.class_names,
        original_bytes=source.nbytes,
        backbone_bytes=stored.nbytes,
        head_bytes=version.files[layout.TENSORS][0],
        assumed=parts.resolved.assumed,
        parity=report,
        seconds=time.perf_counter() - started,
    )


def _prove(
    rebuilt: Rebuilt,
    source: Checkpoint,
    inputs: Iterable[object] | None,
    progress: Callable[[int, int], None] | None,
) -> ParityReport:
    report = prove(rebuilt, source.tensors, inputs=inputs, progress=progress)
    if not report.equal:
        raise ParityError(
            f"split {source.file}",
            f"the rebuilt detector is not the original: {'; '.join(report.failures[:3])}",
            "Nothing was written. Check the settings; if they are right, report this with the file's layer names.",
            report=report,
        )
    return report


def _promote_first(manager: VersionManager, version: VersionRecord) -> bool:
    """Make a version the active one where none is; return whether it was made so."""
    source = version.record.source
    try:
        manager.promote(
            version.head, version.number, instead_of=0, reason=f"split from {source.file if source else ''}"[:500]
        )
    except ConflictError as error:
        if "active" in error.facts:
            return False
        raise
    return True


@attrs.frozen(kw_only=True)
class _Parts:
    """An original, sorted: every tensor is in exactly one of the two."""

    resolved: Resolved
    contract: BackboneContract
    backbone: Mapping[str, RawTensor]
    head: Mapping[str, RawTensor]

    def backbone_record(self, source: Checkpoint) -> BackboneRecord:
        return BackboneRecord(contract=self.contract, source=_source_record(source, ()), libraries=libraries())

    def head_record(
        self,
        source: Checkpoint,
        backbone_name: str,
        class_names: tuple[str, ...],
        wanted: SplitSettings,
        report: ParityReport,
    ) -> HeadRecord:
        return HeadRecord(
            tensors=tensors_digest(self.head),
            backbone=self.contract,
            backbone_name=backbone_name,
            settings=self.resolved.head,
            class_names=class_names,
            operating_policy=self.resolved.operating_policy,
            source=_source_record(source, self.resolved.assumed),
            parity=report.summary(),
            sample_count=wanted.sample_count,
            claimed_metrics=wanted.claimed_metrics or {},
            notes=wanted.notes or "",
            libraries=libraries(),
        )


def _resolve(source: Checkpoint, wanted: SplitSettings) -> Resolved:
    if source.preset and wanted.preset is None:
        wanted = attrs.evolve(wanted, preset=source.preset)
    found = recognise({name: tuple(tensor.shape) for name, tensor in source.tensors.items()}, source.file)
    return resolve(found, wanted, source.file)


def _sort(source: Checkpoint, resolved: Resolved) -> _Parts:
    asked = f"split {source.file}"
    levels = levels_of(resolved.architecture)
    try:
        network = build_network(resolved.architecture)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(asked, f"no such backbone can be built ({error})", "Check return_layers.") from None
    expected = {BACKBONE_PREFIX + name: value.shape for name, value in network.state_dict().items()}
    expected |= {name: value.shape for name, value in RCNNHead(resolved.head, levels).state_dict().items()}
    problems = mismatch(expected, {name: tensor.shape for name, tensor in source.tensors.items()})
    if problems:
        raise CheckpointError(
            asked,
            f"it is nearly a {resolved.architecture.name} Faster R-CNN, but: {problems}",
            "Every tensor must belong to backbone or head; save the whole model.state_dict(), and nothing else.",
        )
    _check_dtypes(source, asked)
    raw = raw_tensors(source.tensors)
    check_finite(raw, asked)
    backbone = {name.removeprefix(BACKBONE_PREFIX): t for name, t in raw.items() if name.startswith(BACKBONE_PREFIX)}
    contract = BackboneContract(
        digest=tensors_digest(backbone),
        architecture=resolved.architecture,
        preprocessing=resolved.preprocessing,
        levels=levels,
    )
    head = {name: tensor for name, tensor in raw.items() if not name.startswith(BACKBONE_PREFIX)}
    return _Parts(resolved=resolved, contract=contract, backbone=backbone, head=head)


def _check_dtypes(source: Checkpoint, asked: str) -> None:
    """See that weights are floating-point; only BatchNorm's counters are whole numbers."""
    wrong = [
        f"{name} is {tensor.dtype}"
        for name, tensor in source.tensors.items()
        if tensor.is_meta or not (tensor.is_floating_point() or name.endswith(_COUNTER))
    ]
    if wrong:
        raise CheckpointError(
            asked,
            f"{len(wrong)} tensors are no floating-point weights: {listed(wrong)}",
            "Save the float weights; a quantised model cannot be split.",
        )


def _check_store(store: str | os.PathLike[str] | Store, head: str, backbone: str, parts: _Parts) -> None:
    """Refuse a folder that is no store, a taken name or a damaged head before the proof, which can take a minute."""
    present = Store.find(store)
    if present:
        present.check_writable(f"split into {present.root}")
        backbones.check_free(present, backbone, BackboneRecord(contract=parts.contract))
        present.head(head).pointer()


def _original_file(source: Checkpoint) -> dict[str, bytes]:
    with files.explained(f"keep the original {source.file}"):
        data = source.path.read_bytes()
    if files.sha256(data) != source.sha256:
        raise CheckpointError(
            f"keep the original {source.file}", "it changed while it was split", "Split it again, once it is whole."
        )
    return {layout.ORIGINAL + source.path.suffix: data}


def _read_back(parts: _Parts) -> Rebuilt:
    """Encode both artifacts and read them again: what is proven is what will lie on disk."""
    return Rebuilt(
        contract=parts.contract,
        settings=parts.resolved.head,
        backbone=_through_bytes(parts.backbone, "the backbone"),
        head=_through_bytes(parts.head, "the head"),
    )


def _through_bytes(tensors: Mapping[str, RawTensor], what: str) -> dict[str, RawTensor]:
    again = artifacts.decode_tensors(artifacts.encode_tensors(tensors), what)
    if tensors_digest(again) != tensors_digest(tensors) or nbytes(again) != nbytes(tensors):
        raise CorruptError(f"encode {what}", "it reads back differently", "Report this: it is a defect of ours.")
    return again


def _class_names(source: Checkpoint, given: Sequence[str] | None, head: str, parts: _Parts) -> tuple[str, ...]:
    classes = parts.resolved.head.label_count - 1
    if given is not None:
        if isinstance(given, str):
            raise RecordError("name the classes", f"{given!r} is one text", "Give a list of names.")
        if len(given) != classes:
            raise RecordError(
                "name the classes",
                f"{len(given)} names were given and the weights have {classes} classes beside the background",
                "Give one name for each class, without the background.",
                names=len(given),
                classes=classes,
            )
        return tuple(given)
    if source.class_names is not None and len(source.class_names) == classes:
        return source.class_names
    return (head,) if classes == 1 else tuple(f"{head}-{label}" for label in range(1, classes + 1))


def _source_record(source: Checkpoint, assumed: tuple[str, ...]) -> SourceRecord:
    # Both records keep the names of the whole file: heads that share a backbone may come from files of another age.
    file = source.file if source.file.startswith(HUB_SCHEME) else Path(source.file).name  # folders stay private
    return SourceRecord(file=file, sha256=source.sha256, renamed=source.renamed, assumed=assumed)
