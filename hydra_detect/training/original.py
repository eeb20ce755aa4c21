"""A whole detector that learns: backbone and head together, for where there is no checkpoint yet.

Its state dict is torchvision's own, so what comes out is an ordinary original that `split_checkpoint` takes apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from torchvision.models import get_model_weights

from hydra_detect import fields
from hydra_detect.checkpoints.recognise import BACKBONE_PREFIX, recognise
from hydra_detect.checkpoints.settings import SplitSettings, resolve
from hydra_detect.checkpoints.zoo import read_original
from hydra_detect.codec import Record
from hydra_detect.contracts import Architecture, Preprocessing
from hydra_detect.errors import CheckpointError, InputError, RecordError, listed, near_matches
from hydra_detect.nets.backbones import Features, build_network, build_transform, levels_of
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.records import HeadSettings
from hydra_detect.training.anchors import chosen_anchors, label_sides, usual_anchors
from hydra_detect.training.augment import Augmenter
from hydra_detect.training.chance import seeded
from hydra_detect.training.features import Encoded, picture_of
from hydra_detect.training.loop import fit
from hydra_detect.training.losses import loss_named
from hydra_detect.training.source import joined, numbers_of, truth_of
from hydra_detect.training.start import ANCHOR_ROWS, anchors_of
from hydra_detect.training.task import Task, sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from hydra_detect.data.samples import Sample, Samples
    from hydra_detect.nets.heads import Sampling
    from hydra_detect.training.checkpoint import Checkpoint
    from hydra_detect.training.config import TrainingConfig
    from hydra_detect.training.features import Seen
    from hydra_detect.training.loop import Fitted
    from hydra_detect.training.progress import Progress
    from hydra_detect.training.tools import Tools

IMAGENET = "imagenet"
_PIXELS = "pixels"
_MOBILENET = "mobilenet_v3_large"
_MOBILENET_LAYERS = ("4", "7", "16")  # of strides 8, 16 and 32: torchvision's own two are too coarse for small things
_RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2), 64),
    "resnet34": ("basic", (3, 4, 6, 3), 64),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 256),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 256),
    "resnet152": ("bottleneck", (3, 8, 36, 3), 256),
}
_MADE_ANEW = ("architecture", "min_size", "max_size", "mean", "std", "pyramid_channels", "box_width", "proposals")
ARCHITECTURES = (*_RESNETS, _MOBILENET)
"""Bodies that an original can be made with, each under a feature pyramid of its own."""


@attrs.frozen(kw_only=True)
class OriginalSettings(Record):
    """What an original is made of.

    Args:
        architecture: One of `ARCHITECTURES`.
        weights: None for random ones; "imagenet" for torchvision's classifier under a fresh pyramid, its norms frozen;
            or a whole detector to go on from, as a file or `torchvision:NAME`: then the other settings are its own.
        min_size: Shorter side of the resized picture, pixels.
        max_size: Limit of its longer side, pixels.
        mean: Per channel.
        std: Per channel.
        pyramid_channels: Channels of every level.
        box_width: Width of the box head's two linear layers.
        proposals: Proposals per picture, before suppression on each level and after it.

    """

    architecture: str = "resnet18"
    weights: str | None = None
    min_size: int = attrs.field(default=800, validator=fields.COUNT)
    max_size: int = attrs.field(default=1333, validator=fields.COUNT)
    mean: tuple[float, ...] = attrs.field(default=(0.485, 0.456, 0.406), converter=fields.floats)
    std: tuple[float, ...] = attrs.field(default=(0.229, 0.224, 0.225), converter=fields.floats)
    pyramid_channels: int = attrs.field(default=256, validator=fields.bounded(1, 4096))
    box_width: int = attrs.field(default=1024, validator=fields.bounded(1, 65536))
    proposals: int = attrs.field(default=1000, validator=fields.COUNT)

    def __attrs_post_init__(self) -> None:
        """Refuse what would have no effect beside the weights of a whole detector, which has its own."""
        if not self.is_detector:
            return
        usual = {field.name: field.default for field in attrs.fields(OriginalSettings)}
        own = {name for name, value in usual.items() if name in _MADE_ANEW and getattr(self, name) != value}
        if own:
            found = f"{listed(own)} cannot be chosen: {self.weights!r:.80} is a whole detector with its own"
            raise RecordError("make an original", found, "Leave them out, or the weights.")

    @property
    def is_detector(self) -> bool:
        """Whether the weights are those of a whole detector."""
        return self.weights is not None and self.weights != IMAGENET


@attrs.frozen(kw_only=True)
class Design:
    """A whole detector, and what of its weights is known already.

    Args:
        architecture: Of the backbone.
        preprocessing: What happens to a picture first.
        head: Settings of the head.
        tensors: Weights by torchvision's names; those that are missing begin at random.

    """

    architecture: Architecture
    preprocessing: Preprocessing
    head: HeadSettings
    tensors: dict[str, Tensor] = attrs.field(factory=dict, repr=False)

    def split_settings(self) -> dict[str, Any]:
        """Return what the weights cannot tell, as `split_checkpoint` takes it."""
        told = {name: getattr(self.preprocessing, name) for name in _OF_PREPROCESSING}
        told |= {name: getattr(self.head, name) for name in _OF_HEAD}
        return {**told, "norm_eps": self.architecture.norm_eps, "return_layers": self.architecture.return_layers}


_OF_PREPROCESSING = ("min_size", "max_size", "mean", "std", "size_divisor")
_OF_HEAD = (
    "anchor_sizes", "aspect_ratios", "rpn_pre_nms_top_n", "rpn_post_nms_top_n", "rpn_nms_threshold",
    "rpn_score_threshold", "roi_levels", "roi_sampling_ratio", "score_threshold", "nms_threshold",
    "detections_per_image", "box_coder_weights",
)  # fmt: skip


def design(settings: OriginalSettings, *, classes: int, least_score: float, endpoint: str | None = None) -> Design:
    """Design a detector.

    Args:
        settings: What it is made of.
        classes: How many it finds.
        least_score: Score below which it drops boxes.
        endpoint: Address of the Hub that weights at an `hf://` are on; None for the client's own ($HF_ENDPOINT).

    Raises:
        InputError: If there is no such architecture, or it cannot have such weights.
        CheckpointError: If the weights cannot be read or fetched.

    """
    if settings.weights is not None and settings.is_detector:
        return _of_detector(settings.weights, classes=classes, least_score=least_score, endpoint=endpoint)
    architecture = _architecture(settings)
    levels = levels_of(architecture)
    usual = usual_anchors([level.stride for level in levels])
    head = HeadSettings(
        label_count=classes + 1,
        anchor_sizes=usual.sizes,
        aspect_ratios=usual.ratios,
        box_widths=(settings.box_width, settings.box_width),
        roi_levels=tuple(level.name for level in levels[:-1]),
        rpn_pre_nms_top_n=settings.proposals,
        rpn_post_nms_top_n=settings.proposals,
        score_threshold=least_score,
    )
    return Design(
        architecture=architecture,
        preprocessing=Preprocessing(
            min_size=settings.min_size, max_size=settings.max_size, mean=settings.mean, std=settings.std
        ),
        head=head,
        tensors=_body_weights(architecture) if settings.weights == IMAGENET else {},
    )


def anchored(plan: Design, train: Samples, config: TrainingConfig, *, seed: int) -> Design:
    """Return a design with the anchors that a training asks for; what judged others begins at random.

    Raises:
        InputError: If sizes are given for another number of levels.

    """
    strides = [level.stride for level in levels_of(plan.architecture)]
    own, sides = anchors_of(plan.head), label_sides(train, plan.preprocessing)
    chosen = chosen_anchors(config, own, strides, sides, seed=seed)
    if chosen == own:
        return plan
    return attrs.evolve(
        plan,
        head=attrs.evolve(plan.head, anchor_sizes=chosen.sizes, aspect_ratios=chosen.ratios),
        tensors={name: value for name, value in plan.tensors.items() if name.rsplit(".", 1)[0] not in ANCHOR_ROWS},
    )


def _architecture(settings: OriginalSettings) -> Architecture:
    if settings.architecture not in ARCHITECTURES:
        found = f"there is no architecture {settings.architecture!r:.60}"
        raise InputError("make an original", found, near_matches(settings.architecture, ARCHITECTURES))
    norm = "frozen" if settings.weights == IMAGENET else "batch"
    channels = len(settings.mean)
    if settings.architecture == _MOBILENET:
        return Architecture(
            body=_MOBILENET,
            in_channels=channels,
            return_layers=_MOBILENET_LAYERS,
            body_channels=(40, 80, 960),
            pyramid_channels=settings.pyramid_channels,
            norm=norm,
            norm_eps=1e-3,  # of the classifier, and of mobilenet_v3_large() itself
        )
    block, layers, width = _RESNETS[settings.architecture]
    return Architecture(
        body="resnet",
        in_channels=channels,
        return_layers=("layer1", "layer2", "layer3", "layer4"),
        body_channels=tuple(width * 2**stage for stage in range(4)),
        pyramid_channels=settings.pyramid_channels,
        norm=norm,
        norm_eps=1e-5,
        block=block,
        layers=layers,
    )


def _body_weights(architecture: Architecture) -> dict[str, Tensor]:
    """Fetch torchvision's classifier weights; its download, hash check and cache are torchvision's."""
    name = architecture.name
    weights = get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"start {name} from ImageNet",
            f"torchvision could not fetch {weights.url} ({error})",
            "See to the network, or start from random weights (weights=None).",
        ) from None
    body = f"{BACKBONE_PREFIX}body."
    if architecture.body == "resnet":
        return {body + key: value for key, value in state.items() if not key.startswith("fc.")}
    return {body + key.removeprefix("features."): value for key, value in state.items() if key.startswith("features.")}


def _of_detector(file: str, *, classes: int, least_score: float, endpoint: str | None) -> Design:
    """Return the design of an existing detector; what judges classes begins anew unless there are as many."""
    source = read_original(file, endpoint=endpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in source.tensors.items()}
    resolved = resolve(recognise(shapes, source.file), SplitSettings(preset=source.preset), source.file)
    head = attrs.evolve(resolved.head, label_count=classes + 1, score_threshold=least_score)
    return Design(
        architecture=resolved.architecture,
        preprocessing=resolved.preprocessing,
        head=head,
        tensors=dict(source.tensors),
    )


class WholeDetector(RCNNHead):
    """Backbone and head in one module; its state dict has the names of torchvision's FasterRCNN."""

    def __init__(self, plan: Design, *, sampling: Sampling, seed: int) -> None:
        with seeded(seed):
            super().__init__(plan.head, levels_of(plan.architecture), sampling=sampling, device="cpu")
            self.backbone = build_network(plan.architecture, device="cpu")
        own = self.state_dict()
        for name, tensor in plan.tensors.items():
            if name in own and own[name].shape == tensor.shape:
                own[name].copy_(tensor)


def learn_original(
    plan: Design,
    *,
    train: Samples,
    select: Samples | None,
    config: TrainingConfig,
    seed: int,
    checkpoint: Checkpoint,
    tools: Tools,
    device: torch.device,
    progress: Progress | None = None,
) -> Fitted:
    """Train a whole detector on augmented pictures.

    Args:
        plan: What it is.
        train: Samples to learn from.
        select: Samples that tell which epoch is best; None to take the last.
        config: All settings; those of features, their noise, views and validation mean nothing here.
        seed: Of every random choice.
        checkpoint: Where the state is kept, to be taken up again.
        tools: Losses and augmentations by name, an event that cancels.
        device: Where it runs.
        progress: Called after each epoch.

    Returns:
        Its weights, by the names of torchvision's FasterRCNN.

    Raises:
        InputError: If a picture cannot be read, or a name in the settings stands for nothing.
        TrainingError: If the loss is no finite number.
        TrainingStoppedError: If it was cancelled.
        StoreError: If the disk refuses.

    """
    channels = len(plan.preprocessing.mean)
    augmenter = Augmenter.named(config.augmented_by, tools.augmentations, channels=channels)
    task = Task(
        network=WholeDetector(plan, sampling=sampling(config), seed=seed).to(device),
        source=PictureSource(plan.preprocessing, train.class_names, augmenter=augmenter, device=device),
        encoder=run_backbone,
        train=train,
        select=select,
        loss=loss_named(config.loss, tools.losses),
        config=attrs.evolve(config, feature_noise=0.0),  # what goes in are pictures, which augmentations are for
        seed=seed,
    )
    return fit(task, checkpoint=checkpoint, progress=progress, cancel=tools.cancel)


def run_backbone(network: RCNNHead, features: Features) -> Features:
    """Run the backbone of a `WholeDetector` over pictures (an `Encoder`)."""
    maps: dict[str, Tensor] = network.backbone(features.maps[_PIXELS])  # type: ignore[operator]  # torch types modules as tensors
    return attrs.evolve(features, maps=dict(maps))


class PictureSource:
    """Samples as pictures, normalised, resized and padded; augmented for learning.

    Args:
        preprocessing: What happens to a picture.
        class_names: Names of labels 1, 2, ...
        augmenter: What changes a picture first.
        device: Where they go.

    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        class_names: Sequence[str],
        *,
        augmenter: Augmenter,
        device: torch.device,
    ) -> None:
        self.transform = build_transform(preprocessing)
        self.channels = len(preprocessing.mean)
        self.augmenter = augmenter
        self.device = device
        self._numbers = numbers_of(class_names)

    def draw(self, sample: Sample) -> Seen:
        """Return a sample with its picture changed by chance."""
        pixels, boxes, labels = self.augmenter(picture_of(sample, self.channels), *truth_of(sample, self._numbers))
        return joined(self._encoded(pixels), boxes, labels, sample.id)

    def plain(self, sample: Sample) -> Seen:
        """Return a sample as it is."""
        boxes, labels = truth_of(sample, self._numbers)
        return joined(self._encoded(picture_of(sample, self.channels)), boxes, labels, sample.id)

    def _encoded(self, pixels: Tensor) -> Encoded:
        batch, _ = self.transform([pixels.to(self.device)])
        height, width = batch.tensors.shape[-2:]
        return Encoded(
            maps={_PIXELS: batch.tensors},
            size=batch.image_sizes[0],
            padded_size=(height, width),
            original_size=(pixels.shape[-2], pixels.shape[-1]),
        )
