"""Agreement: whether two ways of computing detections found the same, and how far apart they are.

For engines, dtypes and compressed heads; no label is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from hydra_detect.detections import box_iou
from hydra_detect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hydra_detect.detections import Detections

_SAME = 0.5  # overlap from which two boxes of one head and class are one detection


@attrs.frozen(kw_only=True)
class Agreement:
    """What two lots of detections have in common.

    Args:
        pictures: How many were compared.
        matched: Detections that both have.
        largest_box: Largest difference of an edge of these, pixels.
        largest_score: Largest difference of their scores.
        vanished: Detections of the first that the second lacks.
        appeared: Detections of the second that the first lacks.
        near_limits: How many of these two are so near to a limit of score or overlap that rounding decides.

    """

    pictures: int
    matched: int
    largest_box: float
    largest_score: float
    vanished: int
    appeared: int
    near_limits: int

    @property
    def unmatched(self) -> int:
        """Detections that one of the two lacks."""
        return self.vanished + self.appeared

    def __str__(self) -> str:
        """One line."""
        lacking = f"{self.vanished} vanished, {self.appeared} appeared, {self.near_limits} of these near a limit"
        differences = f"boxes within {self.largest_box:.2g} px, scores within {self.largest_score:.2g}"
        return f"{self.matched} detections in {self.pictures} pictures, {differences}; {lacking}"


def agreement(
    before: Sequence[Detections],
    after: Sequence[Detections],
    *,
    score_limits: Sequence[float] = (),
    overlap_limit: float = 0.5,
    margin: float = 1e-4,
    most: int | None = None,
) -> Agreement:
    """Compare detections picture by picture.

    Those of one head and class that overlap most are one, from an overlap of 0.5 on, best scores first.

    Args:
        before: What the one found.
        after: What the other found, in the same pictures.
        score_limits: Scores below which detections are dropped.
        overlap_limit: Overlap from which one of two detections is dropped.
        margin: How near to a limit rounding decides.
        most: Detections that a head may have in a picture: where it has as many, its lowest score is a limit, too, and
            each that rounding let in pushed one out.

    Raises:
        InputError: If there are not as many of the one as of the other.

    """
    if len(before) != len(after):
        found = f"there are {len(before)} pictures of the one and {len(after)} of the other"
        raise InputError("compare detections", found, "Give the same pictures in the same order.")
    limits = _Limits(scores=tuple(score_limits), overlap=overlap_limit, margin=margin, most=most)
    boxes, scores, counts = [0.0], [0.0], np.zeros(4, dtype=int)
    for one, other in zip(before, after, strict=True):
        rows, places = _pairs(one, other)
        boxes += np.abs(one.boxes[rows] - other.boxes[places]).max(axis=1, initial=0.0).tolist()
        scores += np.abs(one.scores[rows] - other.scores[places]).tolist()
        lacking = [np.setdiff1d(np.arange(len(part)), own) for part, own in ((one, rows), (other, places))]
        counts += [len(rows), len(lacking[0]), len(lacking[1]), limits.decide((one, other), lacking)]
    matched, vanished, appeared, near_limits = counts.tolist()
    return Agreement(
        pictures=len(before),
        matched=matched,
        largest_box=max(boxes),
        largest_score=max(scores),
        vanished=vanished,
        appeared=appeared,
        near_limits=near_limits,
    )


@attrs.frozen(kw_only=True)
class _Limits:
    """Where rounding decides whether there is a detection: the arguments of `agreement`."""

    scores: tuple[float, ...]
    overlap: float
    margin: float
    most: int | None

    def decide(self, both: tuple[Detections, Detections], lacking: Sequence[NDArray[np.int64]]) -> int:
        """Return on how many rows that one of the two lacks rounding decided, at a limit or for want of room."""
        decided = 0
        for head in {str(part.heads[row]) for part, rows in zip(both, lacking, strict=True) for row in rows.tolist()}:
            near, below = [], []
            for part, against, rows in zip(both, both[::-1], lacking, strict=True):
                end = self._end_of_room(against, head)
                own = [row for row in rows.tolist() if part.heads[row] == head]
                is_near = [self._is_near(part, row, end) for row in own]
                near.append(sum(is_near))
                below.append(sum(part.scores[row] < end for row, one in zip(own, is_near, strict=True) if not one))
            decided += sum(near) + sum(map(min, near, below[::-1]))
        return decided

    def _end_of_room(self, found: Detections, head: str) -> float:
        """Return the lowest score of a head's detections if the picture has no room for more, else minus infinity."""
        own = found.scores[np.array(found.heads) == head]
        return float(own.min()) if self.most is not None and len(own) >= self.most else -np.inf

    def _is_near(self, found: Detections, row: int, end: float) -> bool:
        """Whether a detection is near to a limit of score, or of overlap with another of its kind."""
        if (np.abs(found.scores[row] - np.array([*self.scores, end])) <= self.margin).any():
            return True
        same = _of_one_kind(found[[row]], found)[0]
        same[row] = False
        overlaps = box_iou(found.boxes[[row]], found.boxes[same])
        return bool((np.abs(overlaps - self.overlap) <= self.margin).any())


def _of_one_kind(one: Detections, other: Detections) -> NDArray[np.bool_]:
    """Return [one, other]: whether two detections are of the same head and label."""
    same: NDArray[np.bool_] = (one.heads[:, None] == other.heads) & (one.labels[:, None] == other.labels)
    return same


def _pairs(one: Detections, other: Detections) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of detections that are the same."""
    overlaps = box_iou(one.boxes, other.boxes) * _of_one_kind(one, other)
    rows, places = [], []
    for row in np.argsort(-one.scores, kind="stable").tolist():
        if overlaps.shape[1] and overlaps[row].max() >= _SAME:
            place = int(overlaps[row].argmax())
            rows.append(row)
            places.append(place)
            overlaps[:, place] = 0
    return np.array(rows, dtype=np.int64), np.array(places, dtype=np.int64)
