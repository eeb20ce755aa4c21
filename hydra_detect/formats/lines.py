"""Lines: Detections as plain values and as one line of JSON, the library's own text form.

Law: `from_json(to_json(d)) == d` and `from_dict(to_dict(d)) == d`, bit for bit, timing included. Numbers are written
with the fewest digits that give the same float32 back. Keys that this version does not know are passed over, so a
program may keep its own beside them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hydra_detect.detections import Timing
from hydra_detect.formats.rows import (
    Row,
    as_kind,
    as_list,
    as_numbers,
    detections_of,
    must_have,
    need,
    rows_of,
    shortest,
    wrong,
)
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.detections import Detections

_ASKED = "read detections from a dict"
_ASKED_JSON = "read detections from JSON"


def to_dict(d: Detections) -> dict[str, Any]:
    """Return plain values.

    Returns:
        `source` (text or None), `image_size` [height, width], `detections` (a list of `head`, `version`, `label`,
        `label_id`, `score` and `box` [x1, y1, x2, y2] in pixels) and `seconds` (`transform`, `backbone`,
        `heads` by name, and what these `shared`).

    """
    return {
        "source": d.source,
        "image_size": list(d.image_size),
        "detections": [
            {
                "head": row.head,
                "version": row.version,
                "label": row.label,
                "label_id": row.label_id,
                "score": shortest(row.score),
                "box": [shortest(corner) for corner in row.box],
            }
            for row in rows_of(d)
        ],
        "seconds": {
            "transform": d.timing.transform,
            "backbone": d.timing.backbone,
            "heads": dict(d.timing.heads),
            "shared": d.timing.shared,
        },
    }


def to_json(d: Detections) -> str:
    """Return `to_dict` as JSON on one line of ASCII, without a newline at its end."""
    # ASCII: some programs break lines at U+2028, and a file name that is no UTF-8 could not be written out.
    return json.dumps(to_dict(d), allow_nan=False)


def from_json(text: str) -> Detections:
    """Read what `to_json` wrote.

    Raises:
        InputError: If it is no JSON, or as `from_dict`.

    """
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError) as error:
        raise wrong(_ASKED_JSON, f"it is no JSON ({str(error)[:120]})") from None
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> Detections:
    """Read what `to_dict` returned; `source` and `seconds` may be missing.

    Raises:
        InputError: Naming the first place that is missing or of the wrong kind, or a box or score out of range.

    """
    size = as_list(must_have(values, "image_size", asked=_ASKED, place="the top"), asked=_ASKED, place="'image_size'")
    found = as_list(must_have(values, "detections", asked=_ASKED, place="the top"), asked=_ASKED, place="'detections'")
    source = values.get("source")
    return detections_of(
        [_row(item, f"detection {index}") for index, item in enumerate(found)],
        image_size=tuple(size),
        source=None if source is None else as_kind(source, str, asked=_ASKED, place="'source'"),
        timing=_timing(values["seconds"]) if "seconds" in values else None,
    )


def _row(item: Any, place: str) -> Row:
    box = must_have(item, "box", asked=_ASKED, place=place)
    x1, y1, x2, y2 = as_numbers(box, 4, asked=_ASKED, place=f"'box' of {place}")
    return Row(
        box=(x1, y1, x2, y2),
        score=need(item, "score", float, asked=_ASKED, place=place),
        label=need(item, "label", str, asked=_ASKED, place=place),
        label_id=need(item, "label_id", int, asked=_ASKED, place=place),
        head=need(item, "head", str, asked=_ASKED, place=place),
        version=need(item, "version", int, asked=_ASKED, place=place),
    )


def _timing(seconds: Any) -> Timing:
    place = "'seconds'"
    heads = must_have(seconds, "heads", asked=_ASKED, place=place)
    if not isinstance(heads, dict):
        raise wrong(_ASKED, f"'heads' of {place} is {shown(heads)} and not seconds by head name")
    return Timing(
        transform=need(seconds, "transform", float, asked=_ASKED, place=place),
        backbone=need(seconds, "backbone", float, asked=_ASKED, place=place),
        heads={name: need(heads, name, float, asked=_ASKED, place=f"'heads' of {place}") for name in heads},
        shared=need(seconds, "shared", float, asked=_ASKED, place=place) if "shared" in seconds else 0.0,
    )


def _no_constant(text: str) -> Any:
    message = f"{text} is not JSON"
    raise ValueError(message)
