"""Outcomes: what became of every candidate box of many pictures, in one table.

Owns the table from which precision, recall, calibration and thresholds follow without looking at a picture again.
Boxes are matched once, in order of score: what a higher threshold leaves is always the first part of that order, so
the matching holds at every threshold. The table becomes tensors, to be kept beside the version that it judges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from hydra_detect import codec, fields
from hydra_detect.detections import box_iou
from hydra_detect.errors import CorruptError, HydraDetectError, InputError, RecordError, listed, near_matches
from hydra_detect.measure import columns
from hydra_detect.measure.columns import SAME, Flags, Floats, Integers
from hydra_detect.measure.matching import assign, check_pictures
from hydra_detect.tensors import RawTensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from hydra_detect.detections import Detections, GroundTruth

_ASKED = "judge detections"
_NAMES = "names"
_DTYPES = {"scores": "F32", "hits": "BOOL", "labels": "I64", "images": "I64", "places": "F32", "truths": "I64"}
_NUMPY = {"F32": "<f4", "BOOL": "?", "I64": "<i8"}


@attrs.frozen(kw_only=True)
class Outcomes:
    """Every candidate box of P pictures, whether it hit, and how many labelled boxes of C classes there were.

    Args:
        scores: [N] float32 in [0, 1], raw, as the head gave them.
        hits: [N] bool, whether the candidate took a labelled box of its class.
        labels: [N] int64, its class, from 1: `class_names[label - 1]`.
        images: [N] int64, its picture, from 0.
        places: [N, 4] float32, centre x, centre y, width and height as fractions of the picture's sides.
        truths: [P, C] int64, how many labelled boxes of each class each picture has.
        class_names: C names.
        groups: P names; pictures of one group (one recording, one slide) are no independent evidence.
        iou: The least overlap that counted as a hit.

    Raises:
        InputError: If the columns do not belong together.

    """

    scores: Floats = attrs.field(converter=columns.floats, eq=SAME)
    hits: Flags = attrs.field(converter=columns.flags, eq=SAME)
    labels: Integers = attrs.field(converter=columns.integers, eq=SAME)
    images: Integers = attrs.field(converter=columns.integers, eq=SAME)
    places: Floats = attrs.field(converter=columns.floats, eq=SAME)
    truths: Integers = attrs.field(converter=columns.integers, eq=SAME)
    class_names: tuple[str, ...] = attrs.field(converter=fields.texts)
    groups: tuple[str, ...] = attrs.field(converter=fields.texts)
    iou: float = attrs.field(default=0.5, converter=fields.one_float)

    def __attrs_post_init__(self) -> None:
        """Refuse columns that do not belong together."""
        count, pictures, classes = len(self.scores), len(self.groups), len(self.class_names)
        fitting = dict.fromkeys(_DTYPES, (count,)) | {"places": (count, 4), "truths": (pictures, classes)}
        shapes = {name: getattr(self, name).shape for name in _DTYPES}
        wrong = [f"{name} is {list(shapes[name])}" for name, shape in fitting.items() if shapes[name] != shape]
        if wrong:
            raise _unfit(f"for {count} candidates, {pictures} pictures and {classes} classes, {listed(wrong)}")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise _unfit("a score is NaN or outside [0, 1]")
        if not (_within(self.labels, 1, classes + 1) and _within(self.images, 0, pictures)):
            raise _unfit(f"a label is not from 1 to {classes}, or a picture not from 0 to {pictures - 1}")
        if (self.count(self.hits) > self.truths).any():
            raise _unfit("a picture has more hits of a class than labelled boxes")

    def __len__(self) -> int:
        """Count the candidates."""
        return len(self.scores)

    def count(self, chosen: Flags) -> Integers:
        """Count the chosen candidates per picture and class.

        Args:
            chosen: [N] bool.

        Returns:
            [P, C] int64.

        """
        cells = self.images[chosen] * len(self.class_names) + self.labels[chosen] - 1
        return np.bincount(cells, minlength=self.truths.size).reshape(self.truths.shape).astype(np.int64)

    def to_tensors(self) -> dict[str, RawTensor]:
        """Return one tensor per column, and in `names` the class names, groups and overlap as JSON.

        Raises:
            RecordError: If the names are more than 64 MiB.

        """
        names = _Names(class_names=self.class_names, groups=self.groups, iou=self.iou)
        tensors = {name: RawTensor.of(getattr(self, name)) for name in _DTYPES}
        return tensors | {
            _NAMES: RawTensor.of(np.frombuffer(codec.encode(names, limit=codec.MAX_LIST_BYTES), dtype=np.uint8))
        }

    def check_classes(self, class_names: Sequence[str], what: str) -> Self:
        """Return the same, once they are seen to be of the classes of a head.

        Args:
            class_names: Those of the head.
            what: What they are, for the error.

        Raises:
            RecordError: If they are of others: a policy that is fitted to them would be of no class of the head.

        """
        if self.class_names != tuple(class_names):
            found = f"they are of the classes {listed(self.class_names)}, and the head finds {listed(class_names)}"
            raise RecordError(f"use {what}", found, "Calibrate the head on samples of its own classes.")
        return self

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, RawTensor]) -> Self:
        """Read what `to_tensors` gave; tensors of other names are passed over.

        Raises:
            CorruptError: If a tensor is missing or of another dtype, or they do not belong together.

        """
        expected = {**_DTYPES, _NAMES: "U8"}
        wrong = [name for name, dtype in expected.items() if name not in tensors or tensors[name].dtype != dtype]
        if wrong:
            raise _damaged(f"missing or of another dtype: {listed(wrong)}")
        found = {
            name: np.frombuffer(tensors[name].data, dtype=_NUMPY[dtype]).reshape(tensors[name].shape)
            for name, dtype in _DTYPES.items()
        }
        try:
            names = codec.decode(
                _Names, bytes(tensors[_NAMES].data), "the names of outcomes", limit=codec.MAX_LIST_BYTES
            )
            return cls(**found, class_names=names.class_names, groups=names.groups, iou=names.iou)
        except HydraDetectError as error:
            raise _damaged(error.found) from None


@attrs.frozen(kw_only=True)
class _Names(codec.Record):
    class_names: tuple[str, ...]
    groups: tuple[str, ...]
    iou: float


def _unfit(found: str) -> InputError:
    return InputError("make outcomes", found, "Let judge make them, or read them as they were written.")


def _damaged(found: str) -> CorruptError:
    return CorruptError("read outcomes", found, "Restore the file from a copy, or judge the detections again.")


def _within(values: Integers, low: int, end: int) -> bool:
    return bool(((values >= low) & (values < end)).all())


def judge(
    detections: Sequence[Detections],
    truths: Sequence[GroundTruth],
    *,
    class_names: Sequence[str],
    groups: Sequence[str] | None = None,
    iou: float = 0.5,
) -> Outcomes:
    """Match the candidates of many pictures with their labels; a box matches only a label of its own class name.

    Args:
        detections: One per picture, with raw scores, down to the head's own low threshold.
        truths: The labels of the same pictures in the same order.
        class_names: The classes to judge.
        groups: One name per picture; by default each picture is a group of its own.
        iou: Least overlap of a hit, above 0 and up to 1.

    Returns:
        The table, in the order of the pictures, within a picture in the order given.

    Raises:
        InputError: If the lengths differ, a box or label is of a class that is not among the names, or the size of a
            picture is unknown or not the same on both sides.

    """
    check_pictures(detections, truths, groups)
    numbers = numbered(class_names)
    pairs = enumerate(zip(detections, truths, strict=True))
    rows = [_judge_one(d, t, numbers=numbers, iou=iou, picture=picture) for picture, (d, t) in pairs]
    labels, hits, places, present = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Outcomes(
        scores=_joined([d.scores for d in detections]),
        hits=_joined(hits),
        labels=_joined(labels),
        images=np.repeat(np.arange(len(rows)), [len(d) for d in detections]),
        places=_joined(places).reshape(-1, 4),
        truths=_joined(present).reshape(len(rows), len(numbers)),
        class_names=numbers,
        groups=map(str, range(len(rows))) if groups is None else groups,
        iou=iou,
    )


def _judge_one(
    detections: Detections, truth: GroundTruth, *, numbers: Mapping[str, int], iou: float, picture: int
) -> tuple[Integers, Flags, NDArray[np.float64], Integers]:
    """Return labels [n], hits [n], places [n, 4] and the number of labelled boxes per class [C] of one picture."""
    labels = class_numbers(detections.label_names.tolist(), numbers, f"a detection in picture {picture}")
    present = class_numbers(truth.label_names, numbers, f"a label in picture {picture}")
    overlaps = np.where(labels[:, None] == present[None], box_iou(detections.boxes, truth.boxes), np.float32(-1))
    hits = assign(overlaps, detections.scores, iou=iou).hits
    return labels, hits, _places(detections, truth, picture), np.bincount(present, minlength=len(numbers) + 1)[1:]


def numbered(class_names: Sequence[str]) -> dict[str, int]:
    """Return the number of each class, from 1.

    Args:
        class_names: Different names, in order.

    Raises:
        InputError: If a name stands twice, or one text was given for a list of names.

    """
    numbers = {name: number for number, name in enumerate(class_names, start=1)}
    if isinstance(class_names, str) or len(numbers) != len(class_names):
        raise InputError(_ASKED, "class_names is one text or has a name twice", "Give a list of different names.")
    return numbers


def class_numbers(names: Iterable[str], numbers: Mapping[str, int], what: str) -> Integers:
    """Return the number of each class name.

    Args:
        names: N class names.
        numbers: The number of each class that is judged.
        what: Whose names they are, for the error.

    Raises:
        InputError: If one is not among them: a mistyped class would else only look like a bad head.

    """
    try:
        return np.array([numbers[name] for name in names], dtype=np.int64)
    except KeyError as error:
        name = error.args[0]
        found = f"{what} is of class {name!r:.80}, which is not among the classes to judge"
        remedy = f"Leave it out, by Detections.filter or GroundTruth.only. {near_matches(name, numbers)}"
        raise InputError(_ASKED, found, remedy, class_name=name) from None


def _places(detections: Detections, truth: GroundTruth, picture: int) -> NDArray[np.float64]:
    known = {size for size in (detections.image_size, truth.image_size) if size != (0, 0)}
    if len(known) > 1:
        found = f"picture {picture} is {detections.image_size} to its detections and {truth.image_size} to its labels"
        raise InputError(_ASKED, found, "Give both in pixels of the same picture.")
    if not len(detections):
        return np.zeros((0, 4))
    height, width = next(iter(known), (0, 0))
    if not height or not width:
        raise InputError(_ASKED, f"picture {picture} has no size", "Give image_size as (height, width) in pixels.")
    boxes = detections.boxes.astype(np.float64)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([centres, sides], axis=1) / (width, height, width, height)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)
