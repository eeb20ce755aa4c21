"""Settings of a split: defaults, presets, contradictions, and what is said to be assumed."""

import attrs
import pytest
import torch
from originals import full_size
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

from hydra_detect.checkpoints.recognise import recognise
from hydra_detect.checkpoints.settings import PRESETS, SplitSettings, resolve
from hydra_detect.cli.split_options import SplitOptions
from hydra_detect.errors import CheckpointError, InputError, RecordError


@pytest.fixture(scope="module")
def resnet():
    """What is recognised of a ResNet-18 detector."""
    return recognise({name: tuple(v.shape) for name, v in full_size("resnet18").state_dict().items()}, "a.pth")


@pytest.fixture(scope="module")
def mobile():
    """What is recognised of torchvision's MobileNet detector, in either of its two forms."""
    with torch.device("meta"):
        model = fasterrcnn_mobilenet_v3_large_fpn(weights=None, weights_backbone=None)
    return recognise({name: tuple(v.shape) for name, v in model.state_dict().items()}, "a.pth")


def test_defaults_are_those_of_torchvision(resnet):
    """Without settings everything is torchvision's default."""
    facts = resolve(resnet, SplitSettings(), "a.pth")
    plain = full_size("resnet18")
    assert (facts.preprocessing.min_size, facts.preprocessing.max_size) == (800, 1333)
    assert list(facts.preprocessing.mean) == plain.transform.image_mean
    assert facts.head.anchor_sizes == plain.rpn.anchor_generator.sizes
    assert facts.head.box_coder_weights == tuple(plain.roi_heads.box_coder.weights)
    assert facts.head.score_threshold == plain.roi_heads.score_thresh
    assert facts.operating_policy is None


def test_every_setting_reaches_the_record(resnet):
    """Each setting given changes exactly the fact of its name."""
    given = {
        "min_size": 100,
        "max_size": 200,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "size_divisor": 64,
        "norm_eps": 0.0,
        "rpn_pre_nms_top_n": 11,
        "rpn_post_nms_top_n": 12,
        "rpn_nms_threshold": 0.61,
        "rpn_score_threshold": 0.02,
        "roi_levels": ["0", "1"],
        "roi_sampling_ratio": 3,
        "score_threshold": 0.11,
        "nms_threshold": 0.42,
        "detections_per_image": 7,
        "box_coder_weights": [1.0, 2.0, 3.0, 4.0],
        "box_norm_eps": 0.01,
    }
    facts = resolve(resnet, SplitSettings.of(given), "a.pth")
    places = (facts.architecture, facts.preprocessing, facts.head)
    for name, value in given.items():
        found = next(getattr(place, name) for place in places if hasattr(place, name))
        assert (list(found) if isinstance(found, tuple) else found) == value, name


def test_a_setting_beats_its_preset_and_the_preset_the_default(mobile):
    """The first of setting, preset and torchvision's default counts."""
    given = SplitSettings(preset="fasterrcnn_mobilenet_v3_large_320_fpn", max_size=500)
    facts = resolve(mobile, given, "a.pth")
    assert (facts.preprocessing.min_size, facts.preprocessing.max_size) == (320, 500)
    assert facts.head.rpn_pre_nms_top_n == 150


def test_the_two_mobilenet_forms_are_reported_as_assumed(mobile):
    """Where two torchvision models share keys and shapes, the report says which was taken and how to say otherwise."""
    assumed = " ".join(resolve(mobile, SplitSettings(), "a.pth").assumed)
    assert "fasterrcnn_mobilenet_v3_large_fpn" in assumed
    assert "--preset fasterrcnn_mobilenet_v3_large_320_fpn" in assumed
    said = SplitSettings(preset="fasterrcnn_mobilenet_v3_large_fpn", norm_eps=1e-5)
    assert resolve(mobile, said, "a.pth").assumed == ()


def test_a_preset_for_another_backbone_is_refused(resnet, mobile):
    """A preset of a MobileNet detector is refused for a ResNet, and the other way round."""
    for found, name in ((resnet, "fasterrcnn_mobilenet_v3_large_320_fpn"), (mobile, "fasterrcnn_resnet50_fpn")):
        with pytest.raises(RecordError, match=f"preset '{name}' is for another backbone"):
            resolve(found, SplitSettings(preset=name), "a.pth")


def test_anchors_that_contradict_the_weights_name_both_numbers(resnet):
    """Anchor settings that give another number than the weights have are refused with both numbers."""
    given = SplitSettings(anchor_sizes=((16, 32),) * 5)
    with pytest.raises(CheckpointError, match="give 6 anchors per location and the weights have 3") as caught:
        resolve(resnet, given, "a.pth")
    assert (caught.value.facts["settings"], caught.value.facts["weights"]) == (6, 3)
    with pytest.raises(CheckpointError, match="for 4 levels and the pyramid has 5"):
        resolve(resnet, SplitSettings(anchor_sizes=((16,),) * 4), "a.pth")


def test_mean_of_another_number_of_channels_is_refused(resnet):
    """A one-channel first layer with three-channel mean is refused with both numbers, not guessed."""
    one = attrs.evolve(resnet, in_channels=1)
    with pytest.raises(CheckpointError, match=r"takes 1 channel.* have 3"):
        resolve(one, SplitSettings(), "a.pth")
    assert resolve(one, SplitSettings(mean=(0.4,), std=(0.2,)), "a.pth").preprocessing.mean == (0.4,)


def test_return_layers_of_another_number_are_refused(resnet):
    """Naming more or fewer layers than the pyramid takes is refused with both numbers."""
    with pytest.raises(CheckpointError, match="1 return_layers were given and its pyramid takes 4"):
        resolve(resnet, SplitSettings(return_layers=("layer1",)), "a.pth")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"min_sizes": 3}, "no setting 'min_sizes'.*'min_size'"),
        ({"preset": "fasterrcnn_resnet50"}, "no preset.*fasterrcnn_resnet50_fpn"),
        ({"sample_count": -1}, "sample_count"),
        ({"anchor_sizes": []}, "anchors"),
        ({"min_size": 0}, "min_size"),
        ({"min_size": "800"}, "min_size"),
        ({"std": [1.0, 0.0, 1.0]}, "std"),
        ({"score_threshold": 1.5}, "score_threshold"),
        ({"score_threshold": float("nan")}, "score_threshold"),
        ({"box_coder_weights": [1.0, 2.0]}, "box_coder_weights"),
    ],
)
def test_settings_that_cannot_be_are_refused(resnet, given, match):
    """An unknown setting, preset or impossible value is refused by name, with near matches."""
    with pytest.raises(RecordError, match=match):
        resolve(resnet, SplitSettings.of(given), "a.pth")


def test_one_row_of_aspect_ratios_serves_all_levels(resnet):
    """A single tuple of aspect ratios stands for every level."""
    facts = resolve(resnet, SplitSettings(aspect_ratios=((0.25, 1.0, 4.0),)), "a.pth")
    assert facts.head.aspect_ratios == ((0.25, 1.0, 4.0),) * 5


def test_the_eps_of_a_mobilenet_with_batch_norm_is_reported_as_assumed(mobile):
    """A MobileNet may come from two constructors with different eps, so the report says which was taken."""
    batch = attrs.evolve(mobile, norm="batch")
    assert "--norm-eps 0.001" in " ".join(resolve(batch, SplitSettings(), "a.pth").assumed)
    assert "eps" not in " ".join(resolve(batch, SplitSettings(norm_eps=0.001), "a.pth").assumed)


def test_a_preset_can_be_given_by_its_name_alone():
    """A text in place of settings is a preset."""
    assert SplitSettings.of("fasterrcnn_resnet50_fpn").preset == "fasterrcnn_resnet50_fpn"
    assert SplitSettings.of(None) == SplitSettings()


def test_pretrained_weights_with_old_norms_have_eps_zero():
    """Only torchvision's COCO weights of the first ResNet-50 detector have eps 0."""
    zero = {name for name, settings in PRESETS.items() if settings.norm_eps == 0}
    assert zero == {"torchvision:fasterrcnn_resnet50_fpn"}


def test_the_command_line_offers_every_setting():
    """Each setting has an option of its name, and each option is a setting; a whole policy is for programs."""
    options = {field.name for field in attrs.fields(SplitOptions)}
    assert options == {field.name for field in attrs.fields(SplitSettings)} - {"unknown", "operating_policy"}


def test_options_read_lists_as_people_write_them():
    """Lists on the command line become the settings they stand for, and others are refused by name."""
    options = SplitOptions(
        mean="0.1,0.2,0.3", anchor_sizes="16,24/32,48", aspect_ratios="0.5,1,2", claimed_metrics="f1=0.9,ap50=0.8"
    )
    assert options.to_settings() == {
        "mean": [0.1, 0.2, 0.3],
        "anchor_sizes": [[16.0, 24.0], [32.0, 48.0]],
        "aspect_ratios": [[0.5, 1.0, 2.0]],
        "claimed_metrics": {"f1": 0.9, "ap50": 0.8},
    }
    with pytest.raises(InputError, match="--anchor-sizes"):
        SplitOptions(anchor_sizes="16;24").to_settings()
