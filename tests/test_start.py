"""What a head starts from: layers that mean the same in both, rows of classes of one name, the rest by chance."""

import attrs
import numpy as np
import pytest
import torch
from originals import restless
from training_fixtures import CLASSES, SETTINGS, backbone, head, origin

from hydra_detect.errors import InputError, RecordError
from hydra_detect.nets.compact import Lean, Reference
from hydra_detect.nets.heads import DEFAULT_SAMPLING, RCNNHead, Sampling
from hydra_detect.nets.state import raw_tensors
from hydra_detect.tensors import tensors_digest
from hydra_detect.training.anchors import coverage, fit_anchors
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.start import LEAST_SCORE, anchors_of, plain_origin, settings_for, start_head

CONTRACT = backbone().contract
NO_SIDES = np.zeros((0, 2))
CLASS_ROWS = ("roi_heads.box_predictor.cls_score.weight", "roi_heads.box_predictor.cls_score.bias")
BOX_ROWS = ("roi_heads.box_predictor.bbox_pred.weight", "roi_heads.box_predictor.bbox_pred.bias")
ANCHOR_ROWS = tuple(f"rpn.head.{layer}.{kind}" for layer in ("cls_logits", "bbox_pred") for kind in ("weight", "bias"))


def given_origin(class_names=CLASSES, settings=SETTINGS):
    """Return a head to start from, each of whose weights is another than any fresh one's."""
    settings = attrs.evolve(settings, label_count=len(class_names) + 1)
    network = restless(head(settings=settings), seed=3)
    return origin(settings=settings, class_names=tuple(class_names), tensors=raw_tensors(network.state_dict())), network


def mean_of_classes(rows):
    """Return the mean over the classes, without the background, of what predicts the edges of boxes."""
    return rows.view(-1, 4, *rows.shape[1:])[1:].mean(dim=0)


def started(start, class_names=CLASSES, *, settings=None, seed=0):
    """Return the weights of a head that starts from another."""
    settings = settings or attrs.evolve(start.settings, label_count=len(class_names) + 1)
    return start_head(
        start, settings, CONTRACT, class_names=class_names, sampling=DEFAULT_SAMPLING, seed=seed
    ).state_dict()


def test_fresh_weights_come_from_the_seed():
    """Without a head to start from all weights are random, the same for one seed, and the caller's chance is kept."""
    torch.manual_seed(9)
    before = torch.get_rng_state()
    one, same, other = (started(origin(), seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    weights = [name for name in one if name.endswith("weight")]
    assert all(not torch.equal(one[name], other[name]) for name in weights)


def test_a_compact_head_begins_as_what_it_leans_on():
    """Its large layers are the reference's unless it starts from a head of its own; its predictors are random."""
    raw = raw_tensors(restless(head(), seed=5).state_dict())
    reference = Reference.of(tensors_digest(raw), SETTINGS, CONTRACT.levels, raw)
    lean = Lean(reference=reference, ranks={"roi_heads.box_head.fc6": 4})

    def leaning(start):
        settings = attrs.evolve(start.settings, label_count=len(CLASSES) + 1)
        return start_head(
            start, settings, CONTRACT, class_names=CLASSES, sampling=DEFAULT_SAMPLING, seed=4, lean=lean
        ).state_dict()

    fresh, plain = leaning(origin()), started(origin(), seed=4)
    assert len(reference.layers) == 3
    for name, tensor in fresh.items():
        assert torch.equal(tensor, reference.weights.get(name, plain[name]))
    start, network = given_origin()
    assert all(torch.equal(value, leaning(start)[name]) for name, value in network.state_dict().items())


def test_all_is_copied_where_classes_and_anchors_are_the_same():
    """A head that goes on with its own classes starts as exactly what it was, on memory of its own."""
    start, network = given_origin()
    found = started(start)
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items())
    network.roi_heads.box_head.fc6.bias.data.zero_()
    assert found["roi_heads.box_head.fc6.bias"].abs().max() > 0


def test_half_precision_is_widened():
    """Weights kept in float16 start a float32 head with the same values."""
    start, network = given_origin()
    halves = {name: value.half() for name, value in network.state_dict().items()}
    found = started(attrs.evolve(start, tensors=raw_tensors(halves)))
    assert all(
        value.dtype == torch.float32 and torch.equal(value, halves[name].float()) for name, value in found.items()
    )


def test_rows_of_classes_follow_their_names():
    """A class that both have keeps its rows wherever it stands; the background keeps its own; a new one is random."""
    start, network = given_origin(("owl", "disc", "fox"))
    names = ("disc", "ring", "owl")
    found, fresh, own = started(start, names), started(origin(settings=start.settings), names), network.state_dict()
    rows = {0: 0, 1: 2, 3: 1}  # new label to old
    for name in CLASS_ROWS:
        for label, old in rows.items():
            assert torch.equal(found[name][label], own[name][old])
        assert torch.equal(found[name][2], fresh[name][2])
    for name in BOX_ROWS:
        for label, old in rows.items():
            assert torch.equal(found[name][4 * label : 4 * label + 4], own[name][4 * old : 4 * old + 4])
        assert torch.allclose(found[name][8:12], mean_of_classes(own[name]))
    rest = found.keys() - {*CLASS_ROWS, *BOX_ROWS}
    assert all(torch.equal(found[name], own[name]) for name in rest)


def test_without_a_common_class_no_row_is_copied():
    """Where no class is shared, what judges classes is random though it has the same shape; the rest is copied.

    What moves the edges of a box begins as the mean over the classes of the other head.
    """
    start, network = given_origin(("owl", "fox"))
    found, fresh = started(start), started(origin())
    for name, value in network.state_dict().items():
        if name in BOX_ROWS:
            assert torch.equal(found[name][:4], fresh[name][:4])
            assert all(torch.allclose(found[name][row : row + 4], mean_of_classes(value)) for row in (4, 8))
        else:
            assert torch.equal(found[name], fresh[name] if name in CLASS_ROWS else value), name


def test_layers_that_judge_anchors_need_the_same_anchors():
    """With other anchors of the same number, the layers that judge them are random, and only those."""
    start, network = given_origin()
    other = attrs.evolve(start.settings, anchor_sizes=((10,), (24,), (40,)))
    found, fresh = started(start, settings=other), started(origin())
    for name, value in network.state_dict().items():
        assert torch.equal(found[name], fresh[name] if name in ANCHOR_ROWS else value), name
    more = attrs.evolve(start.settings, aspect_ratios=((0.3, 0.5, 1.0, 2.0),) * 3)
    assert len(started(start, settings=more)[ANCHOR_ROWS[0]]) == 4


def test_the_sampling_is_the_trainings():
    """The head samples as the training says, whatever prediction does."""
    sampling = Sampling(rpn_batch=32, box_batch=16, proposals=9)
    network = start_head(origin(), SETTINGS, CONTRACT, class_names=CLASSES, sampling=sampling, seed=0)
    assert isinstance(network, RCNNHead)
    assert network.rpn._pre_nms_top_n == {"training": 9, "testing": SETTINGS.rpn_pre_nms_top_n}
    assert (network.rpn.fg_bg_sampler.batch_size_per_image, network.roi_heads.fg_bg_sampler.batch_size_per_image) == (
        32,
        16,
    )


def test_a_plain_origin_is_torchvisions_default():
    """Where there is no head, a head has torchvision's defaults with anchors of eight strides on each level."""
    start = plain_origin(CONTRACT)
    assert (start.tensors, start.class_names) == (None, ())
    assert start.settings.anchor_sizes == ((32,), (64,), (128,))
    assert start.settings.roi_levels == ("0", "1")
    assert start.settings.box_widths == (1024, 1024)


@pytest.mark.parametrize("anchors", ["keep", "default", "kmeans"])
def test_settings_of_a_new_head(anchors):
    """A new head has its own classes and a low score threshold; its anchors are kept, usual, or fitted to labels."""
    sides = np.array([[40, 8]] * 5 + [[12, 12]] * 4, dtype=float)
    found = settings_for(origin(), CONTRACT, classes=5, config=TrainingConfig(anchors=anchors), sides=sides, seed=2)
    assert (found.label_count, found.score_threshold) == (6, LEAST_SCORE)
    expected = {
        "keep": anchors_of(SETTINGS),
        "default": anchors_of(plain_origin(CONTRACT).settings),
        "kmeans": fit_anchors(sides, (4, 8, 16), seed=2),
    }
    assert anchors_of(found) == expected[anchors]
    rest = attrs.evolve(SETTINGS, label_count=6, score_threshold=LEAST_SCORE)
    assert attrs.evolve(found, anchor_sizes=rest.anchor_sizes, aspect_ratios=rest.aspect_ratios) == rest
    if anchors == "kmeans":
        assert coverage(anchors_of(found), sides).at_half == 1


@pytest.mark.parametrize("anchors", ["keep", "default", "kmeans"])
def test_settings_without_labels(anchors):
    """Without any label each way gives anchors all the same."""
    found = settings_for(origin(), CONTRACT, classes=1, config=TrainingConfig(anchors=anchors), sides=NO_SIDES, seed=0)
    assert len(found.anchor_sizes) == len(CONTRACT.levels)


@pytest.mark.parametrize("anchors", ["keep", "default", "kmeans"])
def test_given_anchors_count_for_more(anchors):
    """Sizes and ratios that are given take the place of others, together or one alone."""
    sides = np.array([[40, 8]] * 5 + [[12, 12]] * 4, dtype=float)

    def found(**given):
        config = TrainingConfig(anchors=anchors, **given)
        return anchors_of(settings_for(origin(), CONTRACT, classes=1, config=config, sides=sides, seed=0))

    usual, sizes, ratios = found(), ((7, 8), (14, 15), (21, 22)), (0.25, 4.0)
    assert (found(anchor_sizes=sizes).sizes, found(anchor_sizes=sizes).ratios) == (sizes, usual.ratios)
    assert (found(aspect_ratios=ratios).sizes, found(aspect_ratios=ratios).ratios) == (usual.sizes, (ratios,) * 3)
    both = found(anchor_sizes=sizes, aspect_ratios=ratios)
    assert (both.sizes, both.ratios) == (sizes, (ratios,) * 3)


def test_anchors_for_another_number_of_levels():
    """Sizes for more or fewer levels than the backbone has are refused, with its strides; so are uneven ones."""
    config = TrainingConfig(anchor_sizes=((7,), (14, 15), (21,)))
    with pytest.raises(RecordError, match="the same number of anchors on each level"):
        settings_for(origin(), CONTRACT, classes=1, config=config, sides=NO_SIDES, seed=0)
    config = TrainingConfig(anchor_sizes=((8,), (16,)))
    with pytest.raises(InputError, match="sizes for 2 levels, and the backbone has 3") as caught:
        settings_for(origin(), CONTRACT, classes=1, config=config, sides=NO_SIDES, seed=0)
    assert "strides of 4, 8, 16 pixels" in caught.value.remedy
