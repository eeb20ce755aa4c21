"""`TrainingConfig`: everything a training depends on beside its samples, as one frozen value.

A setting comes from the preset, is overridden by a file, that by the environment, that by what is given by name; an
unknown key is an error wherever it stands. No torch here, so that the command line can answer before it loads.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import validators as check

from hydra_detect import codec, fields
from hydra_detect.codec import Record
from hydra_detect.errors import HydraDetectError, InputError, RecordError, listed, near_matches
from hydra_detect.measure.metrics import METHODS
from hydra_detect.measure.policy import parse_objective
from hydra_detect.names import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

ENVIRONMENT_PREFIX = "HYDRA_DETECT_TRAIN_"
DEFAULT_RANK = "32"
"""Of the differences that a compact head is kept as."""

WHOLE = "whole"
"""In the place of a rank: all weights of a layer."""

VIEWS = ("plain", "hflip", "vflip", "rot180", "rot90", "rot270")
"""Ways of seeing a picture, all exact: mirrored, upside down, turned clockwise by so many degrees."""

_MOST_BYTES = 1 << 20


@attrs.frozen(kw_only=True)
class Profile:
    """What fits a kind of picture: views, augmentations, and those that would make another thing of it."""

    views: tuple[str, ...]
    augmentations: tuple[str, ...]
    forbidden: frozenset[str] = frozenset()


PROFILES: Mapping[str, Profile] = {
    "picture": Profile(views=("plain", "hflip"), augmentations=("hflip", "brightness", "contrast", "crop")),
    "spectrogram": Profile(
        views=("plain",),
        augmentations=("time_shift", "gain", "time_mask", "frequency_mask"),
        forbidden=frozenset({"vflip", "rotate", "rot180", "rot90", "rot270", "colour"}),
    ),
}


def _is_objective(_instance: Any, _attribute: Any, value: str) -> None:
    parse_objective(value)


def _is_rank(_instance: Any, _attribute: Any, value: str) -> None:
    """Refuse what is no rank of any head; which layers there are, and how large, is seen once there is a head."""
    numbers = [value] if ":" not in value else [item.partition(":")[2] for item in value.split(",")]
    if not all(number.strip().isdecimal() or number.strip() == WHOLE for number in numbers):
        found = f"rank is {shown(value)}, and not one number, or a number or {WHOLE!r} for each layer that is named"
        raise RecordError("set rank", found, "Write rank=16, or layer by layer rank=rpn:8,fc6:32,fc7:whole.")


def _as_weights(value: Any) -> str:
    """Return the focal loss's weights as text: equal ones, however they were written, must be one text."""
    if isinstance(value, str):
        items = value.strip().removeprefix("[").removesuffix("]").split(",")
    else:
        items = list(value) if isinstance(value, list | tuple) else [value]
        if not all(type(item) in {int, float} for item in items):
            found = f"focal_alpha is {shown(value)}, and not 'dynamic', one number, or a list of numbers"
            raise RecordError("set focal_alpha", found, _SEE)
    try:
        return ",".join(str(fields.one_float(item)).removesuffix(".0") for item in items)
    except (ValueError, OverflowError):
        return str(value).strip()  # "dynamic", or what the loss refuses, for it knows the classes


@attrs.frozen(kw_only=True)
class TrainingConfig(Record):
    """How a head learns.

    Args:
        epochs: Times that every training sample is seen, at most.
        patience: Epochs without a better selection figure before the training stops; 0 for never.
        min_delta: By how much a figure has to be better to count.
        monitor: What is better on the select role: "f1" (at its best threshold; of epochs within a standard error of
            the highest the last is kept) or "loss".
        batch_size: Samples per step.
        learning_rate: Of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101), after the warm-up.
        final_rate: Share of it that the cosine ends at (arXiv:1608.03983).
        warmup: Share of all steps over which the rate grows from nothing.
        weight_decay: Of AdamW, for matrices and kernels.
        gradient_clip: Largest Euclidean norm of a step's gradient; 0 for none.
        ema_decay: Of the moving average of the weights that is measured and kept; 0 for none.
        loss: Name of the loss, one of `list_losses()`.
        focal_gamma: Exponent of the focal loss (Lin et al. 2017, arXiv:1708.02002).
        focal_alpha: Its weights: "" for none, 0.25 for every class with the rest for the background, [0.1, 0.4, 0.5]
            for each label with the background first, or "dynamic" for what the whole training role says. Kept as text,
            as "0.1,0.4,0.5".
        sampler: "shuffle", or "balanced" to draw samples of rare classes more often.
        features: "cached" runs the backbone once for each sample and view; "fresh" at every step, on augmented
            pictures.
        profile: "picture", or "spectrogram", whose axes are time and frequency: it is never turned, mirrored in
            frequency, or changed in colour.
        views: For cached features: ways of seeing each picture; each costs one backbone pass. None named: "plain" and
            "hflip" for pictures, "plain" for spectrograms.
        augmentations: For fresh features: names of `list_augmentations()`, applied in order. None named: the profile's.
        box_jitter: Standard deviation of noise on the edges of labelled boxes, as a share of the box's sides.
        feature_noise: Standard deviation of noise on the features, as a share of each map's own.
        feature_dtype: What features are kept in: "float16" or "float32".
        cache_bytes: How large the cache of features may grow; beyond it they are computed again.
        anchors: "keep" those that the head starts with, "default" for torchvision's, "kmeans" to fit them to the
            labels.
        anchor_sizes: Given ones, which count for more: for each level square roots of areas, pixels of the network
            input. As text "16/32/64", levels apart by "/".
        aspect_ratios: Given ones, which count for more: height / width, for every level.
        rpn_batch: Anchors per picture that the proposal loss is taken over.
        box_batch: Proposals per picture that the box loss is taken over.
        proposals: Proposals per picture that these are drawn from.
        preselected: Anchors per level that the new version suppresses among each other, by objectness; 0 for as many as
            what it starts from, and for a compact head for at most 300.
        refined: Proposals per picture that its box head looks at, at most; 0 for as many as what it starts from, and
            for a compact head for at most 150.
        least_objectness: Objectness below which it drops proposals; -1 for that of what it starts from.
        kind: "full", or "compact": low-rank differences from a reference head.
        rank: Of a compact head's differences: such as "16" for every layer, or "rpn:8,fc6:32,fc7:whole", where layers
            not named are the reference's own.
        validation: What figures are of: "held-out" for a test role, "cross-validation" for heads like this one, "auto"
            for a test role as soon as it would hold five samples of each class.
        objective: What thresholds are chosen for on the calibrate role, as `parse_objective` reads it.
        precision: "auto" for bfloat16 on a GPU that has it and float32 elsewhere, or "float32".

    """

    epochs: int = attrs.field(default=30, validator=fields.bounded(1, 100_000))
    patience: int = attrs.field(default=5, validator=fields.bounded(0, 100_000))
    min_delta: float = attrs.field(converter=fields.one_float, default=0.0, validator=fields.SHARE)
    monitor: str = attrs.field(default="f1", validator=check.in_(("f1", "loss")))
    batch_size: int = attrs.field(default=4, validator=fields.bounded(1, 4096))
    learning_rate: float = attrs.field(converter=fields.one_float, default=1e-3, validator=[check.gt(0), fields.finite])
    final_rate: float = attrs.field(converter=fields.one_float, default=0.01, validator=fields.SHARE)
    warmup: float = attrs.field(converter=fields.one_float, default=0.1, validator=fields.SHARE)
    weight_decay: float = attrs.field(converter=fields.one_float, default=0.01, validator=fields.SHARE)
    gradient_clip: float = attrs.field(converter=fields.one_float, default=5.0, validator=[check.ge(0), fields.finite])
    ema_decay: float = attrs.field(converter=fields.one_float, default=0.99, validator=fields.SHARE)
    loss: str = "torchvision"
    focal_gamma: float = attrs.field(converter=fields.one_float, default=2.0, validator=fields.bounded(0, 20))
    focal_alpha: str = attrs.field(default="", converter=_as_weights)
    sampler: str = attrs.field(default="shuffle", validator=check.in_(("shuffle", "balanced")))
    features: str = attrs.field(default="cached", validator=check.in_(("cached", "fresh")))
    profile: str = attrs.field(default="picture", validator=check.in_(tuple(PROFILES)))
    views: tuple[str, ...] = attrs.field(converter=fields.texts, default=(), validator=fields.each(check.in_(VIEWS)))
    augmentations: tuple[str, ...] = attrs.field(converter=fields.texts, default=())
    box_jitter: float = attrs.field(converter=fields.one_float, default=0.0, validator=fields.bounded(0, 0.5))
    feature_noise: float = attrs.field(converter=fields.one_float, default=0.0, validator=fields.bounded(0, 1))
    feature_dtype: str = attrs.field(default="float16", validator=check.in_(("float16", "float32")))
    cache_bytes: int = attrs.field(default=8_000_000_000, validator=check.ge(0))
    anchors: str = attrs.field(default="keep", validator=check.in_(("keep", "default", "kmeans")))
    anchor_sizes: tuple[tuple[float, ...], ...] = attrs.field(
        default=(), converter=fields.float_rows, validator=fields.each(fields.each(*fields.POSITIVE))
    )
    aspect_ratios: tuple[float, ...] = attrs.field(
        default=(), converter=fields.floats, validator=fields.each(*fields.POSITIVE)
    )
    rpn_batch: int = attrs.field(default=256, validator=fields.COUNT)
    box_batch: int = attrs.field(default=128, validator=fields.COUNT)
    proposals: int = attrs.field(default=500, validator=fields.COUNT)
    preselected: int = attrs.field(default=0, validator=fields.bounded(0, 1_000_000))
    refined: int = attrs.field(default=0, validator=fields.bounded(0, 1_000_000))
    least_objectness: float = attrs.field(converter=fields.one_float, default=-1.0, validator=fields.bounded(-1, 1))
    kind: str = attrs.field(default="full", validator=check.in_(("full", "compact")))
    rank: str = attrs.field(default=DEFAULT_RANK, converter=str, validator=_is_rank)
    validation: str = attrs.field(default="auto", validator=check.in_(("auto", *METHODS)))
    objective: str = attrs.field(default="f1", validator=_is_objective)
    precision: str = attrs.field(default="auto", validator=check.in_(("auto", "float32")))

    def __attrs_post_init__(self) -> None:
        """Refuse what would make another signal of a spectrogram."""
        wrong = PROFILES[self.profile].forbidden.intersection(self.views + self.augmentations)
        if wrong:
            raise RecordError(
                f"train with profile {self.profile!r}",
                f"{listed(wrong)} would change what a signal is: its axes are time and frequency",
                "Leave it out, or choose profile 'picture'.",
            )

    @property
    def seen_as(self) -> tuple[str, ...]:
        """The views of each picture: those named, or the profile's."""
        return self.views or PROFILES[self.profile].views

    @property
    def augmented_by(self) -> tuple[str, ...]:
        """The augmentations of fresh features: those named, or the profile's."""
        return self.augmentations or PROFILES[self.profile].augmentations


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"epochs": 10, "patience": 3, "views": ("plain",)},
    "balanced": {},
    "quality": {"epochs": 60, "patience": 12},
    "extreme": {
        "epochs": 120,
        "patience": 25,
        "learning_rate": 5e-4,
        "batch_size": 2,
    },
}
"""By name, where a preset differs from the defaults."""

DEFAULT_PRESET = "balanced"

_SEE = "All settings, and what each may be, stand in help(hydra_detect.TrainingConfig) and in the reference."


def resolve_config(
    preset: str = DEFAULT_PRESET,
    *,
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> TrainingConfig:
    """Return a configuration: the preset, overridden by a file, the environment, and what is given, in that order.

    Args:
        preset: One of `PRESETS`.
        file: A `.toml` or `.json` file of settings.
        environment: Variables such as `HYDRA_DETECT_TRAIN_EPOCHS`; others are passed over. `os.environ`, usually.
        given: Settings by name; a text is read as the setting's own kind, "plain,hflip" as a list.

    Raises:
        InputError: For an unknown preset or setting, or a value that it cannot have; where it stands is said.

    """
    if preset not in PRESETS:
        raise InputError("configure a training", f"there is no preset {preset!r:.60}", near_matches(preset, PRESETS))
    config = _with(TrainingConfig(), PRESETS[preset], f"preset {preset!r}")
    if file is not None:
        config = _with(config, _read(Path(file)), f"file {file}")
    length = len(ENVIRONMENT_PREFIX)
    named = {k[length:].lower(): v for k, v in (environment or {}).items() if k.startswith(ENVIRONMENT_PREFIX)}
    config = _with(config, named, "environment")
    return _with(config, given or {}, "settings given")


def settled(preset: str, config: TrainingConfig | Mapping[str, Any] | None) -> TrainingConfig:
    """Return all settings, given as such or as what differs from a preset.

    Raises:
        InputError: If there is no such preset, though all settings are given, or a setting is wrong.

    """
    resolved = resolve_config(preset, given=None if isinstance(config, TrainingConfig) else config)
    return config if isinstance(config, TrainingConfig) else resolved


def _with(config: TrainingConfig, settings: Mapping[str, Any], where: str) -> TrainingConfig:
    if not settings:
        return config
    kinds: dict[str, Any] = {field.name: field for field in attrs.fields(TrainingConfig) if field.name != "unknown"}
    plain = codec.to_dict(config)
    for name in settings:
        if name not in kinds:
            raise InputError(
                "configure a training", f"the {where} has {name!r:.60}, which is no setting", near_matches(name, kinds)
            )
    try:
        for name, value in settings.items():
            own = kinds[name].converter if isinstance(plain[name], str) else None  # what is kept as text
            plain[name] = own(value) if own else _value(value, like=plain[name])
        return codec.from_dict(TrainingConfig, plain, "the settings")
    except HydraDetectError as error:
        found = f"in the {where}, {error.found}"
        raise InputError("configure a training", found, _SEE) from None


def _value(value: Any, *, like: Any) -> Any:
    """Return a plain value of the kind that the codec takes; a text may come from a command line."""
    if isinstance(like, int) and isinstance(value, str | float):
        number = _parsed(value) if isinstance(value, str) else value
        return int(number) if isinstance(number, float) and number.is_integer() else number  # 8e9 bytes
    if isinstance(value, tuple | list):
        return [_value(item, like="") for item in value]
    if not isinstance(value, str) or isinstance(like, str):
        return value
    if not isinstance(like, list) or value.lstrip().startswith("["):
        return _parsed(value)
    rows = [[_parsed(item.strip()) for item in row.split(",") if item.strip()] for row in value.split("/")]
    return rows if len(rows) > 1 else rows[0]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a name; where there should be a number the codec refuses it, naming the setting


def _read(path: Path) -> Mapping[str, Any]:
    asked = f"read the settings in {path}"
    remedy = "Give a .toml or .json file with a setting a line, as epochs = 20."
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(asked, error.strerror or str(error), "Check the path.") from error
    if len(data) > _MOST_BYTES or path.suffix not in {".toml", ".json"}:
        raise InputError(asked, f"it is a {path.suffix!r} file of {len(data)} bytes", remedy)
    try:
        value = tomllib.loads(data.decode()) if path.suffix == ".toml" else json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(asked, f"it cannot be parsed ({str(error)[:200]})", remedy) from None
    if not isinstance(value, dict):
        raise InputError(asked, "it holds no settings by name", remedy)
    return value
