"""Anchors fitted to labels, and how well anchors cover them.

Anchors are shapes at every position of a level; a label that no anchor resembles is hard to learn (Redmon and Farhadi
2017, arXiv:1612.08242, section 2). torchvision crosses sizes with aspect ratios on each level, so both are fitted
apart: ratios over all labels, sizes over those labels that belong to a level. All in pixels of the network input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from hydra_detect.errors import InputError, listed_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hydra_detect.contracts import Preprocessing
    from hydra_detect.data.samples import Samples
    from hydra_detect.training.config import TrainingConfig

_ROUNDS = 100
_TYPICAL = 8  # torchvision's anchors are 32 pixels on the level of stride 4, and so on: 8 strides


@attrs.frozen(kw_only=True)
class Anchors:
    """Anchor shapes, level by level.

    Args:
        sizes: For each level square roots of areas, pixels of the network input.
        ratios: For each level height / width.

    """

    sizes: tuple[tuple[float, ...], ...]
    ratios: tuple[tuple[float, ...], ...]

    def shapes(self) -> NDArray[np.float64]:
        """Return every shape as [anchor, (width, height)]."""
        rows = [
            (size / ratio**0.5, size * ratio**0.5)
            for sizes, ratios in zip(self.sizes, self.ratios, strict=True)
            for size in sizes
            for ratio in ratios
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 2)


@attrs.frozen(kw_only=True)
class Coverage:
    """How well anchors resemble labels, position apart.

    Args:
        boxes: Labels that were compared.
        mean_iou: Mean over labels of the overlap with the anchor that resembles it most; 0 without labels.
        at_half: Share of labels for which that overlap is at least 0.5.

    """

    boxes: int
    mean_iou: float
    at_half: float


def coverage(anchors: Anchors, sides: NDArray[np.float64]) -> Coverage:
    """Compare anchors with labels.

    Args:
        anchors: The shapes.
        sides: [label, (width, height)], pixels of the network input.

    """
    if not len(sides):
        return Coverage(boxes=0, mean_iou=0.0, at_half=0.0)
    best = _shape_iou(sides, anchors.shapes()).max(axis=1)
    return Coverage(boxes=len(sides), mean_iou=float(best.mean()), at_half=float((best >= 0.5).mean()))  # noqa: PLR2004  as named


def usual_anchors(strides: Sequence[int]) -> Anchors:
    """Return torchvision's default anchors for levels of these strides: 8 strides, and three aspect ratios."""
    sizes = tuple((float(_TYPICAL * stride),) for stride in strides)
    return Anchors(sizes=sizes, ratios=((0.5, 1.0, 2.0),) * len(strides))


def label_sides(samples: Samples, preprocessing: Preprocessing) -> NDArray[np.float64]:
    """Return [label, (width, height)] of all labelled boxes in pixels of the network input."""
    rows = [np.zeros((0, 2))]
    for sample in samples:
        short, long = sorted(sample.truth.image_size)
        scale = min(preprocessing.min_size / short, preprocessing.max_size / long)
        boxes = sample.truth.boxes.astype(np.float64)
        rows.append((boxes[:, 2:] - boxes[:, :2]) * scale)
    return np.concatenate(rows)


def chosen_anchors(
    config: TrainingConfig, own: Anchors, strides: Sequence[int], sides: NDArray[np.float64], *, seed: int
) -> Anchors:
    """Return the anchors that a training asks for.

    Args:
        config: Its settings.
        own: Anchors of what it starts with.
        strides: Of the levels in pixels, finest first.
        sides: [label, (width, height)] of the training labels, pixels of the network input.
        seed: Of the first centres.

    Raises:
        InputError: If sizes are given for another number of levels.

    """
    if config.anchors == "kmeans":
        own = fit_anchors(sides, strides, seed=seed)
    elif config.anchors == "default":
        own = usual_anchors(strides)
    if len(config.anchor_sizes) not in {0, len(strides)}:
        found = f"there are sizes for {len(config.anchor_sizes)} levels, and the backbone has {len(strides)}"
        raise InputError("give anchor_sizes", found, f"Its levels have strides of {listed_numbers(strides)} pixels.")
    ratios = (config.aspect_ratios,) * len(strides) if config.aspect_ratios else own.ratios
    return Anchors(sizes=config.anchor_sizes or own.sizes, ratios=ratios)


def fit_anchors(
    sides: NDArray[np.float64], strides: Sequence[int], *, sizes: int = 1, ratios: int = 3, seed: int = 0
) -> Anchors:
    """Fit anchors to labels by k-means on logarithms.

    Args:
        sides: [label, (width, height)], pixels of the network input.
        strides: Of the levels in pixels, finest first.
        sizes: Anchor sizes per level.
        ratios: Aspect ratios.
        seed: Of the first centres.

    Returns:
        Anchors with `sizes` times `ratios` shapes on every level. A level that no label belongs to keeps the size
        that is usual for its stride, 8 times that, moved as the labels of the others are. The usual anchors without
        labels, or if there are as many of them and they resemble the labels more.

    """
    usual = usual_anchors(strides)
    if not len(sides):
        return usual
    source = np.random.default_rng(seed)
    logs = np.log2(np.sqrt(sides.prod(axis=1)))
    shape = _centres(np.log2(sides[:, 1] / sides[:, 0]), ratios, source)
    own = np.log2(_TYPICAL * np.asarray(strides, dtype=np.float64))  # the level's usual size
    level = np.abs(logs[:, None] - own[None]).argmin(axis=1)
    shift = float(np.median(logs - own[level]))
    fitted = []
    for place, usual_size in enumerate(own):
        mine = logs[level == place]
        centres = _centres(mine, sizes, source) if len(mine) else usual_size + shift + np.arange(sizes) / sizes
        fitted.append(_rounded(centres))
    anchors = Anchors(sizes=tuple(fitted), ratios=(_rounded(shape),) * len(strides))
    # k-means ends in an optimum that is local, and of distances, not overlaps: now and then it is worth less.
    is_worse = coverage(anchors, sides).mean_iou < coverage(usual, sides).mean_iou
    return usual if is_worse and (sizes, ratios) == (1, len(usual.ratios[0])) else anchors


def _rounded(logs: NDArray[np.float64]) -> tuple[float, ...]:
    """Return powers of 2 to four digits: a shape a thousand times as wide as high is still one."""
    return tuple(float(f"{2**value:.4g}") for value in logs)


def _centres(values: NDArray[np.float64], count: int, source: np.random.Generator) -> NDArray[np.float64]:
    """Return `count` centres of numbers, ascending: Lloyd's rounds from k-means++ (Arthur and Vassilvitskii 2007)."""
    centres = np.array([source.choice(values)])
    while len(centres) < count:
        far = ((values[:, None] - centres[None]) ** 2).min(axis=1)
        total = far.sum()
        # Fewer distinct numbers than centres: the rest lies beside them, so that shapes stay distinct.
        new = source.choice(values, p=far / total) if total > 0 else centres[-1] + 0.25
        centres = np.append(centres, new)
    for _round in range(_ROUNDS):
        nearest = np.abs(values[:, None] - centres[None]).argmin(axis=1)
        moved = np.array([values[nearest == k].mean() if (nearest == k).any() else centres[k] for k in range(count)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return np.sort(centres)


def _shape_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [N, M] overlaps of shapes [N, (width, height)] and [M, (width, height)] that share a centre."""
    shared = np.minimum(first[:, None], second[None]).prod(axis=2)
    union = first.prod(axis=1)[:, None] + second.prod(axis=1)[None] - shared
    overlaps: NDArray[np.float64] = shared / union
    return overlaps
