"""The facts that travel with weights, as frozen values that are checked at birth.

`BackboneRecord` and `HeadRecord` are what an artifact says of itself; `VersionRecord` is one published version of a
head. No paths and no torch here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import validators as check

from hydra_detect import fields
from hydra_detect.codec import Record
from hydra_detect.contracts import BackboneContract
from hydra_detect.errors import RecordError, near_matches
from hydra_detect.names import Digest, HeadRef, check_name


def utc_now() -> str:
    """Return the present time as ISO 8601 in UTC, to the millisecond: the form of every time in a record."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


FULL, COMPACT = "head", "compact-head"
"""Kinds of heads: whole by itself, or as differences from a reference."""

_MOST_CLASSES = 10_000
_MOST_LABEL_CHARACTERS = 200


@attrs.frozen(kw_only=True)
class HeadSettings(Record):
    """Everything a Faster R-CNN head computes with that is not in its weights (Ren et al. 2015, arXiv:1506.01497).

    Names and defaults are torchvision's. Anchor sizes are in pixels of the resized picture, one tuple per level;
    aspect ratios are height / width. `label_count` counts the background. `box_head` is "mlp" (`TwoMLPHead`) or
    "conv_fc" (`FastRCNNConvFCHead`) with the widths of its convolutions and linear layers.
    """

    label_count: int = attrs.field(validator=fields.bounded(2, _MOST_CLASSES))
    anchor_sizes: tuple[tuple[float, ...], ...] = attrs.field(
        converter=fields.float_rows, validator=fields.each(check.min_len(1), fields.each(*fields.POSITIVE))
    )
    aspect_ratios: tuple[tuple[float, ...], ...] = attrs.field(
        converter=fields.float_rows, validator=fields.each(check.min_len(1), fields.each(*fields.POSITIVE))
    )
    rpn_conv_depth: int = attrs.field(default=1, validator=fields.bounded(1, 16))
    box_head: str = attrs.field(default="mlp", validator=check.in_(("mlp", "conv_fc")))
    box_convolutions: tuple[int, ...] = attrs.field(
        converter=fields.integers, default=(), validator=fields.each(fields.COUNT)
    )
    box_widths: tuple[int, ...] = attrs.field(
        converter=fields.integers, default=(1024, 1024), validator=[check.min_len(1), fields.each(fields.COUNT)]
    )
    box_norm: bool = False
    box_norm_eps: float = attrs.field(converter=fields.one_float, default=1e-5, validator=[fields.SHARE, fields.finite])
    roi_levels: tuple[str, ...] = attrs.field(
        converter=fields.texts, default=("0", "1", "2", "3"), validator=check.min_len(1)
    )
    roi_size: int = attrs.field(default=7, validator=fields.bounded(1, 64))
    roi_sampling_ratio: int = attrs.field(default=2, validator=fields.bounded(-1, 64))
    rpn_pre_nms_top_n: int = attrs.field(default=1000, validator=fields.COUNT)
    rpn_post_nms_top_n: int = attrs.field(default=1000, validator=fields.COUNT)
    rpn_nms_threshold: float = attrs.field(converter=fields.one_float, default=0.7, validator=fields.SHARE)
    rpn_score_threshold: float = attrs.field(converter=fields.one_float, default=0.0, validator=fields.SHARE)
    score_threshold: float = attrs.field(converter=fields.one_float, default=0.05, validator=fields.SHARE)
    nms_threshold: float = attrs.field(converter=fields.one_float, default=0.5, validator=fields.SHARE)
    detections_per_image: int = attrs.field(default=100, validator=fields.COUNT)
    box_coder_weights: tuple[float, ...] = attrs.field(
        default=(10.0, 10.0, 5.0, 5.0),
        converter=fields.floats,
        validator=[check.min_len(4), check.max_len(4), fields.each(*fields.POSITIVE)],
    )

    @property
    def anchors_per_location(self) -> int:
        """Anchors at each position of a level; equal on all levels, because they share one RPN."""
        return len(self.anchor_sizes[0]) * len(self.aspect_ratios[0])

    def has_layers_of(self, other: HeadSettings) -> bool:
        """Whether each layer of another head is here, too, and of the same shape, those of the predictors aside."""
        ours, theirs = (
            (one.box_head, one.box_convolutions, one.box_widths, one.box_norm, one.roi_size) for one in (self, other)
        )
        return ours == theirs and self.rpn_conv_depth >= other.rpn_conv_depth

    def __attrs_post_init__(self) -> None:
        """Refuse anchors whose number differs between levels."""
        sizes, ratios = [len(row) for row in self.anchor_sizes], [len(row) for row in self.aspect_ratios]
        counts = [a * b for a, b in zip(sizes, ratios, strict=False)]
        if not counts or len(sizes) != len(ratios) or len(set(counts)) != 1:
            raise RecordError(
                "set the anchors",
                f"sizes per level are {sizes} in number and aspect ratios {ratios}",
                "Give as many tuples of sizes as of aspect ratios, with the same number of anchors on each level.",
            )


@attrs.frozen(kw_only=True)
class OperatingPolicy(Record):
    """How the scores of a version are meant to be read, and on what that was chosen.

    A raw score s of the head is calibrated to sigmoid(logit(s) / `temperature`) (Guo et al. 2017, arXiv:1706.04599),
    which changes no ranking; thresholds are of calibrated scores. `class_thresholds` names classes that have one of
    their own, `score_threshold` holds for all others. `objective` is what the thresholds were chosen for.
    """

    score_threshold: float = attrs.field(converter=fields.one_float, validator=fields.SHARE)
    chosen_on: str = ""
    temperature: float = attrs.field(converter=fields.one_float, default=1.0, validator=fields.bounded(1e-3, 1e3))
    class_thresholds: Mapping[str, float] = attrs.field(
        factory=dict, converter=fields.named_floats, validator=fields.shares
    )
    objective: str = ""

    def threshold(self, class_name: str) -> float:
        """Return the calibrated score from which a detection of this class counts."""
        return self.class_thresholds.get(class_name, self.score_threshold)


@attrs.frozen(kw_only=True)
class SourceRecord(Record):
    """Where weights came from: the file they were read from, and the names that had to be changed.

    `renamed` maps a current torchvision key to the key in the file, for checkpoints of older torchvision versions.
    """

    file: str
    sha256: Digest
    renamed: Mapping[str, str] = attrs.field(factory=dict)
    assumed: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Environment(Record):
    """What decides the last bits of a computation: library versions, the CPU's instructions, the threads."""

    torch: str
    torchvision: str
    cpu: str
    threads: int = attrs.field(validator=fields.COUNT)


@attrs.frozen(kw_only=True)
class ParitySummary(Record):
    """The outcome of the proof against the original, kept in the head's record."""

    equal: bool
    stages: int
    numbers_compared: int
    max_absolute_difference: float = attrs.field(converter=fields.one_float)
    outputs: Mapping[str, Digest]
    environment: Environment


@attrs.frozen(kw_only=True)
class CompactForm(Record):
    """How a head is kept that leans on another: what it depends on, and what is a difference from that.

    `reference` is the canonical digest of the tensors of a full head of the same backbone, `reference_ref` where that
    lay ("owl@1") when this one was made. `ranks` names the layers that are kept as differences, each with its rank; 0
    stands for a layer that is the reference's own, and layers not named are kept whole. `loss` is what the form cost
    where the head was made from a full one, which `compressed_from` names: figures by name, or None if nobody measured.
    """

    reference: Digest
    reference_ref: str = attrs.field(validator=lambda _i, _a, value: HeadRef.parse(value) and None)
    ranks: Mapping[str, int] = attrs.field(validator=check.min_len(1))
    compressed_from: str = ""
    loss: Mapping[str, float] | None = attrs.field(
        default=None, converter=attrs.converters.optional(fields.named_floats), validator=fields.finite_values
    )

    @property
    def is_unmeasured(self) -> bool:
        """Whether it was made from a full head, and nobody measured what that cost."""
        return bool(self.compressed_from) and self.loss is None

    def __attrs_post_init__(self) -> None:
        """Refuse ranks that no layer can have."""
        odd = {name: rank for name, rank in self.ranks.items() if type(rank) is not int or rank < 0}
        if odd:
            name, rank = next(iter(odd.items()))
            found = f"that of layer {name!r:.100} is {rank!r:.40}"
            raise RecordError("set the ranks of a compact head", found, "Give whole numbers from 0.")

    def __str__(self) -> str:
        """What is kept and of what: "compact, rank 8 of owl@1"; and whether nobody knows what that cost."""
        kinds, unknown = sorted(set(self.ranks.values())), ", its loss not measured" if self.is_unmeasured else ""
        return f"compact, rank {'/'.join(map(str, kinds))} of {self.reference_ref}{unknown}"


def _check_class_names(_instance: Any, _attribute: Any, value: tuple[str, ...]) -> None:
    for name in value:
        if not name or len(name) > _MOST_LABEL_CHARACTERS or not name.isprintable():
            raise RecordError(
                "name the classes",
                f"{name!a:.100} is empty, unprintable or longer than {_MOST_LABEL_CHARACTERS} characters",
                "Give each class a short printable name.",
            )


@attrs.frozen(kw_only=True)
class BackboneRecord(Record):
    """What a backbone artifact says of itself."""

    contract: BackboneContract
    source: SourceRecord | None = None
    libraries: Mapping[str, str] = attrs.field(factory=dict)
    kind: str = attrs.field(default="backbone", validator=check.in_(("backbone",)))

    @property
    def tensors(self) -> Digest:
        """Canonical digest of the artifact's tensors."""
        return self.contract.digest


@attrs.frozen(kw_only=True)
class HeadRecord(Record):
    """What a head artifact says of itself.

    `class_names` are those of labels 1 to `label_count` - 1; label 0 is the background and is never a user's class.
    `claimed_metrics` and `sample_count` are what whoever made the head said; nothing here measured them.
    """

    tensors: Digest
    backbone: BackboneContract
    backbone_name: str = attrs.field(validator=lambda _i, _a, value: check_name(value, "backbone") and None)
    settings: HeadSettings
    class_names: tuple[str, ...] = attrs.field(converter=fields.texts, validator=_check_class_names)
    operating_policy: OperatingPolicy | None = None
    source: SourceRecord | None = None
    parity: ParitySummary | None = None
    sample_count: int | None = attrs.field(default=None, validator=check.optional(check.ge(0)))
    claimed_metrics: Mapping[str, float] = attrs.field(
        factory=dict, converter=fields.named_floats, validator=fields.finite_values
    )
    notes: str = ""
    libraries: Mapping[str, str] = attrs.field(factory=dict)
    compact: CompactForm | None = None
    kind: str = attrs.field(
        default=attrs.Factory(lambda self: COMPACT if self.compact else FULL, takes_self=True),
        validator=check.in_((FULL, COMPACT)),
    )

    def __attrs_post_init__(self) -> None:
        """Refuse class names that do not fit the number of labels, and thresholds of classes that there are not."""
        if (self.kind == COMPACT) != (self.compact is not None):
            found = f"its kind is {self.kind!r}, and it {'has' if self.compact else 'lacks'} a compact form"
            raise RecordError("describe a head", found, f"Give {COMPACT!r} and its form, or neither.")
        if len(self.class_names) != self.settings.label_count - 1:
            raise RecordError(
                "name the classes",
                f"{len(self.class_names)} names were given and the weights have "
                f"{self.settings.label_count - 1} classes beside the background",
                "Give one name for each class, without the background.",
                names=len(self.class_names),
                classes=self.settings.label_count - 1,
            )
        strange = sorted(set(self.policy.class_thresholds) - set(self.class_names))
        if strange:
            found = f"there is one for {strange[0]!r:.100}, which is no class of the head"
            raise RecordError("set the thresholds of classes", found, near_matches(strange[0], self.class_names))

    @property
    def policy(self) -> OperatingPolicy:
        """How scores are read: the operating policy, or without one the score that the settings say, uncalibrated."""
        return self.operating_policy or OperatingPolicy(score_threshold=self.settings.score_threshold)

    @property
    def leans_on(self) -> str:
        """The version that a compact head leans on, as it was called when this one was made; "" for a full head."""
        return self.compact.reference_ref if self.compact else ""

    @property
    def score_threshold(self) -> float:
        """The score below which a detection is dropped unless a caller says otherwise."""
        return self.operating_policy.score_threshold if self.operating_policy else self.settings.score_threshold


@attrs.frozen(kw_only=True)
class VersionRecord(Record):
    """One published version of a head: immutable from birth.

    `files` gives size in bytes and SHA-256 of each file; `manifest` is the SHA-256 of the manifest that lists them;
    `actor` is who created it, and `parent` the version that was active then.
    """

    head: str
    number: int
    created_at: str
    actor: str = ""
    parent: int | None = None
    manifest: Digest
    files: Mapping[str, tuple[int, Digest]]
    record: HeadRecord

    @property
    def ref(self) -> HeadRef:
        """What it is called: "owl@3"."""
        return HeadRef(self.head, self.number)

    @property
    def nbytes(self) -> int:
        """Bytes on disk of all files of the version, the manifest apart."""
        return sum(size for size, _digest in self.files.values())

    def __str__(self) -> str:
        """One line: the reference, the classes and the size."""
        first, rest = self.record.class_names[:4], len(self.record.class_names[4:])
        classes = ", ".join(first) + (f" and {rest} more" if rest else "")
        form = f"; {self.record.compact}" if self.record.compact else ""
        return f"{self.head}@{self.number} ({classes}; {self.nbytes / 1e6:.2f} MB{form})"
