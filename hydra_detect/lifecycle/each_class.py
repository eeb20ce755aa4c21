"""One head per class of a data set: what each is called, what it learns from, and the training of all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.data.splits import check_enough
from hydra_detect.errors import InputError, NameInvalidError, TrainingError
from hydra_detect.lifecycle import beside, origins
from hydra_detect.lifecycle.train import train_head
from hydra_detect.names import HeadRef, check_name
from hydra_detect.storage import heads
from hydra_detect.storage.store import Store
from hydra_detect.training.tools import Tools

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from hydra_detect.data.samples import Samples
    from hydra_detect.lifecycle.report import TrainingReport
    from hydra_detect.training.config import TrainingConfig

_UNFIT = re.compile(r"[^a-z0-9]+")


@attrs.frozen(kw_only=True)
class ClassOutcome:
    """What came of the head of one class: one of the three.

    Args:
        head: Its name.
        report: Of its training.
        existing: The version that was trained in just this way before.
        error: Why there is none.

    """

    head: str
    report: TrainingReport | None = None
    existing: HeadRef | None = None
    error: InputError | TrainingError | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        if self.report:
            return self.report.to_dict()
        return {
            "head": self.head,
            "existing": str(self.existing) if self.existing else None,
            "error": self.error.to_dict() if self.error else None,
        }

    def __str__(self) -> str:
        """Return what a person wants to see of it."""
        if self.report:
            return str(self.report)
        if self.existing:
            return f"{self.existing} was trained with these labels and settings before"
        return f"{self.head}: {self.error}"


def train_each_class(
    store: str | os.PathLike[str] | Store,
    prefix: str,
    samples: Samples,
    *,
    config: TrainingConfig,
    seed: int = 0,
    init: str = origins.AUTO,
    backbone: str | None = None,
    **options: Any,
) -> Iterator[ClassOutcome]:
    """Train a head for each class, one after another, and tell of each as it is done.

    A head whose newest version was trained with the same labels, groups, roles (where a split is given), settings,
    seed, start, backbone, and losses and augmentations of your own is passed over: a call that was stopped goes on
    where it was. A class that cannot be learnt is told of, and the others are trained.

    Args:
        store: The store, or its path.
        prefix: What the heads' names begin with; "" for nothing.
        samples: Of several classes.
        config: All settings.
        seed: Of every random choice.
        init: What the weights start from, as for `train_head`.
        backbone: Name of the backbone of new heads; needed only where the store has several.
        options: The others of `train_head`.

    Raises:
        NameInvalidError: If a class gives no name, or two give the same.
        InputError: If one has labels too few to learn from; it is named, and nothing was trained.
        TrainingStoppedError: If it was cancelled.
        StoreError: If the store cannot be read or written.

    """
    store = Store.open(store)
    settings: dict[str, Any] = {"config": config, "seed": seed, "init": init, "backbone": backbone}
    for head, own in each_class(prefix, samples).items():
        existing = _existing(store, head, own, **{**options, **settings})
        if existing:
            yield ClassOutcome(head=head, existing=existing)
            continue
        try:
            report = train_head(store, head, own, **settings, **options)
        except (InputError, TrainingError) as error:
            yield ClassOutcome(head=head, error=error)
        else:
            yield ClassOutcome(head=head, report=report)


def _existing(store: Store, head: str, samples: Samples, *, init: str, **asked: Any) -> HeadRef | None:
    """Return the newest version of a head, if it was trained with these labels and in this way."""
    numbers = store.head(head).numbers()
    if not numbers:
        return None
    version = heads.find(store, f"{head}@{max(numbers)}")
    training, own = beside.training_of(store, version), beside.split_of(store, version)
    if training is None or own is None:
        return None
    rows, split, tools = {one.id: one for one in own.samples}, asked.get("split"), asked.get("tools") or Tools()
    start = training.course.started_from
    leant = version.record.compact.reference_ref if version.record.compact else ""
    begun = start.partition("@")[0]  # "owl" stands for "owl@3", and "active" for its own
    is_same = (
        training.samples.digest == samples.digest,
        all(sample.id in rows and rows[sample.id].group == sample.group for sample in samples),
        split is None or training.samples.dealt == split.digest,
        (training.config, training.seed) == (asked["config"], asked["seed"]),
        training.code == tools.code(asked["config"]),
        asked["backbone"] in {None, version.record.backbone_name},
        init in {origins.AUTO, start, begun} or (init == origins.ACTIVE and begun == head),
        asked.get("reference") in {None, leant, leant.partition("@")[0]},
    )
    return version.ref if all(is_same) else None


def each_class(prefix: str, samples: Samples) -> dict[str, Samples]:
    """Return the samples of each class by the name of its head; pictures of the others are its background.

    A class of which nothing is labelled gets no head: data sets list some that they do not use. A head is called after
    its class in lower case, with what no name can hold replaced by "-": "red fox" of prefix "night" is "night-red-fox".

    Args:
        prefix: What the names begin with; "" for nothing.
        samples: Of several classes.

    Raises:
        NameInvalidError: If a class gives no name, or two give the same.
        InputError: If one has labels too few to learn from; it is named.

    """
    named: dict[str, str] = {}
    for label in [label for label, count in samples.box_counts.items() if count]:
        words = _UNFIT.sub("-", label.lower()).strip("-")
        name = check_name(f"{prefix}-{words}" if prefix else words)
        if name in named:
            found = f"the classes {named[name]!r} and {label!r} would both be called {name!r}"
            raise NameInvalidError("name a head after each class", found, "Rename one with a mapping of classes.")
        named[name] = label
    chosen = {name: samples.choose([label]) for name, label in named.items()}
    for name, own in chosen.items():
        try:
            check_enough(own)
        except InputError as error:
            remedy = f"{error.remedy} Or name the classes that are to have a head."
            raise InputError(f"train {name!r} on class {named[name]!r}", error.found, remedy) from None
    return chosen
