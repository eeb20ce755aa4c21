"""`train_original`: where there is no checkpoint yet, train a whole detector, split it, calibrate it, measure it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
import torch

from hydra_detect import codec, fields
from hydra_detect.checkpoints.recognise import BACKBONE_PREFIX
from hydra_detect.checkpoints.settings import SplitSettings
from hydra_detect.checkpoints.split import split_checkpoint
from hydra_detect.codec import Record
from hydra_detect.contracts import BackboneContract
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import check_enough
from hydra_detect.environment import libraries
from hydra_detect.errors import ConflictError, InputError
from hydra_detect.lifecycle import beside, plans
from hydra_detect.lifecycle.candidates import Contender, candidates
from hydra_detect.lifecycle.cautions import cautions, torn_duplicates
from hydra_detect.lifecycle.judging import calibrated_on, check_extras, measured
from hydra_detect.measure.calibration import Calibration
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT, Metrics
from hydra_detect.names import Digest, HeadRef, check_name
from hydra_detect.nets.backbones import Backbone, levels_of
from hydra_detect.nets.devices import choose_device
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import raw_tensors
from hydra_detect.storage import backbones, files, heads
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.anchors import coverage, label_sides
from hydra_detect.training.config import DEFAULT_PRESET, TrainingConfig, settled
from hydra_detect.training.original import OriginalSettings, anchored, design, learn_original
from hydra_detect.training.progress import EpochRecord, ProgressBar
from hydra_detect.training.runs import Run
from hydra_detect.training.start import LEAST_SCORE, anchors_of
from hydra_detect.training.tools import Tools

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from hydra_detect.checkpoints.split import SplitReport
    from hydra_detect.data.samples import Samples
    from hydra_detect.data.splits import Split
    from hydra_detect.lifecycle.judging import Calibrated
    from hydra_detect.lifecycle.plans import Plan
    from hydra_detect.records import VersionRecord
    from hydra_detect.training.loop import Fitted
    from hydra_detect.training.original import Design
    from hydra_detect.training.progress import Progress

_FILE = "original.pth"
_PROOFS = 2  # pictures that the split is proven on beside the seeded ones


@attrs.frozen(kw_only=True)
class OriginalReport(Record):
    """What the training of an original did and measured.

    Args:
        head: Name of the head that was split from it.
        version: Number of its version, which is active.
        backbone: Name of the backbone that was split from it, new in the store.
        architecture: Of its body.
        settings: What the original is made of.
        config: All settings of the training.
        seed: Of every random choice.
        history: All epochs.
        best_epoch: The one whose weights were kept.
        calibration: What the temperature changed, on the calibrate role.
        metrics: On the test role, at the operating point.
        original: The file of the original: torchvision's state dict.
        run: Folder of metrics.csv and report.json.
        warnings: What a person should know before they believe it.

    """

    head: str
    version: int
    backbone: str
    architecture: str
    settings: OriginalSettings
    config: TrainingConfig
    seed: int
    history: tuple[EpochRecord, ...]
    best_epoch: int
    calibration: Calibration
    metrics: Metrics
    original: str
    run: str
    warnings: tuple[str, ...] = attrs.field(default=(), converter=fields.texts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    def __str__(self) -> str:
        """Return what a person wants to see after a training."""
        lines = [
            f"{self.head}@{self.version} on the new backbone {self.backbone!r}, split from {self.original}",
            f"  training   {self.architecture}; best of {len(self.history)} epochs is {self.best_epoch}",
            f"  scores     {self.calibration}",
            *(f"  {line}" for line in str(self.metrics).splitlines()),
            *(f"  warning: {one}" for one in self.warnings),
        ]
        return "\n".join(lines)


def train_original(  # noqa: PLR0913  each is a question of its own that a user may have
    store: str | os.PathLike[str] | Store,
    head: str,
    samples: Samples,
    *,
    settings: OriginalSettings | None = None,
    backbone: str = "default",
    preset: str = DEFAULT_PRESET,
    config: TrainingConfig | Mapping[str, Any] | None = None,
    split: Split | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    tools: Tools | None = None,
    actor: str = "",
    endpoint: str | None = None,
) -> OriginalReport:
    """Train a whole detector and split it: the first backbone of a store, and its first head.

    Args:
        store: The store, or the path of one; a new or empty folder becomes one.
        head: Name of the head.
        samples: Labelled pictures, with the classes that the head is to find.
        settings: What the original is made of; left out, a ResNet-18 from random weights.
        backbone: Name of the backbone, which must be free.
        preset: Settings of the training by name.
        config: All settings of the training, or those that differ from the preset's.
        split: The role of each sample; left out, one is made.
        seed: Of every random choice.
        device: Where it runs.
        progress: Called after each epoch; by default a bar on a terminal.
        tools: Losses and augmentations of your own, an event that cancels.
        actor: Who is at work, for the history.
        endpoint: Address of the Hub that weights at an `hf://` are on; None for the client's own ($HF_ENDPOINT).

    Raises:
        ConflictError: If there is such a backbone, a version of such a head is active, or another process is at it.
        InputError: If there are too few samples for four roles, a picture cannot be read, a setting is wrong, or the
            detector found nothing by which thresholds could be chosen; then nothing is published.
        NotFoundError: If there is no file of the weights to start from.
        CheckpointError: If they cannot be read or fetched.
        TrainingError: If the loss is no finite number.
        TrainingStoppedError: If it was cancelled; the same call goes on.
        StoreError: If the store cannot be written.

    """
    seed = fields.check_seed(seed)
    check_extras(f"train the original of {head!r}")
    check_enough(samples)
    settings, tools = settings or OriginalSettings(), tools or Tools()
    config = settled(preset, config)
    if config.kind != "full":
        found = f"kind is {config.kind!r}, and the head of an original is what others lean on"
        raise InputError(f"train the original {head!r}", found, "Leave kind out; train compact heads on its backbone.")
    if config.validation == CROSS_VALIDATION:
        remedy = "Leave validation out: there is one original, measured on its test role."
        raise InputError(f"train the original of {head!r}", "cross-validation was asked for", remedy)
    shape = design(settings, classes=len(samples.class_names), least_score=LEAST_SCORE, endpoint=endpoint)
    store = Store.create(store)
    store.check_writable(f"train {check_name(head)!r}")
    plan = _plan(store, head, samples, split, seed)
    samples.check_pictures(f"train the original of {head!r}")
    plan = attrs.evolve(plan, doubts=(*plan.doubts, *torn_duplicates(plan)))
    shape = anchored(shape, plan.take(Role.TRAIN), config, seed=seed)
    job = _Job(
        head=head, settings=settings, shape=shape, config=config, plan=plan, seed=seed, device=device, actor=actor
    )
    run = Run.of(store.layout.runs(head), job.fingerprint(tools))
    file = run.folder / _FILE
    _check_names(store, head, backbone, file)
    with run.alone(), contextlib.closing(ProgressBar()) as bar:
        fitted = job.learn(run, tools, progress or bar)
        fit, metrics = job.judge(fitted)
        version = job.publish(fitted, file, store, backbone=backbone, fit=fit, metrics=metrics)
        return run.finish(job.report(version, fitted, fit.calibration, metrics, file=file))


def _check_names(store: Store, head: str, backbone: str, file: Path) -> None:
    """Refuse before the training, which may take hours, the names that would be refused after it.

    They are not taken where this very training was stopped after it published something.
    """
    is_in_use = head in heads.names(store) and store.head(head).pointer().active is not None
    if is_in_use and not _published(store, head, file):
        found = f"the store has a head {head!r} in use, on another backbone"
        raise ConflictError(f"train the original of {head!r}", found, "Give the head another name.")
    if check_name(backbone, "backbone") in backbones.names(store) and not file.exists():
        found = "the store has one of that name"
        raise ConflictError(f"make a backbone {backbone!r}", found, "Give another name, or train a head on it.")


def _published(store: Store, head: str, file: Path) -> VersionRecord | None:
    """Return the active version of a head if it was split from this very original."""
    if not file.exists() or head not in heads.names(store) or store.head(head).pointer().active is None:
        return None
    version = heads.find(store, head)
    with files.explained(f"read {file}"):
        digest = files.sha256(file.read_bytes())
    return version if version.record.source and version.record.source.sha256 == digest else None


def _plan(store: Store, head: str, samples: Samples, split: Split | None, seed: int) -> Plan:
    try:
        return plans.plan(store, head, samples, given=split, seed=seed, validation=HELD_OUT, contract=None)
    except InputError as error:
        if split is not None:  # which says itself what is wrong with it
            raise
        remedy = "Label more, or train a head on another backbone."
        raise InputError(f"train the original of {head!r}", error.found, remedy) from None


@attrs.frozen(kw_only=True)
class _Job:
    """What an original is trained with."""

    head: str
    settings: OriginalSettings
    shape: Design
    config: TrainingConfig
    plan: Plan
    seed: int
    device: str
    actor: str

    def fingerprint(self, tools: Tools) -> Digest:
        """Return the digest of all that the training depends on."""
        facts = {
            "original": codec.to_dict(self.settings),
            "start": str(tensors_digest(raw_tensors(self.shape.tensors))) if self.shape.tensors else "random",
            "head": self.head,
            "samples": str(self.plan.samples.digest),
            "classes": list(self.plan.samples.class_names),
            "split": str(self.plan.split.digest),
            "config": {**codec.to_dict(self.config), "objective": ""},  # another one needs no other weights
            "code": tools.code(self.config),
            "seed": self.seed,
            "libraries": libraries(),
        }
        return codec.digest_of(facts)

    def learn(self, run: Run, tools: Tools, progress: Progress) -> Fitted:
        """Train it."""
        return learn_original(
            self.shape,
            train=self.plan.take(Role.TRAIN),
            select=self.plan.take(Role.SELECT) or None,
            config=self.config,
            seed=self.seed,
            checkpoint=run.checkpoint(),
            tools=tools,
            device=choose_device(self.device),
            progress=run.kept(progress),
        )

    def judge(self, fitted: Fitted) -> tuple[Calibrated, Metrics]:
        """Calibrate and measure it, before anything is published: where that fails no half an original is left."""
        backbone, network = parts(self.shape, fitted)
        backbone = backbone.to(choose_device(self.device))
        contender = Contender(ref=HeadRef(self.head), network=network, class_names=self.plan.samples.class_names)
        objective, test = self.config.objective, self.plan.take(Role.TEST)
        fit = calibrated_on(backbone, contender, self.plan.take(Role.CALIBRATE), objective=objective)
        return fit, measured(candidates(backbone, [contender], test)[contender.ref], test, fit.policy)

    def publish(
        self, fitted: Fitted, file: Path, store: Store, *, backbone: str, fit: Calibrated, metrics: Metrics
    ) -> VersionRecord:
        """Write the original and split it, as far as an earlier call that was stopped has not done so."""
        if not file.exists():
            _save(fitted, file)
        version = _published(store, self.head, file)
        if version is None:
            self.split(file, store, backbone=backbone, fit=fit, metrics=metrics)
            version = heads.find(store, self.head)
        return version

    def report(
        self, version: VersionRecord, fitted: Fitted, calibration: Calibration, metrics: Metrics, *, file: Path
    ) -> OriginalReport:
        """Tell what came of it."""
        return OriginalReport(
            head=self.head,
            version=version.number,
            backbone=version.record.backbone_name,
            architecture=version.record.backbone.architecture.name,
            settings=self.settings,
            config=self.config,
            seed=self.seed,
            history=fitted.history,
            best_epoch=fitted.best.epoch,
            calibration=calibration,
            metrics=metrics,
            original=str(file),
            run=str(file.parent),
            warnings=self.warnings(),
        )

    def split(self, file: Path, store: Store, *, backbone: str, fit: Calibrated, metrics: Metrics) -> SplitReport:
        """Split it, with a proof on pictures that it learnt from: those of the test role are for the figures alone."""
        split, names = self.plan.split, self.plan.samples.class_names
        told = SplitSettings(
            **self.shape.split_settings(),
            operating_policy=fit.policy,
            claimed_metrics=metrics.figures(),
            sample_count=len(self.plan.take(Role.TRAIN)),
            notes="trained as a whole and split; figures by held out samples",
        )
        return split_checkpoint(
            file,
            store,
            head=self.head,
            backbone=backbone,
            class_names=names,
            settings=told,
            parity_inputs=[sample.picture for sample in self.plan.take(Role.TRAIN)[:_PROOFS]],
            attachments=beside.files(
                split=split, calibration=fit.calibration, outcomes=fit.outcomes, evaluation=metrics
            ),
            actor=self.actor,
        )

    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know."""
        sides = label_sides(self.plan.take(Role.TRAIN), self.shape.preprocessing)
        resemblance = coverage(anchors_of(self.shape.head), sides)
        return (*self.plan.doubts, *cautions(self.plan.take(Role.TRAIN), resemblance))


def parts(shape: Design, fitted: Fitted) -> tuple[Backbone, RCNNHead]:
    """Return backbone and head of an original, as a split will make them."""
    raw = raw_tensors(fitted.tensors)
    own = {name.removeprefix(BACKBONE_PREFIX): raw.pop(name) for name in list(raw) if name.startswith(BACKBONE_PREFIX)}
    contract = BackboneContract(
        digest=tensors_digest(own),
        architecture=shape.architecture,
        preprocessing=shape.preprocessing,
        levels=levels_of(shape.architecture),
    )
    return Backbone(contract, own), RCNNHead.load(shape.head, contract.levels, raw)


def _save(fitted: Fitted, file: Path) -> None:
    """Write the original as people save one: torchvision's state dict."""
    aside = file.with_suffix(".tmp")
    with files.explained(f"write {file}"):
        torch.save(dict(fitted.tensors), aside)
        aside.replace(file)
