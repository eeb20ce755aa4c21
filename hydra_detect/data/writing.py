"""Writing: `Samples` to label files that other programs read; pictures are named, not copied.

Law: `read_samples(write_samples(samples, path, format=f))` gives the same samples: boxes bit for bit, but for YOLO,
whose fractions may move a corner by one unit in the last place of float32; in the same order, but for VOC and YOLO,
where the order is that of the names. What a format cannot hold does not come back: groups in YOLO, classes without a
box in VOC and CSV, roles and counts of what was skipped in any. Numbers of COCO classes come back in COCO alone.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data import layouts
from hydra_detect.data.looking import is_file
from hydra_detect.errors import InputError, listed
from hydra_detect.formats import coco, csv_rows, data_yaml, voc, yolo
from hydra_detect.names import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hydra_detect.data.samples import Sample, Samples
    from hydra_detect.detections import GroundTruth


def write_samples(
    samples: Samples,
    path: str | os.PathLike[str],
    *,
    format: str,  # noqa: A002  as read_samples calls it
    pictures: str | os.PathLike[str] | None = None,
    voc_from_one: bool = False,
) -> Path:
    """Write labels, replacing nothing.

    Args:
        samples: Those to write; the picture of each is a file that is named as its id, within `pictures`.
        path: For COCO and CSV the file, for VOC and YOLO the folder of the data set, which gets `Annotations/`, or
            `labels/`, `data.yaml` and `pictures.txt`.
        format: One of `hydra_detect.data.reading.FORMATS`.
        pictures: The folder that ids are relative to; by default where `read_samples` would look: beside the labels,
            or where the format usually has them. (Ultralytics wants those of YOLO in `images/`.)
        voc_from_one: VOC alone: count pixels from 1, the last one included, as VOC's own devkit does, and most
            programs that read VOC; `read_samples` needs the same then.

    Returns:
        What `read_samples` reads; it needs the same `pictures`, if they were given.

    Raises:
        InputError: If a picture is no file or lies elsewhere, a file exists, something cannot be written, or
            voc_from_one is given for another format.

    """
    root = Path(path)
    layouts.check_format(format)
    layouts.check_from_one(format, voc_from_one=voc_from_one)
    places = layouts.places_beside_new(root, format) if pictures is None else [Path(pictures)]
    _check_pictures(samples, places, root)
    write = functools.partial(_voc_files, from_one=True) if voc_from_one else _WRITERS[format]
    _write_new(write(samples, root), root)
    return root


def _coco_files(samples: Samples, path: Path) -> dict[Path, str]:
    document = coco.ground_truth_to_coco(map(_truth, samples), categories=_numbered(samples))
    for image, sample in zip(document["images"], samples, strict=True):
        if sample.group != sample.id:
            image["group"] = sample.group
    return {path: json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"}


def _csv_files(samples: Samples, path: Path) -> dict[Path, str]:
    groups = [sample.group for sample in samples]
    has_groups = any(sample.group != sample.id for sample in samples)
    return {path: csv_rows.labels_to_csv(map(_truth, samples), groups=groups if has_groups else None)}


def _voc_files(samples: Samples, path: Path, *, from_one: bool = False) -> dict[Path, str]:
    files = {}
    for sample, file in _one_file_each(samples, path / "Annotations", ".xml"):
        group = None if sample.group == sample.id else sample.group
        files[file] = voc.labels_to_voc(_truth(sample), group=group, from_one=from_one)
    return files


def _yolo_files(samples: Samples, path: Path) -> dict[Path, str]:
    names = samples.class_names
    files = {file: yolo.labels_to_yolo(sample.truth, class_names=names)
             for sample, file in _one_file_each(samples, path / "labels", ".txt")}  # fmt: skip
    # Without the list, every other picture of the folder would be read as background.
    files[path / "pictures.txt"] = "".join(f"{_listed_as(sample, path)}\n" for sample in samples)
    files[path / "data.yaml"] = data_yaml.to_yaml(names, pictures="pictures.txt")
    return files


def _listed_as(sample: Sample, root: Path) -> str:
    """Return how a list in a folder names a picture: from there, in the only way that Ultralytics takes; or as its id.

    Pictures elsewhere are found where the user says that they are.
    """
    place = layouts.places_beside_new(root, layouts.YOLO)[0] / sample.id
    is_there = is_file(place) and place.samefile(os.fsdecode(sample.picture))
    return f"./{place.relative_to(root).as_posix()}" if is_there else sample.id


_WRITERS: Mapping[str, Callable[[Samples, Path], dict[Path, str]]] = {
    layouts.COCO: _coco_files,
    layouts.VOC: _voc_files,
    layouts.YOLO: _yolo_files,
    layouts.CSV: _csv_files,
}


def _truth(sample: Sample) -> GroundTruth:
    return attrs.evolve(sample.truth, source=sample.id)


def _numbered(samples: Samples) -> dict[str, int]:
    """Return the numbers that the classes had, and the next free ones for those that had none."""
    numbers, free = dict(samples.category_ids), max([0, *samples.category_ids.values()])
    for name in samples.class_names:
        if name not in numbers:
            free += 1
            numbers[name] = free
    return {name: numbers[name] for name in samples.class_names}


def _one_file_each(samples: Samples, folder: Path, suffix: str) -> list[tuple[Sample, Path]]:
    named = [(sample, folder / PurePosixPath(sample.id).with_suffix(suffix)) for sample in samples]
    taken: dict[Path, str] = {}
    for sample, file in named:
        if file in taken:
            found = f"{shown(taken[file])} and {shown(sample.id)} differ in their ending alone"
            raise InputError(_asked(folder), found, "Rename one of the pictures, or write COCO or CSV.")
        taken[file] = sample.id
    return named


def _asked(path: Path) -> str:
    return f"write labels to {str(path)!r}"


def _check_pictures(samples: Samples, places: list[Path], path: Path) -> None:
    strays = [sample for sample in samples if not _lies_in(sample, places)]
    if strays:
        found = f"the pictures of {len(strays)} samples do not lie there under their ids: "
        remedy = "Give pictures, the folder that ids are relative to; save pictures that are no files first."
        raise InputError(_asked(path), found + listed(shown(sample.id) for sample in strays), remedy)


def _lies_in(sample: Sample, places: list[Path]) -> bool:
    name = PurePosixPath(sample.id)
    if name.is_absolute() or ".." in name.parts or not isinstance(sample.picture, str | os.PathLike):
        return False  # label files of such names would be written elsewhere
    first = next((place / name for place in places if is_file(place / name)), None)
    picture = Path(os.fsdecode(sample.picture))
    return first is not None and is_file(picture) and first.samefile(picture)


def _write_new(files: Mapping[Path, str], path: Path) -> None:
    there = [file for file in files if file.exists() or file.is_symlink()]
    if there:
        found = f"{len(there)} files exist: {listed(str(file) for file in there)}"
        raise InputError(_asked(path), found, "Name another place, or remove them first.")
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8", newline="\n") as opened:
                opened.write(text)
    except OSError as error:
        found = f"{error.strerror or error} ({error.filename})"
        raise InputError(_asked(path), found, "Check the path, its permissions and the space.") from error
