"""Where the files of a data set lie: the usual layouts of the four formats, and nothing of what the files say.

COCO: one `.json`, pictures beside it or in `images/`. VOC: `Annotations/*.xml` beside `JPEGImages/`, with an author's
lists in `ImageSets/Main/*.txt`; or `annotations/` beside `images/`. YOLO: `labels/` beside `images/`, or one such pair
for each split, with the class names in a `data.yaml`, `classes.txt` or `obj.names`. CSV: one `.csv`, pictures beside it
or in `images/`.
"""

from __future__ import annotations

from pathlib import Path

from hydra_detect.data.looking import entries, is_file, is_folder, looking_at, under
from hydra_detect.errors import InputError, listed, near_matches
from hydra_detect.names import shown
from hydra_detect.pictures import SUFFIXES

COCO, VOC, YOLO, CSV = "coco", "voc", "yolo", "csv"
FORMATS = (COCO, VOC, YOLO, CSV)
"""The formats that are read and written."""

YAML_SUFFIXES = (".yaml", ".yml")
_PLAIN_NAMES = ("classes.txt", "obj.names")
_NO_LABELS = ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "pictures.txt")
_ANNOTATIONS, _LOWER_ANNOTATIONS = "Annotations", "annotations"
_COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"')


def check_format(name: str) -> str:
    """Return `name` if it is one of `FORMATS`.

    Raises:
        InputError: With near matches, if not.

    """
    if name not in FORMATS:
        raise InputError("read labels", f"there is no format {shown(name)}", near_matches(name, FORMATS))
    return name


def check_from_one(label_format: str, *, voc_from_one: bool) -> None:
    """See that only VOC is asked to count pixels from 1.

    Raises:
        InputError: If another format is.

    """
    if voc_from_one and label_format != VOC:
        problem = f"the labels are {label_format}, and VOC alone is known to do so"
        raise InputError("count pixels from 1", problem, "Leave voc_from_one out.")


def recognise(path: Path) -> str:
    """Return the format of a label file or a data set's folder, by what is there.

    Raises:
        InputError: If nothing is, or several formats are: which ones is said.

    """
    asked = f"recognise the labels in {str(path)!r}"
    if is_file(path):
        found = _formats_of_file(path)
    elif is_folder(path):
        found = [name for name, is_there in _IN_FOLDER.items() if is_there(path)]
    else:
        raise InputError(asked, "there is no such file or folder", "Check the path.")
    if len(found) == 1:
        return found[0]
    if not found:
        remedy = "Name a COCO .json, a folder of VOC .xml or of YOLO .txt with class names, or a .csv; or give format."
        raise InputError(asked, "no labels of a known format are there", remedy)
    remedy = f"Give format as one of {listed(found)}, or name the label file itself."
    raise InputError(asked, f"there are labels of several formats: {listed(found)}", remedy, formats=found)


def label_file(path: Path, suffix: str) -> Path:
    """Return the one label file that a path stands for: itself, or the only one of its folder.

    Raises:
        InputError: If there is none, or more than one.

    """
    if not is_folder(path):
        return path
    files = _jsons_of_coco(path) if suffix == ".json" else _files(path, suffix)
    if len(files) == 1:
        return files[0]
    found = f"it has {len(files)} such files: {listed(file.name for file in files)}" if files else "it has none"
    raise InputError(f"find the {suffix} of labels in {str(path)!r}", found, "Name the file itself.")


def voc_annotations(path: Path) -> Path:
    """Return the folder of `.xml` that a data set's folder, that folder itself, or a list in `ImageSets` means."""
    root = path if is_folder(path) else path.parent.parent.parent
    if is_folder(root / _ANNOTATIONS):
        return root / _ANNOTATIONS
    lower = root / _LOWER_ANNOTATIONS  # that of a COCO set holds .json
    return lower if any(under(lower, "*.xml")) else root


def voc_files(folder: Path) -> list[Path]:
    """Return the annotations of a data set's folder, by name; only one named `Annotations` is searched to its depth."""
    annotations = voc_annotations(folder)
    is_named = annotations.name in (_ANNOTATIONS, _LOWER_ANNOTATIONS)
    files = under(annotations, "*.xml") if is_named else _files(annotations, ".xml")
    return sorted(files)


def yolo_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return folders of labels, each with that of its pictures; `folder` is the data set's, or one of labels alone."""
    roots = [folder, *filter(is_folder, entries(folder))]
    with_labels = [root for root in roots if is_folder(root / "labels")]
    if not with_labels:
        return [(folder, _images_of(folder))]
    splits = [folder] if folder in with_labels else with_labels
    return [(root / "labels", _images_beside(root)) for root in splits]


def _images_beside(root: Path) -> Path:
    return root / "images" if is_folder(root / "images") else root


def _images_of(labels: Path) -> Path:
    """Return the folder that is named `images` where a folder of labels is named `labels`, else that folder."""
    return _twin(labels.resolve(), "labels", "images") or labels


def yolo_labels_of(images: Path) -> Path | None:
    """Return where the labels of a folder of pictures are: beside them, or as `_images_of` the other way round."""
    return images if has_yolo_labels(images) else _twin(images, "images", "labels")


def _twin(folder: Path, name: str, other: str) -> Path | None:
    """Return the folder that differs in one part of its path, the last of that name; None if there is none."""
    parts = list(folder.parts)
    if name not in parts:
        return None
    last = len(parts) - 1 - parts[::-1].index(name)
    twin = Path(*parts[:last], other, *parts[last + 1 :])
    return twin if is_folder(twin) else None


def yolo_names(folder: Path) -> Path | None:
    """Return the file of class names: in the folder, or in one of the two above it."""
    for place in (folder, *folder.resolve().parents[:2]):
        yamls = [place / f"data{suffix}" for suffix in YAML_SUFFIXES]
        for file in (*yamls, *(place / name for name in _PLAIN_NAMES)):
            if is_file(file):
                return file
    return None


def is_yolo_labels(file: Path) -> bool:
    """Tell whether a `.txt` is one of labels, by its name: lists of classes and pictures lie beside them."""
    return file.name.lower() not in _NO_LABELS and not file.name.lower().startswith("readme")


def has_yolo_labels(folder: Path) -> bool:
    """Tell whether label files are in a folder or within those in it."""
    return any(map(is_yolo_labels, under(folder, "*.txt")))


def picture_places(path: Path, label_format: str) -> list[Path]:
    """Return the folders that picture names may be relative to, the likeliest first."""
    folder = path if is_folder(path) else path.parent
    if label_format == VOC:
        return _places_of_voc(voc_annotations(path))
    if label_format == YOLO:
        pairs = yolo_pairs(folder)
        return [pairs[0][1] if len(pairs) == 1 else folder]
    return [folder, folder / "images", folder.parent / "images", folder.parent]


def places_beside_new(path: Path, label_format: str) -> list[Path]:
    """Return the same for labels that are still to be written to `path`."""
    if label_format == VOC:
        return _places_of_voc(path / _ANNOTATIONS)
    return [_images_beside(path)] if label_format == YOLO else picture_places(path, label_format)


def _places_of_voc(annotations: Path) -> list[Path]:
    root = annotations.parent
    return [annotations, root / "JPEGImages", root, root / "images"]


def pictures_under(folder: Path) -> list[Path]:
    """Return all picture files in a folder and those within, by name."""
    return sorted(file for file in under(folder, "*") if file.suffix.lower() in SUFFIXES and is_file(file))


def _formats_of_file(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return [VOC] if (voc_annotations(path) != path.parent.parent.parent) else []
    by_suffix = {".json": COCO, ".csv": CSV} | dict.fromkeys(YAML_SUFFIXES, YOLO)
    return [by_suffix[suffix]] if suffix in by_suffix else []


def _files(folder: Path, suffix: str) -> list[Path]:
    return [file for file in entries(folder) if file.suffix.lower() == suffix and is_file(file)]


def _jsons_of_coco(folder: Path) -> list[Path]:
    return [file for file in _files(folder, ".json") if _is_coco(file)]


def _is_coco(file: Path) -> bool:
    with looking_at(file):
        text = file.read_bytes()
    return all(key in text for key in _COCO_KEYS)


def _has_voc(folder: Path) -> bool:
    return bool(voc_files(folder))


def _has_yolo(folder: Path) -> bool:
    names = yolo_names(folder)
    if names is None:
        return False
    if names.parent == folder and names.suffix in YAML_SUFFIXES:
        return True
    return any(has_yolo_labels(labels) for labels, _images in yolo_pairs(folder))


def _has_coco(folder: Path) -> bool:
    return bool(_jsons_of_coco(folder))


def _has_csv(folder: Path) -> bool:
    return bool(_files(folder, ".csv"))


_IN_FOLDER = {COCO: _has_coco, VOC: _has_voc, YOLO: _has_yolo, CSV: _has_csv}
