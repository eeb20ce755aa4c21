"""The options of `hydra-detect split`: the settings of a split as a command line can say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from hydra_detect.cli.options import Integer  # noqa: TC001  cyclopts reads annotations as it runs
from hydra_detect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SplitOptions:
    """What the weights cannot tell; each is torchvision's default for the architecture unless given."""

    preset: Annotated[str | None, Parameter(help="settings by name, such as fasterrcnn_mobilenet_v3_large_320_fpn")] = (
        None
    )
    min_size: Annotated[Integer | None, Parameter(help="shorter side of the resized picture, pixels")] = None
    max_size: Annotated[Integer | None, Parameter(help="limit of its longer side, pixels")] = None
    mean: Annotated[str | None, Parameter(help="per channel, as in 0.485,0.456,0.406")] = None
    std: Annotated[str | None, Parameter(help="per channel, as in 0.229,0.224,0.225")] = None
    size_divisor: Annotated[Integer | None, Parameter(help="pictures are padded to a multiple of this")] = None
    norm_eps: Annotated[float | None, Parameter(help="eps of the body's BatchNorm")] = None
    pyramid_norm_eps: Annotated[float | None, Parameter(help="eps of the pyramid's BatchNorm")] = None
    box_norm_eps: Annotated[float | None, Parameter(help="eps of the box head's BatchNorm")] = None
    return_layers: Annotated[str | None, Parameter(help="modules of the body that enter the pyramid, as in 4,7,16")] = (
        None
    )
    anchor_sizes: Annotated[
        str | None, Parameter(help="pixels; levels apart by '/', as in 16,24/32,48/64,96/128,192")
    ] = None
    aspect_ratios: Annotated[str | None, Parameter(help="height/width; levels apart by '/', or one level for all")] = (
        None
    )
    rpn_pre_nms_top_n: Annotated[Integer | None, Parameter(help="proposals per level before suppression")] = None
    rpn_post_nms_top_n: Annotated[Integer | None, Parameter(help="proposals per picture after suppression")] = None
    rpn_nms_threshold: Annotated[float | None, Parameter(help="overlap above which proposals suppress")] = None
    rpn_score_threshold: Annotated[float | None, Parameter(help="objectness below which proposals are dropped")] = None
    roi_levels: Annotated[str | None, Parameter(help="pyramid levels that boxes are pooled from, as in 0,1,2,3")] = None
    roi_sampling_ratio: Annotated[Integer | None, Parameter(help="samples per bin and axis in RoIAlign")] = None
    score_threshold: Annotated[float | None, Parameter(help="score above which boxes are kept")] = None
    nms_threshold: Annotated[float | None, Parameter(help="overlap above which boxes of a class suppress")] = None
    detections_per_image: Annotated[Integer | None, Parameter(help="most boxes per picture")] = None
    box_coder_weights: Annotated[str | None, Parameter(help="as in 10,10,5,5")] = None
    operating_threshold: Annotated[float | None, Parameter(help="score at which the head is meant to be used")] = None
    operating_threshold_chosen_on: Annotated[str | None, Parameter(help="the data it was chosen on")] = None
    sample_count: Annotated[Integer | None, Parameter(help="labelled samples the head was trained on")] = None
    claimed_metrics: Annotated[str | None, Parameter(help="kept as a claim, as in f1=0.93,ap50=0.9")] = None
    notes: Annotated[str | None, Parameter(help="free text for the record")] = None

    def to_settings(self) -> dict[str, Any]:
        """Return the options that were given, as `split_checkpoint(settings=...)` takes them.

        Raises:
            InputError: For a list that cannot be read; the option is named.

        """
        said = {field.name: getattr(self, field.name) for field in attrs.fields(SplitOptions)}
        settings = {name: value for name, value in said.items() if value is not None}
        for name, read in _LISTS.items():
            if name in settings:
                settings[name] = _read(name, settings[name], read)
        return settings


def _read(name: str, text: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(text)
    except ValueError:
        raise InputError(
            f"read --{name.replace('_', '-')}", f"{text!r:.80} has another form", "See hydra-detect split --help."
        ) from None


def _numbers(text: str) -> list[float]:
    return [float(item) for item in text.split(",")]


def _rows(text: str) -> list[list[float]]:
    return [_numbers(row) for row in text.split("/")]


def _names(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _pairs(text: str) -> dict[str, float]:
    pairs = (item.partition("=") for item in text.split(","))
    return {name.strip(): float(value) for name, _equals, value in pairs}


_LISTS: dict[str, Callable[[str], Any]] = {
    "mean": _numbers,
    "std": _numbers,
    "box_coder_weights": _numbers,
    "anchor_sizes": _rows,
    "aspect_ratios": _rows,
    "return_layers": _names,
    "roi_levels": _names,
    "claimed_metrics": _pairs,
}
