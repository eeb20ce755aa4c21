"""From samples and a backbone to a head that has learnt them: start, features, loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from hydra_detect.data.samples import Role
from hydra_detect.data.splits import require, require_disjoint
from hydra_detect.errors import InputError
from hydra_detect.nets.compact import CompactHead, Lean
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.training.anchors import coverage, label_sides
from hydra_detect.training.augment import Augmenter
from hydra_detect.training.features import FeatureCache, FrozenFeatures, default_cache
from hydra_detect.training.loop import fit
from hydra_detect.training.losses import loss_named
from hydra_detect.training.ranks import ranks_of
from hydra_detect.training.source import CachedSource, FreshSource
from hydra_detect.training.start import anchors_of, settings_for, start_head
from hydra_detect.training.task import Task, sampling

if TYPE_CHECKING:
    from hydra_detect.data.samples import Samples
    from hydra_detect.nets.backbones import Backbone
    from hydra_detect.nets.compact import Reference
    from hydra_detect.records import HeadSettings
    from hydra_detect.training.anchors import Coverage
    from hydra_detect.training.checkpoint import Checkpoint
    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.loop import Fitted
    from hydra_detect.training.progress import Progress
    from hydra_detect.training.source import Source
    from hydra_detect.training.start import Origin
    from hydra_detect.training.tools import Tools


@attrs.frozen(kw_only=True)
class FeatureUse:
    """What the features of a training cost.

    Args:
        passes: How often the backbone ran.
        reused: How often its maps were found in the cache.
        not_kept: Maps for which there was no room in the cache, so that they are computed at each epoch.

    """

    passes: int
    reused: int
    not_kept: int


@attrs.frozen(kw_only=True)
class Learnt:
    """A head that has learnt.

    Args:
        network: With the weights of the best epoch, frozen, in evaluation mode, on the CPU.
        settings: What it computes with beside its weights.
        fitted: How it came about.
        coverage: How well its anchors resemble the training labels.
        features: What they cost.

    """

    network: RCNNHead
    settings: HeadSettings
    fitted: Fitted
    coverage: Coverage
    features: FeatureUse


def learn(  # noqa: PLR0913  all that a training depends on
    backbone: Backbone,
    origin: Origin,
    *,
    train: Samples,
    select: Samples | None,
    config: TrainingConfig,
    seed: int,
    checkpoint: Checkpoint,
    tools: Tools,
    reference: Reference | None = None,
    progress: Progress | None = None,
    stage: str = "",
) -> Learnt:
    """Train a head on a frozen backbone.

    Args:
        backbone: It runs and is not changed.
        origin: What the head starts from.
        train: Samples to learn from.
        select: Samples that tell which epoch is best; None to take the last.
        config: All settings.
        seed: Of every random choice: the same seed, samples and machine give the same bytes on a CPU.
        checkpoint: Where the state is kept, to be taken up again.
        tools: What it uses.
        reference: What a compact head leans on; given exactly if the settings ask for one.
        progress: Called after each epoch.
        stage: Which of several trainings this is, for the progress.

    Raises:
        InputError: If a picture cannot be read, a name in the settings stands for nothing, or anchors are given for
            another number of levels.
        IncompatibleError: If the layers of the reference are of other shapes than the head's.
        RoleError: If the samples have other roles, or one is in both.
        TrainingError: If the loss is no finite number.
        TrainingStoppedError: If it was cancelled.
        StoreError: If the disk refuses.

    """
    require(train, Role.TRAIN, asked="train a head")
    if select is not None:
        require(select, Role.SELECT, asked="select an epoch")
        require_disjoint(train, select, asked="train a head")
    contract = backbone.contract
    sides = label_sides(train, contract.preprocessing)
    settings = settings_for(origin, contract, classes=len(train.class_names), config=config, sides=sides, seed=seed)
    lean = None
    if reference is not None:
        ranks = ranks_of(config.rank, settings, contract.levels)
        lean = Lean.fitting(reference, ranks, settings, contract.levels)
    head = start_head(
        origin, settings, contract, class_names=train.class_names, sampling=sampling(config), seed=seed, lean=lean
    )
    loss = loss_named(config.loss, tools.losses)
    cache = FeatureCache(tools.cache or default_cache(), limit=config.cache_bytes)
    features = FrozenFeatures(backbone, cache, dtype=config.feature_dtype)
    task = Task(
        network=head.to(features.device),
        lean=None if lean is None else lean.to(features.device),
        source=_source(features, train, config, tools),
        train=train,
        select=select,
        loss=loss,
        config=config,
        seed=seed,
        stage=stage,
    )
    fitted = fit(task, checkpoint=checkpoint, progress=progress, cancel=tools.cancel)
    network = RCNNHead(settings, contract.levels)
    network.load_state_dict(fitted.tensors, strict=True, assign=True)
    network = network.eval().requires_grad_(requires_grad=False)
    return Learnt(
        network=network if lean is None else CompactHead.nearest(network, lean),
        settings=settings,
        fitted=fitted,
        coverage=coverage(anchors_of(settings), sides),
        features=FeatureUse(passes=features.passes, reused=cache.hits, not_kept=cache.refused),
    )


def _source(features: FrozenFeatures, train: Samples, config: TrainingConfig, tools: Tools) -> Source:
    if config.augmentations and config.features != "fresh":
        found = f"features are {config.features}: the network sees the views of each picture, and nothing else"
        raise InputError("use augmentations", found, "Set features=fresh for them, or name views instead.")
    if config.features == "fresh":
        channels = features.backbone.contract.architecture.in_channels
        augmenter = Augmenter.named(config.augmented_by, tools.augmentations, channels=channels)
        return FreshSource(features, train.class_names, augmenter=augmenter)
    return CachedSource(features, train.class_names, views=config.seen_as)
