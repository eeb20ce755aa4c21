"""Reading: a data set on disk to `Samples`, every box of which can be learnt from.

Pictures are found, and their size is read from their headers, but none is decoded. What is left out on the way (boxes
without area or outside their picture, crowd regions) is counted under `Samples.skipped`, and said in one warning of
this module's logger. What would make labels wrong (a picture that is missing, or of another size than it was labelled
in) is refused.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from hydra_detect.data import layouts, yolo_files
from hydra_detect.data.label_files import read_labels
from hydra_detect.data.looking import Places, naming
from hydra_detect.data.samples import Sample, Samples
from hydra_detect.errors import InputError, listed
from hydra_detect.formats.labels import usable
from hydra_detect.names import shown
from hydra_detect.pictures import image_size_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from hydra_detect.data.classes import Classes
    from hydra_detect.formats.labels import LabelSet, PictureLabels

FORMATS = layouts.FORMATS
"""The formats that are read: "coco", "voc", "yolo", "csv"."""

Grouping = Callable[[str], str]
"""From the id of a sample to its group."""

MISSING = "missing pictures or label files"
REFUSE, SKIP = "refuse", "skip"

logger = logging.getLogger(__name__)


def read_samples(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  what everybody calls it
    classes: Classes | None = None,
    pictures: str | os.PathLike[str] | None = None,
    group: Grouping | str | re.Pattern[str] | None = None,
    missing: str = REFUSE,
    voc_from_one: bool = False,
) -> Samples:
    """Read a labelled data set.

    Args:
        path: A label file, or the folder of the data set; for VOC also a list in `ImageSets/Main`. A `data.yaml` that
            is named itself may lie elsewhere than the `path` that it gives.
        format: One of `FORMATS`; recognised by what is there unless given.
        classes: Which classes are wanted, as for `Samples.choose`; all by default. Pictures without any box of them
            are background.
        pictures: The folder that names of pictures are relative to; by default beside the labels, or where the format
            usually has them. No picture outside is read, but where a link inside leads.
        group: What must not come apart: a function from a sample's id to its group, or a regular expression whose
            first group, or whole match, it is. By default what the files say, and else each sample alone.
        missing: "refuse" or "skip" samples whose picture or label file is not there. A picture of YOLO without a label
            file is background all the same, as it is to other programs, and a warning says how many there are.
        voc_from_one: VOC alone: pixels are counted from 1, the last one included, as VOC's own devkit does; a box over
            all of 64 x 48 pixels is (1, 1, 64, 48). By default corners are taken as they stand, continuous from 0:
            that box would be (0, 0, 64, 48), and one with xmin = xmax has no area.

    Returns:
        One sample per picture, those without boxes included; ids are the names of the pictures as the files say them.

    Raises:
        InputError: If the labels are not found, malformed or of several formats, a picture is missing (unless
            skipped), elsewhere, broken, or of another size than its labels say; file and place are named.

    """
    root = Path(path)
    if missing not in (REFUSE, SKIP):
        raise InputError("read samples", f"missing is {shown(missing)}", f"Give {REFUSE!r} or {SKIP!r}.")
    group_of = _grouping(group)
    label_format = layouts.recognise(root) if format is None else layouts.check_format(format)
    layouts.check_from_one(label_format, voc_from_one=voc_from_one)
    home = yolo_files.home_of(root) if label_format == layouts.YOLO else root
    usual = layouts.picture_places(home, label_format)
    places = Places(folders=usual if pictures is None else [Path(pictures)], labels=usual[0])
    labels = read_labels(root, label_format, places, voc_from_one=voc_from_one)
    found = [(one, None if one.name is None else places.find(one.name)) for one in labels.pictures]
    left_out = Counter({MISSING: _count_missing(root, found, missing)})
    _warn_of_unlabelled(root, found)
    items = []
    for one, file in found:
        if file is not None:
            size = image_size_of(file)
            with naming(root):
                sample, skipped = _sample(one, file, size, group_of)
            items.append(sample)
            left_out += skipped
    samples = _gathered(root, items, labels, +left_out)
    return samples if classes is None else samples.choose(classes)


def _gathered(root: Path, items: Sequence[Sample], labels: LabelSet, left_out: Counter[str]) -> Samples:
    if left_out:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        logger.warning("left out of %s: %s", root, counts)
    with naming(root):
        samples = Samples(items=items, skipped=left_out, category_ids=labels.category_ids)
        return samples if labels.class_names is None else attrs.evolve(samples, class_names=labels.class_names)


def _warn_of_unlabelled(root: Path, found: Sequence[tuple[PictureLabels, Path | None]]) -> None:
    count = sum(labels.is_unlabelled for labels, file in found if file is not None)
    if count:
        remedy = "if nobody looked at them, name the others in a list"
        told = "in %s, %d of %d pictures have no label file and count as background: %s"
        logger.warning(told, root, count, len(found), remedy)


def _count_missing(root: Path, found: Sequence[tuple[PictureLabels, Path | None]], missing: str) -> int:
    names = [shown(labels.name) for labels, file in found if file is None]
    if names and missing == REFUSE:
        remedy = "Give pictures, the folder that names are relative to; or missing='skip' to do without them."
        raise InputError(
            f"read the samples of {str(root)!r}",
            f"{len(names)} of {len(found)} pictures or their labels are not there: {listed(names)}",
            remedy,
            missing=sorted(names),
        )
    return len(names)


def _sample(
    labels: PictureLabels, file: Path, size: tuple[int, int], group_of: Grouping | None
) -> tuple[Sample, Counter[str]]:
    stated = labels.image_size or (0, 0)
    if all(stated) and stated != size:
        found = (
            f"it takes {str(file)!r} for {stated[0]} x {stated[1]} (height x width), and it is {size[0]} x {size[1]}"
        )
        remedy = "Label the pictures as they are, upright by their EXIF orientation: these boxes are in another frame."
        raise InputError("use labels", found, remedy)
    truth, skipped = usable(labels, size)
    name = labels.name or file.name
    group = labels.group or name if group_of is None else group_of(name)
    return Sample(id=name, picture=str(file), truth=truth, group=group), skipped


def _grouping(group: Grouping | str | re.Pattern[str] | None) -> Grouping | None:
    if group is None or callable(group):
        return group
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise InputError("group samples", f"{shown(group)} is no regular expression ({error})", "Correct it.") from None

    def group_of(name: str) -> str:
        match = pattern.search(name)
        found = match and match.group(1 if pattern.groups else 0)
        if not found:
            remedy = "Write one that finds a text in every id, or give a function."
            raise InputError("group samples", f"{pattern.pattern!r} finds nothing in the id {shown(name)}", remedy)
        return found

    return group_of
