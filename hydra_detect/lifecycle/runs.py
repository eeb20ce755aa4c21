"""Runs side by side: what trainings of a store came to, from the reports that they left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError, NotFoundError, near_matches
from hydra_detect.lifecycle.original import OriginalReport
from hydra_detect.lifecycle.report import TrainingReport
from hydra_detect.names import shown
from hydra_detect.storage import files, layout
from hydra_detect.storage.store import Store
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.runs import REPORT

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path


DAMAGED = "damaged"


@attrs.frozen(kw_only=True)
class RunSummary:
    """One run at a glance.

    Args:
        name: Of its folder.
        head: The head that it trained.
        version: The version that it made; None if none.
        outcome: "promoted", "kept", "not published", "original", or "damaged" where the report cannot be read.
        method: How it was measured.
        figures: F1, AP50 and so on.
        samples_digest: Of the samples that they were measured on: figures of others do not compare.
        epochs: How many it trained.
        best_epoch: Which it kept.
        seconds: What training took, that of cross-validation included.
        settings: Those that differ from the defaults.
        trouble: What is wrong with the report of a damaged one.

    """

    name: str
    head: str
    version: int | None = None
    outcome: str
    method: str = ""
    figures: Mapping[str, float] = attrs.field(factory=dict)
    samples_digest: str = ""
    epochs: int = 0
    best_epoch: int = 0
    seconds: float = 0.0
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    trouble: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return attrs.asdict(self)


def compare_runs(store: str | os.PathLike[str] | Store, heads: Sequence[str] = ()) -> list[RunSummary]:
    """Return the finished runs of a store, by head and oldest first; one whose report is damaged says so.

    Args:
        store: The store, or its path.
        heads: Only theirs; all where none is named.

    Raises:
        NotFoundError: If a head that is named is not in the store and has no runs either.
        StoreError: If the folder of the runs cannot be read.

    """
    store = Store.open(store)
    root = store.layout.every_run
    names = sorted(files.names_in(root, f"list the runs of {store!r}"))
    _check_known(heads, {*names, *store.names(layout.HEADS)}, store)
    found = []
    for head in [name for name in names if not heads or name in heads]:
        reports = [path for path in root.joinpath(head).glob(f"*/{REPORT}") if path.is_file()]
        found += [_summary(head, path) for path in sorted(reports, key=lambda path: path.stat().st_mtime)]
    return found


def _check_known(heads: Sequence[str], known: Collection[str], store: Store) -> None:
    for head in heads:
        if head not in known:  # a training that published nothing leaves runs of a head that is none
            found = f"the store {store.root} has no such head, and no runs of one"
            raise NotFoundError(f"compare the runs of {shown(head)}", found, near_matches(head, known))


def _summary(head: str, path: Path) -> RunSummary:
    try:
        return _read(path)
    except HydraDetectError as error:
        return RunSummary(name=path.parent.name, head=head, outcome=DAMAGED, trouble=error.found)


def _read(path: Path) -> RunSummary:
    what = f"the report {path}"
    data = files.read_whole(path, limit=codec.MAX_LIST_BYTES, asked=f"read {what}")
    value = codec.loads(data, what, limit=codec.MAX_LIST_BYTES, most_marks=codec.MAX_LIST_BYTES)
    if isinstance(value, dict) and "training" in value:
        return _of_head(path.parent.name, codec.decode(TrainingReport, data, what, limit=codec.MAX_LIST_BYTES))
    return _of_original(path.parent.name, codec.decode(OriginalReport, data, what, limit=codec.MAX_LIST_BYTES))


def _of_head(name: str, report: TrainingReport) -> RunSummary:
    course = report.training.course
    return RunSummary(
        name=name,
        head=report.head,
        version=report.version,
        outcome=report.outcome,
        method=report.training.method,
        figures=report.metrics.figures(),
        samples_digest=str(report.metrics.samples_digest),
        epochs=len(course.history),
        best_epoch=course.best_epoch,
        seconds=sum(course.seconds.get(part, 0.0) for part in ("cross-validation", "training")),
        settings=_changed(report.training.config),
    )


def _of_original(name: str, report: OriginalReport) -> RunSummary:
    return RunSummary(
        name=name,
        head=report.head,
        version=report.version,
        outcome="original",
        method=report.metrics.method,
        figures=report.metrics.figures(),
        samples_digest=str(report.metrics.samples_digest),
        epochs=len(report.history),
        best_epoch=report.best_epoch,
        seconds=sum(epoch.seconds for epoch in report.history),
        settings=_changed(report.config),
    )


def _changed(config: TrainingConfig) -> dict[str, Any]:
    usual = codec.to_dict(TrainingConfig())
    return {name: value for name, value in codec.to_dict(config).items() if value != usual.get(name)}
