"""The facts that travel with weights, as frozen values that are checked at birth.

`BackboneRecord` and `HeadRecord` are what an artifact says of itself; `VersionRecord` is one published version of a
head. Both sides of the join carry the same `BackboneContract`: a head runs on a backbone exactly when the two
contracts are equal. No paths and no torch here.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import validators as check

from hydra_detect.codec import Record
from hydra_detect.errors import RecordError
from hydra_detect.names import Digest, check_name


def utc_now() -> str:
    """Return the present time as ISO 8601 in UTC, to the millisecond: the form of every time in a record."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")


_MOST_CLASSES = 10_000
_MOST_LABEL_CHARACTERS = 200


def _finite(_instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if not math.isfinite(value):
        raise RecordError(f"set {attribute.name}", f"it is {value}", "Give a finite number.")


def _bounded(low: float, high: float) -> Any:
    return check.and_(check.ge(low), check.le(high))


def _each(*rules: Any) -> Any:
    return check.deep_iterable(check.and_(*rules))


def _integers(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _texts(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _float(value: Any) -> float:
    # 32 and 32.0, 0.0 and -0.0 are one value and must be one text, or equal records would have different digests.
    return float(value) + 0.0


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(_float(value) for value in values)


def _named_floats(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: _float(value) for name, value in values.items()}


def _float_rows(rows: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(_floats(row) for row in rows)


_share = _bounded(0.0, 1.0)
_count = _bounded(1, 1_000_000)
_positive = [check.gt(0), _finite]


@attrs.frozen(kw_only=True)
class Preprocessing(Record):
    """What happens to a picture before the backbone sees it (torchvision's `GeneralizedRCNNTransform`).

    The picture, RGB or one channel in [0, 1], is normalised per channel, resized bilinearly so that its shorter side
    is `min_size` unless the longer one would pass `max_size`, and padded with zeros below and to the right to a
    multiple of `size_divisor`. Sizes are in pixels.
    """

    min_size: int = attrs.field(default=800, validator=_count)
    max_size: int = attrs.field(default=1333, validator=_count)
    mean: tuple[float, ...] = attrs.field(default=(0.485, 0.456, 0.406), converter=_floats, validator=_each(_finite))
    std: tuple[float, ...] = attrs.field(default=(0.229, 0.224, 0.225), converter=_floats, validator=_each(*_positive))
    size_divisor: int = attrs.field(default=32, validator=_bounded(1, 4096))

    def __attrs_post_init__(self) -> None:
        """Refuse sizes and channel counts that contradict each other."""
        if self.max_size < self.min_size:
            raise RecordError(
                "set the picture sizes",
                f"max_size {self.max_size} is below min_size {self.min_size}",
                "Give a max_size of at least min_size.",
            )
        if len(self.mean) != len(self.std):
            raise RecordError(
                "set mean and std",
                f"mean has {len(self.mean)} numbers and std has {len(self.std)}",
                "Give one number of each per channel.",
            )


@attrs.frozen(kw_only=True)
class Architecture(Record):
    """A feature-pyramid backbone as torchvision builds it (Lin et al. 2017, arXiv:1612.03144).

    `body` is "resnet" or "mobilenet_v3_large". For a ResNet, `block` ("basic" or "bottleneck"), the `layers` per
    stage, `groups` and `width_per_group` say which one. `return_layers` are the body's modules whose outputs enter
    the pyramid, finest first; `norm` is "frozen" (`FrozenBatchNorm2d`) or "batch" (`BatchNorm2d` in eval mode).
    """

    body: str = attrs.field(validator=check.in_(("resnet", "mobilenet_v3_large")))
    in_channels: int = attrs.field(validator=_bounded(1, 1024))
    return_layers: tuple[str, ...] = attrs.field(converter=_texts, validator=check.min_len(1))
    body_channels: tuple[int, ...] = attrs.field(converter=_integers, validator=_each(_count))
    pyramid_channels: int = attrs.field(validator=_bounded(1, 65536))
    norm: str = attrs.field(validator=check.in_(("frozen", "batch")))
    norm_eps: float = attrs.field(converter=_float, validator=[_share, _finite])
    pyramid_norm: bool = False
    pyramid_norm_eps: float = attrs.field(converter=_float, default=1e-5, validator=[_share, _finite])
    block: str | None = attrs.field(default=None, validator=check.optional(check.in_(("basic", "bottleneck"))))
    layers: tuple[int, ...] = attrs.field(converter=_integers, default=(), validator=_each(_bounded(1, 200)))
    groups: int = attrs.field(default=1, validator=_bounded(1, 1024))
    width_per_group: int = attrs.field(default=64, validator=_bounded(1, 4096))

    @property
    def name(self) -> str:
        """The name people know it by, such as "resnet50" or "resnext101_32x8d"."""
        if self.body != "resnet":
            return self.body
        # A pyramid that leaves out the last stage leaves it out of the weights too; the rest still tells which it was.
        fits = (
            depth
            for depth, block, layers in _RESNETS
            if (block, layers[: len(self.layers)]) == (self.block, self.layers)
        )
        depth = next(fits, None)
        if depth is None:
            return f"resnet-{self.block}-{'-'.join(map(str, self.layers))}"
        if self.groups > 1:
            return f"resnext{depth}_{self.groups}x{self.width_per_group}d"
        if self.width_per_group != _PLAIN_WIDTH:
            return f"wide_resnet{depth}_{self.width_per_group // _PLAIN_WIDTH}"
        return f"resnet{depth}"


_PLAIN_WIDTH = 64
_RESNETS = (
    (18, "basic", (2, 2, 2, 2)),
    (34, "basic", (3, 4, 6, 3)),
    (50, "bottleneck", (3, 4, 6, 3)),
    (101, "bottleneck", (3, 4, 23, 3)),
    (152, "bottleneck", (3, 8, 36, 3)),
)


@attrs.frozen(kw_only=True)
class Level(Record):
    """One map of the feature pyramid: its name, channels, and stride in pixels of the padded network input."""

    name: str
    channels: int = attrs.field(validator=_count)
    stride: int = attrs.field(validator=_count)


@attrs.frozen(kw_only=True)
class BackboneContract(Record):
    """All that a head relies on: the backbone's exact weights, its architecture, its preprocessing, its levels."""

    digest: Digest
    architecture: Architecture
    preprocessing: Preprocessing
    levels: tuple[Level, ...] = attrs.field(validator=check.min_len(1))

    def differences(self, other: BackboneContract) -> tuple[str, ...]:
        """Return one phrase per fact in which `other` differs; empty means that heads are interchangeable."""
        return tuple(_differences("", self, other))


def _differences(prefix: str, ours: Record, theirs: Record) -> list[str]:
    found = []
    for field in attrs.fields(type(ours)):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name == "unknown" or mine == other:
            continue
        if isinstance(mine, Record):
            found += _differences(f"{prefix}{field.name}.", mine, other)
        elif _are_records(mine) and _are_records(other) and len(mine) == len(other):
            for place, pair in enumerate(zip(mine, other, strict=True)):
                found += _differences(f"{prefix}{field.name}[{place}].", *pair)
        else:
            found.append(f"{prefix}{field.name} is {_shown(mine)} against {_shown(other)}")
    return found


def _are_records(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, Record) for item in value)


def _shown(value: Any) -> str:
    return value.short if isinstance(value, Digest) else f"{value!r:.120}"


@attrs.frozen(kw_only=True)
class HeadSettings(Record):
    """Everything a Faster R-CNN head computes with that is not in its weights (Ren et al. 2015, arXiv:1506.01497).

    Names and defaults are torchvision's. Anchor sizes are in pixels of the resized picture, one tuple per level;
    aspect ratios are height / width. `label_count` counts the background. `box_head` is "mlp" (`TwoMLPHead`) or
    "conv_fc" (`FastRCNNConvFCHead`) with the widths of its convolutions and linear layers.
    """

    label_count: int = attrs.field(validator=_bounded(2, _MOST_CLASSES))
    anchor_sizes: tuple[tuple[float, ...], ...] = attrs.field(
        converter=_float_rows, validator=_each(check.min_len(1), _each(*_positive))
    )
    aspect_ratios: tuple[tuple[float, ...], ...] = attrs.field(
        converter=_float_rows, validator=_each(check.min_len(1), _each(*_positive))
    )
    rpn_conv_depth: int = attrs.field(default=1, validator=_bounded(1, 16))
    box_head: str = attrs.field(default="mlp", validator=check.in_(("mlp", "conv_fc")))
    box_convolutions: tuple[int, ...] = attrs.field(converter=_integers, default=(), validator=_each(_count))
    box_widths: tuple[int, ...] = attrs.field(
        converter=_integers, default=(1024, 1024), validator=[check.min_len(1), _each(_count)]
    )
    box_norm: bool = False
    box_norm_eps: float = attrs.field(converter=_float, default=1e-5, validator=[_share, _finite])
    roi_levels: tuple[str, ...] = attrs.field(
        converter=_texts, default=("0", "1", "2", "3"), validator=check.min_len(1)
    )
    roi_size: int = attrs.field(default=7, validator=_bounded(1, 64))
    roi_sampling_ratio: int = attrs.field(default=2, validator=_bounded(-1, 64))
    rpn_pre_nms_top_n: int = attrs.field(default=1000, validator=_count)
    rpn_post_nms_top_n: int = attrs.field(default=1000, validator=_count)
    rpn_nms_threshold: float = attrs.field(converter=_float, default=0.7, validator=_share)
    rpn_score_threshold: float = attrs.field(converter=_float, default=0.0, validator=_share)
    score_threshold: float = attrs.field(converter=_float, default=0.05, validator=_share)
    nms_threshold: float = attrs.field(converter=_float, default=0.5, validator=_share)
    detections_per_image: int = attrs.field(default=100, validator=_count)
    box_coder_weights: tuple[float, ...] = attrs.field(
        default=(10.0, 10.0, 5.0, 5.0),
        converter=_floats,
        validator=[check.min_len(4), check.max_len(4), _each(*_positive)],
    )

    @property
    def anchors_per_location(self) -> int:
        """Anchors at each position of a level; equal on all levels, because they share one RPN."""
        return len(self.anchor_sizes[0]) * len(self.aspect_ratios[0])

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
    """The score at which a version is meant to be used, and on what it was chosen."""

    score_threshold: float = attrs.field(converter=_float, validator=_share)
    chosen_on: str = ""


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
    threads: int = attrs.field(validator=_count)


@attrs.frozen(kw_only=True)
class ParitySummary(Record):
    """The outcome of the proof against the original, kept in the head's record."""

    equal: bool
    stages: int
    numbers_compared: int
    max_absolute_difference: float = attrs.field(converter=_float)
    outputs: Mapping[str, Digest]
    environment: Environment


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
    class_names: tuple[str, ...] = attrs.field(converter=_texts, validator=_check_class_names)
    operating_policy: OperatingPolicy | None = None
    source: SourceRecord | None = None
    parity: ParitySummary | None = None
    sample_count: int | None = attrs.field(default=None, validator=check.optional(check.ge(0)))
    claimed_metrics: Mapping[str, float] = attrs.field(factory=dict, converter=_named_floats)
    notes: str = ""
    libraries: Mapping[str, str] = attrs.field(factory=dict)
    kind: str = attrs.field(default="head", validator=check.in_(("head",)))

    def __attrs_post_init__(self) -> None:
        """Refuse class names that do not fit the number of labels."""
        if len(self.class_names) != self.settings.label_count - 1:
            raise RecordError(
                "name the classes",
                f"{len(self.class_names)} names were given and the weights have "
                f"{self.settings.label_count - 1} classes beside the background",
                "Give one name for each class, without the background.",
                names=len(self.class_names),
                classes=self.settings.label_count - 1,
            )

    @property
    def score_threshold(self) -> float:
        """The score below which a detection is dropped unless a caller says otherwise."""
        return self.operating_policy.score_threshold if self.operating_policy else self.settings.score_threshold


@attrs.frozen(kw_only=True)
class VersionRecord(Record):
    """One published version of a head: immutable from birth.

    `files` gives size in bytes and SHA-256 of each file; `manifest` is the SHA-256 of the manifest that lists them.
    """

    head: str
    number: int
    created_at: str
    manifest: Digest
    files: Mapping[str, tuple[int, Digest]]
    record: HeadRecord

    @property
    def nbytes(self) -> int:
        """Bytes on disk of all files of the version, the manifest apart."""
        return sum(size for size, _digest in self.files.values())

    def __str__(self) -> str:
        """One line: the reference, the classes and the size."""
        first, rest = self.record.class_names[:4], len(self.record.class_names[4:])
        classes = ", ".join(first) + (f" and {rest} more" if rest else "")
        return f"{self.head}@{self.number} ({classes}; {self.nbytes / 1e6:.2f} MB)"
