"""Real torchvision detectors, small enough for a test: built, given restless weights, saved as people save them."""

import torch
from torch import nn
from torchvision.models import mobilenet_v3_large
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.ops import FrozenBatchNorm2d

WIDTH, BOX_WIDTH = 16, 24
SIZES = ((8,), (16,), (32,), (64,), (96,))
RATIOS = ((0.5, 1.0, 2.0),) * 5
SETTINGS = {"min_size": 64, "max_size": 128, "anchor_sizes": SIZES, "aspect_ratios": RATIOS}


def restless(model, seed=0):
    """Give every tensor of a model, norm statistics included, values that matter."""
    source = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=source) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            value.copy_(torch.randn(value.shape, generator=source) * 0.1)
        elif value.dim() == 1:
            value.copy_(torch.rand(value.shape, generator=source) * 0.5 + 0.75)
        elif value.is_floating_point() and value.numel():  # of rank 0 there is nothing
            gain = 0.3 if "predictor" in name else 1.0  # keeps scores away from 0 and 1, and boxes on the picture
            value.copy_(torch.randn(value.shape, generator=source) * gain / max(1, value[0].numel()) ** 0.5)
    return model.eval()


def detector(backbone, *, classes=2, seed=0, conv_depth=1, box_head=None, sizes=SIZES, ratios=RATIOS, **settings):
    """Put a narrow Faster R-CNN head on a backbone."""
    width = backbone.out_channels
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, ratios),
        rpn_head=RPNHead(width, len(sizes[0]) * len(ratios[0]), conv_depth=conv_depth),
        box_head=box_head or TwoMLPHead(width * 49, BOX_WIDTH),
        box_predictor=FastRCNNPredictor(BOX_WIDTH, classes),
        **{"min_size": 64, "max_size": 128, **settings},
    )
    return restless(model, seed)


def resnet18(*, norm=nn.BatchNorm2d, channels=3, pyramid_norm=None, width=WIDTH, layers=(1, 2, 3, 4)):
    """A ResNet-18 with a narrow pyramid."""
    body = ResNet(BasicBlock, [2, 2, 2, 2], norm_layer=norm)
    if channels != 3:
        body.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    returned = {f"layer{layer}": str(place) for place, layer in enumerate(layers)}
    return BackboneWithFPN(body, returned, [32 * 2**layer for layer in layers], width, norm_layer=pyramid_norm)


def small(*, classes=2, seed=0, **settings):
    """The usual test detector: ResNet-18, BatchNorm, about 11 million small numbers."""
    return detector(resnet18(), classes=classes, seed=seed, **settings)


def second_form(*, classes=2, seed=0):
    """The form of fasterrcnn_resnet50_fpn_v2, narrow: normed pyramid, deeper RPN, convolutional box head."""
    backbone = resnet18(pyramid_norm=nn.BatchNorm2d)
    head = FastRCNNConvFCHead((WIDTH, 7, 7), [WIDTH, WIDTH], [BOX_WIDTH], norm_layer=nn.BatchNorm2d)
    return detector(backbone, classes=classes, seed=seed, conv_depth=2, box_head=head)


def mobilenet(*, seed=0, norm=FrozenBatchNorm2d):
    """A MobileNetV3-Large with torchvision's own two pyramid levels, narrow."""
    body = mobilenet_v3_large(weights=None, norm_layer=norm).features
    backbone = BackboneWithFPN(body, {"13": "0", "16": "1"}, [160, 960], WIDTH)
    return detector(backbone, seed=seed, sizes=((8, 16, 32),) * 3, ratios=((0.5, 1.0, 2.0),) * 3)


def full_size(name):
    """Any of torchvision's ResNet-FPN detectors at its real size, on the meta device: keys and shapes alone."""
    with torch.device("meta"):
        return FasterRCNN(resnet_fpn_backbone(backbone_name=name, weights=None), 91)


def save(model, path, *, wrap=None, prefix="", extra=None):
    """Save a state dict as people do: bare, under a key, with a wrapper's prefix, beside other things."""
    state = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({wrap: state, **(extra or {})} if wrap else state, path)
    return path


def older_names(model):
    """A state dict with the keys that torchvision wrote before 0.13."""
    renamed = {}
    for name, value in model.state_dict().items():
        old = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if ".inner_blocks." in name or ".layer_blocks." in name:
            old = old.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        renamed[old] = value
    return renamed
