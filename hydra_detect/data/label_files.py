"""Label files: each format's files from disk to a `LabelSet`, with the file named in every error.

What the text of a file means is known by `hydra_detect.formats`, where it lies by `layouts`, and which files of YOLO
belong together by `yolo_files`. Reads whole files, and refuses those of an absurd size.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.data import layouts
from hydra_detect.data.looking import asked_of, is_file, is_folder, naming, text_of
from hydra_detect.data.yolo_files import read_yolo
from hydra_detect.errors import InputError, listed
from hydra_detect.formats import coco, csv_rows, voc
from hydra_detect.formats.labels import LabelSet, PictureLabels
from hydra_detect.names import shown
from hydra_detect.pictures import SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

    from hydra_detect.data.looking import Places

_VOC_FLAGS = ("-1", "0", "1")


def read_labels(path: Path, label_format: str, places: Places, *, voc_from_one: bool = False) -> LabelSet:
    """Read the labels of a data set.

    Args:
        path: The label file, or the folder of the data set.
        label_format: One of `layouts.FORMATS`.
        places: The folders in which pictures are looked for.
        voc_from_one: In VOC, pixels are counted from 1.

    Raises:
        InputError: If a file cannot be read or is malformed, or a picture lies elsewhere; file and place are named.

    """
    if label_format == layouts.YOLO:
        return read_yolo(path, places)  # which judges its pictures itself: a data.yaml may name some that do not count
    if label_format == layouts.VOC:
        labels = _read_voc(path, places, from_one=voc_from_one)
    else:
        labels = _read_coco(path) if label_format == layouts.COCO else _read_csv(path)
    with naming(path):
        _check_inside(labels, places)
    return labels


def _check_inside(labels: LabelSet, places: Places) -> None:
    names = [one.name for one in labels.pictures if one.name is not None]
    outside = [shown(name) for name in names if not places.of(name)]
    if outside:
        folders = listed(repr(str(folder)) for folder in places.outermost)
        found = f"{len(outside)} of {len(names)} pictures lie outside of {folders}: {listed(outside)}"
        raise InputError("read labels", found, "Give as pictures the folder in which all of them are.")


def _read_coco(path: Path) -> LabelSet:
    file = layouts.label_file(path, ".json")
    text = text_of(file)
    with naming(file):
        return coco.labels_from_coco(_json(text))


def _read_csv(path: Path) -> LabelSet:
    file = layouts.label_file(path, ".csv")
    text = text_of(file)
    with naming(file):
        return LabelSet(pictures=csv_rows.labels_from_csv(text))


def _read_voc(path: Path, places: Places, *, from_one: bool) -> LabelSet:
    annotations = layouts.voc_annotations(path)
    files = layouts.voc_files(path) if is_folder(path) else _listed_annotations(path, annotations)
    if not files:
        remedy = "Name the folder of the data set, in which they are; or give the format that the labels have."
        raise InputError(asked_of(path), f"there is no .xml of an annotation in {str(annotations)!r}", remedy)
    return LabelSet(pictures=[_voc_picture(file, places, from_one=from_one) for file in files])


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "Write the file again: it may have been cut off."
        raise InputError("read COCO annotations", f"it is no JSON ({str(error)[:120]})", remedy) from None


# VOC


def _listed_annotations(path: Path, annotations: Path) -> list[Path]:
    """Return the annotations that a list in ImageSets names; lists of one class have a flag after each name."""
    found = []
    for line in map(str.strip, text_of(path).splitlines()):
        name, _blank, flag = line.rpartition(" ")
        is_flagged = flag in _VOC_FLAGS and name and not is_file(annotations / f"{line}.xml")
        if line:
            found.append(annotations / f"{name.strip() if is_flagged else line}.xml")
    return found


def _voc_picture(file: Path, places: Places, *, from_one: bool) -> PictureLabels:
    if not is_file(file):
        return PictureLabels(name=file.stem)
    text = text_of(file, voc.MAX_BYTES)
    with naming(file):
        labels = voc.labels_from_voc(text, from_one=from_one)
    if labels.name and places.find(labels.name):
        return labels
    # Renamed pictures keep their annotations beside them, and the old name inside: VOC pairs them by their names.
    names = (file.with_suffix(suffix).name for suffix in SUFFIXES)
    return attrs.evolve(labels, name=next(filter(places.find, names), labels.name or file.stem))
