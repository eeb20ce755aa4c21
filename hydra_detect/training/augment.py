"""Augmentations: random changes of whole pictures for fresh features, and of boxes and features for cached ones.

A user's own augmentation is any callable of the signature of `Augmentation`, which is that of torchvision's
transforms.v2, so each of those is one too. Random numbers are torch's own: a training sets their seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from hydra_detect.errors import InputError, TrainingError, listed
from hydra_detect.training.extensions import AUGMENTATIONS, form, found, names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hydra_detect.training.features import Seen

_OF_LIGHT, _LIGHT_CHANNELS = frozenset({"brightness", "contrast", "colour"}), (1, 3)  # which torchvision's can change
_LEAST_SIDE = 2.0  # pixels: what a crop leaves of a box below that is no object any more

Augmentation = Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]
"""Takes and returns a picture (`tv_tensors.Image`, float32 in [0, 1]) and a target with `boxes`
(`tv_tensors.BoundingBoxes`, xyxy) and `labels` [N] int64."""

_FORM = (
    "Return (picture, target): a float32 tensor [channel, height, width], and a mapping with boxes, as "
    "tv_tensors.BoundingBoxes in XYXY of that picture's size, and labels, int64, one for each box."
)


def _time_shift(picture: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Move a spectrogram in time by up to a tenth of it; what goes out at one end comes in at the other.

    So do boxes: one that the end cuts in two becomes two.
    """
    width = picture.shape[-1]
    most = width // 10
    by = int(torch.randint(-most, most + 1, ()))
    boxes, labels = target["boxes"].as_subclass(torch.Tensor), target["labels"]
    again = by - width if by > 0 else by + width  # where what has gone out comes in
    both = torch.cat([boxes + boxes.new_tensor([shift, 0, shift, 0]) for shift in (by, again)])
    framed = tv_tensors.BoundingBoxes(both, format="XYXY", canvas_size=picture.shape[-2:])
    moved = {**target, "boxes": framed, "labels": torch.cat([labels, labels])}
    least = _least_side(target["boxes"])
    return _kept(tv_tensors.Image(picture.roll(by, dims=-1)), moved, least=least)


def _gain(picture: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make a spectrogram in decibels louder or quieter by up to a tenth of its range."""
    by = float(torch.empty(()).uniform_(-0.1, 0.1))
    return tv_tensors.Image((picture + by).clamp(0, 1)), target


def _time_mask(picture: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Silence up to a twentieth of the time (Park et al. 2019, arXiv:1904.08779)."""
    return _masked(picture, axis=-1), target


def _frequency_mask(picture: Any, target: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Silence up to a twentieth of the band (Park et al. 2019, arXiv:1904.08779)."""
    return _masked(picture, axis=-2), target


def _masked(picture: Any, *, axis: int) -> Any:
    side = picture.shape[axis]
    length = int(torch.randint(0, max(1, side // 20) + 1, ()))
    start = int(torch.randint(0, side - length + 1, ()))
    masked = picture.clone()
    masked.narrow(axis, start, length).fill_(float(picture.mean()))
    return tv_tensors.Image(masked)


def _kept(picture: Any, target: dict[str, Any], *, least: float) -> tuple[Any, dict[str, Any]]:
    """Clip boxes to the picture and drop those of which no side of `least` pixels is left, with their labels."""
    boxes = v2.functional.clamp_bounding_boxes(target["boxes"])
    whole = _sides(boxes).amin(dim=1) >= least  # [N]; torchvision's own sanitising knows no side below a pixel
    return picture, {**target, "boxes": tv_tensors.wrap(boxes[whole], like=boxes), "labels": target["labels"][whole]}


def _least_side(boxes: Tensor) -> float:
    """Return the side below which a box was made small by an augmentation: labels may be thinner than that."""
    return min([_LEAST_SIDE, *(_sides(boxes) / 2).flatten().tolist()])


def _sides(boxes: Tensor) -> Tensor:
    """Return [N, (width, height)] of boxes [N, 4] xyxy."""
    corners = boxes.as_subclass(torch.Tensor)
    return corners[:, 2:] - corners[:, :2]


def built_in() -> Mapping[str, Augmentation]:
    """Return our own augmentations by name, made anew: a transform of torchvision's is an object."""
    return {
        "hflip": v2.RandomHorizontalFlip(),
        "vflip": v2.RandomVerticalFlip(),
        "rotate": v2.RandomRotation(15),
        "brightness": v2.ColorJitter(brightness=0.2),
        "contrast": v2.ColorJitter(contrast=0.2),
        "colour": v2.ColorJitter(saturation=0.2, hue=0.03),
        "blur": v2.RandomApply([v2.GaussianBlur(3)], p=0.3),
        "crop": v2.RandomApply([v2.RandomIoUCrop(min_scale=0.5, max_scale=1.0)], p=0.5),
        "time_shift": _time_shift,
        "gain": _gain,
        "time_mask": _time_mask,
        "frequency_mask": _frequency_mask,
    }


def list_augmentations() -> list[str]:
    """Return the names that `TrainingConfig.augmentations` may have: ours, and those of installed packages."""
    return names(built_in(), AUGMENTATIONS)


@attrs.frozen
class Augmenter:
    """Several augmentations, each with its name, one after another."""

    steps: tuple[tuple[str, Augmentation], ...]

    @classmethod
    def named(
        cls, wanted: Sequence[str], given: Mapping[str, Augmentation] | None = None, *, channels: int = 3
    ) -> Augmenter:
        """Return the augmentations of these names: given, our own, or an installed package's.

        Args:
            wanted: The names.
            given: Those that the caller brings along.
            channels: Of the pictures.

        Raises:
            InputError: If there is none of a name, or two, or it cannot change pictures of so many channels.

        """
        own = built_in()
        unfit = sorted({name for name in wanted if name in _OF_LIGHT}) if channels not in _LIGHT_CHANNELS else []
        if unfit:
            found_here = f"{listed(unfit)} change pictures of 1 or 3 channels, and the backbone takes {channels}"
            raise InputError("augment pictures", found_here, "Name others, as augmentations=hflip,crop.")
        return cls(tuple((name, found(name, own, group=AUGMENTATIONS, given=given)) for name in wanted))

    def __call__(self, pixels: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a changed picture [channel, height, width] with its boxes [N, 4] xyxy and labels [N].

        Raises:
            TrainingError: If an augmentation does not return a picture and a target.

        """
        framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=pixels.shape[-2:])
        picture, target = tv_tensors.Image(pixels), {"boxes": framed, "labels": labels}
        for name, step in self.steps:
            changed = step(picture, target)
            problem = _problem(changed, channels=len(pixels))
            if problem:
                raise TrainingError(f"augment with {name!r:.60}", f"it returned {problem}", _FORM, augmentation=name)
            picture, target = changed
        picture, target = _kept(picture, target, least=_least_side(boxes))
        return (
            picture.as_subclass(torch.Tensor),
            target["boxes"].as_subclass(torch.Tensor),
            target["labels"],
        )


def _problem(changed: object, *, channels: int) -> str:
    """Return what is wrong with what an augmentation returned; nothing if it is a picture and a target."""
    if not isinstance(changed, tuple | list) or len(changed) != 2:  # noqa: PLR2004  as unpacked
        return form(changed)
    picture, target = changed
    if not _is_tensor(picture, torch.float32, axes=3) or len(picture) != channels:
        return f"{form(picture)} for a picture of {channels} channels"
    if not isinstance(target, Mapping):
        return f"{form(target)} for a target"
    return _target_problem(target.get("boxes"), target.get("labels"), size=tuple(picture.shape[-2:]))


def _target_problem(boxes: Any, labels: Any, *, size: tuple[int, ...]) -> str:
    if not isinstance(boxes, tv_tensors.BoundingBoxes):
        return f"{form(boxes)} for boxes"
    if boxes.format != tv_tensors.BoundingBoxFormat.XYXY or tuple(boxes.canvas_size) != size:
        return f"boxes in {boxes.format.name} of {tuple(boxes.canvas_size)} in a picture of {size}"
    if not _is_tensor(labels, torch.int64, axes=1):
        return f"{form(labels)} for labels"
    return "" if len(boxes) == len(labels) else f"{len(boxes)} boxes and {len(labels)} labels"


def _is_tensor(value: object, dtype: torch.dtype, *, axes: int) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == dtype and value.dim() == axes


def perturbed(seen: Seen, *, box_jitter: float, feature_noise: float) -> Seen:
    """Return what a training sees with noise on the edges of its boxes and on its features.

    Args:
        seen: A picture.
        box_jitter: Standard deviation, as a share of each box's sides; a box keeps at least half of each side.
        feature_noise: Standard deviation, as a share of each map's own.

    """
    if box_jitter and len(seen.boxes):
        sides = (seen.boxes[:, 2:] - seen.boxes[:, :2]).repeat(1, 2)  # [N, (w, h, w, h)]
        noise = (torch.randn_like(seen.boxes) * box_jitter).clamp(-0.25, 0.25)
        height, width = seen.encoded.size
        corners = (seen.boxes + noise * sides).clamp(min=0)
        limits = corners.new_tensor([width, height, width, height])
        seen = attrs.evolve(seen, boxes=torch.minimum(corners, limits))
    if feature_noise:
        maps = {
            name: level + torch.randn_like(level) * (level.std() * feature_noise)
            for name, level in seen.encoded.maps.items()
        }
        seen = attrs.evolve(seen, encoded=attrs.evolve(seen.encoded, maps=maps))
    return seen
