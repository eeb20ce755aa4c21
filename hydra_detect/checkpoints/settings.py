"""What is not in the weights: torchvision's defaults for an architecture, named presets, and what the user says.

Each value comes from the first of: the user's setting, the preset, torchvision's default. A value that contradicts
the weights is an error that names both numbers; one that the weights cannot confirm and that torchvision has in two
forms is reported as assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators as check

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.contracts import Architecture, Preprocessing
from hydra_detect.errors import CheckpointError, HydraDetectError, RecordError, near_matches
from hydra_detect.records import HeadSettings, OperatingPolicy

if TYPE_CHECKING:
    from hydra_detect.checkpoints.recognise import Recognised


@attrs.frozen(kw_only=True)
class SplitSettings(Record):
    """Facts that a checkpoint does not hold; None leaves torchvision's default for the architecture.

    Sizes are in pixels; anchor sizes are one tuple per pyramid level, the pooled level included; aspect ratios too,
    or one tuple for all levels. `norm_eps` is that of the body's BatchNorm. `return_layers` are the body's modules
    that enter the pyramid. `operating_threshold` is the score at which the head is used unless a caller says
    otherwise; `operating_policy`, given in its place, says all of how scores are read. The last three are facts of the
    head's making, kept in its record: nothing here measures them.
    """

    preset: str | None = None
    min_size: int | None = None
    max_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size_divisor: int | None = None
    norm_eps: float | None = None
    pyramid_norm_eps: float | None = None
    box_norm_eps: float | None = None
    return_layers: tuple[str, ...] | None = None
    anchor_sizes: tuple[tuple[float, ...], ...] | None = None
    aspect_ratios: tuple[tuple[float, ...], ...] | None = None
    rpn_pre_nms_top_n: int | None = None
    rpn_post_nms_top_n: int | None = None
    rpn_nms_threshold: float | None = None
    rpn_score_threshold: float | None = None
    roi_levels: tuple[str, ...] | None = None
    roi_sampling_ratio: int | None = None
    score_threshold: float | None = None
    nms_threshold: float | None = None
    detections_per_image: int | None = None
    box_coder_weights: tuple[float, ...] | None = None
    operating_threshold: float | None = None
    operating_threshold_chosen_on: str | None = None
    operating_policy: OperatingPolicy | None = None
    sample_count: int | None = attrs.field(default=None, validator=check.optional(check.ge(0)))
    claimed_metrics: Mapping[str, float] | None = attrs.field(default=None, validator=fields.finite_values)
    notes: str | None = None

    @classmethod
    def of(cls, value: SplitSettings | Mapping[str, Any] | str | None) -> SplitSettings:
        """Read settings from a mapping, the name of a preset, or nothing.

        Raises:
            RecordError: For an unknown name, with near matches, or a value of the wrong kind.

        """
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls(preset=value)
        if isinstance(value, SplitSettings):
            return value
        known = {field.name for field in attrs.fields(cls)} - {"unknown"}
        for name in value:
            if name not in known:
                raise RecordError("read the settings", f"there is no setting {name!r}", near_matches(name, known))
        return codec.from_dict(cls, _lists(value), "the settings")


def _lists(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value


_MOBILENET_ANCHORS = ((32.0, 64.0, 128.0, 256.0, 512.0),)
_RESNET_ANCHORS = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
_RATIOS = (0.5, 1.0, 2.0)

PRESETS: Mapping[str, SplitSettings] = {
    "fasterrcnn_resnet50_fpn": SplitSettings(),
    "fasterrcnn_resnet50_fpn_v2": SplitSettings(),
    "fasterrcnn_mobilenet_v3_large_fpn": SplitSettings(rpn_score_threshold=0.05),
    "fasterrcnn_mobilenet_v3_large_320_fpn": SplitSettings(
        min_size=320, max_size=640, rpn_pre_nms_top_n=150, rpn_post_nms_top_n=150, rpn_score_threshold=0.05
    ),
    # torchvision sets eps to 0 in these weights alone, which were made before FrozenBatchNorm2d had an eps.
    "torchvision:fasterrcnn_resnet50_fpn": SplitSettings(norm_eps=0.0),
    "torchvision:fasterrcnn_resnet50_fpn_v2": SplitSettings(),
    "torchvision:fasterrcnn_mobilenet_v3_large_fpn": SplitSettings(rpn_score_threshold=0.05),
    "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn": SplitSettings(
        min_size=320, max_size=640, rpn_pre_nms_top_n=150, rpn_post_nms_top_n=150, rpn_score_threshold=0.05
    ),
}
"""Settings by name: torchvision's constructors, and with `torchvision:` its pretrained weights."""


@attrs.frozen(kw_only=True)
class Resolved:
    """A network whose every fact is known, and which of them were assumed."""

    architecture: Architecture
    preprocessing: Preprocessing
    head: HeadSettings
    operating_policy: OperatingPolicy | None
    assumed: tuple[str, ...]


def resolve(found: Recognised, given: SplitSettings, file: str) -> Resolved:
    """Join what shapes tell with what the user says and torchvision's defaults.

    Raises:
        RecordError: For an unknown preset, or a value out of range.
        CheckpointError: If settings and weights contradict each other; both numbers are named.

    """
    merged = _with_preset(given, found)
    try:
        architecture, preprocessing, head = _records(found, merged)
        policy = _policy(merged)
    except HydraDetectError:
        raise
    except (ValueError, TypeError) as error:  # the records' own bounds, in attrs' words
        raise RecordError("read the settings", str(error.args[0] if error.args else error), _LOOK_UP) from None
    _check_channels(found, preprocessing, file)
    _check_layers(found, architecture, file)
    _check_anchors(found, head, file)
    return Resolved(
        architecture=architecture,
        preprocessing=preprocessing,
        head=head,
        operating_policy=policy,
        assumed=_assumptions(found, given),
    )


_LOOK_UP = "See hydra-detect split --help for what each setting takes."


def _records(found: Recognised, merged: SplitSettings) -> tuple[Architecture, Preprocessing, HeadSettings]:
    architecture = Architecture(
        body=found.body,
        block=found.block,
        layers=found.layers,
        groups=found.groups,
        width_per_group=found.width_per_group,
        in_channels=found.in_channels,
        body_channels=found.body_channels,
        pyramid_channels=found.pyramid_channels,
        pyramid_norm=found.pyramid_norm,
        norm=found.norm,
        **_given(merged, {"norm_eps": 1e-5, "return_layers": found.return_layers, "pyramid_norm_eps": 1e-5}),
    )
    return architecture, Preprocessing(**_given(merged, dict.fromkeys(_PREPROCESSING))), _head_settings(found, merged)


def _policy(merged: SplitSettings) -> OperatingPolicy | None:
    if merged.operating_threshold is None:
        return merged.operating_policy
    if merged.operating_policy is not None:
        found = "there are both an operating_policy and an operating_threshold"
        raise RecordError("read the settings", found, "Give one of them: a policy has a threshold, score_threshold.")
    return OperatingPolicy(
        score_threshold=merged.operating_threshold, chosen_on=merged.operating_threshold_chosen_on or ""
    )


_PREPROCESSING = ("min_size", "max_size", "mean", "std", "size_divisor")
_HEAD = (
    "rpn_pre_nms_top_n",
    "rpn_post_nms_top_n",
    "rpn_nms_threshold",
    "rpn_score_threshold",
    "roi_levels",
    "roi_sampling_ratio",
    "score_threshold",
    "nms_threshold",
    "detections_per_image",
    "box_coder_weights",
    "box_norm_eps",
)


def _given(settings: SplitSettings, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, else their default; where that is None, the record's own."""
    values = {
        name: default if getattr(settings, name) is None else getattr(settings, name)
        for name, default in defaults.items()
    }
    return {name: value for name, value in values.items() if value is not None}


def _with_preset(given: SplitSettings, found: Recognised) -> SplitSettings:
    name = given.preset or ("fasterrcnn_mobilenet_v3_large_fpn" if found.body == "mobilenet_v3_large" else None)
    if name is None:
        return given
    if name not in PRESETS:
        raise RecordError("read the settings", f"there is no preset {name!r}", near_matches(name, PRESETS))
    if ("mobilenet" in name) != (found.body == "mobilenet_v3_large"):
        raise RecordError(
            "read the settings",
            f"preset {name!r} is for another backbone than the {found.body} in the weights",
            "Name a preset of that backbone, or give the settings one by one.",
        )
    said = {field.name: getattr(given, field.name) for field in attrs.fields(SplitSettings) if field.name != "unknown"}
    return attrs.evolve(PRESETS[name], **{key: value for key, value in said.items() if value is not None})


def _head_settings(found: Recognised, merged: SplitSettings) -> HeadSettings:
    levels = len(found.body_channels) + 1
    sizes = (
        merged.anchor_sizes
        if merged.anchor_sizes is not None
        else (_MOBILENET_ANCHORS * levels if found.body == "mobilenet_v3_large" else _RESNET_ANCHORS)
    )
    ratios = merged.aspect_ratios or (_RATIOS,)
    return HeadSettings(
        label_count=found.label_count,
        rpn_conv_depth=found.rpn_conv_depth,
        box_head=found.box_head,
        box_convolutions=found.box_convolutions,
        box_widths=found.box_widths,
        box_norm=found.box_norm,
        roi_size=found.roi_size,
        anchor_sizes=sizes,
        aspect_ratios=ratios * len(sizes) if len(ratios) == 1 else ratios,
        **_given(merged, dict.fromkeys(_HEAD)),
    )


def _check_channels(found: Recognised, preprocessing: Preprocessing, file: str) -> None:
    if len(preprocessing.mean) != found.in_channels:
        raise CheckpointError(
            f"split {file}",
            f"its first layer takes {found.in_channels} channel(s) and mean and std have {len(preprocessing.mean)}",
            "Give mean and std as the model was trained with, one number per channel (--mean, --std).",
            channels=found.in_channels,
            mean=len(preprocessing.mean),
        )


def _check_layers(found: Recognised, architecture: Architecture, file: str) -> None:
    if len(architecture.return_layers) != len(found.body_channels):
        raise CheckpointError(
            f"split {file}",
            f"{len(architecture.return_layers)} return_layers were given and its pyramid takes "
            f"{len(found.body_channels)} maps",
            "Name one module of the body for each map, finest first.",
        )


def _check_anchors(found: Recognised, head: HeadSettings, file: str) -> None:
    levels = len(found.body_channels) + 1
    if len(head.anchor_sizes) != levels:
        raise CheckpointError(
            f"split {file}",
            f"anchors are given for {len(head.anchor_sizes)} levels and the pyramid has {levels}, "
            "the pooled one included",
            "Give the anchor sizes the model was trained with, one tuple per level (--anchor-sizes).",
            given=len(head.anchor_sizes),
            levels=levels,
        )
    if head.anchors_per_location != found.anchors_per_location:
        raise CheckpointError(
            f"split {file}",
            f"the anchor settings give {head.anchors_per_location} anchors per location and the weights have "
            f"{found.anchors_per_location}",
            "Give the anchor sizes and aspect ratios the model was trained with (--anchor-sizes, --aspect-ratios).",
            settings=head.anchors_per_location,
            weights=found.anchors_per_location,
        )


def _assumptions(found: Recognised, given: SplitSettings) -> tuple[str, ...]:
    said = []
    if found.body == "mobilenet_v3_large" and given.preset is None and given.min_size is None:
        said.append(
            "fasterrcnn_mobilenet_v3_large_fpn (min_size 800): its 320 form has the same keys and shapes; "
            "if it is that one, say --preset fasterrcnn_mobilenet_v3_large_320_fpn"
        )
    if found.norm == "frozen" and found.block == "bottleneck" and given.norm_eps is None and given.preset is None:
        said.append(
            "BatchNorm eps 1e-05: a model fine-tuned from torchvision's fasterrcnn_resnet50_fpn COCO_V1 weights has "
            "0.0; if it was, say --norm-eps 0"
        )
    if found.body == "mobilenet_v3_large" and found.norm == "batch" and given.norm_eps is None:
        said.append(
            "BatchNorm eps 1e-05, as in torchvision's detectors: a body made by mobilenet_v3_large() itself has 0.001; "
            "if it was, say --norm-eps 0.001"
        )
    if found.body == "mobilenet_v3_large" and given.return_layers is None and given.preset is None:
        said.append(
            f"the pyramid takes the body's modules {', '.join(found.return_layers)}, as torchvision does; others of "
            "the same width can be named with --return-layers"
        )
    return tuple(said)
