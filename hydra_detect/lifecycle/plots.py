"""A folder of plots and pictures for people to look at: what was measured of a version (extra `plot`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_detect.detections import missing_extra
from hydra_detect.errors import ConflictError
from hydra_detect.measure.misses import draw_miss
from hydra_detect.measure.plots import plot_f1, plot_precision_recall, plot_reliability
from hydra_detect.storage.files import explained

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from PIL.Image import Image

    from hydra_detect.data.samples import Samples
    from hydra_detect.measure.metrics import Metrics
    from hydra_detect.measure.misses import Miss


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
    misses: Sequence[Image] = (),
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


def drawn(misses: Sequence[Miss], samples: Samples) -> list[Image]:
    """Draw misses on the pictures that they are in.

    Raises:
        InputError: If a picture cannot be read any more.

    """
    return [draw_miss(miss, samples[miss.image].picture) for miss in misses]
