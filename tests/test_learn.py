"""From samples and a backbone to a head that has learnt them."""

import threading

import attrs
import numpy as np
import pytest
import torch
from test_extensions import install, site  # noqa: F401  a fixture
from training_fixtures import (
    CLASSES,
    CONFIG,
    SELECT,
    TALL,
    TRAIN,
    backbone,
    learn_shapes,
    origin,
    shape_sample,
    weights_of,
)

from hydra_detect.contracts import Preprocessing
from hydra_detect.data.samples import Role, Samples
from hydra_detect.errors import InputError, RoleError, TrainingStoppedError
from hydra_detect.nets.backbones import build_transform
from hydra_detect.nets.state import raw_tensors
from hydra_detect.training import loop
from hydra_detect.training.anchors import fit_anchors, label_sides
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.start import anchors_of
from hydra_detect.training.tools import Tools

SHORT = attrs.evolve(CONFIG, epochs=1)


def test_sides_without_labels():
    """Without samples, and without labels, there are no sides."""
    assert label_sides(Samples(items=[]), Preprocessing()).shape == (0, 2)
    empty = Samples(items=[shape_sample("empty")], class_names=CLASSES)
    assert label_sides(empty, Preprocessing()).shape == (0, 2)


@pytest.mark.parametrize(("low", "high"), [(48, 96), (96, 400), (400, 100), (30, 35)])
def test_sides_are_those_of_the_network_input(low, high):
    """Labels are as large as the transform makes them, whichever of the two limits decides."""
    preprocessing = Preprocessing(min_size=low, max_size=high)
    things = ("disc", 4, 6, 24, 36), ("square", 0, 0, 40, 10)
    samples = Samples(items=[shape_sample("wide", *things), shape_sample("tall", *things, size=TALL)])
    expected = []
    for sample in samples:
        boxes = torch.from_numpy(sample.truth.boxes.copy())
        height, width = sample.truth.image_size
        _, (target,) = build_transform(preprocessing)([torch.rand(3, height, width)], [{"boxes": boxes}])
        expected.append((target["boxes"][:, 2:] - target["boxes"][:, :2]).numpy())
    assert np.allclose(label_sides(samples, preprocessing), np.concatenate(expected), rtol=0.02)


def test_what_features_cost(tmp_path):
    """The backbone runs once for each sample and view that was drawn; a second training finds all of it."""
    config = attrs.evolve(CONFIG, epochs=6, views=("plain", "hflip"))
    first = learn_shapes(tmp_path, config=config)
    views = 2 * len(TRAIN) + len(SELECT)
    assert first.features.passes <= views
    assert first.features.passes + first.features.reused == 6 * (len(TRAIN) + len(SELECT))
    assert first.features.not_kept == 0
    (tmp_path / "run" / "checkpoint.safetensors").unlink()
    second = learn_shapes(tmp_path, config=config)
    assert (second.features.passes, weights_of(second.fitted)) == (0, weights_of(first.fitted))


def test_the_cache_decides_nothing(tmp_path):
    """With room for everything, for some or for nothing, a training comes to the same bytes."""
    found = []
    for limit in (100_000_000, 50_000, 0):
        learnt = learn_shapes(tmp_path / str(limit), config=attrs.evolve(CONFIG, cache_bytes=limit))
        found.append((learnt.features, weights_of(learnt.fitted)))
    (everything, first), (some, second), (nothing, third) = found
    assert first == second == third
    assert everything.passes < some.passes < nothing.passes == 3 * (len(TRAIN) + len(SELECT))
    assert nothing.not_kept == len(TRAIN) + len(SELECT)
    assert 0 < some.not_kept < nothing.not_kept


def test_it_starts_from_a_head(tmp_path):
    """With nothing to learn a head is what it started from, with its new settings; fresh ones follow the seed."""
    still = attrs.evolve(SHORT, learning_rate=1e-30, weight_decay=0, ema_decay=0)
    before = learn_shapes(tmp_path / "a", config=SHORT)
    start = origin(tensors=raw_tensors(before.network.state_dict()))
    again = learn_shapes(tmp_path / "b", config=still, start=start)
    assert weights_of(again.fitted) == weights_of(before.fitted)
    assert again.settings == attrs.evolve(start.settings, score_threshold=again.settings.score_threshold)


def test_fitted_anchors_are_in_the_settings(tmp_path):
    """Anchors fitted to the training labels are what the head detects with, and how well they do is said."""
    learnt = learn_shapes(tmp_path, config=attrs.evolve(SHORT, anchors="kmeans"))
    sides = label_sides(TRAIN, backbone().contract.preprocessing)
    assert anchors_of(learnt.settings) == fit_anchors(sides, (4, 8, 16)) != anchors_of(origin().settings)
    assert learnt.coverage.boxes == sum(TRAIN.box_counts.values())
    assert learnt.coverage.mean_iou > 0.7
    generator = learnt.network.rpn.anchor_generator
    assert tuple(map(tuple, generator.sizes)) == learnt.settings.anchor_sizes


def test_installed_losses_and_augmentations_are_found_by_name(tmp_path, site):  # noqa: F811  the fixture
    """A training names what an installed package declares, in a configuration file as elsewhere."""
    loss = "from hydra_detect.training.losses import torchvision_loss\n\n\ndef half(predictions, context):\n"
    loss += "    return {'half': torchvision_loss(predictions, context)['class'] / 2}\n"
    install(site, "spare_losses", "half = spare_losses:half", code=loss)
    mist = "def mist(picture, target):\n    return picture * 0 + 0.5, target\n"
    install(site, "spare_mist", "mist = spare_mist:mist", group="hydra_detect.augmentations", code=mist)
    config = attrs.evolve(SHORT, loss="half", features="fresh", augmentations=("mist",))
    learnt = learn_shapes(tmp_path / "run", config=config, select=None)
    assert set(learnt.fitted.history[0].losses) == {"half", "total"}


def test_a_training_role_without_any_box(tmp_path):
    """Backgrounds alone train without a crash, and no label is covered."""
    empty = Samples(items=[shape_sample(f"e{n}", seed=n) for n in range(4)], class_names=CLASSES)
    learnt = learn_shapes(tmp_path, train=empty[:2], select=empty[2:], config=attrs.evolve(SHORT, anchors="kmeans"))
    assert attrs.astuple(learnt.coverage) == (0, 0.0, 0.0)
    assert learnt.network(backbone()([backbone().prepare(torch.rand(3, 48, 64))]))


def test_samples_of_another_role_are_not_learnt_from(tmp_path):
    """Neither training nor selection takes samples that are meant for another work, or that the other has."""
    for role in (Role.SELECT, Role.CALIBRATE, Role.TEST):
        with pytest.raises(RoleError, match=f"the samples have the role {role}"):
            learn_shapes(tmp_path, train=TRAIN.with_role(role))
    for role in (Role.TRAIN, Role.CALIBRATE, Role.TEST):
        with pytest.raises(RoleError, match=f"cannot select an epoch: the samples have the role {role}"):
            learn_shapes(tmp_path, select=SELECT.with_role(role))
    with pytest.raises(RoleError, match="cannot train a head: 1 samples are in both sets"):
        learn_shapes(tmp_path, select=TRAIN[:1].with_role(None))


def test_a_loss_that_moves_some_weights_alone_is_taken_up_again(tmp_path, monkeypatch):
    """Weights that a loss never moves have no moments to be kept; what is taken up comes to the same bytes."""
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    cancel, config = threading.Event(), attrs.evolve(CONFIG, loss="classes")

    def classes(predictions, context):
        return {"class": torchvision_loss(predictions, context)["class"]}

    def stop(state):
        if state.latest.epoch == 1:
            cancel.set()

    losses = {"classes": classes}
    with pytest.raises(TrainingStoppedError, match="go on from the last epoch that was kept"):
        learn_shapes(tmp_path / "a", config=config, progress=stop, tools=Tools(losses=losses, cancel=cancel))
    again = learn_shapes(tmp_path / "a", config=config, tools=Tools(losses=losses))
    whole = learn_shapes(tmp_path / "b", config=config, tools=Tools(losses=losses))
    assert weights_of(again.fitted) == weights_of(whole.fitted)


def test_stopped_before_any_epoch_was_kept(tmp_path):
    """Where nothing was kept yet the error says so, and names no file that is not there."""
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(TrainingStoppedError, match="begin anew: no epoch was kept yet") as caught:
        learn_shapes(tmp_path, tools=Tools(cancel=cancel))
    assert caught.value.facts["checkpoint"] is None


def test_augmentations_of_cached_features_are_refused(tmp_path):
    """What would have no effect is an error that says where it has one, and a misspelt name is found there."""
    with pytest.raises(InputError, match="use augmentations: features are cached"):
        learn_shapes(tmp_path, config=attrs.evolve(SHORT, augmentations=("rotate",)))
    with pytest.raises(InputError, match="Did you mean 'rotate'"):
        learn_shapes(tmp_path, config=attrs.evolve(SHORT, features="fresh", augmentations=("rotatee",)))
