"""A folder of plots and pictures for people to look at: what was measured of a version (extra `plot`)."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from PIL import Image, ImageDraw

from hydra_detect import drawing
from hydra_detect.detections import missing_extra
from hydra_detect.errors import ConflictError, InputError
from hydra_detect.measure.plots import plot_f1, plot_precision_recall, plot_reliability
from hydra_detect.pictures import open_picture, to_channels
from hydra_detect.storage.files import explained

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from hydra_detect.data.samples import Samples
    from hydra_detect.measure.metrics import Metrics
    from hydra_detect.measure.misses import Miss

_CONTEXT = 0.75  # of the box's longer side, on each side of it
_LEAST_SIDE = 320  # pixels of a drawing; smaller crops are enlarged
_INK, _HALO = (255, 255, 255), (0, 0, 0)


def check_plots(folder: str | os.PathLike[str]) -> Path:
    """Return a folder for plots, once everything is seen to be there that drawing them needs in the end.

    Raises:
        ExtraMissingError: If matplotlib is not installed.
        ConflictError: If something lies there.

    """
    folder = Path(folder)
    asked = f"draw plots into {folder}"
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra(asked, "plot")
    with explained(asked):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConflictError(asked, "something lies there already", "Name a new or empty folder.")
    return folder


def save_plots(
    folder: str | os.PathLike[str],
    metrics: Metrics,
    *,
    misses: Sequence[Image.Image] = (),
) -> list[Path]:
    """Draw what was measured, as PNG files.

    Args:
        folder: A new or empty folder.
        metrics: Of them precision_recall.png and f1.png, and reliability.png where raw scores were judged.
        misses: Pictures for miss-01.png and so on, the worst first.

    Raises:
        ExtraMissingError: If matplotlib is not installed.
        ConflictError: If something lies in the folder.
        StoreError: If it cannot be written.

    """
    folder = check_plots(folder)
    curves = metrics.sweep.to_sweep()
    figures = {
        "precision_recall.png": plot_precision_recall(curves, policy=metrics.policy),
        "f1.png": plot_f1(curves, policy=metrics.policy),
    }
    if metrics.calibration is not None:
        figures["reliability.png"] = plot_reliability(metrics.calibration)
    with explained(f"draw plots into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            figure.savefig(folder / name)
        for number, miss in enumerate(misses, start=1):
            miss.save(folder / f"miss-{number:02}.png")
    return sorted(folder.iterdir())


def drawn(misses: Sequence[Miss], samples: Samples) -> list[Image.Image]:
    """Draw misses on the pictures that they are in.

    Raises:
        InputError: If a picture cannot be read any more.

    """
    return [draw_miss(miss, samples[miss.image].picture) for miss in misses]


def draw_miss(miss: Miss, picture: Any = None) -> Image.Image:
    """Draw what was missed in white, and the nearest candidate in the colour of its class, with some context.

    Args:
        miss: What to draw.
        picture: Anything `pictures.open_picture` reads; by default the file at `miss.source`.

    Returns:
        A new RGB image, enlarged where the box is small.

    Raises:
        InputError: If there is no picture to draw on, or it has another size than the one the box belongs to.

    """
    chosen = miss.source if picture is None else picture
    if chosen is None:
        raise InputError("draw a miss", "it does not know its picture's file", "Pass the picture.")
    opened = open_picture(chosen)
    if miss.image_size not in ((0, 0), opened.image_size):
        found = f"the picture is {list(opened.image_size)} and the box belongs to one of {list(miss.image_size)}"
        raise InputError("draw a miss", found, "Pass the picture that was judged, in its own size.")
    frame = _frame(miss, opened.image_size)
    left, top, right, bottom = frame
    pixels = np.rint(to_channels(opened, 3).pixels[:, top:bottom, left:right] * 255).astype(np.uint8)
    crop = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    scale = max(1, math.ceil(_LEAST_SIDE / max(crop.size)))
    crop = crop.resize((crop.width * scale, crop.height * scale), Image.Resampling.BICUBIC)
    near = attrs.evolve(
        miss.nearest, boxes=(miss.nearest.boxes - (left, top) * 2) * scale, image_size=(crop.height, crop.width)
    )
    _outline(crop, [(corner - edge) * scale for corner, edge in zip(miss.box, (left, top) * 2, strict=True)])
    return drawing.plot(near, crop)  # last: the name of the candidate is to be read


def _frame(miss: Miss, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return whole pixels (left, top, right, bottom) around the box and its nearest candidate, within the picture."""
    both = np.concatenate([[miss.box], miss.nearest.boxes])
    margin = _CONTEXT * max(miss.box[2] - miss.box[0], miss.box[3] - miss.box[1], 1)
    height, width = image_size
    left, top = np.clip(both[:, :2].min(axis=0) - margin, 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.ceil(np.clip(both[:, 2:].max(axis=0) + margin, (left + 1, top + 1), (width, height))).tolist()
    return left, top, int(right), int(bottom)


def _outline(image: Image.Image, box: list[float]) -> None:
    """Draw a white line with a dark edge on either side: it can be seen on any ground."""
    brush = ImageDraw.Draw(image)
    line = max(1, round(min(image.size) / 150))
    left, top, right, bottom = (round(corner) for corner in box)
    brush.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=_HALO, width=3 * line)
    brush.rectangle((left, top, right - 1, bottom - 1), outline=_INK, width=line)
