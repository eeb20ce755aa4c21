"""`TrainingReport`: what a training did, measured and decided, as one record that is kept with its version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.lifecycle.unchanged import Unchanged
from hydra_detect.measure.calibration import Calibration
from hydra_detect.measure.metrics import Metrics
from hydra_detect.names import Digest
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.progress import EpochRecord

PROMOTED, KEPT, NOT_PUBLISHED = "promoted", "kept", "not published"


@attrs.frozen(kw_only=True)
class SampleUse(Record):
    """What the samples were used for.

    Args:
        digest: Of all of them, labels included.
        split: Digest of the split that is kept with the version, with all that the weights have seen before.
        dealt: Digest of the roles of this training alone.
        counts: Samples of each role; or "train" alone, where the head was cross-validated.
        labelled: Samples with at least one box.
        backgrounds: Samples without any.
        boxes: Labelled boxes of each class.
        skipped: What was left out on reading, by reason.

    """

    digest: Digest
    split: Digest
    counts: Mapping[str, int]
    labelled: int
    backgrounds: int
    boxes: Mapping[str, int]
    skipped: Mapping[str, int] = attrs.field(factory=dict)
    dealt: Digest | None = None


@attrs.frozen(kw_only=True)
class Course(Record):
    """How the training went.

    Args:
        started_from: "owl@3", or "fresh".
        best_epoch: The epoch whose weights were kept, from 1.
        early_stopped: Whether it ended for want of anything better.
        history: All epochs.
        anchor_coverage: Share of the training labels that an anchor overlaps by at least half, position apart.
        backbone_passes: How often the backbone ran for training and selection.
        features_reused: How often its maps were found in the cache.
        features_not_kept: Maps for which the cache had no room, so that they were computed at each epoch.
        seconds: What training, calibration and measuring took, by name.

    """

    started_from: str
    best_epoch: int
    early_stopped: bool
    history: tuple[EpochRecord, ...]
    anchor_coverage: float = attrs.field(converter=fields.one_float)
    backbone_passes: int
    features_reused: int
    features_not_kept: int
    seconds: Mapping[str, float] = attrs.field(factory=dict, converter=fields.named_floats)


@attrs.frozen(kw_only=True)
class TrainingRecord(Record):
    """What a version came from; it is kept beside its weights.

    Args:
        method: "held-out": each role had samples of its own; or "cross-validation": there were too few for that, the
            figures are those of heads trained on parts of the samples, and the version was trained on all of them.
        config: All settings of the training.
        seed: Of every random choice.
        samples: What the samples were used for.
        course: How it went.
        unchanged: What was seen to be the same before and after.
        warnings: What a person should know.
        code: Digests of losses and augmentations that a user brought along, by name; versions of installed ones.

    """

    method: str
    config: TrainingConfig
    seed: int
    samples: SampleUse
    course: Course
    unchanged: Unchanged
    warnings: tuple[str, ...] = attrs.field(converter=fields.texts, default=())
    code: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class TrainingReport(Record):
    """What a training did, measured and decided.

    Args:
        head: Name of the head.
        backbone: Name of the backbone.
        training: What the weights came from.
        calibration: What the temperature changed, on the calibrate role.
        metrics: On the test role, at the operating point, with the policy.
        version: Number of the version that was made; None if none was.
        outcome: "promoted", "kept" or "not published".
        reason: Why.
        run: Folder of metrics.csv and report.json.

    """

    head: str
    backbone: str
    training: TrainingRecord
    calibration: Calibration
    metrics: Metrics
    version: int | None = None
    outcome: str = NOT_PUBLISHED
    reason: str = ""
    run: str = ""

    @property
    def is_promoted(self) -> bool:
        """Whether the new version was made the active one."""
        return self.outcome == PROMOTED

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    def __str__(self) -> str:
        """Return what a person wants to see after a training."""
        made = self.head if self.version is None else f"{self.head}@{self.version}"
        training, course = self.training, self.training.course
        roles = ", ".join(f"{count} {role}" for role, count in training.samples.counts.items() if count)
        stopped = ", stopped early" if course.early_stopped else ""
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in course.seconds.items())
        same = len(training.unchanged.heads)
        best = f"best of {len(course.history)} epochs is {course.best_epoch}{stopped}"
        lines = [
            f"{made}: {self.outcome}: {self.reason}",
            f"  samples    {roles}; {training.samples.backgrounds} without labels",
            f"  training   from {course.started_from}; {best}; {spent}",
            f"  anchors    {course.anchor_coverage:.0%} of the labels resemble one",
            f"  scores     {self.calibration}",
            *(f"  {line}" for line in str(self.metrics).splitlines()),
            f"  unchanged  backbone {training.unchanged.backbone.short}, {same} versions of other heads",
            *(f"  warning: {warning}" for warning in training.warnings if warning not in self.metrics.notes),
        ]
        return "\n".join(lines)
