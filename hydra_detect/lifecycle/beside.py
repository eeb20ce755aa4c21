"""What lies beside the weights of a version that was trained or calibrated here: written and read in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hydra_detect import codec
from hydra_detect.data.splits import Split
from hydra_detect.errors import NotFoundError
from hydra_detect.lifecycle.report import TrainingRecord
from hydra_detect.measure.calibration import Calibration
from hydra_detect.measure.metrics import Metrics
from hydra_detect.measure.outcomes import Outcomes
from hydra_detect.storage import artifacts, layout

if TYPE_CHECKING:
    from hydra_detect.codec import Record
    from hydra_detect.data.samples import Role, Samples
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store

R = TypeVar("R", bound="Record")


def files(
    *,
    split: Split | None = None,
    training: TrainingRecord | None = None,
    calibration: Calibration | None = None,
    outcomes: Outcomes | None = None,
    evaluation: Metrics | None = None,
) -> dict[str, bytes]:
    """Return the files of what there is, by name."""
    records = {
        layout.SPLIT: split,
        layout.TRAINING: training,
        layout.CALIBRATION: calibration,
        layout.EVALUATION: evaluation,
    }
    found = {
        name: codec.encode(record, limit=codec.MAX_LIST_BYTES) for name, record in records.items() if record is not None
    }
    if outcomes is not None:
        found[layout.OUTCOMES] = artifacts.encode_tensors(outcomes.to_tensors())
    return found


def split_of(store: Store, version: VersionRecord) -> Split | None:
    """Return the roles that samples had for a version; None where none are kept with it."""
    return _record(store, version, layout.SPLIT, Split)


def training_of(store: Store, version: VersionRecord) -> TrainingRecord | None:
    """Return what the weights of a version came from; None where nothing is kept with it."""
    return _record(store, version, layout.TRAINING, TrainingRecord)


def evaluation_of(store: Store, version: VersionRecord) -> Metrics | None:
    """Return what was measured of a version when it was made; None where nothing is kept with it."""
    return _record(store, version, layout.EVALUATION, Metrics)


def calibration_of(store: Store, version: VersionRecord) -> Calibration | None:
    """Return what its calibration changed; None where none is kept with it."""
    return _record(store, version, layout.CALIBRATION, Calibration)


def outcomes_of(store: Store, version: VersionRecord) -> Outcomes:
    """Return the raw scores and labels that a version was calibrated on.

    Raises:
        NotFoundError: If none are kept with it.
        CorruptError: If they are damaged.
        RecordError: If they are of other classes than the head.

    """
    if layout.OUTCOMES not in version.files:
        raise NotFoundError(
            f"fit another policy of {version.ref}",
            "no calibration scores are kept with it",
            "Give samples to calibrate on: it was not trained or calibrated here.",
        )
    data = store.head(version.head).read(version, layout.OUTCOMES)
    what = f"the outcomes of {version.ref}"
    return Outcomes.from_tensors(artifacts.decode_tensors(data, what)).check_classes(version.record.class_names, what)


def seen_samples(store: Store, version: VersionRecord, samples: Samples, *, allowed: Role) -> list[str]:
    """Return the ids of samples that a version knows in another role than the allowed one.

    Known is a sample by its picture, or by its group: another picture of a recording that was learnt from. An id alone,
    such as "0001.png", says nothing in another data set: it counts if the two have at least one picture in common.
    """
    split = split_of(store, version)
    if split is None:
        return []
    others = [one for one in split.samples if one.role != allowed]
    pictures, groups = {one.picture for one in others}, {one.group for one in others if one.group != one.id}
    own = {one.picture for one in split.samples if not one.is_elsewhere}
    is_same_data = not own.isdisjoint(sample.picture_digest for sample in samples)
    ids = {one.id for one in others if not one.is_elsewhere} if is_same_data else set()
    return sorted(
        sample.id
        for sample in samples
        if sample.picture_digest in pictures or sample.group in groups or sample.id in ids
    )


def _record(store: Store, version: VersionRecord, name: str, kind: type[R]) -> R | None:
    if name not in version.files:
        return None
    data = store.head(version.head).read(version, name)
    return codec.decode(kind, data, f"{name} of {version.ref}", limit=codec.MAX_LIST_BYTES)
