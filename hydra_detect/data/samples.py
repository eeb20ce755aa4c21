"""Samples: pictures with their labelled boxes, and what each may be used for.

A `Sample` is checked at birth, so that no broken box stops a training half-way: every box has an area and lies in its
picture. Digests tell samples apart by content: the picture's bytes alone, and picture and labels together. `Samples`
are an ordinary sequence of them with the classes that are wanted.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np

from hydra_detect import codec, fields
from hydra_detect.data.classes import Classes, check_class_names, chosen
from hydra_detect.detections import GroundTruth
from hydra_detect.errors import InputError, listed, near_matches
from hydra_detect.names import Digest, shown
from hydra_detect.pictures import DEFAULT_MAX_PIXELS, Picture, open_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Role(enum.StrEnum):
    """What samples are used for; no sample has two roles."""

    TRAIN = "train"
    """The weights are fitted to these."""

    SELECT = "select"
    """Training is stopped, and the best weights are chosen, by these."""

    CALIBRATE = "calibrate"
    """Temperature and thresholds are fitted to these."""

    TEST = "test"
    """The finished version is measured with these, once."""


def as_role(value: Any) -> Role:
    """Return the role of this name.

    Raises:
        InputError: If there is none.

    """
    try:
        return Role(value)
    except ValueError:
        raise InputError(
            "use a role", f"there is none named {shown(value)}", near_matches(value, map(str, Role))
        ) from None


def _picture_key(picture: Any) -> str:
    """Return what tells pictures apart: the path of a file, the content of anything else."""
    return os.fsdecode(picture) if isinstance(picture, str | os.PathLike) else digest_of_picture(picture).hex


@attrs.frozen(kw_only=True)
class Sample:
    """One picture and its labels.

    Args:
        id: Unique and stable: for files the path within the data set, as the label file gives it.
        picture: What `hydra_detect.pictures.open_picture` takes: mostly a path.
        truth: The labelled boxes; none for a background picture. Its `image_size` is that of the picture.
        group: Samples of one group never come apart: one recording, one patient, near-duplicates. Its id by default.

    Raises:
        InputError: If the id or group is empty or unprintable, the size of the picture is unknown, or a box has no
            area or is not within the picture.

    """

    id: str = attrs.field()
    picture: Any = attrs.field(eq=_picture_key)
    truth: GroundTruth = attrs.field(validator=attrs.validators.instance_of(GroundTruth))
    group: str = attrs.field()

    @group.default
    def _alone(self) -> str:
        return self.id

    @id.validator
    @group.validator
    def _check_text(self, attribute: attrs.Attribute[str], value: str) -> None:
        if not isinstance(value, str) or not value or not value.isprintable() or value != value.strip():
            found = f"its {attribute.name} is {shown(value)}"
            raise InputError("make a sample", found, "Give a printable text that neither begins nor ends with a space.")

    @truth.validator
    def _check_truth(self, _attribute: Any, truth: GroundTruth) -> None:
        asked = f"make sample {shown(self.id)}"
        height, width = truth.image_size
        if height <= 0 or width <= 0:
            raise InputError(asked, f"its picture's size is {height} x {width}", "Set image_size of its GroundTruth.")
        low, high = truth.boxes[:, :2], truth.boxes[:, 2:]  # [box, axis] each
        bad = (high <= low).any(axis=1) | (low < 0).any(axis=1) | (high > (width, height)).any(axis=1)
        if bad.any():
            first = truth.boxes[bad][0].tolist()
            found = f"{int(bad.sum())} of its boxes have no area or leave the picture of {height} x {width}: {first}"
            raise InputError(asked, found, "Leave such boxes out, and clip those that stick out to the picture.")

    def open(self, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
        """Read the picture.

        Args:
            max_pixels: Most pixels (height times width) it may have.

        Raises:
            InputError: If it cannot be read, or is of another size than the one it was labelled in.

        """
        picture = open_picture(self.picture, max_pixels=max_pixels)
        if picture.image_size != self.truth.image_size:
            (height, width), (labelled_height, labelled_width) = picture.image_size, self.truth.image_size
            found = f"it is {height} x {width} and was labelled at {labelled_height} x {labelled_width}"
            remedy = "Label the picture as it is, upright by its EXIF orientation: its boxes are in another frame."
            raise InputError(f"open the picture of sample {shown(self.id)}", found, remedy, id=self.id)
        return picture

    @functools.cached_property
    def picture_digest(self) -> Digest:
        """SHA-256 of the picture's content, see `digest_of_picture`; computed once."""
        return digest_of_picture(self.picture)

    @functools.cached_property
    def digest(self) -> Digest:
        """SHA-256 of the picture and its labels, in whatever order they stand; computed once."""
        rows = zip(self.truth.label_names, self.truth.boxes.tolist(), strict=True)
        labels = sorted([label, *box] for label, box in rows)
        return codec.digest_of({"picture": str(self.picture_digest), "labels": labels})


def digest_of_picture(picture: Any) -> Digest:
    """Return the SHA-256 of a picture's content.

    Args:
        picture: What `open_picture` takes. Of a file its bytes count; of an array, a tensor, a PIL image or a Picture
            its dtype (or mode), shape and values. A file and the array read from it have different digests.

    Raises:
        InputError: If a file cannot be read.

    """
    if isinstance(picture, str | os.PathLike):
        try:
            with Path(os.fsdecode(picture)).open("rb") as file:
                return Digest(hashlib.file_digest(file, "sha256").hexdigest())
        except (OSError, ValueError) as error:
            asked, found = f"read the picture {os.fsdecode(picture)!r}", getattr(error, "strerror", None) or str(error)
            raise InputError(asked, found, "Check the path.") from error
    if isinstance(picture, Picture):
        picture = picture.pixels
    if callable(getattr(picture, "detach", None)):  # a tensor; numpy has no bfloat16, and float32 holds all of it
        picture = picture.detach().cpu()
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
    values = np.ascontiguousarray(picture)
    kind = f"{getattr(picture, 'mode', '')} {values.dtype.newbyteorder('<').str} {list(values.shape)}\n"
    little_endian = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return Digest(hashlib.sha256(kind.encode() + little_endian.tobytes()).hexdigest())


def _as_optional_role(value: Any) -> Role | None:
    return None if value is None else as_role(value)


def _samples(items: Iterable[Sample]) -> tuple[Sample, ...]:
    return tuple(items)


def _numbers(values: Mapping[str, int]) -> dict[str, int]:
    return dict(values)


@attrs.frozen(kw_only=True)
class Samples(Sequence[Sample]):
    """Labelled samples, in order.

    Args:
        items: The samples.
        class_names: All wanted classes, those without a box too; by default the names that occur, sorted.
        role: What they are used for, once they have been split.
        skipped: How much was left out when they were read, by reason.
        category_ids: The numbers that classes had in a COCO file, kept for writing one. They do not count when samples
            are compared.

    Raises:
        InputError: If two samples have one id, or a box has a class that is not among the names.

    """

    items: tuple[Sample, ...] = attrs.field(default=(), converter=_samples)
    class_names: tuple[str, ...] = attrs.field(converter=fields.texts, validator=check_class_names)
    role: Role | None = attrs.field(default=None, converter=_as_optional_role)
    skipped: Mapping[str, int] = attrs.field(factory=dict, converter=_numbers)
    category_ids: Mapping[str, int] = attrs.field(factory=dict, converter=_numbers, eq=False, repr=False)

    @class_names.default
    def _names_that_occur(self) -> tuple[str, ...]:
        return tuple(sorted({name for sample in self.items for name in sample.truth.label_names}))

    def __attrs_post_init__(self) -> None:
        """Refuse ids that stand twice, and classes that nobody wants."""
        twice = [name for name, count in Counter(sample.id for sample in self.items).items() if count > 1]
        if twice:
            found = f"these ids stand twice: {listed(twice)}"
            raise InputError("gather samples", found, "Give each sample an id of its own.", ids=sorted(twice))
        known = set(self.class_names)
        strange = {name for sample in self.items for name in sample.truth.label_names if name not in known}
        if strange:
            found = f"boxes are of the classes {listed(strange)}, and class_names are {listed(known) or 'empty'}"
            raise InputError("gather samples", found, "Add them to class_names, or choose(...) the classes you want.")

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.items)

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples in order."""
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> Samples: ...
    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[Any]) -> Sample | Samples:
        """Return one by its number, or several by slice, list of numbers or boolean mask [sample]."""
        if isinstance(index, int | np.integer):
            return self.items[index]
        if isinstance(index, slice):
            return attrs.evolve(self, items=self.items[index])
        rows = np.asarray(index)
        places = np.arange(len(self))[rows] if rows.size else ()  # numpy takes an empty list for floats
        return attrs.evolve(self, items=[self.items[place] for place in places])

    @functools.cached_property
    def digest(self) -> Digest:
        """SHA-256 of the samples' digests, in whatever order they stand; computed once."""
        return Digest(hashlib.sha256("\n".join(sorted(s.digest.hex for s in self.items)).encode()).hexdigest())

    @property
    def labelled(self) -> int:
        """Number of samples with at least one box."""
        return sum(1 for sample in self.items if len(sample.truth))

    @property
    def backgrounds(self) -> int:
        """Number of samples without any box."""
        return len(self) - self.labelled

    @property
    def box_counts(self) -> dict[str, int]:
        """Number of boxes of each class, in the order of `class_names`."""
        counts = Counter(name for sample in self.items for name in sample.truth.label_names)
        return {name: counts[name] for name in self.class_names}

    def choose(self, classes: Classes) -> Samples:
        """Return the same samples with only the boxes of these classes; the others become background.

        Args:
            classes: Names; or a mapping from each new name to the name, or names, that it stands for.

        Raises:
            InputError: If a name is not among `class_names`, or would belong to two new classes.

        """
        new_names = chosen(classes, self.class_names)  # old name -> new name
        ids: dict[str, int] = {}
        for old in new_names.keys() & self.category_ids.keys():
            ids[new_names[old]] = min(self.category_ids[old], ids.get(new_names[old], self.category_ids[old]))
        items = [attrs.evolve(sample, truth=_renamed(sample.truth, new_names)) for sample in self.items]
        return attrs.evolve(self, items=items, class_names=dict.fromkeys(new_names.values()), category_ids=ids)

    def check_pictures(self, asked: str) -> None:
        """Read every picture once, so that what follows meets none in its last step that cannot be read.

        Args:
            asked: What they are for, as a phrase ("train a head").

        Raises:
            InputError: If some cannot be read, or are no longer what was read here before; it names them all.

        """
        bad: dict[str, str] = {}
        for sample in self.items:
            try:
                sample.open()
                if digest_of_picture(sample.picture) != sample.picture_digest:
                    bad[sample.id] = "it was changed since"
            except InputError as error:
                bad[sample.id] = error.found
        if bad:
            told = listed(f"{shown(name)} ({why})" for name, why in bad.items())
            remedy = "Mend these pictures, or leave them out; if they were changed, read the samples anew."
            raise InputError(asked, f"{len(bad)} of {len(self)} pictures cannot be read: {told}", remedy, ids=[*bad])

    def with_role(self, role: Role | str | None) -> Samples:
        """Return the same samples for this use."""
        return attrs.evolve(self, role=role)


def _renamed(truth: GroundTruth, new_names: Mapping[str, str]) -> GroundTruth:
    kept = truth.only(*new_names)
    return attrs.evolve(kept, label_names=[new_names[name] for name in kept.label_names])
