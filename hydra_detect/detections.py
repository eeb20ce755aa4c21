"""Detections and ground truth: immutable numpy values, and the one box convention of the library.

A box is (x1, y1, x2, y2) in pixels of the input picture, float32: x to the right, y downwards, the origin at the
upper left corner of the upper left pixel. Coordinates are continuous: width is x2 - x1, and a box over the whole
picture is (0, 0, width, height). No torch and no files here; formats live in `hydra_detect.formats`.
"""

from __future__ import annotations

import operator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray

from hydra_detect.errors import ExtraMissingError, InputError, listed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from PIL import Image

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Strings = NDArray[np.str_]
_CORNERS = 4


def _frozen(values: Any, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.array(values, dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return array


def _scores(values: Any) -> Floats:
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the validator names
        scores: Floats = _frozen(values, np.float32, (-1,))
    return scores


def _integers(values: Any) -> Integers:
    array = np.asarray(values)
    whole: Integers = _frozen(array, np.int64, (-1,))
    if array.dtype.kind == "f" and not np.array_equal(array.reshape(-1), whole):
        raise InputError("number labels", f"they are {listed(map(str, array.reshape(-1)))}", "Give whole numbers.")
    return whole


def _strings(values: Any) -> Strings:
    return _frozen(values, np.str_, (-1,))


def _names(values: Iterable[str]) -> tuple[str, ...]:
    names = () if isinstance(values, str) else tuple(values)
    if isinstance(values, str) or not all(isinstance(name, str) for name in names):
        raise InputError("label boxes", f"the names are {values!r:.80}", "Give a list with the class name of each box.")
    return tuple(map(str, names))


def _size(value: Any) -> tuple[int, int]:
    try:
        height, width = (operator.index(side) for side in value)
    except (TypeError, ValueError):
        height, width = -1, -1
    if height < 0 or width < 0:
        raise InputError("set an image size", f"it is {value!r:.60}", "Give (height, width) as whole numbers from 0.")
    return height, width


def _boxes(values: Any) -> Floats:
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the validator names
        array = np.asarray(values, dtype=np.float32)
    if array.size and (array.ndim != 2 or array.shape[1] != _CORNERS):  # noqa: PLR2004  axes: box, corner
        raise InputError(
            "make boxes", f"their shape is {list(array.shape)}", "Give an array [box, 4] of (x1, y1, x2, y2)."
        )
    boxes: Floats = _frozen(array, np.float32, (-1, _CORNERS))
    return boxes


def _check_boxes(_instance: Any, _attribute: Any, boxes: Floats) -> None:
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            "make boxes",
            f"{int(bad.sum())} of {len(boxes)} are not finite or have x2 < x1 or y2 < y1; the first is box {row}, "
            f"{boxes[row].tolist()}",
            "Give corners as (x1, y1, x2, y2), not as (x, y, width, height).",
        )


def _rebuild(kind: type, values: dict[str, Any]) -> Any:
    return kind(**values)


def box_iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union of each pair of boxes.

    Args:
        first: [N, 4] xyxy.
        second: [M, 4] xyxy.

    Returns:
        [N, M] float32 in [0, 1]; 0 where both boxes have no area.

    """
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]  # [N, 1, 4], [1, M, 4]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio.astype(np.float32)


def _read_only(values: Mapping[str, float]) -> Mapping[str, float]:
    return MappingProxyType(dict(values))


@attrs.frozen
class Timing:
    """Seconds that one picture took; its parts add up to `total`.

    Pictures that ran as one batch carry equal shares of the batch's time.

    Args:
        transform: Reading nothing, only resizing, normalising and padding.
        backbone: The one pass that all heads share.
        heads: For each head its own time, from feature maps to final boxes.
        shared: What the heads that ran share beyond the backbone.

    """

    transform: float = 0.0
    backbone: float = 0.0
    heads: Mapping[str, float] = attrs.field(factory=dict, converter=_read_only)
    shared: float = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields: a read-only mapping cannot be pickled as it is."""
        return Timing, (self.transform, self.backbone, dict(self.heads), self.shared)

    @property
    def total(self) -> float:
        """The whole: transform, backbone, and the heads with what they share."""
        return self.transform + self.backbone + self.shared + sum(self.heads.values())


@attrs.frozen
class GroundTruth:
    """The labelled boxes of one picture.

    Args:
        boxes: [N, 4] xyxy float32, pixels.
        label_names: N class names.
        image_size: (height, width) in pixels.
        source: Path or name of the picture, if known.

    Raises:
        InputError: If a box is not finite or turned inside out, or there is not one name per box.

    """

    boxes: Floats = attrs.field(converter=_boxes, validator=_check_boxes, eq=attrs.cmp_using(eq=np.array_equal))
    label_names: tuple[str, ...] = attrs.field(converter=_names)
    image_size: tuple[int, int] = attrs.field(default=(0, 0), converter=_size)
    source: str | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse names that do not belong to the boxes one to one."""
        if len(self.boxes) != len(self.label_names):
            found = f"there are {len(self.boxes)} boxes and {len(self.label_names)} label names"
            raise InputError("make ground truth", found, "Give one label name per box.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the values given: numpy would bring the arrays back writable."""
        return _rebuild, (type(self), attrs.asdict(self, recurse=False))

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.boxes)

    def only(self, *label_names: str) -> GroundTruth:
        """Return the boxes of these classes alone."""
        kept = [name in label_names for name in self.label_names]
        names = [name for name, keep in zip(self.label_names, kept, strict=True) if keep]
        return attrs.evolve(self, boxes=self.boxes[np.array(kept, dtype=bool)], label_names=names)


@attrs.frozen(kw_only=True)
class Detections:
    """What all heads found in one picture, best score first within each head.

    Args:
        boxes: [N, 4] xyxy float32, pixels of the input picture.
        scores: [N] float32 in [0, 1].
        labels: [N] int64, the class index within the head that found the box, from 1.
        label_names: [N] class names.
        heads: [N] names of the heads.
        head_versions: [N] int64 version numbers of the heads.
        image_size: (height, width) in pixels.
        source: Path or name of the picture, if known.
        timing: Seconds taken.

    Raises:
        InputError: If the arrays differ in length, or a box or score is not finite.

    """

    boxes: Floats = attrs.field(
        factory=lambda: _boxes(()), converter=_boxes, validator=_check_boxes, eq=attrs.cmp_using(eq=np.array_equal)
    )
    scores: Floats = attrs.field(default=(), converter=_scores, eq=attrs.cmp_using(eq=np.array_equal))
    labels: Integers = attrs.field(default=(), converter=_integers, eq=attrs.cmp_using(eq=np.array_equal))
    label_names: Strings = attrs.field(default=(), converter=_strings, eq=attrs.cmp_using(eq=np.array_equal))
    heads: Strings = attrs.field(default=(), converter=_strings, eq=attrs.cmp_using(eq=np.array_equal))
    head_versions: Integers = attrs.field(default=(), converter=_integers, eq=attrs.cmp_using(eq=np.array_equal))
    image_size: tuple[int, int] = attrs.field(default=(0, 0), converter=_size)
    source: str | None = None
    timing: Timing = attrs.field(factory=Timing, eq=False)

    def __attrs_post_init__(self) -> None:
        """Refuse columns of different lengths and scores that are no probability."""
        lengths = {name: len(getattr(self, name)) for name in _COLUMNS}
        if len(set(lengths.values())) != 1:
            raise InputError("make detections", f"the columns have lengths {lengths}", "Give one value per box.")
        if not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise InputError("make detections", "a score is NaN or outside [0, 1]", "Give scores as probabilities.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the values given: numpy would bring the arrays back writable."""
        return _rebuild, (type(self), attrs.asdict(self, recurse=False))

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detections]:
        """Yield each box as Detections of length 1."""
        return (self[[index]] for index in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> Detections:
        """Select by number, slice, list of numbers or boolean mask [N]; the result is always Detections."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                message = f"box {index} of {len(self)}"
                raise IndexError(message)
            index = [int(index)]
        rows = index if isinstance(index, slice) else np.asarray(index)
        if isinstance(rows, np.ndarray) and rows.size == 0:
            rows = np.zeros(0, dtype=np.int64)
        return attrs.evolve(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    @classmethod
    def concat(cls, parts: Sequence[Detections]) -> Detections:
        """Join what several heads found in the same picture; no parts give empty Detections."""
        if not parts:
            return cls()
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        return attrs.evolve(parts[0], **columns)

    def by_head(self) -> dict[str, Detections]:
        """Return the boxes of each head that found any, in order of first appearance."""
        return {str(head): self[self.heads == head] for head in dict.fromkeys(self.heads.tolist())}

    def filter(
        self, *, score: float = 0.0, heads: Sequence[str] | None = None, label_names: Sequence[str] | None = None
    ) -> Detections:
        """Keep boxes that score at least `score`, of these heads and classes (all, where none are named).

        Raises:
            InputError: If one name is given where a list of names belongs.

        """
        if isinstance(heads, str) or isinstance(label_names, str):
            raise InputError("filter detections", "one text was given for a list of names", "Write ['name'].")
        kept = self.scores >= np.float32(score)
        if heads is not None:
            kept &= np.isin(self.heads, list(heads))
        if label_names is not None:
            kept &= np.isin(self.label_names, list(label_names))
        return self[kept]

    def suppress(self, iou: float = 0.5) -> Detections:
        """Drop each box that overlaps a better-scored one of another head by more than `iou`; order is kept.

        Heads score independently, so this is never done unasked. Within a head it has been done already.
        """
        overlaps = (box_iou(self.boxes, self.boxes) > iou) & (self.heads[:, None] != self.heads[None])
        kept = np.ones(len(self), dtype=bool)
        for place in np.argsort(-self.scores, kind="stable"):
            if kept[place]:
                kept &= ~overlaps[place]
        return self[kept]

    # The formats live in a room of their own, above this one; these are only the names that users look for here.

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as `hydra_detect.formats.lines` describes them."""
        from hydra_detect.formats import lines

        return lines.to_dict(self)

    def to_json(self) -> str:
        """Return one line of JSON; `hydra_detect.formats.lines.from_json` reads it."""
        from hydra_detect.formats import lines

        return lines.to_json(self)

    def to_coco(self, *, image_id: int = 1, categories: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
        """Return COCO result rows; `hydra_detect.formats.coco.from_coco` reads them."""
        from hydra_detect.formats import coco

        return coco.to_coco(self, image_id=image_id, categories=categories)

    def to_yolo(self, *, class_names: Sequence[str] | None = None) -> str:
        """Return YOLO label lines; `hydra_detect.formats.yolo.from_yolo` reads them."""
        from hydra_detect.formats import yolo

        return yolo.to_yolo(self, class_names=class_names)

    def to_voc(self) -> str:
        """Return a Pascal VOC annotation; `hydra_detect.formats.voc.from_voc` reads it."""
        from hydra_detect.formats import voc

        return voc.to_voc(self)

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame, one row per box (extra `pandas`)."""
        from hydra_detect.formats import tables

        return tables.to_pandas(self)

    def to_supervision(self) -> Any:
        """Return `supervision.Detections` (extra `supervision`)."""
        from hydra_detect.formats import tables

        return tables.to_supervision(self)

    def plot(self, picture: Any = None) -> Image.Image:
        """Draw the boxes on `picture`, or on the picture at `source`, as a new PIL image."""
        from hydra_detect import drawing

        return drawing.plot(self, picture)

    def save(self, path: str | os.PathLike[str], picture: Any = None) -> None:
        """Write what `plot` draws to a picture file."""
        from hydra_detect import drawing

        drawing.save(self, path, picture)

    def _repr_png_(self) -> bytes | None:
        from hydra_detect import drawing

        return drawing.png(self)

    def _repr_html_(self) -> str:
        from hydra_detect import drawing

        return drawing.html(self)


_COLUMNS = ("boxes", "scores", "labels", "label_names", "heads", "head_versions")


def missing_extra(feature: str, extra: str) -> ExtraMissingError:
    """Return the error for a feature whose optional dependency is not installed."""
    return ExtraMissingError(
        feature, f"the optional dependency '{extra}' is not installed", f"pip install 'hydra-detect[{extra}]'"
    )
