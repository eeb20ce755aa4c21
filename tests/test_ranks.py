"""Ranks: from a setting to the rank of each layer."""

import pytest
import training_fixtures
from originals import RATIOS, SIZES
from training_fixtures import SETTINGS

from hydra_detect.contracts import Level
from hydra_detect.errors import InputError
from hydra_detect.records import HeadSettings
from hydra_detect.training.ranks import ranks_of

RPN, FC6, FC7 = "rpn.head.conv.0.0", "roi_heads.box_head.fc6", "roi_heads.box_head.fc7"
SECOND = HeadSettings(
    label_count=2, anchor_sizes=SIZES, aspect_ratios=RATIOS, rpn_conv_depth=2, box_head="conv_fc",
    box_convolutions=(16, 16), box_widths=(24,), box_norm=True,
)  # fmt: skip
FIVE = [Level(name=name, channels=16, stride=4 * 2**place) for place, name in enumerate(["0", "1", "2", "3", "pool"])]


def ranks(text):
    """Return the ranks of a tiny head: 16x144, 32x784 and 32x32 weights."""
    return ranks_of(text, SETTINGS, training_fixtures.backbone().contract.levels)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("4", {RPN: 4, FC6: 4, FC7: 4}),
        (" 8 ", {RPN: 8, FC6: 8, FC7: 8}),
        ("16", {FC6: 16}),  # 16 x 144 and 32 x 32 would be no smaller
        ("rpn:2,fc6:8,fc7:whole", {RPN: 2, FC6: 8}),
        ("fc6: 8", {RPN: 0, FC6: 8, FC7: 0}),
        ("fc6:0", {RPN: 0, FC6: 0, FC7: 0}),
        ("rpn:whole,fc7:whole", {FC6: 0}),
    ],
)
def test_ranks(text, wanted):
    """One number for every layer, or each by name; what would be no smaller is kept whole."""
    assert ranks(text) == wanted


def test_the_second_form():
    """Several convolutions of a proposal network, and convolutions of a box head, have names of their own."""
    found = ranks_of("rpn.0:2,rpn.1:3,box.0:4,box.1:whole,box.3:5", SECOND, FIVE)
    assert found == {
        "rpn.head.conv.0.0": 2,
        "rpn.head.conv.1.0": 3,
        "roi_heads.box_head.0.0": 4,
        "roi_heads.box_head.3": 5,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' names no layer and rank"),
        ("many", "'many' names no layer and rank"),
        ("fc6", "'fc6' names no layer and rank"),
        ("fc9:4", r"no layer 'fc9'\. Did you mean 'fc7' or 'fc6'"),
        ("fc7:33", "'33' is no rank of a layer of 32 x 32 weights"),
        ("fc7:-1", "'-1' is no rank"),
        ("fc7:1.5", "'1.5' is no rank"),
        ("rpn:whole,fc6:whole,fc7:whole", "every layer would be kept whole"),
        ("100", "of rank '100' every layer would be kept whole"),
    ],
)
def test_what_is_no_rank(text, told):
    """What names no layer or no rank of it is refused, and what could be is said."""
    with pytest.raises(InputError, match=told):
        ranks(text)
