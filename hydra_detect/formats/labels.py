"""Labels: what label files say of pictures, and which of their boxes can be used.

Label files made by hand hold slips: boxes without area, boxes beyond the picture. Each format's reader hands on what
stands there as `PictureLabels`; `usable` judges the boxes of all formats by one rule, and counts. What is no box at
all (NaN, corners the wrong way round) has been refused by then, with its place.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import numpy as np

from hydra_detect.detections import GroundTruth
from hydra_detect.formats.rows import wrong

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Box = tuple[float, float, float, float]

NO_AREA = "boxes without area"
OUTSIDE = "boxes outside their picture"
CLIPPED = "parts of boxes outside their picture"
CROWDS = "crowd regions"

_ROUNDING = 0.01  # pixels; fractions of six digits, as most programs write them, err by less in pictures up to 10,000


@attrs.frozen(kw_only=True)
class PictureLabels:
    """What a label file says of one picture, before it is judged.

    Args:
        name: Of the picture's file, as the label file gives it.
        boxes: (x1, y1, x2, y2) each, finite and not inside out; they may have no area and lie anywhere.
        label_names: One class name per box.
        image_size: (height, width) in pixels; None where the format does not tell.
        are_fractions: The boxes are fractions of the picture's sides, not pixels.
        group: What the picture was taken with, if the format tells: a recording, a patient.
        crowds: How many regions of many objects stood there and were left out.
        is_unlabelled: Nobody said anything of it, not even that nothing is there.

    """

    name: str | None
    boxes: Sequence[Box] = ()
    label_names: Sequence[str] = ()
    image_size: tuple[int, int] | None = None
    are_fractions: bool = False
    group: str | None = None
    crowds: int = 0
    is_unlabelled: bool = False

    @property
    def with_area(self) -> PictureLabels:
        """The same without the boxes that have no area."""
        kept = [box[0] < box[2] and box[1] < box[3] for box in self.boxes]
        return attrs.evolve(
            self,
            boxes=[box for box, keep in zip(self.boxes, kept, strict=True) if keep],
            label_names=[name for name, keep in zip(self.label_names, kept, strict=True) if keep],
        )


@attrs.frozen(kw_only=True)
class LabelSet:
    """What the label files of a data set say.

    Args:
        pictures: One for each picture, in the files' order.
        class_names: All classes, those without a box too; None where the format does not list them.
        category_ids: The number that each class has in the files, where it has one.

    """

    pictures: Sequence[PictureLabels]
    class_names: Sequence[str] | None = None
    category_ids: Mapping[str, int] = attrs.field(factory=dict)


def upright(box: Box, *, asked: str, place: str) -> Box:
    """Return the box if its corners are the upper left and the lower right one, in this order.

    Raises:
        InputError: If they are the wrong way round.

    """
    if box[2] < box[0] or box[3] < box[1]:
        raise wrong(asked, f"{place} is {list(box)}, with x2 < x1 or y2 < y1")
    return box


def usable(labels: PictureLabels, image_size: tuple[int, int]) -> tuple[GroundTruth, Counter[str]]:
    """Return the boxes that can be learnt from, and how many could not, by reason.

    A box without area and one wholly outside the picture are left out; one partly outside is clipped to it, and
    counted if more than rounding is lost.

    Args:
        labels: As a reader gave them.
        image_size: (height, width) of the picture in pixels.

    """
    height, width = image_size
    boxes = np.array(labels.boxes, dtype=np.float64).reshape(-1, 4)
    if labels.are_fractions:
        boxes = boxes * (width, height, width, height)
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    inside = np.clip(boxes, 0, (width, height, width, height)).astype(np.float32)  # [box, corner]
    seen = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    lost = np.abs(boxes - inside).max(axis=1, initial=0) > _ROUNDING
    left_out = Counter(
        {
            NO_AREA: int((~solid).sum()),
            OUTSIDE: int((solid & ~seen).sum()),
            CLIPPED: int((seen & lost).sum()),
            CROWDS: labels.crowds,
        }
    )
    names = [name for name, keep in zip(labels.label_names, seen, strict=True) if keep]
    truth = GroundTruth(boxes=inside[seen], label_names=names, image_size=image_size, source=labels.name)
    return truth, +left_out
