"""YOLO data sets on disk: which pictures, label files and class names belong together.

A `data.yaml` says where its data set is (`path`) and which pictures of it count (`train`, `val`, `test`). Its word goes
so far: `path` is followed only where the user named the file itself, and no picture is read outside the folder of the
data set, or outside the one that the user gave for pictures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data import layouts
from hydra_detect.data.looking import asked_of, is_file, is_folder, naming, text_of, under
from hydra_detect.errors import InputError, listed
from hydra_detect.formats import data_yaml, yolo
from hydra_detect.formats.data_yaml import DataYaml
from hydra_detect.formats.labels import LabelSet, PictureLabels
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_YAML_BYTES = 1 << 20


@attrs.frozen(kw_only=True)
class _Wanted:
    """Which pictures count: those that are listed, or all in some folders, or simply all.

    Args:
        pictures: The listed ones, in their order; None where there are no lists.
        folders: None lies in another; None where none are named.
        missing: What is named as a folder, and is not there.

    """

    pictures: Sequence[Path] | None = None
    folders: Sequence[Path] | None = None
    missing: Sequence[str] = ()

    def within(self, images: Path) -> list[Path]:
        """Return the folders within a folder, or it itself, in which all pictures count."""
        if self.folders is None:
            return [images]
        return [max(images, one, key=lambda place: len(place.parts)) for one in self.folders if _overlap(images, one)]


@attrs.frozen(kw_only=True)
class _Batch:
    """Pictures whose label files lie in one folder as they themselves do in another.

    Args:
        labels: The folder of the label files.
        images: That of the pictures.
        pictures: Those that count.
        unpaired: Names of label files that have no picture.

    """

    labels: Path
    images: Path
    pictures: Sequence[Path]
    unpaired: Sequence[str] = ()


def home_of(path: Path) -> Path:
    """Return the folder of a data set: the one that is named, or that of a named file of class names.

    A `data.yaml` may call another one its `path`. One that is not there, because the data set was made elsewhere, means
    nothing.

    Raises:
        InputError: If the file cannot be read or is malformed.

    """
    return path if is_folder(path) else _home(path, _facts(path))


def read_yolo(path: Path, places: Sequence[Path]) -> LabelSet:
    """Read the labels of a data set.

    Args:
        path: Its folder, one of its folders of labels, or its `data.yaml` or other file of class names.
        places: The one folder that names of pictures are relative to.

    Raises:
        InputError: If a file cannot be read or is malformed, a picture that counts lies elsewhere, or there is none.

    """
    names = layouts.yolo_names(path) if is_folder(path) else path
    if names is None:
        remedy = "Put a data.yaml or classes.txt with the names into it, that of class 0 first."
        raise InputError(asked_of(path), "there is no file of class names", remedy)
    facts = _facts(names)
    home = _tidy(path if is_folder(path) else _home(names, facts))
    (base,) = map(_tidy, places)
    is_part = is_folder(path) and names.parent != path
    wanted = _inside(_wanted(names, facts, home=home, base=base), base, is_part=is_part)
    batches = _batches(wanted, home=home, base=base)
    if wanted.pictures != [] and not any(is_file(picture) for batch in batches for picture in batch.pictures):
        raise _no_picture(names, facts, base)
    found = [PictureLabels(name=name) for name in wanted.missing]
    for batch in batches:
        found += _labels_of(batch, base=base, class_names=facts.class_names)
    return LabelSet(pictures=found, class_names=facts.class_names)


def _facts(file: Path) -> DataYaml:
    text = text_of(file, _MOST_YAML_BYTES)
    if file.suffix.lower() not in layouts.YAML_SUFFIXES:
        return DataYaml(class_names=tuple(line.strip() for line in text.splitlines() if line.strip()))
    with naming(file):
        return data_yaml.from_yaml(text)


def _home(file: Path, facts: DataYaml) -> Path:
    home = Path(os.path.normpath(file.parent / (facts.home or "")))
    return home if is_folder(home) else file.parent


# What a data.yaml names


def _wanted(names: Path, facts: DataYaml, *, home: Path, base: Path) -> _Wanted:
    """Return which pictures are to count, wherever they are."""
    lists = [entry for entry in facts.pictures if entry.endswith(".txt")]
    if not facts.pictures:
        return _Wanted()
    if lists and len(lists) < len(facts.pictures):
        remedy = "Give lists alone or folders alone under train, val and test."
        raise InputError(asked_of(names), "some of its pictures are in lists and others in folders", remedy)
    found = {entry: _place_of(entry, names, facts, base) for entry in facts.pictures}
    if lists:
        files = [place or names.parent / entry for entry, place in found.items()]
        pictures = dict.fromkeys(picture for file in files for picture in _listed_in(file, home=home, base=base))
        return _Wanted(pictures=list(pictures))
    folders = {place for place in found.values() if place is not None}
    outermost = [one for one in sorted(folders) if folders.isdisjoint(one.parents)]
    return _Wanted(folders=outermost, missing=[entry for entry, place in found.items() if place is None])


def _place_of(entry: str, names: Path, facts: DataYaml, base: Path) -> Path | None:
    """Return the folder or list that an entry means, None if it is not there."""
    roots = (names.parent / (facts.home or ""), names.parent, base)
    texts = (entry, entry.removeprefix("../"))  # Roboflow's data sets have "../train/images" for train/images beside it
    places = [_tidy(root / text) for text in texts for root in roots]
    files = list(filter(is_file, places))
    if entry.endswith(".txt"):
        return files[0] if files else None
    folders = list(filter(is_folder, places))
    if files and not folders:
        remedy = "Give folders of pictures, or lists of them that end in .txt."
        raise InputError(asked_of(names), f"{shown(entry)} under train, val or test is another kind of file", remedy)
    return next((place for place in folders if _overlap(place, base)), folders[0] if folders else None)


def _listed_in(file: Path, *, home: Path, base: Path) -> Iterator[Path]:
    for line in filter(None, map(str.strip, text_of(file).splitlines())):
        places = [_tidy(folder / line) for folder in dict.fromkeys((file.parent, home, base))]
        inside = filter(is_file, (place for place in places if place.is_relative_to(base)))
        yield next(inside, None) or next(filter(is_file, places), _tidy(base / line))


def _inside(wanted: _Wanted, base: Path, *, is_part: bool) -> _Wanted:
    """Return which pictures in a folder count.

    Args:
        wanted: Which are named.
        base: The folder.
        is_part: It is a part of a larger data set: what is named elsewhere is not asked for. If all of it is, the user
            named a part that the data.yaml leaves out, and means it.

    Raises:
        InputError: If some lie elsewhere.

    """
    pictures = [picture for picture in wanted.pictures or () if base in picture.parents]
    folders = [folder for folder in wanted.folders or () if _overlap(folder, base)]
    if is_part:
        return _Wanted(pictures=pictures) if pictures else _Wanted(folders=folders or None)
    outside = {*(wanted.pictures or ()), *(wanted.folders or ())} - {*pictures, *folders}
    if outside:
        raise _elsewhere(min(outside), base)
    return wanted


# What lies where


def _batches(wanted: _Wanted, *, home: Path, base: Path) -> list[_Batch]:
    """Return the pictures that count, each with where its labels are.

    Args:
        wanted: Which pictures count.
        home: The folder of the data set.
        base: That of the pictures.

    """
    pairs = layouts.yolo_pairs(home)
    if len(pairs) == 1:  # the user may have said where the pictures are
        ((labels, _images),) = pairs
        pairs = [(labels, base)] if labels != base and layouts.has_yolo_labels(labels) else []
    if wanted.pictures is not None:
        return _listed_batches(wanted.pictures, pairs)
    others = [
        folder for folder in wanted.within(base) if not any(_overlap(folder, images) for _labels, images in pairs)
    ]
    pairs += [(layouts.yolo_labels_of(folder), folder) for folder in others]
    return [_batch(wanted.within(images), labels=labels, images=images) for labels, images in pairs]


def _batch(folders: Sequence[Path], *, labels: Path, images: Path) -> _Batch:
    """Return all pictures in some folders within `images`."""
    pictures = sorted(picture for folder in folders for picture in layouts.pictures_under(folder))
    have = {picture.relative_to(images).with_suffix("") for picture in pictures}
    files = sorted(filter(layouts.is_yolo_labels, under(labels, "*.txt")))
    names = [file.relative_to(labels).with_suffix("") for file in files]
    counted = (name for name in names if any((images / name).is_relative_to(folder) for folder in folders))
    unpaired = [name.as_posix() for name in counted if name not in have]
    return _Batch(labels=labels, images=images, pictures=pictures, unpaired=unpaired)


def _listed_batches(pictures: Sequence[Path], pairs: Sequence[tuple[Path, Path]]) -> list[_Batch]:
    found: dict[tuple[Path, Path], list[Path]] = {}
    labels_of: dict[Path, Path] = {}
    for picture in pictures:
        pair = next((pair for pair in pairs if picture.is_relative_to(pair[1])), None)
        if pair is None:
            folder = picture.parent
            labels_of[folder] = labels_of.get(folder) or layouts.yolo_labels_of(folder)
            pair = (labels_of[folder], folder)
        found.setdefault(pair, []).append(picture)
    return [_Batch(labels=labels, images=images, pictures=own) for (labels, images), own in found.items()]


def _labels_of(batch: _Batch, *, base: Path, class_names: Sequence[str]) -> Iterator[PictureLabels]:
    seen: dict[Path, Path] = {}
    for picture in batch.pictures:
        if base not in picture.parents:
            raise _elsewhere(picture, base)
        file = batch.labels / picture.relative_to(batch.images).with_suffix(".txt")
        if file in seen:
            found = f"it would be that of both {seen[file].name} and {picture.name}"
            raise InputError(asked_of(file), found, "Rename one of the pictures.")
        seen[file] = picture
        text = text_of(file) if is_file(file) else ""  # a picture without labels is background
        with naming(file):
            name = picture.relative_to(base).as_posix()
            yield yolo.labels_from_yolo(text, class_names=class_names, name=name)
    for name in batch.unpaired:
        yield PictureLabels(name=name)


def _no_picture(names: Path, facts: DataYaml, base: Path) -> InputError:
    found, remedy = f"there is no picture in {str(base)!r}", "Give pictures, the folder in which they are."
    if facts.pictures:
        found += f" where it says: {listed(map(shown, facts.pictures))}"
        remedy = "Correct path, train, val and test; or give pictures, the folder in which they are."
    return InputError(asked_of(names), found, remedy)


def _elsewhere(place: Path, base: Path) -> InputError:
    asked, found = f"read the pictures in {str(base)!r}", f"{str(place)!r} is not in it"
    remedy = "Give as pictures the folder in which all of them are; where a data.yaml is named itself, its path counts."
    return InputError(asked, found, remedy)


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _tidy(path: Path) -> Path:
    """Return a path that can be compared; links stay, so that they may lead to another disk."""
    return Path(os.path.abspath(path))  # noqa: PTH100  Path.absolute keeps "..", Path.resolve follows links
