"""The part that all heads share: from pictures to feature maps.

Built from a record with torchvision's own parts; its feature contract (level names, channels, strides) is stated
there and checked here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from hydra_detect.contracts import Level
from hydra_detect.errors import IncompatibleError, InputError, RecordError
from hydra_detect.nets.state import load_strict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hydra_detect.contracts import Architecture, BackboneContract, Preprocessing
    from hydra_detect.tensors import RawTensor

POOL_LEVEL = "pool"
_RESNET_STRIDES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
# Module index in torchvision's MobileNetV3-Large `features` to output stride: blocks 2, 4, 7 and 13 halve the map.
_MOBILENET_STRIDES = {
    str(index): stride for index, stride in enumerate([2] * 2 + [4] * 2 + [8] * 3 + [16] * 6 + [32] * 4)
}


def strides(architecture: Architecture) -> list[int]:
    """Strides of the pyramid's levels in pixels, the pooled one last.

    Raises:
        RecordError: If a returned layer is none of the body's, or they are not in order, finest first.

    """
    table = _RESNET_STRIDES if architecture.body == "resnet" else _MOBILENET_STRIDES
    places = [list(table).index(layer) for layer in architecture.return_layers if layer in table]
    if len(places) != len(architecture.return_layers) or places != sorted(set(places)):
        raise RecordError(
            "build the backbone",
            f"its return_layers are {', '.join(architecture.return_layers)}",
            f"Name layers of the body in order, finest first: {', '.join(table)}.",
        )
    own = [table[layer] for layer in architecture.return_layers]
    return [*own, 2 * own[-1]]


def levels_of(architecture: Architecture) -> tuple[Level, ...]:
    """The feature contract of an architecture: one level per returned layer, and one pooled from the last."""
    names = [*(str(place) for place in range(len(architecture.return_layers))), POOL_LEVEL]
    return tuple(
        Level(name=name, channels=architecture.pyramid_channels, stride=stride)
        for name, stride in zip(names, strides(architecture), strict=True)
    )


def norm_layer(norm: str, eps: float) -> Callable[[int], nn.Module]:
    """Return the constructor of a normalisation layer: "frozen" or "batch", with its eps."""
    return functools.partial(FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d, eps=eps)


def build_network(architecture: Architecture, *, device: str = "meta") -> BackboneWithFPN:
    """Build the convolutional network: on the meta device shapes alone, elsewhere torchvision's own random weights."""
    with torch.device(device):
        body = _resnet(architecture) if architecture.body == "resnet" else _mobilenet(architecture)
        return BackboneWithFPN(
            body,
            {layer: str(place) for place, layer in enumerate(architecture.return_layers)},
            list(architecture.body_channels),
            architecture.pyramid_channels,
            norm_layer=norm_layer("batch", architecture.pyramid_norm_eps) if architecture.pyramid_norm else None,
        )


def _resnet(architecture: Architecture) -> nn.Module:
    layers = [*architecture.layers, *[1] * (4 - len(architecture.layers))]  # stages that the pyramid cuts off
    body = ResNet(
        BasicBlock if architecture.block == "basic" else Bottleneck,
        layers,
        groups=architecture.groups,
        width_per_group=architecture.width_per_group,
        norm_layer=norm_layer(architecture.norm, architecture.norm_eps),
    )
    if architecture.in_channels != body.conv1.in_channels:
        body.conv1 = nn.Conv2d(architecture.in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return body


def _mobilenet(architecture: Architecture) -> nn.Module:
    features = mobilenet_v3_large(
        weights=None, norm_layer=norm_layer(architecture.norm, architecture.norm_eps)
    ).features
    first = features[0][0]
    if architecture.in_channels != first.in_channels:
        features[0][0] = nn.Conv2d(
            architecture.in_channels, first.out_channels, kernel_size=3, stride=2, padding=1, bias=False
        )
    return features


def build_transform(preprocessing: Preprocessing) -> GeneralizedRCNNTransform:
    """Build torchvision's own transform from a record."""
    transform = GeneralizedRCNNTransform(
        preprocessing.min_size,
        preprocessing.max_size,
        list(preprocessing.mean),
        list(preprocessing.std),
        size_divisible=preprocessing.size_divisor,
    )
    return transform.eval()


@attrs.frozen
class Prepared:
    """One picture as the backbone takes it.

    Args:
        pixels: [1, channel, height, width], normalised, resized, padded.
        size: (height, width) before padding.
        original_size: (height, width) of the picture as given.

    """

    pixels: torch.Tensor
    size: tuple[int, int]
    original_size: tuple[int, int]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(height, width) after padding; only pictures equal in this share a batch."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


@attrs.frozen
class Features:
    """What heads see of a batch.

    Args:
        maps: Level name to [image, channel, y, x].
        images: The padded batch with each picture's size before padding.
        original_sizes: (height, width) of each picture as given.

    """

    maps: dict[str, torch.Tensor]
    images: ImageList
    original_sizes: list[tuple[int, int]]


class Backbone(nn.Module):
    """Transform and network of a contract, with weights; frozen, in evaluation mode, float32."""

    def __init__(self, contract: BackboneContract, raw: Mapping[str, RawTensor]) -> None:
        super().__init__()
        self.contract = contract
        self.transform = build_transform(contract.preprocessing)
        self.network = build_network(contract.architecture)
        load_strict(self.network, raw, "the backbone")
        self.eval()

    def prepare(self, image: torch.Tensor) -> Prepared:
        """Normalise, resize and pad one picture.

        Args:
            image: [channel, height, width] float32 in [0, 1].

        Raises:
            InputError: If it is so long and thin that nothing of it would be left.

        """
        height, width = image.shape[-2:]
        short, long = self.contract.preprocessing.min_size, self.contract.preprocessing.max_size
        scale = min(short / min(height, width), long / max(height, width))
        if min(height, width) * scale < 1:
            found = f"it has {height} x {width} pixels, and its shorter side would be less than one of {long}"
            raise InputError("run the backbone on a picture", found, "Cut it into pieces that are less long.")
        batch, _ = self.transform([image])
        return Prepared(batch.tensors, batch.image_sizes[0], (image.shape[-2], image.shape[-1]))

    def forward(self, prepared: Sequence[Prepared]) -> Features:
        """Run the network once over pictures of one padded size.

        Raises:
            IncompatibleError: If the maps are not those that the contract states.

        """
        pixels = torch.cat([picture.pixels for picture in prepared])  # [image, channel, y, x]
        maps = self.network(pixels)
        found = [(name, level.shape[1]) for name, level in maps.items()]
        stated = [(level.name, level.channels) for level in self.contract.levels]
        if found != stated:
            raise IncompatibleError(
                "run the backbone",
                f"its maps (name, channels) are {found} and its record says {stated}",
                "The record belongs to another backbone.",
            )
        images = ImageList(pixels, [picture.size for picture in prepared])
        return Features(maps, images, [picture.original_size for picture in prepared])
