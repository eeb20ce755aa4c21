"""`train_head`: from labelled samples to a new version, and an honest decision whether it replaces the active one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec, fields
from hydra_detect.data.samples import Role
from hydra_detect.environment import libraries
from hydra_detect.errors import ConflictError, InputError
from hydra_detect.lifecycle import beside, origins, plans, unchanged
from hydra_detect.lifecycle.attempts import Setting, attempt
from hydra_detect.lifecycle.cautions import cautions, torn_duplicates
from hydra_detect.lifecycle.judging import check_extras, doubts
from hydra_detect.lifecycle.leaning import leaning
from hydra_detect.lifecycle.report import KEPT, PROMOTED, Course, SampleUse, TrainingRecord, TrainingReport
from hydra_detect.measure.promotion import NONE_ACTIVE, Decision, decide
from hydra_detect.names import Digest, HeadRef, check_name
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.compact import CompactHead
from hydra_detect.nets.devices import choose_device
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import CompactForm, HeadRecord
from hydra_detect.storage import backbones, heads
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.config import DEFAULT_PRESET, DEFAULT_RANK, TrainingConfig, settled
from hydra_detect.training.progress import ProgressBar
from hydra_detect.training.runs import Run
from hydra_detect.training.tools import Tools
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from hydra_detect.data.samples import Samples
    from hydra_detect.data.splits import Split
    from hydra_detect.lifecycle.attempts import Attempt
    from hydra_detect.lifecycle.origins import Beginning
    from hydra_detect.lifecycle.plans import Plan
    from hydra_detect.lifecycle.unchanged import Unchanged
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.records import VersionRecord
    from hydra_detect.training.progress import Progress

_FEW = 10  # samples, each of which moves F1 by some hundredths


def train_head(  # noqa: PLR0913  each is a question of its own that a user may have
    store: str | os.PathLike[str] | Store,
    head: str,
    samples: Samples,
    *,
    preset: str = DEFAULT_PRESET,
    config: TrainingConfig | Mapping[str, Any] | None = None,
    init: str = origins.AUTO,
    reference: str | None = None,
    backbone: str | None = None,
    split: Split | None = None,
    seed: int = 0,
    publish: bool = True,
    promote_anyway: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
    tools: Tools | None = None,
    actor: str = "",
) -> TrainingReport:
    """Train a head on a frozen backbone from labelled samples; measure, calibrate, publish, and decide.

    Samples are split into four roles, each of which has one use: train, select (which epoch), calibrate (temperature
    and thresholds), test (measured once, at the calibrated operating point). Where there are too few, the training is
    judged by cross-validation. The new version becomes active if none was, or if it is better than the active one by
    `decide`'s rule, both measured now on the same test samples.

    A training that was stopped is taken up again by the same call.

    Args:
        store: The store, or its path.
        head: Name of the head; it may be new.
        samples: Labelled pictures, with the classes that the head is to find.
        preset: Settings by name: one of `PRESETS`.
        config: All settings, or those that differ from the preset's.
        init: What the weights start from: "auto" (the active version, or for a new head another head of the
            backbone), "active", "fresh" (random), or a version such as "owl@3".
        reference: The full head that a compact one leans on, such as "owl@1"; left out, the one that others lean on.
        backbone: Name of the backbone of a new head; needed only where the store has several.
        split: The role of each sample; left out, one is made in which samples of earlier versions keep their roles.
        seed: Of every random choice: the same call gives the same bytes on the same machine's CPU.
        publish: Whether to make a version; if not, nothing is written but the run.
        promote_anyway: Make the new version active whatever the decision.
        device: Where it runs: "cpu", "cuda", ...; "auto" takes a GPU if there is one.
        progress: Called after each epoch; by default a bar on a terminal. `lambda state: None` for silence.
        tools: Losses and augmentations of your own, a folder for features, an event that cancels.
        actor: Who is at work, for the history.

    Raises:
        NotFoundError: If there is no such head, version or backbone to start from.
        IncompatibleError: If the head to start from belongs to another backbone.
        InputError: If there are too few samples, a picture cannot be read, a setting is wrong, or the head found
            nothing by which thresholds could be chosen.
        RoleError: If the samples have another role than train, or some that belong together have two.
        TrainingError: If the loss is no finite number, or something changed that must not.
        TrainingStoppedError: If it was cancelled.
        ConflictError: If another process is at the same training.
        StoreError: If the store cannot be written.

    """
    seed, store = fields.check_seed(seed), _ready(store, head)
    settings = settled(preset, config)
    manager = VersionManager(store, actor=actor)
    beginning = origins.begin(store, head, init=init, backbone=backbone)
    contract = beginning.backbone.record.contract
    plan = plans.plan(store, head, samples, given=split, seed=seed, validation=settings.validation, contract=contract)
    beginning = origins.judged_on(store, beginning, plan.judged, init=init)
    if settings.kind == "compact":
        beginning = leaning(store, beginning, plan.judged, reference=reference)
    elif reference is not None or settings.rank != DEFAULT_RANK:
        named = f"rank is {settings.rank!r:.60}" if reference is None else f"a reference is named ({reference!r:.60})"
        remedy = "Set kind='compact' (--kind compact), or leave that out."
        raise InputError(f"train {head!r}", f"{named}, and kind is {settings.kind!r}", remedy)
    plan.samples.check_pictures(f"train {head!r}")
    plan = attrs.evolve(plan, doubts=(*plan.doubts, *torn_duplicates(plan)))
    network = Backbone(contract, backbones.tensors(store, beginning.backbone)).to(choose_device(device))
    before = unchanged.look(store, head, network)
    tools = tools or Tools()
    code = tools.code(settings)
    run = Run.of(store.layout.runs(head), _fingerprint(head, beginning, plan, settings, seed, code))
    with run.alone(), contextlib.closing(ProgressBar()) as bar:
        was_begun = run.is_begun
        setting = Setting(store=store, head=head, backbone=network, beginning=beginning, plan=plan, config=settings,
                          seed=seed, run=run, tools=tools, code=code, progress=progress or bar)  # fmt: skip
        made = _told(beginning, attempt(setting))
        record = _record(setting, made, unchanged.check(store, before, network))
        report = TrainingReport(
            head=head,
            backbone=beginning.backbone.name,
            training=record,
            calibration=made.fit.calibration,
            metrics=made.metrics,
            reason="publish=False",
            run=str(run.folder),
        )
        if publish:
            version = _publish(manager, setting, made, record, was_begun=was_begun)
            report = _promote(manager, version, report, beginning, made, anyway=promote_anyway)
        return run.finish(report)


def _ready(store: str | os.PathLike[str] | Store, head: str) -> Store:
    """Return the store, once everything is seen to be there that the training will need in the end."""
    check_extras(f"train {check_name(head)!r}")
    opened = Store.open(store)
    opened.check_writable(f"train {head!r}")
    return opened


def _told(beginning: Beginning, made: Attempt) -> Attempt:
    """Return an attempt whose figures say so where they are no evidence."""
    notes = (*filter(None, [beginning.spoilt, beginning.doubt]), *made.metrics.notes)
    return attrs.evolve(made, metrics=attrs.evolve(made.metrics, notes=notes))


def _fingerprint(
    head: str, beginning: Beginning, plan: Plan, config: TrainingConfig, seed: int, code: Mapping[str, str]
) -> Digest:
    """Return the digest of all that a training depends on."""
    origin = beginning.origin
    facts = {
        "head": head,
        "backbone": codec.to_dict(beginning.backbone.record.contract),
        "start": "fresh" if origin.tensors is None else str(tensors_digest(origin.tensors)),
        "start classes": list(origin.class_names),
        "reference": str(beginning.reference.record.tensors) if beginning.reference else None,
        "settings": codec.to_dict(origin.settings),
        "samples": str(plan.samples.digest),
        "classes": list(plan.samples.class_names),
        "split": str(plan.split.digest),
        "method": plan.method,
        "config": {**codec.to_dict(config), "objective": ""},  # another one needs no other weights
        "code": dict(code),
        "seed": seed,
        "libraries": libraries(),
    }
    return codec.digest_of(facts)


def _record(setting: Setting, made: Attempt, same: Unchanged) -> TrainingRecord:
    plan, beginning, learnt = setting.plan, setting.beginning, made.learnt
    samples = plan.samples
    return TrainingRecord(
        method=plan.method,
        config=setting.config,
        seed=setting.seed,
        samples=SampleUse(
            digest=samples.digest,
            split=setting.known.digest,
            dealt=plan.split.digest,
            counts={str(role): len(plan.take(role)) for role in Role},
            labelled=samples.labelled,
            backgrounds=samples.backgrounds,
            boxes=samples.box_counts,
            skipped=samples.skipped,
        ),
        course=Course(
            started_from=beginning.told,
            best_epoch=learnt.fitted.best.epoch,
            early_stopped=learnt.fitted.early_stopped,
            history=learnt.fitted.history,
            anchor_coverage=learnt.coverage.at_half,
            backbone_passes=sum(use.passes for use in setting.uses),
            features_reused=sum(use.reused for use in setting.uses),
            features_not_kept=max(use.not_kept for use in setting.uses),
            seconds=made.seconds,
        ),
        unchanged=same,
        warnings=_warnings(setting, made),
        code=setting.code,
    )


def _warnings(setting: Setting, made: Attempt) -> tuple[str, ...]:
    plan, learnt = setting.plan, made.learnt
    beginning = setting.beginning
    said = [*filter(None, [beginning.doubt]), *doubts(setting.store, beginning.active), *plan.doubts]
    not_kept = max(use.not_kept for use in setting.uses)
    if not_kept:
        said.append(f"the cache had no room for {not_kept} maps: raise cache_bytes to train faster")
    return (*said, *cautions(plan.take(Role.TRAIN), learnt.coverage))


def _publish(
    manager: VersionManager, setting: Setting, made: Attempt, training: TrainingRecord, *, was_begun: bool
) -> VersionRecord:
    """Make a version, unless the call that was stopped did so just before."""
    tensors, beginning = raw_tensors(made.learnt.network.state_dict()), setting.beginning
    record = HeadRecord(
        tensors=tensors_digest(tensors),
        backbone=beginning.backbone.record.contract,
        backbone_name=beginning.backbone.name,
        settings=made.learnt.settings,
        class_names=setting.plan.samples.class_names,
        operating_policy=made.fit.policy,
        sample_count=training.samples.counts[Role.TRAIN],
        claimed_metrics=made.metrics.figures(),
        notes=f"trained from {beginning.told}; figures by {training.method}",
        libraries=libraries(),
        compact=_form(beginning.reference, made.learnt.network),
    )
    newest = _newest(setting.store, setting.head) if was_begun else None
    if newest and newest.record == record and beside.split_of(setting.store, newest) == setting.known:
        return newest
    files = beside.files(
        split=setting.known,
        training=training,
        calibration=made.fit.calibration,
        outcomes=made.fit.outcomes,
        evaluation=made.metrics,
    )
    return manager.create(setting.head, tensors, record, attachments=files)


def _form(reference: VersionRecord | None, network: RCNNHead) -> CompactForm | None:
    """Return what a compact head depends on."""
    if reference is None or not isinstance(network, CompactHead):
        return None
    return CompactForm(
        reference=reference.record.tensors, reference_ref=str(reference.ref), ranks=dict(network.lean.ranks)
    )


def _newest(store: Store, head: str) -> VersionRecord | None:
    numbers = store.head(head).numbers()
    return heads.find(store, HeadRef(head, numbers[-1])) if numbers else None


def _decision(beginning: Beginning, made: Attempt) -> Decision:
    candidate = made.metrics.measurement()
    if beginning.spoilt:
        return Decision(promote=False, reason=beginning.spoilt, candidate=candidate)
    if made.comparison is None:
        return decide(candidate, NONE_ACTIVE)
    own, active = made.comparison.candidate, made.comparison.active
    if own is None or active is None:
        return Decision(promote=False, reason=made.comparison.hindrance, candidate=candidate)
    decision = decide(own.measurement(), active.measurement())
    if own.samples >= _FEW:
        return decision
    return attrs.evolve(decision, reason=f"{decision.reason}, on only {own.samples} samples")


def _promote(
    manager: VersionManager,
    version: VersionRecord,
    report: TrainingReport,
    beginning: Beginning,
    made: Attempt,
    *,
    anyway: bool,
) -> TrainingReport:
    """Make the version active if the decision or the user says so, unless another took the place of the active one."""
    decision, against = _decision(beginning, made), beginning.active.number if beginning.active else 0
    report = attrs.evolve(report, version=version.number, outcome=KEPT, reason=decision.reason)
    if version.number == against:
        return attrs.evolve(report, outcome=PROMOTED, reason="it was promoted before the call that made it was stopped")
    if not (decision or anyway):
        return report
    reason = decision.reason if decision else f"promoted anyway: {decision.reason}"
    try:
        manager.promote(version.head, version.number, instead_of=against, reason=reason)
    except ConflictError as error:
        if "active" not in error.facts:
            raise
        return attrs.evolve(report, reason=f"{error.found}: look again, then promote it by hand")
    return attrs.evolve(report, outcome=PROMOTED, reason=reason)
