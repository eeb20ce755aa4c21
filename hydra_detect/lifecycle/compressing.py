"""From a full head to a compact one, at a loss that is measured; and back."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec, fields
from hydra_detect.data.samples import Role
from hydra_detect.data.splits import folds, given, require
from hydra_detect.errors import InputError, TrainingError
from hydra_detect.lifecycle import beside, memory
from hydra_detect.lifecycle.candidates import Contender, candidates
from hydra_detect.lifecycle.judging import backbone_of, measured, of_classes
from hydra_detect.lifecycle.leaning import reference_for
from hydra_detect.loading import Shelf, whole_tensors
from hydra_detect.measure.agreement import agreement
from hydra_detect.measure.policy import accepted
from hydra_detect.names import HeadRef, shown
from hydra_detect.nets.compact import CompactHead, Lean
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import COMPACT, FULL, CompactForm, VersionRecord
from hydra_detect.storage import heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.config import DEFAULT_RANK, TrainingConfig
from hydra_detect.training.distil import distil
from hydra_detect.training.features import FeatureCache, FrozenFeatures, default_cache
from hydra_detect.training.ranks import ranks_of
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from hydra_detect.data.samples import Samples
    from hydra_detect.data.splits import Split
    from hydra_detect.nets.backbones import Backbone

_HALVES = 2
_OF_WEIGHTS = (layout.TRAINING,)
_OF_SCORES = (layout.SPLIT, layout.CALIBRATION, layout.OUTCOMES, layout.EVALUATION)


@attrs.frozen(kw_only=True)
class CompressionReport:
    """What became of a full head.

    Args:
        version: The compact version; it is not active.
        made_from: The full one.
        nbytes: Bytes of the weights' files, before and after.
        loss: What it cost, as the record keeps it; None if that was not measured.

    """

    version: VersionRecord
    made_from: HeadRef
    nbytes: tuple[int, int]
    loss: Mapping[str, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "head": self.version.head,
            "version": self.version.number,
            "made_from": str(self.made_from),
            "compact": codec.to_dict(self.version.record)["compact"],
            "nbytes": list(self.nbytes),
            "loss": None if self.loss is None else dict(self.loss),
        }

    def __str__(self) -> str:
        """Sizes and losses, a line each."""
        before, after = self.nbytes
        lines = [
            f"{self.version.ref}: {self.version.record.compact}, made from {self.made_from}",
            f"  size   {before / 1e6:.2f} MB to {after / 1e6:.2f} MB, {before / after:.0f} times smaller",
        ]
        if self.loss is None:
            return "\n".join([*lines, "  loss   not measured"])
        told = ", ".join(f"{name} {value:.4g}" for name, value in self.loss.items())
        return "\n".join([*lines, f"  loss   {told}"])


def compress_head(  # noqa: PLR0913  each is a question of its own that a user may have
    store: str | os.PathLike[str] | Store,
    head: str,
    version: int | None = None,
    *,
    rank: str | int = DEFAULT_RANK,
    max_loss: float = 0.01,
    samples: Samples | None = None,
    unmeasured: bool = False,
    reference: str | None = None,
    steps: int = 200,
    seed: int = 0,
    device: str = "auto",
    actor: str = "",
) -> CompressionReport:
    """Make a compact version of a full one; it is not promoted.

    Its layers become differences from a reference head, truncated to a rank (the nearest there are, by singular
    values); then it learns from the full head's own outputs on half of the samples, and on the other half the two are
    compared at the version's operating point.

    Args:
        store: The store, or its path.
        head: Name of the head.
        version: Number of the version; None for the active one.
        rank: Of the differences: such as 16 for every layer, or "rpn:8,fc6:32,fc7:whole".
        max_loss: Most that F1 and AP50 may each lose, from 0 to 1; above it no version is made.
        samples: Labelled pictures of the head's classes; left out, nothing is learnt or measured.
        unmeasured: Without samples: make the version all the same, and record that its loss was not measured.
        reference: The full head that it leans on, such as "owl@1"; left out, the one that others lean on.
        steps: Of the distillation, one picture each.
        seed: Of every random choice.
        device: Where it runs.
        actor: Who is at work, for the history.

    Raises:
        NotFoundError: If there is no such version, or no other full head of its backbone to lean on.
        InputError: If it is a compact head already, a number is none that can be, nothing is labelled in the samples,
            or there are samples and `unmeasured` is said, or neither.
        IncompatibleError: If the reference belongs to another backbone, is a compact head, or has other layers.
        TrainingError: If it would lose more than `max_loss`.
        CorruptError: If the version is damaged.
        StoreError: If the store cannot be written.

    """
    _check_numbers(head, max_loss, steps)
    seed, store = fields.check_seed(seed), Store.open(store)
    full = heads.find(store, HeadRef(head, version))
    asked = f"compress {full.ref}"
    parts = _check(full, samples, asked, seed=seed, unmeasured=unmeasured)
    store.check_writable(asked)
    leant_on = reference_for(store, full, reference)
    ranks = ranks_of(str(rank), full.record.settings, full.record.backbone.levels)
    lean = Lean.fitting(Shelf(store).of(leant_on), ranks, full.record.settings, full.record.backbone.levels)
    teacher = Contender.of(store, full).network
    loss, own = None, beside.split_of(store, full)
    if parts is None:
        network = CompactHead.nearest(teacher, lean)
    else:
        learnt_from, judged = parts
        backbone = backbone_of(store, full, device)
        features = FrozenFeatures(
            backbone, FeatureCache(default_cache(), limit=TrainingConfig().cache_bytes), dtype="float32"
        )
        network = distil(teacher.to(features.device), lean, learnt_from, features, steps=steps, seed=seed)
        loss = _loss(store, backbone, full, network, judged)
        _check_loss(loss, max_loss, asked)
        own = _known(own, learnt_from, judged)
    form = CompactForm(
        reference=leant_on.record.tensors,
        reference_ref=str(leant_on.ref),
        ranks=ranks,
        compressed_from=str(full.ref),
        loss=loss,
    )
    split = _with(own, beside.split_of(store, leant_on))
    made = _publish(VersionManager(store, actor=actor), full, network, form, split)
    sizes = (full.files[layout.TENSORS][0], made.files[layout.TENSORS][0])
    return CompressionReport(version=made, made_from=full.ref, nbytes=sizes, loss=loss)


def _publish(
    manager: VersionManager, full: VersionRecord, network: CompactHead, form: CompactForm, split: Split | None
) -> VersionRecord:
    tensors = raw_tensors(network.state_dict())
    record = attrs.evolve(
        full.record,
        tensors=tensors_digest(tensors),
        source=None,
        parity=None,
        claimed_metrics={},  # they were of the full one
        notes=f"{full.ref} in compact form",
        compact=form,
        kind=COMPACT,
    )
    # Scores and figures of the full head are not this one's: they stay with it.
    files = _beside(manager.store, full, _OF_WEIGHTS) | beside.files(split=split)
    return manager.create(full.head, tensors, record, attachments=files)


def _known(earlier: Split | None, learnt_from: Samples, judged: Samples) -> Split:
    """Return the roles of samples, and of those that the full head knows."""
    every = attrs.evolve(judged, items=[*learnt_from, *judged], role=None)
    roles = {Role.TRAIN: [one.id for one in learnt_from], Role.TEST: [one.id for one in judged]}
    return memory.known_to(given(every, roles), [earlier] if earlier else [])


def _with(own: Split | None, reference: Split | None) -> Split | None:
    """Return what a head knows that leans on another: what that has learnt from, it has."""
    return memory.known_to(own, [reference]) if own and reference else own or reference


def expand_head(
    store: str | os.PathLike[str] | Store, head: str, version: int | None = None, *, actor: str = ""
) -> VersionRecord:
    """Make a full version of a compact one: the same function, its weights written out; it is not promoted.

    Args:
        store: The store, or its path.
        head: Name of the head.
        version: Number of the version; None for the active one.
        actor: Who is at work, for the history.

    Raises:
        NotFoundError: If there is no such version, or its reference is not there.
        InputError: If it is a full head already.
        CorruptError: If it or its reference is damaged.
        StoreError: If the store cannot be written.

    """
    store = Store.open(store)
    compact = heads.find(store, HeadRef(head, version))
    if compact.record.compact is None:
        raise InputError(f"expand {compact.ref}", "it is a full head already", "There is nothing to do.")
    tensors = whole_tensors(store, compact)
    record = attrs.evolve(
        compact.record,
        tensors=tensors_digest(tensors),
        notes=f"{compact.ref} written out",
        compact=None,
        kind=FULL,
    )
    return VersionManager(store, actor=actor).create(
        head, tensors, record, attachments=_beside(store, compact, _OF_WEIGHTS + _OF_SCORES)
    )


def _check_numbers(head: str, max_loss: Any, steps: Any) -> None:
    for name, value, kind, most in (("max_loss", max_loss, numbers.Real, 1), ("steps", steps, numbers.Integral, 10**6)):
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        if not (is_number and 0 <= value <= most):
            remedy = f"Give a {'whole ' * (kind is numbers.Integral)}number from 0 to {most}."
            raise InputError(f"compress {head!r:.80}", f"{name} is {shown(value)}", remedy)


def _check(
    full: VersionRecord, samples: Samples | None, asked: str, *, seed: int, unmeasured: bool
) -> tuple[Samples, Samples] | None:
    """Return the halves of the samples, to learn from and to be measured on; None if there are none, as was said."""
    if full.record.compact is not None:
        raise InputError(asked, f"it is {full.record.compact} already", "Compress the full head that it was made from.")
    if samples is None and not unmeasured:
        remedy = "Give labelled samples, or say unmeasured=True (--unmeasured), which the record then says too."
        raise InputError(asked, "there are no samples to measure on what it costs", remedy)
    if samples is None:
        return None
    if unmeasured:
        raise InputError(asked, "there are samples to measure on, and unmeasured is said", "Leave out one of the two.")
    require(samples, Role.TEST, asked=asked)
    if len({sample.group for sample in samples}) < _HALVES:
        found = "half of the samples are learnt from and half are measured on, and all of them are of one group"
        raise InputError(asked, found, "Give samples of several groups.")
    (learnt_from, judged), *_rest = folds(of_classes(full, samples), count=_HALVES, seed=seed)
    if not judged.labelled:
        found = f"of {len(samples)} samples {samples.labelled} show something, none in the half to be measured on"
        raise InputError(asked, found, "Give samples in which classes of this head are labelled.")
    return learnt_from, judged


def _loss(
    store: Store, backbone: Backbone, full: VersionRecord, network: CompactHead, samples: Samples
) -> dict[str, float]:
    """Return what the compact form costs: figures lost, and the largest differences of detections that count."""
    before = Contender.of(store, full)
    after = attrs.evolve(before, ref=HeadRef(full.head), network=network)
    found = candidates(backbone, [before, after], samples)
    policy = full.record.policy
    ours, theirs = (measured(found[one.ref], samples, policy, draws=0).figures() for one in (after, before))
    counting = [
        [one[accepted(one.scores, one.label_names, policy=policy)] for one in found[side.ref]]
        for side in (before, after)
    ]
    told = agreement(*counting)
    differences = {"largest_score_difference": told.largest_score, "largest_box_difference": told.largest_box}
    return {
        "ap50": theirs["ap50"] - ours["ap50"],
        "f1": theirs["f1"] - ours["f1"],
        **(differences if told.matched else {}),  # of nothing there is no largest
        "matched": float(told.matched),
        "unmatched": float(told.unmatched),
        "samples": float(len(samples)),
    }


def _check_loss(loss: Mapping[str, float], max_loss: float, asked: str) -> None:
    lost = {name: loss[name] for name in ("f1", "ap50") if loss[name] > max_loss}
    if lost:
        told = ", ".join(f"{name} {value:.4f}" for name, value in lost.items())
        raise TrainingError(
            asked,
            f"on {loss['samples']:.0f} samples it would lose {told}, more than {max_loss:g}",
            "Raise the rank, give more samples, or raise max_loss; no version was made.",
            loss=dict(loss),
        )


def _beside(store: Store, version: VersionRecord, names: Sequence[str]) -> dict[str, bytes]:
    """Return those of the named files that lie beside a version."""
    item = store.head(version.head)
    return {path: item.read(version, path) for path in names if path in version.files}
