"""Tables: Detections as a pandas DataFrame and as `supervision.Detections`.

Both libraries are optional and imported only where a table is made; reading one back needs no import. Law:
`from_pandas(to_pandas(d), ...) == d`, and the same by way of supervision, but for what the table does not hold:
image size and timing, and for supervision also the source.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hydra_detect.detections import Detections, missing_extra
from hydra_detect.errors import InputError, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS = ("head", "version", "label", "label_id", "score", *_CORNERS)


def to_pandas(d: Detections) -> Any:
    """Return a DataFrame with one row per box.

    Returns:
        Columns `source`, `head`, `version`, `label`, `label_id`, `score` (float32) and the corners `x1`, `y1`,
        `x2`, `y2` in pixels (float32).

    Raises:
        ExtraMissingError: If pandas is not installed.

    """
    try:
        import pandas as pd
    except ImportError:
        raise missing_extra("make a pandas table", "pandas") from None
    return pd.DataFrame(
        {
            "source": pd.Series([d.source] * len(d), dtype=object),
            "head": pd.Series(d.heads.tolist(), dtype=object),
            "version": d.head_versions,
            "label": pd.Series(d.label_names.tolist(), dtype=object),
            "label_id": d.labels,
            "score": d.scores,
            **{name: d.boxes[:, place] for place, name in enumerate(_CORNERS)},
        }
    )


def from_pandas(frame: Any, *, image_size: tuple[int, int], source: str | None = None) -> Detections:
    """Read the rows of one picture; other columns are passed over.

    Args:
        frame: A DataFrame with the columns of `to_pandas`; `source` may be missing.
        image_size: (height, width) in pixels, which the table does not hold.
        source: Path or name of the picture; that of the table by default.

    Raises:
        InputError: If a column is missing or holds something else, or there are rows of two pictures.

    """
    asked = "read detections from a pandas table"
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(asked, f"it has no column {listed(missing)}", "Name the columns as to_pandas does.")
    if source is None and "source" in frame.columns:
        source = _only_source(frame["source"].dropna().unique().tolist(), asked)
    return Detections(
        boxes=np.stack([_numbers(frame[name].to_numpy(), np.float32, asked, name) for name in _CORNERS], axis=1),
        scores=_numbers(frame["score"].to_numpy(), np.float32, asked, "score"),
        labels=_numbers(frame["label_id"].to_numpy(), np.int64, asked, "label_id"),
        label_names=_words(frame["label"].tolist(), asked, "label"),
        heads=_words(frame["head"].tolist(), asked, "head"),
        head_versions=_numbers(frame["version"].to_numpy(), np.int64, asked, "version"),
        image_size=image_size,
        source=source,
    )


def to_supervision(d: Detections) -> Any:
    """Return `supervision.Detections`.

    Returns:
        `xyxy`, `confidence`, `class_id` (the index within the head, from 1) and in `data` the arrays
        `class_name`, `head` and `head_version`.

    Raises:
        ExtraMissingError: If supervision is not installed.

    """
    try:
        import supervision as sv
    except ImportError:
        raise missing_extra("make supervision.Detections", "supervision") from None
    return sv.Detections(
        xyxy=d.boxes.copy(),
        confidence=d.scores.copy(),
        class_id=d.labels.copy(),
        data={
            "class_name": d.label_names.copy(),
            "head": d.heads.copy(),
            "head_version": d.head_versions.copy(),
        },
    )


def from_supervision(sv_detections: Any, *, image_size: tuple[int, int], source: str | None = None) -> Detections:
    """Read `supervision.Detections`.

    Args:
        sv_detections: With `confidence` and `class_id`; without `class_name` in its data the class id serves as the
            name, without `head` and `head_version` the head is "" of version 0.
        image_size: (height, width) in pixels.
        source: Path or name of the picture.

    Raises:
        InputError: If there are boxes without confidence or class.

    """
    asked = "read supervision.Detections"
    count, data = len(sv_detections.xyxy), sv_detections.data
    columns = {"confidence": sv_detections.confidence, "class_id": sv_detections.class_id}
    for name, column in columns.items():
        if column is None and count:
            remedy = "Set it: a detection has a score and a class."
            raise InputError(asked, f"its {name} is None for {count} boxes", remedy)
    labels = _numbers(() if not count else columns["class_id"], np.int64, asked, "class_id")
    return Detections(
        boxes=sv_detections.xyxy,
        scores=_numbers(() if not count else columns["confidence"], np.float32, asked, "confidence"),
        labels=labels,
        label_names=_words(list(data.get("class_name", map(str, labels.tolist()))), asked, "class_name"),
        heads=_words(list(data.get("head", [""] * count)), asked, "head"),
        head_versions=_numbers(data.get("head_version", [0] * count), np.int64, asked, "head_version"),
        image_size=image_size,
        source=source,
    )


def _only_source(sources: Sequence[Any], asked: str) -> str | None:
    if len(sources) > 1:
        found = f"its rows belong to {len(sources)} pictures"
        raise InputError(asked, found, "Pass the rows of one source at a time, as groupby('source') gives them.")
    return str(sources[0]) if sources else None


def _numbers(values: Any, dtype: Any, asked: str, name: str) -> Any:
    try:
        given = np.asarray(values, dtype=np.float64 if dtype is np.float32 else None)
        with np.errstate(invalid="ignore", over="ignore"):
            column = given.astype(dtype)
        if dtype is np.float32 or not len(given) or (given.dtype.kind in "iuf" and np.array_equal(column, given)):
            return column
    except (TypeError, ValueError, OverflowError):
        pass
    what = "numbers" if dtype is np.float32 else "whole numbers"
    raise InputError(asked, f"column '{name}' holds something other than {what}", "Correct that column.")


def _words(values: list[Any], asked: str, name: str) -> list[str]:
    strange = [value for value in values if not isinstance(value, str)]
    if strange:
        raise InputError(asked, f"column '{name}' holds {strange[0]!r:.60}, which is no text", "Correct that column.")
    return values
