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
from hydra_detect.data.looking import asked_of, is_file, is_folder, naming, text_of, tidy, under
from hydra_detect.errors import InputError, listed
from hydra_detect.formats import data_yaml, yolo
from hydra_detect.formats.data_yaml import DataYaml
from hydra_detect.formats.labels import LabelSet, PictureLabels
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hydra_detect.data.looking import Places

_Pair = tuple[Path, Path]
"""Labels, and the pictures that they belong to: two folders, or two files."""

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


def home_of(path: Path) -> Path:
    """Return the folder of a data set: the one that is named, or that of a named file of class names.

    A `data.yaml` may call another one its `path`. One that is not there, because the data set was made elsewhere, means
    nothing.

    Raises:
        InputError: If the file cannot be read or is malformed.

    """
    return path if is_folder(path) else _home(path, _facts(path))


def read_yolo(path: Path, places: Places) -> LabelSet:
    """Read the labels of a data set.

    Args:
        path: Its folder, one of its folders of labels, or its `data.yaml` or other file of class names.
        places: With the one folder that names of pictures are relative to.

    Raises:
        InputError: If a file cannot be read or is malformed, a picture that counts lies elsewhere, or there is none.

    """
    names = layouts.yolo_names(path) if is_folder(path) else path
    if names is None:
        remedy = "Put a data.yaml or classes.txt with the names into it, that of class 0 first."
        raise InputError(asked_of(path), "there is no file of class names", remedy)
    facts = _facts(names)
    home = tidy(path if is_folder(path) else _home(names, facts))
    (base,) = map(tidy, places.folders)
    is_part = is_folder(path) and names.parent != path
    wanted = _inside(_wanted(names, facts, home=home, base=base), base, is_part=is_part)
    missing: Sequence[str] = ()
    if wanted.pictures is None:
        files, missing = _gathered(wanted.folders, home=home, base=base)
    else:
        files = _listed(wanted.pictures, home=home, base=base)
    if wanted.pictures != [] and not any(is_file(picture) for _labels, picture in files):
        raise _no_picture(names, facts, base)
    found = [*_labels_in(files, base=base, class_names=facts.class_names)]
    found += [PictureLabels(name=name) for name in (*wanted.missing, *missing)]
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
    if not facts.pictures:
        return _Wanted()
    lists = [entry for entry in facts.pictures if entry.endswith(".txt")]
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
    places = [tidy(root / text) for text in texts for root in roots]
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
        places = [tidy(folder / line) for folder in dict.fromkeys((file.parent, home, base))]
        inside = filter(is_file, (place for place in places if place.is_relative_to(base)))
        yield next(inside, None) or next(filter(is_file, places), tidy(base / line))


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
    around = [folder for folder in wanted.folders or () if _overlap(folder, base)]
    outside = {*(wanted.pictures or ()), *(wanted.folders or ())} - {*pictures, *around}
    if outside and not is_part:
        raise _elsewhere(min(outside), base)
    folders = [folder if folder.is_relative_to(base) else base for folder in around]
    if is_part:
        return _Wanted(pictures=pictures) if pictures else _Wanted(folders=folders or None)
    return wanted if wanted.folders is None else attrs.evolve(wanted, folders=folders)


# What lies where


def _pairs(home: Path, base: Path) -> list[_Pair]:
    """Return the folders of labels of a data set, as far as there are any, each with that of its pictures."""
    pairs = layouts.yolo_pairs(home)
    if len(pairs) > 1:
        return pairs
    ((labels, images),) = pairs
    images = images if images.is_relative_to(base) else base  # the user may have said where the pictures are
    has_labels = labels != home or layouts.has_yolo_labels(labels)
    return [(labels, images)] if has_labels and labels != images else []


def _labels_of(folder: Path, pairs: Sequence[_Pair], *, home: Path, base: Path) -> Path:
    """Return where the labels of a folder of pictures are; that folder itself, if there are none."""
    known = [labels / folder.relative_to(images) for labels, images in pairs if folder.is_relative_to(images)]
    before = home / folder.relative_to(base)  # where it was, if the user gave another folder of pictures
    places = [*filter(is_folder, known), *map(layouts.yolo_labels_of, (folder, before))]
    return next(filter(None, places), folder)


def _listed(pictures: Sequence[Path], *, home: Path, base: Path) -> list[_Pair]:
    """Return the listed pictures, each with its label file."""
    pairs, folders = _pairs(home, base), {picture.parent for picture in pictures}
    labels = {folder: _labels_of(folder, pairs, home=home, base=base) for folder in folders}
    return [(labels[picture.parent] / picture.with_suffix(".txt").name, picture) for picture in pictures]


def _gathered(folders: Sequence[Path] | None, *, home: Path, base: Path) -> tuple[list[_Pair], list[str]]:
    """Return the pictures in some folders, or in all, each with its label file.

    Returns:
        Those; and of each label file that has no picture the name that this would have, but for its ending.

    """
    pairs, files, names = _pairs(home, base), [], []
    if folders is not None or not pairs:
        pairs = [pair for folder in folders or [base] for pair in _pairs_in(folder, pairs, home=home, base=base)]
    for labels, images in pairs:
        own = [(labels / one.relative_to(images).with_suffix(".txt"), one) for one in layouts.pictures_under(images)]
        lone = {*filter(layouts.is_yolo_labels, under(labels, "*.txt"))} - {file for file, _picture in own}
        meant = [images / file.relative_to(labels).with_suffix("") for file in sorted(lone)]
        names += [(one.relative_to(base) if base in one.parents else one).as_posix() for one in meant]
        files += own
    return files, names


def _pairs_in(folder: Path, pairs: Sequence[_Pair], *, home: Path, base: Path) -> list[_Pair]:
    """Return the pairs whose pictures are in a folder; one of its own, if there are none."""
    inner = [pair for pair in pairs if pair[1].is_relative_to(folder)]
    return inner or [(_labels_of(folder, pairs, home=home, base=base), folder)]


def _labels_in(pairs: Iterable[_Pair], *, base: Path, class_names: Sequence[str]) -> Iterator[PictureLabels]:
    seen: dict[Path, Path] = {}
    for file, picture in pairs:
        if base not in picture.parents:
            raise _elsewhere(picture, base)
        if file in seen:
            found = f"it would be that of both {seen[file].name} and {picture.name}"
            raise InputError(asked_of(file), found, "Rename one of the pictures.")
        seen[file] = picture
        is_labelled, name = is_file(file), picture.relative_to(base).as_posix()
        with naming(file):
            labels = yolo.labels_from_yolo(text_of(file) if is_labelled else "", class_names=class_names, name=name)
        yield attrs.evolve(labels, is_unlabelled=not is_labelled)


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
