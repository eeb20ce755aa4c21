"""What a training must not change, and does not: the backbone and every other head, bit for bit."""

import lifecycle_fixtures
import pytest
import torch
from lifecycle_fixtures import QUICK, give, teach
from store_fixtures import flip, snapshot

from hydra_detect.errors import CorruptError, TrainingError
from hydra_detect.lifecycle import train, unchanged
from hydra_detect.nets.backbones import Backbone
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads, layout
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.tools import Tools
from hydra_detect.versions import VersionManager

bare = lifecycle_fixtures.bare


@pytest.fixture
def crowded(bare):
    """Give a store with `moth`, active; `owl`, of whose versions 1 and 2 the second is active; `fox`, with none."""
    for seed in (2, 3):
        give(bare, "owl", seed=seed, classes=("owl", "eagle"))
    version = heads.find(bare, "moth")
    VersionManager(bare).create("fox", heads.tensors(bare, version), version.record)
    return bare


def in_memory(store):
    """Return the store's backbone as a training has it."""
    stored = backbones.find(store, "default")
    return Backbone(stored.record.contract, backbones.tensors(store, stored))


def act_once(what):
    """Return a callback that does something after the first epoch."""

    def progress(state):
        if state.latest.epoch == 1:
            what()

    return progress


def test_no_file_of_another_head_is_touched(crowded):
    """After a training every file of the other heads and of the backbone is what and as old as it was."""
    places = [crowded.root / "backbones", *(crowded.root / "heads" / name for name in ("moth", "owl", "fox"))]
    before = [snapshot(place) for place in places]
    report = teach(crowded)
    assert [snapshot(place) for place in places] == before
    assert report.training.unchanged.heads == ("fox@1", "moth@1", "owl@1", "owl@2")
    assert report.training.unchanged.backbone == unchanged.digest_of(in_memory(crowded))
    assert report.training.unchanged.backbone == backbones.find(crowded, "default").record.tensors


def test_weights_and_buffers_count(bare):
    """One bit of one weight, or of a running mean, is another backbone; nothing is the same one."""
    network = in_memory(bare)
    before = unchanged.look(bare, "lamp", network)
    assert unchanged.check(bare, before, network) == unchanged.Unchanged(backbone=before.backbone, heads=("moth@1",))
    state = network.network.state_dict()
    changed = [next(name for name in state if name.endswith(end)) for end in ("conv1.weight", "running_mean")]
    for name in changed:
        value = state[name].view(-1)
        kept = value[0].clone()
        value[0] = torch.nextafter(kept, kept + 1)
        with pytest.raises(TrainingError, match="the frozen backbone changed: its digest was"):
            unchanged.check(bare, before, network)
        value[0] = kept
    assert unchanged.check(bare, before, network).backbone == before.backbone


def test_a_loss_that_changes_the_backbone_is_found_out(crowded, monkeypatch):
    """Code of a user's that reaches for a frozen weight ends the training with an error, and nothing is published."""
    made = []

    class Watched(Backbone):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    def reaching(predictions, context):
        with torch.no_grad():
            made[0].network.state_dict()["body.bn1.running_var"][0] += 1e-6
        return torchvision_loss(predictions, context)

    monkeypatch.setattr(train, "Backbone", Watched)
    before = snapshot(crowded.root / "heads")
    with pytest.raises(TrainingError, match="the frozen backbone changed") as caught:
        teach(crowded, config={**QUICK, "loss": "reaching"}, tools=Tools(losses={"reaching": reaching}))
    assert "a loss or augmentation of yours. No version was made." in caught.value.remedy
    assert snapshot(crowded.root / "heads") == before


def test_a_head_that_was_damaged_is_found_before_anything_is_learnt(crowded):
    """Where another head is no longer what its manifest says, that is said at once: no training did it."""
    flip(crowded.root / "heads/owl/versions/000002" / layout.TENSORS)
    heard = []
    with pytest.raises(CorruptError, match="owl@2"):
        teach(crowded, progress=heard.append)
    assert heard == []
    assert not crowded.layout.runs("lamp").exists()


def test_a_head_that_is_damaged_meanwhile_is_found(crowded):
    """A file of another head that changes while the training runs ends it: nothing is published."""
    damage = act_once(lambda: flip(crowded.root / "heads/owl/versions/000002" / layout.TENSORS))
    with pytest.raises(CorruptError, match="owl@2"):
        teach(crowded, progress=damage)
    assert heads.names(crowded) == ["fox", "moth", "owl"]


def test_damage_to_itself_is_no_others(crowded):
    """The head that is trained is not among those that have to stay; what it starts from is checked as it is read."""
    give(crowded, "lamp", classes=("lamp",))
    before = unchanged.look(crowded, "lamp", in_memory(crowded))
    assert sorted(str(ref) for ref in before.others) == ["fox@1", "moth@1", "owl@1", "owl@2"]


@pytest.mark.parametrize("what", ["removed", "renamed", "pruned", "promoted"])
def test_what_others_do_meanwhile_is_their_right(crowded, what):
    """A head that is removed, renamed, pruned or promoted by somebody while the training runs does not end it."""
    manager, registry = VersionManager(crowded), HeadRegistry(crowded)

    def prune():
        manager.promote("owl", 1)
        give(crowded, "owl", seed=7, classes=("owl", "eagle"))
        give(crowded, "owl", seed=8, classes=("owl", "eagle"))
        manager.prune("owl", keep=1)

    acts = {
        "removed": lambda: registry.remove("owl"),
        "renamed": lambda: registry.rename("owl", "eagle"),
        "pruned": prune,
        "promoted": lambda: manager.promote("owl", 1),
    }
    report = teach(crowded, progress=act_once(acts[what]))
    assert report.is_promoted
    left = ("owl@1", "owl@2") if what == "promoted" else ()
    assert report.training.unchanged.heads == ("fox@1", "moth@1", *left)


def test_damage_that_nobody_uses_is_passed_over(crowded):
    """An old version of another head that was damaged before keeps nobody from training; records count, too."""
    flip(crowded.root / "heads/owl/versions/000001" / layout.TENSORS)
    before = unchanged.look(crowded, "lamp", in_memory(crowded))
    assert sorted(str(ref) for ref in before.others) == ["fox@1", "moth@1", "owl@2"]
    flip(crowded.root / "heads/fox/versions/000001" / layout.RECORD)
    with pytest.raises(CorruptError, match="fox@1"):
        unchanged.check(crowded, before, in_memory(crowded))
