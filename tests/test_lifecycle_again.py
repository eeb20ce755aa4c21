"""The same training again: the same bytes, going on where it was stopped, and never mistaken for another."""

import importlib.util
import pathlib
import threading

import lifecycle_fixtures
import numpy as np
import pytest
import torch
from lifecycle_fixtures import BADLY, QUICK, give, lights, on_disk, runs_of, teach

from hydra_detect.data.splits import split
from hydra_detect.errors import ExtraMissingError, InputError, TrainingStoppedError
from hydra_detect.lifecycle import attempts, origins, plans, train
from hydra_detect.lifecycle.original import train_original
from hydra_detect.storage import heads
from hydra_detect.tensors import tensors_digest
from hydra_detect.training import loop
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.runs import Run
from hydra_detect.training.tools import Tools
from hydra_detect.versions import VersionManager

bare, taught = lifecycle_fixtures.bare, lifecycle_fixtures.taught


def digest_of(store, ref):
    """Return the digest of the tensors of a version, as they are read."""
    return tensors_digest(heads.tensors(store, heads.find(store, ref)))


def test_the_same_call_gives_the_same_bytes(bare, tmp_path):
    """Same samples, in whatever order, same settings, same seed: every bit of the weights is the same; else not."""
    again = lifecycle_fixtures.with_backbone(tmp_path / "again")
    give(again)
    one, other = teach(bare), teach(again)
    assert digest_of(bare, "lamp@1") == digest_of(again, "lamp@1")
    assert one.metrics == other.metrics
    assert one.calibration == other.calibration
    kept = teach(again)
    assert digest_of(again, "lamp@2") == digest_of(again, "lamp@1")
    assert kept.run == f"{other.run}-2"
    teach(again, seed=1)
    assert digest_of(again, "lamp@3") != digest_of(again, "lamp@1")


@pytest.mark.parametrize(("place", "name"), [(VersionManager, "promote"), (Run, "finish")])
def test_stopped_when_it_was_published(bare, monkeypatch, place, name):
    """Killed after its version was made, or made active, the same call finishes it: there is no second one."""

    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(place, name, stop)
    with pytest.raises(KeyboardInterrupt):
        teach(bare)
    monkeypatch.undo()
    assert bare.head("lamp").numbers() == [1]
    report = teach(bare)
    assert (report.version, report.is_promoted) == (1, True)
    assert bare.head("lamp").numbers() == [1]
    assert heads.find(bare, "lamp").number == 1
    assert len(runs_of(bare)) == 1
    assert teach(bare).version == 2  # which is asked for anew


def test_what_a_training_depends_on_makes_it_another_run(taught):
    """Seed, settings, samples, split, start and backbone each tell a training from others that were stopped."""
    store, _report = taught
    other = lifecycle_fixtures.with_backbone(None, name="second", store=store)
    give(store, "owl", classes=("owl",), backbone="second")
    samples, config = lights(), lifecycle_fixtures.config()
    roles = split(samples)
    more = lights(21)

    def print_of(
        head="lamp", *, init="auto", backbone=None, samples=samples, roles=roles, config=config, seed=0, tools=None
    ):
        beginning = origins.begin(other, head, init=init, backbone=backbone)
        plan = plans.plan(other, head, samples, given=roles, seed=seed)
        return train._fingerprint(head, beginning, plan, config, seed, (tools or Tools()).code(config))

    prints = [
        print_of(),
        print_of("night-lamp", backbone="default"),
        print_of(init="fresh"),
        print_of(backbone="second", init="fresh"),
        print_of(samples=more, roles=split(more)),
        print_of(roles=split(samples, seed=1)),
        print_of(config=lifecycle_fixtures.config(epochs=5)),
        print_of(seed=1),
        print_of(tools=Tools(losses={"where": lifecycle_fixtures.where_alone})),
        print_of(tools=Tools(losses={"where": torchvision_loss})),
        print_of(tools=Tools(augmentations={"where": torchvision_loss})),
    ]
    assert len(set(prints)) == len(prints)
    assert print_of() == prints[0]


def test_a_cancelled_training_is_taken_up_again(bare, tmp_path, monkeypatch):
    """What was stopped after two epochs goes on from there, comes to the same bytes, and leaves no checkpoint."""
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    cancel, heard = threading.Event(), []

    def progress(state):
        heard.append(state.latest.epoch)
        if state.latest.epoch == 2:
            cancel.set()

    with pytest.raises(TrainingStoppedError, match="cancelled in epoch 3") as caught:
        teach(bare, progress=progress, tools=Tools(cache=tmp_path / "features", cancel=cancel))
    assert heads.names(bare) == ["moth"]
    (folder,) = runs_of(bare)
    assert str(folder) in caught.value.facts["checkpoint"]
    report = teach(bare, progress=lambda state: heard.append(state.latest.epoch))
    assert heard == [1, 2, 3, 4]
    assert report.run == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.csv", "report.json"]
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + QUICK["epochs"]
    whole = lifecycle_fixtures.with_backbone(tmp_path / "whole")
    give(whole)
    teach(whole)
    assert digest_of(bare, "lamp@1") == digest_of(whole, "lamp@1")


def test_whatever_is_stopped_goes_on_from_its_first_epoch(bare):
    """A short training is kept too: of one that is interrupted after an epoch that epoch is not learnt again."""
    heard = []

    def interrupt(state):
        heard.append(state.latest.epoch)
        if len(heard) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(bare, progress=interrupt)
    (folder,) = runs_of(bare)
    assert len((folder / "metrics.csv").read_text().splitlines()) == 2  # a row is there as soon as there is an epoch
    teach(bare, progress=interrupt)
    assert heard == [1, 2, 3, 4]


def test_pictures_that_cannot_be_read_are_met_before_anything_is_learnt(bare, tmp_path):
    """Whatever role they have, and all of them by name: not one after the other, each after a training."""
    samples = on_disk(lights(), tmp_path / "pictures")
    roles = split(samples)
    bad = [roles.take(samples, role)[0] for role in ("calibrate", "test")]
    for sample in bad:
        path = pathlib.Path(sample.picture)
        path.write_bytes(path.read_bytes()[:1000])
    heard = []
    with pytest.raises(InputError, match="2 of 24 pictures cannot be read") as caught:
        teach(bare, samples=samples, progress=heard.append)
    assert caught.value.facts["ids"] == sorted(sample.id for sample in bad)
    assert all(sample.id in caught.value.found for sample in bad)
    assert heard == []
    assert not bare.layout.runs("lamp").exists()


def test_a_training_that_is_cancelled_at_its_end(bare, tmp_path):
    """Cancelled in the last epoch nothing is published; the next call has nothing left to learn, and publishes."""
    cancel, heard = threading.Event(), []

    def progress(state):
        heard.append(state.latest.epoch)
        if state.latest.epoch == QUICK["epochs"]:
            cancel.set()

    with pytest.raises(TrainingStoppedError, match="when all was learnt"):
        teach(bare, progress=progress, tools=Tools(cache=tmp_path / "features", cancel=cancel))
    assert heads.names(bare) == ["moth"]
    assert teach(bare, progress=progress).is_promoted
    assert heard == [1, 2, 3, 4]


def test_a_training_that_is_cancelled_while_it_is_measured(bare, monkeypatch):
    """Cancelled after the last epoch, while it is calibrated or measured, nothing is published either."""
    cancel, measure = threading.Event(), attempts.measured

    def measured(*arguments, **options):
        cancel.set()
        return measure(*arguments, **options)

    monkeypatch.setattr(attempts, "measured", measured)
    with pytest.raises(TrainingStoppedError, match="cancelled while it was calibrated and measured"):
        teach(bare, tools=Tools(cancel=cancel))
    assert heads.names(bare) == ["moth"]
    cancel.clear()
    monkeypatch.undo()
    assert teach(bare).is_promoted


def test_the_callers_random_numbers_are_left_alone(bare):
    """A training draws from numbers of its own: those of the process, torch's and numpy's, go on as before."""
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  the old global state is what must not move
    expected = (torch.rand(3).tolist(), np.random.random(3).tolist())  # noqa: NPY002  same
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  same
    teach(bare, publish=False)
    assert (torch.rand(3).tolist(), np.random.random(3).tolist()) == expected  # noqa: NPY002  same


def test_another_objective_needs_no_other_weights(bare):
    """Where an objective is out of reach, another one takes the weights that were learnt, and learns nothing again."""
    heard = []
    with pytest.raises(InputError, match="out of reach"):
        teach(bare, **BADLY | {"config": {**BADLY["config"], "objective": "recall@precision:1"}})
    (folder,) = runs_of(bare)
    assert (folder / "metrics.csv").exists()
    report = teach(bare, **BADLY, progress=lambda state: heard.append(state.latest.epoch))
    assert (report.version, heard) == (1, [])


def test_what_the_end_needs_is_asked_for_at_the_beginning(bare, monkeypatch):
    """Without the extra `train` nothing is learnt first that could then be neither calibrated nor measured."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "hotcoco" else real(name))
    with pytest.raises(ExtraMissingError, match=r"hydra-detect\[train\]"):
        teach(bare, progress=pytest.fail)
    with pytest.raises(ExtraMissingError, match=r"cannot train the original of 'owl'"):
        train_original(bare.root.parent / "new", "owl", lights())
    assert not (bare.root.parent / "new").exists()
