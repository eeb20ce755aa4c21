"""What a head relies on: weights, architecture, preprocessing and levels of its backbone.

Both sides of the join carry the same `BackboneContract`: a head runs on a backbone exactly when the two contracts are
equal. No paths and no torch here.
"""

from __future__ import annotations

from typing import Any

import attrs
from attrs import validators as check

from hydra_detect import fields
from hydra_detect.codec import Record
from hydra_detect.errors import RecordError
from hydra_detect.names import Digest


@attrs.frozen(kw_only=True)
class Preprocessing(Record):
    """What happens to a picture before the backbone sees it (torchvision's `GeneralizedRCNNTransform`).

    The picture, RGB or one channel in [0, 1], is normalised per channel, resized bilinearly so that its shorter side
    is `min_size` unless the longer one would pass `max_size`, and padded with zeros below and to the right to a
    multiple of `size_divisor`. Sizes are in pixels.
    """

    min_size: int = attrs.field(default=800, validator=fields.COUNT)
    max_size: int = attrs.field(default=1333, validator=fields.COUNT)
    mean: tuple[float, ...] = attrs.field(
        default=(0.485, 0.456, 0.406), converter=fields.floats, validator=fields.each(fields.finite)
    )
    std: tuple[float, ...] = attrs.field(
        default=(0.229, 0.224, 0.225), converter=fields.floats, validator=fields.each(*fields.POSITIVE)
    )
    size_divisor: int = attrs.field(default=32, validator=fields.bounded(1, 4096))

    def __attrs_post_init__(self) -> None:
        """Refuse means and deviations of different channel counts."""
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
    in_channels: int = attrs.field(validator=fields.bounded(1, 1024))
    return_layers: tuple[str, ...] = attrs.field(converter=fields.texts, validator=check.min_len(1))
    body_channels: tuple[int, ...] = attrs.field(converter=fields.integers, validator=fields.each(fields.COUNT))
    pyramid_channels: int = attrs.field(validator=fields.bounded(1, 65536))
    norm: str = attrs.field(validator=check.in_(("frozen", "batch")))
    norm_eps: float = attrs.field(converter=fields.one_float, validator=[fields.SHARE, fields.finite])
    pyramid_norm: bool = False
    pyramid_norm_eps: float = attrs.field(
        converter=fields.one_float, default=1e-5, validator=[fields.SHARE, fields.finite]
    )
    block: str | None = attrs.field(default=None, validator=check.optional(check.in_(("basic", "bottleneck"))))
    layers: tuple[int, ...] = attrs.field(
        converter=fields.integers, default=(), validator=fields.each(fields.bounded(1, 200))
    )
    groups: int = attrs.field(default=1, validator=fields.bounded(1, 1024))
    width_per_group: int = attrs.field(default=64, validator=fields.bounded(1, 4096))

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
    channels: int = attrs.field(validator=fields.COUNT)
    stride: int = attrs.field(validator=fields.COUNT)


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
