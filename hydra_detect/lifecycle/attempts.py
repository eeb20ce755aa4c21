"""An attempt: samples in, a head that has learnt, been calibrated and been measured out. Nothing is published here."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import LEAST, folds
from hydra_detect.errors import CorruptError, IncompatibleError, InputError, NotFoundError, listed
from hydra_detect.lifecycle import beside, memory
from hydra_detect.lifecycle.candidates import Contender, candidates
from hydra_detect.lifecycle.judging import calibrated, calibrated_on, measured
from hydra_detect.loading import Shelf
from hydra_detect.measure.calibration import HIGHEST_TEMPERATURE
from hydra_detect.measure.crosswise import as_read_by
from hydra_detect.measure.metrics import CROSS_VALIDATION, HELD_OUT
from hydra_detect.names import HeadRef
from hydra_detect.records import OperatingPolicy
from hydra_detect.storage import references
from hydra_detect.training.learn import learn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.data.samples import Samples
    from hydra_detect.data.splits import Split
    from hydra_detect.detections import Detections
    from hydra_detect.lifecycle.judging import Calibrated
    from hydra_detect.lifecycle.origins import Beginning
    from hydra_detect.lifecycle.plans import Plan
    from hydra_detect.measure.metrics import Metrics
    from hydra_detect.nets.backbones import Backbone
    from hydra_detect.nets.compact import Reference
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store
    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.learn import FeatureUse, Learnt
    from hydra_detect.training.progress import Progress
    from hydra_detect.training.runs import Run
    from hydra_detect.training.tools import Tools

_FOLDS = 5
_NOTHING_COUNTS = OperatingPolicy(score_threshold=1.0, temperature=HIGHEST_TEMPERATURE)  # not even a score of 1


@attrs.frozen(kw_only=True)
class Setting:
    """What an attempt works with.

    Args:
        store: Where the active version is.
        head: Name of the head.
        backbone: It runs and is not changed.
        beginning: What the head starts from.
        plan: How the samples are used.
        config: All settings.
        seed: Of every random choice.
        run: Where its checkpoints are.
        tools: What it uses.
        code: What told its losses and augmentations from others when it began.
        progress: Called after each epoch.
        uses: Gathers what each of its trainings used of the features.

    """

    store: Store
    head: str
    backbone: Backbone
    beginning: Beginning
    plan: Plan
    config: TrainingConfig
    seed: int
    run: Run
    tools: Tools
    code: Mapping[str, str]
    progress: Progress
    uses: list[FeatureUse] = attrs.field(factory=list)

    @functools.cached_property
    def known(self) -> Split:
        """The roles that samples had for this training and for all that it starts from: what the version is to know."""
        start = self.beginning.version
        begun = [beside.split_of(self.store, version) for version in (start, self.beginning.reference) if version]
        earlier = memory.of_original(self.store, self.backbone.contract)
        return memory.known_to(self.plan.split, [*earlier, *(split for split in begun if split)])

    @functools.cached_property
    def reference(self) -> Reference | None:
        """What a compact head leans on."""
        version = self.beginning.reference
        return Shelf(self.store).of(version) if version else None

    def learn(self, train: Samples, select: Samples | None, stage: str = "") -> Learnt:
        """Train a head on some of the samples.

        Raises:
            TrainingStoppedError: If it was cancelled, be it at the very end: what follows would publish it.

        """
        checkpoint = self.run.checkpoint(stage)
        learnt = learn(
            self.backbone,
            self.beginning.origin,
            train=train,
            select=select,
            config=self.config,
            seed=self.seed,
            checkpoint=checkpoint,
            tools=self.tools,
            reference=self.reference,
            progress=self.run.kept(self.progress, stage),
            stage=stage,
        )
        self.uses.append(learnt.features)
        if self.tools.cancel and self.tools.cancel.is_set():
            raise checkpoint.stopped("it was cancelled when all was learnt")
        return learnt

    def contender(self, learnt: Learnt) -> Contender:
        """Return a head that has learnt as one to be judged."""
        return Contender(ref=HeadRef(self.head), network=learnt.network, class_names=self.plan.samples.class_names)


@attrs.frozen(kw_only=True)
class Comparison:
    """A new version and the active one on the same samples, none of which the active one has learnt from.

    Args:
        candidate: What the new one is worth on them; None if the two cannot be compared.
        active: What the active one is.
        hindrance: Why they cannot be compared, and what to do; empty if they can.

    """

    candidate: Metrics | None = None
    active: Metrics | None = None
    hindrance: str = ""


@attrs.frozen(kw_only=True)
class Attempt:
    """What came of it.

    Args:
        learnt: The head.
        fit: How its scores are read.
        metrics: What it is worth.
        seconds: What each part took.
        comparison: With the active version; None if there is none.

    """

    learnt: Learnt
    fit: Calibrated
    metrics: Metrics
    seconds: Mapping[str, float]
    comparison: Comparison | None = None


def attempt(setting: Setting) -> Attempt:
    """Train, calibrate and measure a head as its plan says.

    Raises:
        TrainingStoppedError: If it was cancelled at any time.

    """
    made = _held_out(setting) if setting.plan.method == HELD_OUT else _cross_validated(setting)
    if setting.tools.cancel and setting.tools.cancel.is_set():
        raise setting.run.checkpoint().stopped("it was cancelled while it was calibrated and measured")
    return made


def _held_out(setting: Setting) -> Attempt:
    clock, plan = _Clock(), setting.plan
    learnt = setting.learn(plan.take(Role.TRAIN), plan.take(Role.SELECT) or None)
    clock.mark("training", least=learnt.fitted.seconds)
    head, objective = setting.contender(learnt), setting.config.objective
    fit = calibrated_on(setting.backbone, head, plan.take(Role.CALIBRATE), objective=objective)
    clock.mark("calibration")
    test = plan.take(Role.TEST)
    found = candidates(setting.backbone, [head], test)[head.ref]
    metrics = measured(found, test, fit.policy)
    comparison = _compared(setting, found, test, metrics)
    clock.mark("measuring")
    return Attempt(learnt=learnt, fit=fit, metrics=metrics, seconds=clock.seconds, comparison=comparison)


def _cross_validated(setting: Setting) -> Attempt:
    """Judge the training by heads that did not see what they are judged on, then train on all samples.

    Those that an earlier version was tested on are left out of everything. Temperature and thresholds are fitted to all
    predictions; for the figures those of each fold are read with what was fitted to the other folds, so that no sample
    has a say in how it is judged itself.
    """
    clock, samples = _Clock(), setting.plan.take(Role.TRAIN)
    parts = folds(samples, count=_FOLDS, seed=setting.seed)
    found: list[list[Detections]] = []
    trained = 0.0
    for number, (train, held_out) in enumerate(parts, start=1):
        learnt = setting.learn(train, None, f"fold {number} of {len(parts)}")
        head, trained = setting.contender(learnt), trained + learnt.fitted.seconds
        found.append(candidates(setting.backbone, [head], held_out)[head.ref])
    clock.mark("cross-validation", least=trained)
    pooled = _joined([held_out for _train, held_out in parts])
    every = [one for fold in found for one in fold]
    objective = setting.config.objective
    fit = calibrated(
        every, pooled, objective=objective, chosen_on=f"predictions of {len(parts)} folds, {pooled.digest}"
    )
    read: list[Detections] = []
    unread = 0
    for place, fold in enumerate(found):
        others = [one for other, rest in enumerate(found) if other != place for one in rest]
        theirs = _joined([held_out for other, (_train, held_out) in enumerate(parts) if other != place])
        try:
            own = calibrated(others, theirs, objective=objective).policy
        except InputError:  # nothing can be chosen by so few; what this fold would have had, nobody knows
            own, unread = _NOTHING_COUNTS, unread + 1
        read += as_read_by(own, fold, fit.policy)
    metrics = measured(read, pooled, fit.policy, method=CROSS_VALIDATION)
    if unread:
        note = f"for {unread} of {len(parts)} folds no thresholds can be chosen by the others: nothing in them counts"
        metrics = attrs.evolve(metrics, notes=(note, *metrics.notes))
    comparison = _compared(setting, read, pooled, metrics)
    clock.mark("measuring")
    learnt = setting.learn(samples, None)
    clock.mark("training", least=learnt.fitted.seconds)
    return Attempt(learnt=learnt, fit=fit, metrics=metrics, seconds=clock.seconds, comparison=comparison)


def _compared(setting: Setting, found: list[Detections], judged: Samples, metrics: Metrics) -> Comparison | None:
    """Compare with the active version on those samples that it has not seen: on the others it knows the answers."""
    version = setting.beginning.active
    if version is None:
        return None
    hindrance = _hindrance(setting, version)
    if hindrance:
        return Comparison(
            hindrance=f"{hindrance}: the two cannot be compared, promote it by hand if it is to be active"
        )
    seen = set(beside.seen_samples(setting.store, version, judged, allowed=Role.TEST))
    places = [place for place, sample in enumerate(judged) if sample.id not in seen]
    new = judged[places]
    if seen and new.labelled < LEAST:
        told = f"{version.ref} has seen {len(seen)} of these {len(judged)} samples"
        return Comparison(hindrance=f"{told}, too many to compare with it: promote by hand if the figures please you")
    theirs = candidates(setting.backbone, [Contender.of(setting.store, version)], new)[version.ref]
    own = measured([found[place] for place in places], new, metrics.policy, draws=0) if seen else metrics
    return Comparison(candidate=own, active=measured(theirs, new, version.record.policy, draws=0))


def _hindrance(setting: Setting, version: VersionRecord) -> str:
    """Return why a version finds other things than the new one, whatever samples they are measured on."""
    theirs, ours = set(version.record.class_names), set(setting.plan.samples.class_names)
    if theirs != ours:
        return f"the active {version.ref} finds {listed(theirs)}, and this one {listed(ours)}"
    if setting.backbone.contract.differences(version.record.backbone):
        return f"the active {version.ref} belongs to another backbone"
    try:
        references.check(setting.store, version, f"run {version.ref}")
    except (NotFoundError, IncompatibleError, CorruptError) as error:
        return f"the active {version.ref} cannot be run: {error.found}"
    return ""


def _joined(parts: list[Samples]) -> Samples:
    return attrs.evolve(parts[0], items=[sample for part in parts for sample in part])


class _Clock:
    """Seconds between marks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str, *, least: float = 0.0) -> None:
        """Book the time since the last mark on a name, or what is known to have been spent: before a stop, too."""
        now = time.perf_counter()
        self.seconds[name] = max(now - self._last, least)
        self._last = now
