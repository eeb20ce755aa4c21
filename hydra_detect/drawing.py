"""Drawing: Detections on their picture, for people to look at.

Owns colours, line widths, fonts and the placing of labels; needs Pillow alone. A class has the colour that its head's
and its own name give it, the same in every picture and every process. Where boxes crowd, lines stay thin and a label
is left out rather than laid over another; the better score has the first choice of place.
"""

from __future__ import annotations

import base64
import html as markup
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hydra_detect.errors import InputError, listed
from hydra_detect.pictures import open_picture, to_channels

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from hydra_detect.detections import Detections

Colour = tuple[int, int, int]
_Rect = tuple[int, int, int, int]

# Told apart with each kind of colour blindness, and all strong enough to stand on a photograph: Okabe and Ito's
# colours without black, then those of Paul Tol's "muted" scheme that are like none of them
# (https://personal.sron.nl/~pault/).
PALETTE: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (136, 34, 85), (51, 34, 136), (153, 153, 51),
)  # fmt: skip
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_BRIGHT = 140.0
_LINE_PER_SIDE = 1 / 300
_FONT_PER_SIDE = 1 / 36
_SMALLEST_FONT, _LARGEST_FONT = 9, 64
_CROWD = 40  # boxes; from there on lines and letters shrink
_LONGEST_LABEL = 40
_LABELLED_SHARE = 0.12  # of the picture; more labels than that hide what the boxes are about
_QUALITY = 95
_NOTEBOOK_SIDE = 1024


def plot(d: Detections, picture: Any = None) -> Image.Image:
    """Draw the boxes on a picture.

    Args:
        d: Detections of one picture.
        picture: Anything `pictures.open_picture` reads; by default the file at `d.source`.

    Returns:
        A new RGB image of the picture's size.

    Raises:
        InputError: If there is no picture to draw on, or it has another size than the one the boxes belong to.

    """
    return _draw(d, _canvas(d, picture), scale=1.0)


def save(d: Detections, path: str | os.PathLike[str], picture: Any = None) -> None:
    """Write what `plot` draws to a file, whose ending tells the format.

    Raises:
        InputError: If the folder does not exist, the ending is none of a picture, the file cannot be written, or as
            `plot`.

    """
    target = Path(path)
    asked = f"save the drawing to {str(target)!r}"
    Image.init()  # registers the formats that Pillow writes
    endings = [ending for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE]
    if target.suffix.lower() not in endings:
        found = f"the ending {target.suffix!r} is of no picture format" if target.suffix else "it has no ending"
        raise InputError(asked, found, "End it in .png, .jpg, .webp or .tif.", endings=listed(endings))
    if not target.parent.is_dir():
        raise InputError(asked, f"there is no folder {str(target.parent)!r}", "Create it first.")
    image = plot(d, picture)
    try:
        image.save(target, quality=_QUALITY)
    except (OSError, ValueError, KeyError) as error:  # KeyError, ValueError: a format without its encoder, or not RGB
        raise InputError(asked, f"it cannot be written ({error})", "Check the permissions and the ending.") from error


def png(d: Detections) -> bytes | None:
    """Return a drawing of at most 1024 pixels a side as PNG, or None if the picture at `d.source` is not there."""
    if d.source is None:
        return None
    try:
        image = _canvas(d, None)
    except InputError:  # a notebook shows the table still when the file was moved
        return None
    scale = min(1.0, _NOTEBOOK_SIDE / max(image.size))
    small = (
        image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale)))) if scale < 1 else image
    )
    written = io.BytesIO()
    _draw(d, small, scale=scale).save(written, "PNG")
    return written.getvalue()


def html(d: Detections) -> str:
    """Return an HTML table of the boxes, and the drawing above it where `png` gives one."""
    drawn = png(d)
    image = f'<img alt="detections" src="data:image/png;base64,{base64.b64encode(drawn).decode()}">' if drawn else ""
    heading = f"{len(d)} detection{'' if len(d) == 1 else 's'}" + (f" in {markup.escape(d.source)}" if d.source else "")
    columns = zip(
        d.heads.tolist(),
        d.head_versions.tolist(),
        d.label_names.tolist(),
        d.scores.tolist(),
        d.boxes.tolist(),
        strict=True,
    )
    rows = "".join(
        _table_row("td", (head, version, label, f"{score:.3f}", *(f"{corner:.1f}" for corner in box)))
        for head, version, label, score, box in columns
    )
    titles = _table_row("th", ("head", "version", "label", "score", "x1", "y1", "x2", "y2"))
    return f"<div><p>{heading}</p>{image}<table><thead>{titles}</thead><tbody>{rows}</tbody></table></div>"


def colour_of(head: str, label: str) -> Colour:
    """Return the colour of a class: the same for the same names, today and in any other process."""
    return PALETTE[_place_of(head, label)]


def _place_of(head: str, label: str) -> int:
    # CRC-32, as Python's own hash of text differs from process to process.
    return zlib.crc32(f"{head}\n{label}".encode(errors="replace")) % len(PALETTE)


def _table_row(cell: str, values: Iterable[object]) -> str:
    return f"<tr>{''.join(f'<{cell}>{markup.escape(str(value))}</{cell}>' for value in values)}</tr>"


def _canvas(d: Detections, picture: Any) -> Image.Image:
    if picture is None:
        picture = d.source
    if picture is None:
        remedy = "Pass the picture: plot(picture) or save(path, picture)."
        raise InputError("draw detections", "they do not know their picture's file", remedy)
    opened = open_picture(picture)
    if d.image_size not in ((0, 0), opened.image_size):
        found = f"the picture is {list(opened.image_size)} and the boxes belong to one of {list(d.image_size)}"
        raise InputError("draw detections", found, "Pass the picture that was predicted on, in its own size.")
    pixels = np.rint(to_channels(opened, 3).pixels * 255).astype(np.uint8)  # [3, height, width]
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


@attrs.frozen
class _Style:
    line: int
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont
    pad: int

    @classmethod
    def fitting(cls, size: tuple[int, int], boxes: int) -> _Style:
        """Choose widths for a picture of this (width, height) with so many boxes."""
        side = min(size)
        crowding = min(1.0, (_CROWD / max(boxes, 1)) ** 0.5)
        letters = min(max(side * _FONT_PER_SIDE * crowding, _SMALLEST_FONT), _LARGEST_FONT)
        line = max(1, round(side * _LINE_PER_SIDE * crowding))
        return cls(line=line, font=ImageFont.load_default(letters), pad=max(1, round(letters / 6)))


def _draw(d: Detections, image: Image.Image, *, scale: float) -> Image.Image:
    style = _Style.fitting(image.size, len(d))
    brush = ImageDraw.Draw(image)
    colours = _colours(d)
    best_first = np.argsort(-d.scores, kind="stable").tolist()
    corners = (d.boxes * np.float32(scale)).astype(np.float64)
    edges = {index: _edges(corners[index], image.size) for index in best_first}
    for index in reversed(best_first):  # the best lies on top
        brush.rectangle(edges[index], outline=colours[index], width=style.line)
    taken: list[_Rect] = []
    for index in best_first:
        if sum(map(_area, taken)) > _LABELLED_SHARE * image.width * image.height:
            break
        text = _label(str(d.label_names[index]), float(d.scores[index]))
        place = _free_place(edges[index], _text_size(brush, text, style), image.size, taken)
        if place is not None:
            taken.append(place)
            _write(brush, text, place, colours[index], style)
    return image


def _colours(d: Detections) -> list[Colour]:
    """Return a colour per box: the class's own, or the next free one if another class of this picture has it."""
    classes = list(zip(d.heads.tolist(), d.label_names.tolist(), strict=True))
    given: dict[tuple[str, str], int] = {}
    for head, label in sorted(set(classes)):
        first = _place_of(head, label)
        places = [(first + step) % len(PALETTE) for step in range(len(PALETTE))]
        given[head, label] = next((place for place in places if place not in given.values()), first)
    return [PALETTE[given[name]] for name in classes]


def _edges(box: Any, size: tuple[int, int]) -> _Rect:
    """Return the pixels (left, top, right, bottom), the last ones included, that a box's outline covers."""
    # Pixel i covers i to i + 1, so a box to x2 ends with pixel x2 - 1. Clipping before rounding keeps any float safe.
    left, top = np.floor(np.clip(box[:2] + 0.5, 0, np.array(size) - 1)).astype(int).tolist()
    right, bottom = np.floor(np.clip(box[2:] - 0.5, 0, np.array(size) - 1)).astype(int).tolist()
    return left, top, max(left, right), max(top, bottom)


def _label(name: str, score: float) -> str:
    name = " ".join(name.split())
    if len(name) > _LONGEST_LABEL:
        name = name[: _LONGEST_LABEL - 3] + "..."
    return f"{name} {score:.2f}".strip()


def _text_size(brush: ImageDraw.ImageDraw, text: str, style: _Style) -> tuple[int, int]:
    # The height of a letter with ascender and descender, not of this text: labels then all have one height.
    _, top, _, bottom = brush.textbbox((0, 0), "Ag", font=style.font)
    width = brush.textlength(text, font=style.font)
    return int(width) + 1 + 2 * style.pad, int(bottom - top) + 1 + 2 * style.pad


def _free_place(edges: _Rect, label: tuple[int, int], size: tuple[int, int], taken: list[_Rect]) -> _Rect | None:
    for left, top in _places(edges, label, size):
        rect = (left, top, left + label[0], top + label[1])
        inside = left >= 0 and top >= 0 and rect[2] <= size[0] and rect[3] <= size[1]
        if inside and not any(_overlap(rect, other) for other in taken):
            return rect
    return None


def _places(edges: _Rect, label: tuple[int, int], size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield upper left corners for a label, the best first: on the box, within it, below it; left, then right."""
    left, top, right, bottom = edges
    width, height = label
    lefts = (min(left, size[0] - width), max(0, right + 1 - width))
    for y in (top - height, top, bottom + 1, bottom + 1 - height):
        for x in lefts:
            yield x, y


def _area(rect: _Rect) -> int:
    return (rect[2] - rect[0]) * (rect[3] - rect[1])


def _overlap(one: _Rect, other: _Rect) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _write(brush: ImageDraw.ImageDraw, text: str, place: _Rect, colour: Colour, style: _Style) -> None:
    left, top, right, bottom = place
    brush.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    _, above, _, _ = brush.textbbox((0, 0), "Ag", font=style.font)
    luma = sum(weight * channel for weight, channel in zip(_LUMA, colour, strict=True))
    ink = _BLACK if luma > _BRIGHT else _WHITE
    brush.text((left + style.pad, top + style.pad - above), text, fill=ink, font=style.font)
