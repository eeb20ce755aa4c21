"""Detectors as small as they get, with real torch underneath: one block of a ResNet, and heads of any width."""

import functools

import torch

from hydra_detect.contracts import Architecture, BackboneContract, Preprocessing
from hydra_detect.nets.backbones import build_network, levels_of
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import raw_tensors
from hydra_detect.records import BackboneRecord, HeadRecord, HeadSettings
from hydra_detect.storage import backbones
from hydra_detect.tensors import tensors_digest

TINY, FULL = (8, 8), (256, 1024)
"""Pyramid channels and box width: a head of 15 KB, and one of 58 MB as torchvision makes them."""


def weights(network, seed):
    """Return a state for a network on the meta device, with values that keep boxes on the picture."""
    source, state = torch.Generator().manual_seed(seed), {}
    for name, value in network.state_dict().items():
        drawn = torch.randn(value.shape, generator=source)
        if name.endswith("running_var"):
            drawn = drawn.abs() + 0.5
        fan_in = value[0].numel() if value.dim() > 1 else 10
        state[name] = drawn / fan_in**0.5 if name.endswith(("weight", "bias")) else drawn
    return raw_tensors(state)


@functools.cache
def backbone(width):
    """Return the weights of a backbone and its record."""
    architecture = Architecture(
        body="resnet", in_channels=1, return_layers=("layer1",), body_channels=(64,), pyramid_channels=width,
        norm="frozen", norm_eps=0.0, block="basic", layers=(1,),
    )  # fmt: skip
    raw = weights(build_network(architecture), 0)
    contract = BackboneContract(
        digest=tensors_digest(raw),
        architecture=architecture,
        preprocessing=Preprocessing(min_size=32, max_size=32, mean=(0.5,), std=(0.25,)),
        levels=levels_of(architecture),
    )
    return raw, BackboneRecord(contract=contract)


def settings(box_width):
    """Return the settings of a head that answers with four boxes, whatever their scores."""
    return HeadSettings(
        label_count=3, anchor_sizes=((8,), (16,)), aspect_ratios=((1.0,), (1.0,)), box_widths=(box_width, box_width),
        roi_levels=("0",), rpn_pre_nms_top_n=8, rpn_post_nms_top_n=4, score_threshold=0.0, detections_per_image=4,
    )  # fmt: skip


def head(size, seed):
    """Return the weights of a head and its record; each seed has its own."""
    channels, width = size
    contract, own = backbone(channels)[1].contract, settings(width)
    raw = weights(RCNNHead(own, contract.levels), seed)
    record = HeadRecord(
        tensors=tensors_digest(raw),
        backbone=contract,
        backbone_name="small",
        settings=own,
        class_names=("owl", "red fox"),
    )
    return raw, record


def publish_backbone(store, size):
    """Put the backbone for heads of a size into a store."""
    raw, record = backbone(size[0])
    backbones.publish(store, "small", record, raw)
