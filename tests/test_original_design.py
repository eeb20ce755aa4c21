"""Designs of whole detectors: torchvision's own, from random weights, ImageNet's, or an existing detector's."""

import attrs
import pytest
import torch
from originals import save, small
from test_zoo import cache  # noqa: F401  a fixture
from torchvision.models import get_model, get_model_weights
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from training_fixtures import CLASSES, CONFIG, SELECT, TRAIN, checkpoint, weights_of

from hydra_detect import VersionManager, codec, split_checkpoint
from hydra_detect.checkpoints.settings import SplitSettings
from hydra_detect.checkpoints.zoo import cached_file
from hydra_detect.errors import CheckpointError, InputError, RecordError
from hydra_detect.nets.backbones import build_network
from hydra_detect.nets.heads import DEFAULT_SAMPLING
from hydra_detect.training import original
from hydra_detect.training.anchors import fit_anchors, label_sides
from hydra_detect.training.original import ARCHITECTURES, IMAGENET, OriginalSettings, WholeDetector, anchored, design
from hydra_detect.training.start import anchors_of
from hydra_detect.training.tools import Tools

TINY = OriginalSettings(
    min_size=48, max_size=96, mean=(0.4, 0.5, 0.6), pyramid_channels=16, box_width=32, proposals=50,
)  # fmt: skip
CPU = torch.device("cpu")


def designed(**changes):
    """Return a small design of a detector of two classes."""
    return design(attrs.evolve(TINY, **changes), classes=2, least_score=0.01)


def theirs(plan, device="cpu"):
    """Return torchvision's own FasterRCNN of a design."""
    width = plan.head.box_widths[0]
    with torch.device(device):
        return FasterRCNN(
            build_network(plan.architecture, device=device),
            rpn_anchor_generator=AnchorGenerator(plan.head.anchor_sizes, plan.head.aspect_ratios),
            box_head=TwoMLPHead(plan.architecture.pyramid_channels * 49, width),
            box_predictor=FastRCNNPredictor(width, plan.head.label_count),
        )


def whole(plan, seed=0):
    """Return the detector that learns."""
    return WholeDetector(plan, sampling=DEFAULT_SAMPLING, seed=seed)


def learnt(folder, plan, **changes):
    """Train a whole detector in a folder."""
    facts = {
        "train": TRAIN[:4],
        "select": SELECT[:2],
        "config": attrs.evolve(CONFIG, epochs=1),
        "seed": 0,
        "tools": Tools(),
    }
    return original.learn_original(plan, checkpoint=checkpoint(folder), device=CPU, **{**facts, **changes})


@pytest.mark.parametrize("weights", [None, IMAGENET])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_torchvisions(architecture, weights, monkeypatch):
    """Each design has the names and shapes of torchvision's FasterRCNN exactly, its norms frozen under ImageNet's."""
    monkeypatch.setattr(original, "_body_weights", lambda _architecture: {})  # hundreds of megabytes, tried below
    plan = design(OriginalSettings(architecture=architecture, weights=weights), classes=2, least_score=0.01)
    assert plan.architecture.name == architecture
    body = get_model(architecture, weights=None, norm_layer=None).state_dict()
    state = theirs(plan, "meta").state_dict()
    own = {name.removeprefix("backbone.body."): v.shape for name, v in state.items() if "backbone.body" in name}
    known = {name.removeprefix("features."): v.shape for name, v in body.items()}
    assert own.items() <= known.items()
    assert any(name.endswith("num_batches_tracked") for name in own) == (weights is None)
    assert SplitSettings(**plan.split_settings())
    pyramid = sorted({name.split(".")[3] for name in state if name.startswith("backbone.fpn.layer_blocks")})
    assert len(plan.head.anchor_sizes) == len(pyramid) + 1


def test_what_learns_has_torchvisions_names():
    """The state dict of a whole detector is that of torchvision's FasterRCNN, name for name and shape for shape."""
    plan = designed()
    ours, state = whole(plan).state_dict(), theirs(plan).state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in state.items()}


def test_random_weights_come_from_the_seed():
    """The same seed gives the same weights, another seed others, and the caller's chance is kept."""
    before = torch.get_rng_state()
    one, same, other = (whole(designed(), seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    name = "backbone.body.layer1.0.conv1.weight"
    assert not torch.equal(one[name], other[name])


def test_what_is_designed():
    """Settings reach the design: sizes, channels, anchors, widths, proposals, classes and the least score."""
    plan = designed(mean=(0.5,), std=(0.25,))
    assert (plan.architecture.in_channels, plan.architecture.pyramid_channels) == (1, 16)
    assert (plan.preprocessing.min_size, plan.preprocessing.max_size) == (48, 96)
    assert (plan.head.label_count, plan.head.score_threshold, plan.head.box_widths) == (3, 0.01, (32, 32))
    assert (plan.head.rpn_pre_nms_top_n, plan.head.rpn_post_nms_top_n) == (50, 50)
    assert plan.head.anchor_sizes == ((32,), (64,), (128,), (256,), (512,))
    assert plan.head.aspect_ratios == ((0.5, 1.0, 2.0),) * 5


def test_anchors_are_those_that_the_training_asks_for():
    """Given anchors, or those that fit the labels, reach the design; as it is it keeps its own."""
    plan = designed()
    assert anchored(plan, TRAIN, CONFIG, seed=0) is plan
    sizes = ((12,), (20,), (32,), (48,), (64,))
    own = anchored(plan, TRAIN, attrs.evolve(CONFIG, anchor_sizes=sizes, aspect_ratios=(0.1, 1.0)), seed=0)
    assert (own.head.anchor_sizes, own.head.aspect_ratios) == (sizes, ((0.1, 1.0),) * 5)
    fitted = anchored(plan, TRAIN, attrs.evolve(CONFIG, anchors="kmeans"), seed=3)
    sides = label_sides(TRAIN, plan.preprocessing)
    assert anchors_of(fitted.head) == fit_anchors(sides, (4, 8, 16, 32, 64), seed=3)
    with pytest.raises(InputError, match="sizes for 2 levels, and the backbone has 5"):
        anchored(plan, TRAIN, attrs.evolve(CONFIG, anchor_sizes=((8,), (16,))), seed=0)


def test_other_anchors_are_judged_by_random_weights(tmp_path):
    """A detector that goes on with other anchors keeps all weights but those that judged its own."""
    model = small(classes=3)
    plan = design(OriginalSettings(weights=str(save(model, tmp_path / "model.pth"))), classes=2, least_score=0.01)
    rows = len(plan.head.anchor_sizes)
    sizes = tuple((9.0 + level,) * len(plan.head.anchor_sizes[0]) for level in range(rows))
    other = whole(anchored(plan, TRAIN, attrs.evolve(CONFIG, anchor_sizes=sizes), seed=0)).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, other[name])}
    layers = {name.rsplit(".", 1)[0] for name in changed}
    assert layers == {"rpn.head.cls_logits", "rpn.head.bbox_pred"}


def test_settings_are_read_as_they_were_written():
    """Settings of an original come back from JSON as they were."""
    assert codec.decode(OriginalSettings, codec.encode(TINY), "settings") == TINY


def test_what_cannot_be_designed():
    """An architecture that there is not, and means and deviations of different number, are refused."""
    with pytest.raises(InputError, match=r"no architecture 'resnet19'. Did you mean 'resnet1"):
        designed(architecture="resnet19")
    with pytest.raises(RecordError, match="mean has 1 numbers and std has 3"):
        designed(mean=(0.5,))


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_large"])
def test_imagenet_weights(architecture, cache):  # noqa: F811  the fixture
    """From torchvision's cache the whole body starts as its classifier, with frozen norms; the pyramid is fresh."""
    classifier = get_model(architecture, weights=None)
    cache.mkdir(parents=True)
    torch.save(classifier.state_dict(), cached_file(get_model_weights(architecture).DEFAULT.url))
    plan = designed(architecture=architecture, weights=IMAGENET)
    assert plan.architecture.norm == "frozen"
    own, fresh = whole(plan).state_dict(), whole(attrs.evolve(plan, tensors={})).state_dict()
    body = {name: value for name, value in own.items() if name.startswith("backbone.body.")}
    for name, value in body.items():
        key = name.removeprefix("backbone.body.")
        wanted = classifier.state_dict()[f"features.{key}" if architecture == "mobilenet_v3_large" else key]
        assert torch.equal(value, wanted), name
    assert not any("num_batches_tracked" in name for name in own)
    assert all(torch.equal(value, fresh[name]) for name, value in own.items() if name not in body)


def test_imagenet_weights_without_network(cache):  # noqa: F811  the fixture
    """Where they can be neither found nor fetched, the error says what else there is."""
    found = r"start resnet18 from ImageNet: torchvision could not fetch https"
    with pytest.raises(CheckpointError, match=found) as caught:
        designed(weights=IMAGENET)
    assert "weights=None" in caught.value.remedy
    assert not list(cache.glob("*.pth"))


def test_going_on_from_a_detector(tmp_path):
    """A detector's file gives its own design and all weights, but for what judges other classes."""
    model = small(classes=3)
    path = save(model, tmp_path / "model.pth")
    plan = design(OriginalSettings(weights=str(path)), classes=2, least_score=0.01)
    own = whole(plan).state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert (plan.head.label_count, plan.head.score_threshold) == (3, 0.01)
    more = whole(attrs.evolve(plan, head=attrs.evolve(plan.head, label_count=5))).state_dict()
    fresh = {name for name, value in model.state_dict().items() if more[name].shape != value.shape}
    assert fresh == {
        f"roi_heads.box_predictor.{layer}.{kind}" for layer in ("cls_score", "bbox_pred") for kind in ("weight", "bias")
    }
    assert all(torch.equal(value, more[name]) for name, value in model.state_dict().items() if name not in fresh)


def test_a_detector_that_is_none(tmp_path):
    """A file that holds no detector is refused as when it is split."""
    torch.save({"owl": torch.zeros(3)}, tmp_path / "owl.pth")
    with pytest.raises(CheckpointError, match="owl"):
        design(OriginalSettings(weights=str(tmp_path / "owl.pth")), classes=1, least_score=0.01)


def test_a_detectors_weights_have_their_own_settings():
    """Settings that would have no effect beside a detector's file are refused by name; beside ImageNet's they count."""
    with pytest.raises(RecordError, match=r"box_width, min_size cannot be chosen: 'owl\.pth' is a whole detector"):
        OriginalSettings(weights="owl.pth", min_size=300, box_width=64)
    assert OriginalSettings(weights=IMAGENET, min_size=300).min_size == 300
    assert OriginalSettings(weights="torchvision:fasterrcnn_resnet50_fpn").is_detector


def test_noise_of_features_is_none_of_pictures(tmp_path):
    """Feature noise is for maps that are kept; a whole detector, into which pictures go, learns as without it."""
    plan, noisy = designed(), attrs.evolve(CONFIG, epochs=1, feature_noise=0.5)
    assert weights_of(learnt(tmp_path / "a", plan, config=noisy)) == weights_of(learnt(tmp_path / "b", plan))


def test_a_whole_detector_learns_and_splits(tmp_path):
    """Backbone and head learn together, statistics too, from one seed to the same bytes, and what comes out splits."""
    plan = designed()
    result = learnt(tmp_path / "a", plan)
    assert weights_of(result) == weights_of(learnt(tmp_path / "b", plan))
    started = whole(plan).state_dict()
    still = {name for name, value in started.items() if torch.equal(value, result.tensors[name])}
    assert still <= {name for name in started if "fpn" in name or "layer4" in name}
    assert int(result.tensors["backbone.body.bn1.num_batches_tracked"]) > 0
    assert len(result.history) == 1
    torch.save(dict(result.tensors), tmp_path / "original.pth")
    report = split_checkpoint(
        tmp_path / "original.pth", tmp_path / "store", head="shapes", settings=plan.split_settings(),
        class_names=CLASSES, parity_inputs=[sample.picture for sample in SELECT],
    )  # fmt: skip
    assert report.parity.equal
    record = VersionManager(tmp_path / "store").active("shapes").record
    assert record.settings == plan.head
    assert record.backbone.preprocessing == plan.preprocessing
    assert record.backbone.architecture == plan.architecture
