"""Label files: each format's files from disk to a `LabelSet`, with the file named in every error.

What the text of a file means is known by `hydra_detect.formats`, where it lies by `layouts`. Reads whole files, and
refuses those of an absurd size.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.data import layouts
from hydra_detect.data.looking import asked_of, is_file, is_folder, naming, text_of
from hydra_detect.errors import InputError
from hydra_detect.formats import coco, csv_rows, data_yaml, voc, yolo
from hydra_detect.formats.labels import LabelSet, PictureLabels
from hydra_detect.pictures import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_MOST_YAML_BYTES = 1 << 20
_VOC_FLAGS = ("-1", "0", "1")


def read_labels(path: Path, label_format: str, places: Sequence[Path]) -> LabelSet:
    """Read the labels of a data set.

    Args:
        path: The label file, or the folder of the data set.
        label_format: One of `layouts.FORMATS`.
        places: The folders that names of pictures are relative to.

    Raises:
        InputError: If a file cannot be read or is malformed; file and place are named.

    """
    return _READERS[label_format](path, places)


def _read_coco(path: Path, _places: Sequence[Path]) -> LabelSet:
    file = layouts.label_file(path, ".json")
    text = text_of(file)
    with naming(file):
        return coco.labels_from_coco(_json(text))


def _read_csv(path: Path, _places: Sequence[Path]) -> LabelSet:
    file = layouts.label_file(path, ".csv")
    text = text_of(file)
    with naming(file):
        return LabelSet(pictures=csv_rows.labels_from_csv(text))


def _read_voc(path: Path, places: Sequence[Path]) -> LabelSet:
    files = layouts.voc_files(path) if is_folder(path) else _listed_annotations(path, layouts.voc_annotations(path))
    return LabelSet(pictures=[_voc_picture(file, places) for file in files])


def _read_yolo(path: Path, places: Sequence[Path]) -> LabelSet:
    folder = path if is_folder(path) else path.parent
    names = layouts.yolo_names(folder) if is_folder(path) else path
    if names is None:
        remedy = "Put a data.yaml or classes.txt with the names into it, that of class 0 first."
        raise InputError(asked_of(folder), "there is no file of class names", remedy)
    class_names = _class_names(names)
    (base,) = places
    pairs = layouts.yolo_pairs(folder)
    if len(pairs) == 1:  # the user may have said where the pictures are
        pairs = [(pairs[0][0], base)]
    only = _listed_pictures(names, base) if len(pairs) == 1 else None
    found: list[PictureLabels] = []
    for labels, images in pairs:
        pictures = layouts.pictures_under(images) if only is None else only
        found += _yolo_pictures(pictures, labels=labels, images=images, base=base, class_names=class_names)
        if only is None:
            found += _without_picture(labels, images, pictures)
    return LabelSet(pictures=found, class_names=class_names)


_READERS = {
    layouts.COCO: _read_coco,
    layouts.VOC: _read_voc,
    layouts.YOLO: _read_yolo,
    layouts.CSV: _read_csv,
}


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


def _voc_picture(file: Path, places: Sequence[Path]) -> PictureLabels:
    if not is_file(file):
        return PictureLabels(name=file.stem)
    text = text_of(file, voc.MAX_BYTES)
    with naming(file):
        labels = voc.labels_from_voc(text)
    if labels.name and any(is_file(place / labels.name) for place in places):
        return labels
    # Renamed pictures keep their annotations beside them, and the old name inside: VOC pairs them by their names.
    names = (file.with_suffix(suffix).name for suffix in SUFFIXES)
    same = (name for name in names if any(is_file(place / name) for place in places))
    return attrs.evolve(labels, name=next(same, labels.name or file.stem))


# YOLO


def _class_names(file: Path) -> tuple[str, ...]:
    text = text_of(file, _MOST_YAML_BYTES)
    if file.suffix not in layouts.YAML_SUFFIXES:
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    with naming(file):
        return data_yaml.class_names_from_yaml(text)


def _listed_pictures(names: Path, base: Path) -> list[Path] | None:
    """Return the pictures that the lists in a data.yaml name; None if it has none, and all pictures count."""
    if names.suffix not in layouts.YAML_SUFFIXES:
        return None
    with naming(names):
        entries = data_yaml.pictures_from_yaml(text_of(names, _MOST_YAML_BYTES))
    lists = [names.parent / entry for entry in entries if entry.endswith(".txt")]
    if not lists:
        return None
    if len(lists) < len(entries):
        remedy = "Give lists alone or folders alone under train, val and test."
        raise InputError(asked_of(names), "some of its pictures are in lists and others in folders", remedy)
    lines = [(file, line.strip()) for file in lists for line in text_of(file).splitlines() if line.strip()]
    beside = ((file.parent / line, base / line) for file, line in lines)
    return [here if is_file(here) else there for here, there in beside]


def _yolo_pictures(
    pictures: Iterable[Path], *, labels: Path, images: Path, base: Path, class_names: Sequence[str]
) -> Iterator[PictureLabels]:
    seen: dict[Path, Path] = {}
    for picture in pictures:
        file = labels / _within(picture, images).with_suffix(".txt")
        if file in seen:
            found = f"it would be that of both {seen[file].name} and {picture.name}"
            raise InputError(asked_of(file), found, "Rename one of the pictures.")
        seen[file] = picture
        text = text_of(file) if is_file(file) else ""  # a picture without labels is background
        with naming(file):
            name = _within(picture, base).as_posix()
            yield yolo.labels_from_yolo(text, class_names=class_names, name=name)


def _without_picture(labels: Path, images: Path, pictures: Iterable[Path]) -> Iterator[PictureLabels]:
    """Yield what there are labels of, but no picture."""
    has_picture = {_within(picture, images).with_suffix("") for picture in pictures}
    for file in sorted(filter(layouts.is_yolo_labels, labels.rglob("*.txt"))):
        name = file.relative_to(labels).with_suffix("")
        if name not in has_picture:
            yield PictureLabels(name=name.as_posix())


def _within(picture: Path, folder: Path) -> Path:
    if picture.is_relative_to(folder):
        return picture.relative_to(folder)
    asked, found = f"read the pictures in {str(folder)!r}", f"{str(picture)!r} is not in it"
    raise InputError(asked, found, "Give as pictures the folder in which all of them are.")
