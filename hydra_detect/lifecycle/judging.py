"""Measuring and calibrating heads on samples, each on those that are meant for it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import given, require
from hydra_detect.detections import missing_extra
from hydra_detect.errors import InputError, NotFoundError, RoleError, listed
from hydra_detect.lifecycle import beside, memory
from hydra_detect.lifecycle.beside import seen_samples
from hydra_detect.lifecycle.candidates import Contender, candidates
from hydra_detect.lifecycle.plots import check_plots, drawn, save_plots
from hydra_detect.measure.calibration import calibrate as fit_calibration
from hydra_detect.measure.metrics import HELD_OUT, measure
from hydra_detect.measure.misses import worst_misses
from hydra_detect.measure.outcomes import judge
from hydra_detect.measure.policy import fit_policy, parse_objective
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.devices import choose_device
from hydra_detect.storage import backbones, heads
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from hydra_detect.data.samples import Samples
    from hydra_detect.data.splits import Split
    from hydra_detect.detections import Detections
    from hydra_detect.measure.calibration import Calibration
    from hydra_detect.measure.metrics import Metrics
    from hydra_detect.measure.outcomes import Outcomes
    from hydra_detect.names import HeadRef
    from hydra_detect.records import OperatingPolicy, VersionRecord


@attrs.frozen(kw_only=True)
class Calibrated:
    """How scores are read, and on what that was chosen.

    Args:
        policy: Temperature and thresholds.
        calibration: What the temperature changed.
        outcomes: The raw scores and labels that both were fitted to.

    """

    policy: OperatingPolicy
    calibration: Calibration
    outcomes: Outcomes


def calibrated(
    detections: Sequence[Detections], samples: Samples, *, objective: str = "f1", chosen_on: str = ""
) -> Calibrated:
    """Fit temperature and thresholds to what a head found in samples.

    Args:
        detections: One per sample, raw.
        samples: Of the calibrate role, or of none.
        objective: What thresholds are chosen for, as `parse_objective` reads it.
        chosen_on: What the samples are, for the record.

    Raises:
        RoleError: If the samples have another role.
        InputError: If nothing can be fitted to them.

    """
    require(samples, Role.CALIBRATE, asked="calibrate")
    groups = [sample.group for sample in samples]
    outcomes = judge(detections, [sample.truth for sample in samples], class_names=samples.class_names, groups=groups)
    return fitted_to(outcomes, objective=objective, chosen_on=chosen_on)


def calibrated_on(backbone: Backbone, head: Contender, samples: Samples, *, objective: str) -> Calibrated:
    """Run a head over the samples of the calibrate role, and fit temperature and thresholds to what it finds.

    Raises:
        RoleError: If the samples have another role.
        InputError: If nothing can be fitted to them, or a picture cannot be read.

    """
    chosen_on = f"{len(samples)} samples of the calibrate role, {samples.digest}"
    found = candidates(backbone, [head], samples)[head.ref]
    return calibrated(found, samples, objective=objective, chosen_on=chosen_on)


def fitted_to(outcomes: Outcomes, *, objective: str, chosen_on: str) -> Calibrated:
    """Fit temperature and thresholds to outcomes that were kept, without a look at any picture."""
    calibration = fit_calibration(outcomes)
    policy = fit_policy(
        outcomes,
        objective=parse_objective(objective),
        temperature=calibration.temperature,
        chosen_on=chosen_on,
    )
    return Calibrated(policy=policy, calibration=calibration, outcomes=outcomes)


def measured(
    detections: Sequence[Detections],
    samples: Samples,
    policy: OperatingPolicy,
    *,
    method: str = HELD_OUT,
    draws: int = 1000,
) -> Metrics:
    """Measure what a head found in samples, at an operating point.

    Raises:
        RoleError: If the samples have another role than test.

    """
    require(samples, Role.TEST, asked="measure a head")
    return measure(
        detections,
        [sample.truth for sample in samples],
        class_names=samples.class_names,
        policy=policy,
        groups=[sample.group for sample in samples],
        samples_digest=samples.digest,
        method=method,
        draws=draws,
    )


def evaluate(
    store: str | os.PathLike[str] | Store,
    head: str | HeadRef,
    samples: Samples,
    *,
    allow_seen: bool = False,
    own_test: bool = False,
    draws: int = 1000,
    plots: str | os.PathLike[str] | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Measure a version of a head on labelled samples, at its operating point.

    Args:
        store: The store, or its path.
        head: "owl" for the active version, "owl@3" for that one.
        samples: With no other classes than those of the head (`samples.choose`); not all of them need occur.
        allow_seen: Measure on samples that the version was trained, selected or calibrated on, too: the metrics then
            say so, and are no evidence of quality.
        own_test: Measure only on those that were for testing when the version was made.
        draws: How often groups are drawn for the intervals; 0 gives none.
        plots: A new or empty folder for plots of the figures and pictures of the worst misses (extra `plot`).
        device: Where it runs.
        progress: Called with samples done and in all.

    Raises:
        NotFoundError: If there is no such head or version, or none of the samples was for testing it.
        RoleError: If the samples have another role than test, or the version has seen one of them.
        InputError: If the samples are of other classes, or a picture cannot be read.
        CorruptError: If the version is damaged.
        ExtraMissingError: If plots are asked for and matplotlib is not installed.
        ConflictError: If something lies in their folder.
        StoreError: If that cannot be written.

    """
    if plots is not None:
        check_plots(plots)
    store = Store.open(store)
    version = heads.find(store, head)
    require(samples, Role.TEST, asked=f"evaluate {version.ref}")
    samples = of_classes(version, _own_test(store, version, samples) if own_test else samples)
    seen = seen_samples(store, version, samples, allowed=Role.TEST)
    if seen and not allow_seen:
        raise RoleError(
            f"evaluate {version.ref}",
            f"{len(seen)} of {len(samples)} samples were used to make it: {listed(seen)}",
            "Give samples that it never saw (groups of one name are taken for one recording: rename those that are "
            "others); allow_seen=True (--allow-seen) measures all the same, and says so.",
            seen=seen,
        )
    found = candidates(backbone_of(store, version, device), [Contender.of(store, version)], samples, progress=progress)
    metrics = measured(found[version.ref], samples, version.record.policy, draws=draws)
    note = f"{len(seen)} of these samples were used to make {version.ref}: no evidence of quality"
    metrics = attrs.evolve(metrics, notes=(note, *metrics.notes)) if seen else metrics
    if plots is not None:
        truths = [sample.truth for sample in samples]
        policy, names = version.record.policy, samples.class_names
        misses = worst_misses(found[version.ref], truths, policy=policy, class_names=names)
        save_plots(plots, metrics, misses=drawn(misses, samples))
    return metrics


def calibrate(
    store: str | os.PathLike[str] | Store,
    head: str | HeadRef,
    samples: Samples | None = None,
    *,
    objective: str = "f1",
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    actor: str = "",
) -> VersionRecord:
    """Make a version with the same weights and another operating policy; it is not promoted.

    Args:
        store: The store, or its path.
        head: "owl" for the active version, "owl@3" for that one.
        samples: To fit temperature and thresholds to, none of which the version was trained on; None to fit them to
            the scores that were kept with the version, without a look at any picture.
        objective: What thresholds are chosen for: "f1", "fbeta:2", "mcc", "recall@precision:0.9".
        device: Where it runs.
        progress: Called with samples done and in all.
        actor: Who is at work, for the history.

    Raises:
        NotFoundError: If there is no such version, or no scores were kept with it and no samples are given.
        RoleError: If the samples have another role, or the version was trained, selected or tested on one of them.
        InputError: If nothing can be fitted to them.

    """
    store = Store.open(store)
    version = heads.find(store, head)
    split = beside.split_of(store, version)
    if samples is None:
        before = version.record.policy.chosen_on
        fit = fitted_to(beside.outcomes_of(store, version), objective=objective, chosen_on=before)
    else:
        samples = _for_calibration(store, version, samples)
        contender, chosen_on = Contender.of(store, version), f"{len(samples)} samples, {samples.digest}"
        detections = candidates(backbone_of(store, version, device), [contender], samples, progress=progress)
        fit = calibrated(detections[version.ref], samples, objective=objective, chosen_on=chosen_on)
        split = _remembering(split, samples)
    record = attrs.evolve(
        version.record,
        operating_policy=fit.policy,
        claimed_metrics={},  # they were of another operating point
        notes=f"{version.ref} with another operating policy",
    )
    files = beside.files(
        split=split,
        training=beside.training_of(store, version),
        calibration=fit.calibration,
        outcomes=fit.outcomes,
    )
    manager = VersionManager(store, actor=actor)
    return manager.create(version.head, heads.tensors(store, version), record, attachments=files)


def _own_test(store: Store, version: VersionRecord, samples: Samples) -> Samples:
    """Return those of the samples that were for testing when a version was made."""
    split = beside.split_of(store, version)
    tested = {(one.id, one.picture) for one in split.samples if one.role == Role.TEST} if split else set()
    own = samples[[place for place, one in enumerate(samples) if (one.id, one.picture_digest) in tested]]
    if not own:
        found = f"of {len(samples)} samples none was for testing it"
        raise NotFoundError(f"measure {version.ref} on its own test samples", found, "Give those it was made from.")
    return own


def _for_calibration(store: Store, version: VersionRecord, samples: Samples) -> Samples:
    """Refuse samples that a version must not be calibrated on, before it runs over them."""
    asked = f"calibrate {version.ref}"
    require(samples, Role.CALIBRATE, asked=asked)
    samples = of_classes(version, samples)
    seen = seen_samples(store, version, samples, allowed=Role.CALIBRATE)
    if seen:
        found = f"{len(seen)} samples had another role when it was made: {listed(seen)}"
        raise RoleError(asked, found, "Give samples of the calibrate role, or new ones.", seen=seen)
    return samples


def _remembering(split: Split | None, samples: Samples) -> Split:
    """Return a split that knows samples of the calibrate role, too: nobody may measure on them later."""
    own = given(samples, {Role.CALIBRATE: [sample.id for sample in samples]})
    if split is None:
        return own
    return attrs.evolve(split, samples=memory.known_to(split, [own]).samples)


def check_extras(asked: str) -> None:
    """Refuse at once what would fail for want of the extra `train` when all is learnt.

    Raises:
        ExtraMissingError: If scipy or hotcoco is not installed.

    """
    if any(importlib.util.find_spec(name) is None for name in ("scipy", "hotcoco")):
        raise missing_extra(asked, "train")


def of_classes(version: VersionRecord, samples: Samples) -> Samples:
    """Return samples with the classes of a head; one that does not occur in them is one that is not there.

    Raises:
        InputError: If they have others.

    """
    own, theirs = version.record.class_names, samples.class_names
    if not set(theirs) <= set(own):
        raise InputError(
            f"judge {version.ref}",
            f"its classes are {listed(own)}, those of the samples {listed(theirs)}",
            "Choose or merge classes: samples.choose(...), on the command line --class NAME or --class NEW=OLD.",
        )
    return attrs.evolve(samples, class_names=own)


def doubts(store: Store, active: VersionRecord | None) -> tuple[str, ...]:
    """Return why the active version, if there is one, may look too good beside a new one."""
    if active is None or beside.split_of(store, active) is not None:
        return ()
    return (f"{active.ref} keeps no split: it may have been trained on these test samples, and look too good",)


def backbone_of(store: Store, version: VersionRecord, device: str = "auto") -> Backbone:
    """Build the backbone that a version was made on.

    Raises:
        NotFoundError: If the store does not have it any more.

    """
    for name in backbones.names(store):
        stored = backbones.find(store, name)
        if not stored.record.contract.differences(version.record.backbone):
            return Backbone(stored.record.contract, backbones.tensors(store, stored)).to(choose_device(device))
    raise NotFoundError(
        f"run {version.ref}",
        f"the store has no backbone {version.record.backbone_name!r} as it was made on",
        "Put the original backbone into the store again.",
    )
