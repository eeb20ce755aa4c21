"""Records: facts that are checked at birth."""

import datetime as dt
import math

import attrs
import pytest
from hypothesis import given
from record_strategies import contracts, unknowns
from store_fixtures import a_contract, a_record, some_tensors

from hydra_detect.contracts import Architecture, Level, Preprocessing
from hydra_detect.errors import NameInvalidError, RecordError
from hydra_detect.names import Digest
from hydra_detect.records import HeadSettings, OperatingPolicy, VersionRecord, utc_now

ONE = ((1.0,),)


def some_settings(**changes):
    """Return valid settings of a head, with changes."""
    return HeadSettings(**{"label_count": 3, "anchor_sizes": ONE, "aspect_ratios": ONE} | changes)


def an_architecture(**changes):
    """Return a valid architecture, with changes."""
    return attrs.evolve(a_contract().architecture, **changes)


BUILD = {"preprocessing": Preprocessing, "settings": some_settings, "architecture": an_architecture,
         "policy": OperatingPolicy, "level": Level}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("preprocessing", "min_size", [0, -1, 1_000_001, math.nan]),
        ("preprocessing", "max_size", [0, 1_000_001]),
        ("preprocessing", "size_divisor", [0, 4097]),
        ("preprocessing", "std", [(0, 1, 1), (1, -1, 1), (1, math.nan, 1)]),
        ("settings", "label_count", [-1, 0, 1, 10_001]),
        ("settings", "anchor_sizes", [((0,),), ((-1,),), ((math.nan,),), ((),)]),
        ("settings", "aspect_ratios", [((0,),), ((-1,),), ((math.nan,),), ((),)]),
        ("settings", "rpn_conv_depth", [0, 17]),
        ("settings", "box_head", ["", "MLP", None]),
        ("settings", "box_widths", [(), (0,)]),
        ("settings", "roi_levels", [()]),
        ("settings", "roi_size", [0, 65]),
        ("settings", "roi_sampling_ratio", [-2, 65]),
        ("settings", "rpn_pre_nms_top_n", [0]),
        ("settings", "rpn_nms_threshold", [-0.1, 1.1, math.nan]),
        ("settings", "score_threshold", [-0.1, 1.1, math.nan, math.inf]),
        ("settings", "nms_threshold", [-1, 2, math.nan]),
        ("settings", "detections_per_image", [0, 1_000_001]),
        ("settings", "box_coder_weights", [(1, 1, 1), (1,) * 5, (1, 1, 1, 0), ()]),
        ("architecture", "body", ["vgg", ""]),
        ("architecture", "in_channels", [0, 1025]),
        ("architecture", "return_layers", [()]),
        ("architecture", "norm", ["none"]),
        ("architecture", "norm_eps", [-1e-9, 1.5, math.nan]),
        ("architecture", "block", ["wide"]),
        ("architecture", "layers", [(0,), (201,)]),
        ("policy", "score_threshold", [-0.1, 1.1, math.nan]),
        ("level", "channels", [0]),
        ("level", "stride", [0, -4]),
    ],
)
def test_values_out_of_bounds(kind, field, values):
    """A value outside its bounds, NaN among them, is refused by the name of its field."""
    others = {"name": "0", "channels": 1, "stride": 1} if kind == "level" else {}
    for value in values:
        with pytest.raises(ValueError, match=field):
            BUILD[kind](**others | {field: value})


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("preprocessing", "mean", (0, math.inf, 0)),
        ("preprocessing", "mean", (0, math.nan, 0)),
        ("preprocessing", "std", (1, math.inf, 1)),
        ("settings", "anchor_sizes", ((math.inf,),)),
        ("settings", "box_coder_weights", (1, 1, 1, math.inf)),
    ],
)
def test_numbers_are_finite(kind, field, value):
    """NaN and infinity are no numbers to compute with."""
    with pytest.raises(RecordError, match="Give a finite number") as caught:
        BUILD[kind](**{field: value})
    assert caught.value.asked == f"set {field}"


def test_bounds_are_allowed():
    """The bounds themselves, and the defaults, are allowed."""
    assert Preprocessing().max_size == 1333
    assert Preprocessing(min_size=1, max_size=1).min_size == 1
    assert some_settings(score_threshold=0, nms_threshold=1, roi_sampling_ratio=-1).nms_threshold == 1.0
    assert an_architecture(norm_eps=0).norm_eps == 0.0


def test_a_limit_below_the_shorter_side_is_torchvisions_own_business():
    """The longer side's limit may lie below the shorter side's size, as in torchvision, where the limit wins."""
    assert Preprocessing(max_size=799).max_size == 799


def test_mean_and_std_of_other_lengths():
    """Mean and std have one number per channel each; both counts are named."""
    with pytest.raises(RecordError, match="mean has 2 numbers and std has 3"):
        Preprocessing(mean=(0, 0))


@pytest.mark.parametrize(
    ("sizes", "ratios", "found"),
    [
        ((), (), r"\[\] in number and aspect ratios \[\]"),
        (ONE * 2, ONE, r"\[1, 1\] in number and aspect ratios \[1\]"),
        (((1, 2), (1,)), ONE * 2, r"\[2, 1\] in number and aspect ratios \[1, 1\]"),
    ],
)
def test_anchors_that_do_not_match(sizes, ratios, found):
    """All levels share one RPN, so each has the same number of anchors."""
    with pytest.raises(RecordError, match=found):
        some_settings(anchor_sizes=sizes, aspect_ratios=ratios)


def test_anchors_per_location():
    """Sizes times ratios of a level is the number of anchors at each place."""
    assert some_settings(anchor_sizes=((1, 2),) * 2, aspect_ratios=((1, 2, 3),) * 2).anchors_per_location == 6


def test_number_of_class_names():
    """As many names as classes; the refusal names both numbers and keeps them as facts."""
    with pytest.raises(RecordError, match="1 names were given and the weights have 2 classes") as caught:
        a_record(some_tensors(), class_names=("owl",), settings=some_settings(label_count=3))
    assert caught.value.facts == {"names": 1, "classes": 2}


@pytest.mark.parametrize(
    "name", ["", "a\nb", "a\x1b[31m", "owl\u202e", "\0", "a\ud800", "x" * 201, "\u2028"], ids=ascii
)
def test_class_names_are_printable(name):
    """An empty, unprintable or endless class name is refused, since it ends up in a terminal and a file."""
    with pytest.raises(RecordError, match="is empty, unprintable or longer than 200 characters") as caught:
        a_record(some_tensors(), class_names=("owl", name))
    assert str(caught.value).isprintable()


def test_thresholds_are_of_classes_of_the_head():
    """A threshold of a class that the head does not have would be read by nobody."""
    policy = OperatingPolicy(score_threshold=0.5, class_thresholds={"owl": 0.4, "oul": 0.3})
    with pytest.raises(RecordError, match=r"there is one for 'oul', which is no class of the head.*Did you mean 'owl'"):
        a_record(some_tensors(1), operating_policy=policy)


def test_class_names_of_all_tongues():
    """Class names may be in any writing, hold spaces, and stand twice as they do in COCO."""
    names = ("red fox", "日本", "N/A", "N/A", "x" * 200)
    assert a_record(some_tensors(), class_names=names).class_names == names


def test_backbone_name_is_a_name():
    """A head's record cannot name a backbone that no store could hold."""
    with pytest.raises(NameInvalidError, match="as a backbone name"):
        a_record(some_tensors(), backbone_name="../demo")


def test_score_threshold_of_a_head():
    """The operating policy's threshold wins over the one of the settings."""
    assert a_record(some_tensors()).score_threshold == 0.05
    policy = OperatingPolicy(score_threshold=0.4)
    assert a_record(some_tensors(), operating_policy=policy).score_threshold == 0.4


@given(contracts, unknowns)
def test_a_contract_fits_itself(contract, unknown):
    """A contract differs in nothing from itself, nor from one that only has fields of a later version more."""
    levels = tuple(attrs.evolve(level, unknown=unknown) for level in contract.levels)
    later = attrs.evolve(
        contract, unknown=unknown, levels=levels, architecture=attrs.evolve(contract.architecture, unknown=unknown)
    )
    assert contract.differences(contract) == ()
    assert contract.differences(later) == ()
    assert later.differences(contract) == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digest": Digest("1" * 64)}, f"digest is {a_contract().digest.short} against 111111111111"),
        ({"architecture": an_architecture(norm_eps=1e-5)}, "architecture.norm_eps is 0.0 against 1e-05"),
        ({"preprocessing": Preprocessing(min_size=640)}, "preprocessing.min_size is 800 against 640"),
        (
            {"levels": (Level(name="0", channels=256, stride=4), Level(name="pool", channels=256, stride=16))},
            "levels[1].stride is 8 against 16",
        ),
    ],
)
def test_contracts_name_what_differs(changes, said):
    """Each fact that differs is named by its path, with both values."""
    assert a_contract().differences(a_contract(**changes)) == (said,)


def test_contracts_name_all_that_differs():
    """Several differences are told together, and a number of levels that differs is one of them."""
    other = a_contract("1", preprocessing=Preprocessing(min_size=1, max_size=2), levels=a_contract().levels[:1])
    found = a_contract().differences(other)
    assert [phrase.split()[0] for phrase in found] == [
        "digest", "preprocessing.min_size", "preprocessing.max_size", "levels",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "resnet18"),
        ({"layers": (3, 4, 6, 3)}, "resnet34"),
        ({"layers": (3, 4, 6, 3), "block": "bottleneck"}, "resnet50"),
        ({"layers": (3, 4, 23), "block": "bottleneck"}, "resnet101"),
        ({"layers": (3, 4, 6, 3), "block": "bottleneck", "width_per_group": 128}, "wide_resnet50_2"),
        (
            {"layers": (3, 4, 23, 3), "block": "bottleneck", "groups": 32, "width_per_group": 8},
            "resnext101_32x8d",
        ),
        ({"layers": (1, 1)}, "resnet-basic-1-1"),
        ({"body": "mobilenet_v3_large"}, "mobilenet_v3_large"),
    ],
)
def test_architecture_names(changes, name):
    """An architecture goes by the name that people know it by."""
    assert an_architecture(**changes).name == name


def test_records_do_not_change():
    """A record is frozen."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        a_contract().digest = Digest("1" * 64)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("owl",), "owl@10 (owl; 1.50 MB)"),
        (("a", "b", "c", "d"), "owl@10 (a, b, c, d; 1.50 MB)"),
        (tuple("abcdef"), "owl@10 (a, b, c, d and 2 more; 1.50 MB)"),
    ],
)
def test_version_in_one_line(classes, said):
    """A version prints as its reference, its first classes and its size."""
    digest = Digest("0" * 64)
    version = VersionRecord(
        head="owl", number=10, created_at="now", manifest=digest,
        files={"a": (1_000_000, digest), "b": (500_000, digest)}, record=a_record(some_tensors(), class_names=classes),
    )  # fmt: skip
    assert str(version) == said
    assert version.nbytes == 1_500_000
    assert (version.actor, version.parent) == ("", None)


def test_time_is_utc():
    """Times are ISO 8601 in UTC and read back as such."""
    text = utc_now()
    assert dt.datetime.fromisoformat(text).utcoffset() == dt.timedelta(0)
    assert len(text) == len("2025-01-01T00:00:00.000+00:00")


def test_body_must_be_named():
    """An architecture without its required facts cannot be built."""
    with pytest.raises(TypeError, match="body"):
        Architecture()
