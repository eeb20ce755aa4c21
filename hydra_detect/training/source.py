"""Where a training gets what it sees: samples in, features with boxes and labels out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torchvision.models.detection.transform import resize_boxes

from hydra_detect.training.features import Seen
from hydra_detect.training.views import see

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from hydra_detect.data.samples import Sample
    from hydra_detect.training.augment import Augmenter
    from hydra_detect.training.features import Encoded, FrozenFeatures


class Source(Protocol):
    """What the loop asks for samples."""

    def draw(self, sample: Sample) -> Seen:
        """Return one sample to learn from, as chance has it."""

    def plain(self, sample: Sample) -> Seen:
        """Return one sample as it is."""


class CachedSource:
    """Samples seen in one of several views, of which the backbone computes each once.

    Args:
        features: The frozen backbone's.
        class_names: Names of labels 1, 2, ...
        views: What chance chooses from.

    """

    def __init__(self, features: FrozenFeatures, class_names: Sequence[str], *, views: Sequence[str]) -> None:
        self.features = features
        self.views = tuple(views)
        self._numbers = numbers_of(class_names)

    def draw(self, sample: Sample) -> Seen:
        """Return a sample in a random view."""
        return self._seen(sample, self.views[int(torch.randint(len(self.views), ()))])

    def plain(self, sample: Sample) -> Seen:
        """Return a sample as it is."""
        return self._seen(sample, "plain")

    def _seen(self, sample: Sample, view: str) -> Seen:
        boxes, labels = truth_of(sample, self._numbers)
        height, width = sample.truth.image_size
        # Of the picture no more than its frame is needed: a view turns boxes by its sides.
        _frame, turned = see(view, torch.empty(0, height, width), boxes)
        return joined(self.features.of(sample, view), turned, labels, sample.id)


class FreshSource:
    """Samples whose pictures are augmented anew each time, at the cost of a backbone pass.

    Args:
        features: The frozen backbone's.
        class_names: Names of labels 1, 2, ...
        augmenter: What changes a picture.

    """

    def __init__(self, features: FrozenFeatures, class_names: Sequence[str], *, augmenter: Augmenter) -> None:
        self.features = features
        self.augmenter = augmenter
        self._numbers = numbers_of(class_names)

    def draw(self, sample: Sample) -> Seen:
        """Return a sample with its picture changed by chance."""
        pixels, boxes, labels = self.augmenter(self.features.pixels(sample), *truth_of(sample, self._numbers))
        return joined(self.features.fresh(pixels), boxes, labels, sample.id)

    def plain(self, sample: Sample) -> Seen:
        """Return a sample as it is."""
        return joined(self.features.of(sample), *truth_of(sample, self._numbers), sample.id)


def numbers_of(class_names: Sequence[str]) -> dict[str, int]:
    """Return the label of each class, from 1."""
    return {name: number for number, name in enumerate(class_names, start=1)}


def truth_of(sample: Sample, numbers: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Return boxes [N, 4] xyxy float32 in pixels of the picture, and labels [N] int64."""
    boxes = torch.from_numpy(sample.truth.boxes.copy()).reshape(-1, 4)
    return boxes, torch.tensor([numbers[name] for name in sample.truth.label_names], dtype=torch.int64)


def joined(encoded: Encoded, boxes: Tensor, labels: Tensor, sample: str) -> Seen:
    """Return features with the boxes that belong to them, which are in pixels of the picture."""
    device = next(iter(encoded.maps.values())).device
    resized = resize_boxes(boxes, encoded.original_size, encoded.size)
    return Seen(encoded=encoded, boxes=resized.to(device), labels=labels.to(device), sample=sample)
