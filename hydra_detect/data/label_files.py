"""Label files: each format's files from disk to a `LabelSet`, with the file named in every error.

What the text of a file means is known by `hydra_detect.formats`, where it lies by `layouts`. Reads whole files, and
refuses those of an absurd size.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.data import layouts
from hydra_detect.errors import InputError
from hydra_detect.formats import coco, csv_rows, data_yaml, voc, yolo
from hydra_detect.formats.labels import LabelSet, PictureLabels
from hydra_detect.pictures import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_MOST_BYTES = 1 << 30  # the largest set of COCO labels in wide use has half of this
_MOST_YAML_BYTES = 1 << 20
_VOC_FLAGS = ("-1", "0", "1")


@contextlib.contextmanager
def naming(file: Path) -> Iterator[None]:
    """Say of an error in labels in which file they stand."""
    try:
        yield
    except InputError as error:
        raise InputError(_asked(file), error.found, error.remedy, file=str(file)) from None


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
    text = _text(file)
    with naming(file):
        return coco.labels_from_coco(_json(text))


def _read_csv(path: Path, _places: Sequence[Path]) -> LabelSet:
    file = layouts.label_file(path, ".csv")
    text = _text(file)
    with naming(file):
        return LabelSet(pictures=csv_rows.labels_from_csv(text))


def _read_voc(path: Path, places: Sequence[Path]) -> LabelSet:
    files = layouts.voc_files(path) if path.is_dir() else _listed_annotations(path, layouts.voc_annotations(path))
    return LabelSet(pictures=[_voc_picture(file, places) for file in files])


def _read_yolo(path: Path, places: Sequence[Path]) -> LabelSet:
    folder = path if path.is_dir() else path.parent
    names = layouts.yolo_names(folder) if path.is_dir() else path
    if names is None:
        remedy = "Put a data.yaml or classes.txt with the names into it, that of class 0 first."
        raise InputError(_asked(folder), "there is no file of class names", remedy)
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


def _asked(file: Path) -> str:
    return f"read the labels in {str(file)!r}"


def _text(file: Path, most_bytes: int = _MOST_BYTES) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(most_bytes + 1)
    except OSError as error:
        found = error.strerror or "it cannot be read"
        raise InputError(_asked(file), found, "Check the path and its permissions.") from error
    if len(data) > most_bytes:
        raise InputError(_asked(file), f"it is larger than {most_bytes} bytes", "Divide it into several files.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(_asked(file), "it is no UTF-8 text", "Save it as UTF-8.") from None


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
    for line in map(str.strip, _text(path).splitlines()):
        name, _blank, flag = line.rpartition(" ")
        is_flagged = flag in _VOC_FLAGS and name and not (annotations / f"{line}.xml").is_file()
        if line:
            found.append(annotations / f"{name.strip() if is_flagged else line}.xml")
    return found


def _voc_picture(file: Path, places: Sequence[Path]) -> PictureLabels:
    if not file.is_file():
        return PictureLabels(name=file.stem)
    text = _text(file, voc.MAX_BYTES)
    with naming(file):
        labels = voc.labels_from_voc(text)
    if labels.name and any((place / labels.name).is_file() for place in places):
        return labels
    # Renamed pictures keep their annotations beside them, and the old name inside: VOC pairs them by their names.
    names = (file.with_suffix(suffix).name for suffix in SUFFIXES)
    same = (name for name in names if any((place / name).is_file() for place in places))
    return attrs.evolve(labels, name=next(same, labels.name or file.stem))


# YOLO


def _class_names(file: Path) -> tuple[str, ...]:
    text = _text(file, _MOST_YAML_BYTES)
    if file.suffix not in layouts.YAML_SUFFIXES:
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    with naming(file):
        return data_yaml.class_names_from_yaml(text)


def _listed_pictures(names: Path, base: Path) -> list[Path] | None:
    """Return the pictures that the lists in a data.yaml name; None if it has none, and all pictures count."""
    if names.suffix not in layouts.YAML_SUFFIXES:
        return None
    with naming(names):
        entries = data_yaml.pictures_from_yaml(_text(names, _MOST_YAML_BYTES))
    lists = [names.parent / entry for entry in entries if entry.endswith(".txt")]
    if not lists:
        return None
    if len(lists) < len(entries):
        remedy = "Give lists alone or folders alone under train, val and test."
        raise InputError(_asked(names), "some of its pictures are in lists and others in folders", remedy)
    lines = [(file, line.strip()) for file in lists for line in _text(file).splitlines() if line.strip()]
    beside = ((file.parent / line, base / line) for file, line in lines)
    return [here if here.is_file() else there for here, there in beside]


def _yolo_pictures(
    pictures: Iterable[Path], *, labels: Path, images: Path, base: Path, class_names: Sequence[str]
) -> Iterator[PictureLabels]:
    seen: dict[Path, Path] = {}
    for picture in pictures:
        file = labels / _within(picture, images).with_suffix(".txt")
        if file in seen:
            found = f"it would be that of both {seen[file].name} and {picture.name}"
            raise InputError(_asked(file), found, "Rename one of the pictures.")
        seen[file] = picture
        text = _text(file) if file.is_file() else ""  # a picture without labels is background
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
