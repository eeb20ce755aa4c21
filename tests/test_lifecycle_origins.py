"""What a training starts from: the active version, another head, random weights; and on which backbone."""

import lifecycle_fixtures
import pytest
from lifecycle_fixtures import give, with_backbone

from hydra_detect.errors import IncompatibleError, NotFoundError
from hydra_detect.lifecycle.origins import begin
from hydra_detect.names import Digest
from hydra_detect.records import SourceRecord
from hydra_detect.storage import heads
from hydra_detect.versions import VersionManager

bare = lifecycle_fixtures.bare


def start(store, head="lamp", init="auto", backbone=None):
    """Return what a training starts from."""
    return begin(store, head, init=init, backbone=backbone)


def same(beginning, store, ref):
    """Tell whether a training starts from the weights of a version, and says so."""
    version = heads.find(store, ref)
    return (beginning.told, beginning.version, beginning.origin.tensors, beginning.origin.class_names) == (
        str(version.ref), version, heads.tensors(store, version), version.record.class_names,
    )  # fmt: skip


def test_the_first_head_of_a_backbone_starts_at_random(tmp_path):
    """Where no head is there is nothing to start from: random weights in torchvision's usual head for the backbone."""
    store = with_backbone(tmp_path)
    for init in ("auto", "fresh"):
        made = start(store, init=init)
        assert (made.told, made.active, made.version, made.origin.tensors) == ("fresh", None, None, None)
        assert made.origin.settings.anchor_sizes == ((32,), (64,), (128,))
    with pytest.raises(NotFoundError, match="the active version of 'lamp': it has none"):
        start(store, init="active")


def test_a_new_head_starts_from_another_of_its_backbone(bare):
    """A new head takes the weights of the one that is there, and by "fresh" no more than its shape."""
    made = start(bare)
    assert same(made, bare, "moth@1")
    assert made.active is None
    fresh = start(bare, init="fresh")
    assert (fresh.told, fresh.origin.tensors) == ("fresh", None)
    assert fresh.origin.settings == made.origin.settings


def test_the_head_that_was_split_with_the_backbone_comes_first(bare):
    """Of several heads the one that came of an original is started from: the backbone learnt with it."""
    give(bare, "owl", seed=2, source=SourceRecord(file="original.pth", sha256=Digest("a" * 64)))
    assert same(start(bare), bare, "owl@1")


def test_a_head_goes_on_from_its_active_version(bare):
    """By "auto" and by "active" a head starts from its own active version; that is what it is compared with, too."""
    give(bare, "lamp", seed=3, classes=("lamp",))
    give(bare, "lamp", seed=4, classes=("lamp",))
    VersionManager(bare).promote("lamp", 1)
    for init in ("auto", "active"):
        made = start(bare, init=init)
        assert same(made, bare, "lamp@1")
        assert made.active == made.version
    fresh = start(bare, init="fresh")
    assert (fresh.told, fresh.version, fresh.active) == ("fresh", None, heads.find(bare, "lamp@1"))


@pytest.mark.parametrize(("init", "ref"), [("lamp@2", "lamp@2"), ("moth", "moth@1"), ("moth@1", "moth@1")])
def test_a_reference_is_what_it_says(bare, init, ref):
    """A version of the head itself, or of another one, is started from where it is named."""
    for seed in (3, 4):
        give(bare, "lamp", seed=seed, classes=("lamp",))
    VersionManager(bare).promote("lamp", 1)
    made = start(bare, init=init)
    assert same(made, bare, ref)
    assert made.active == heads.find(bare, "lamp@1")


def test_a_head_without_an_active_version_is_a_new_one(bare):
    """Versions of which none is active are not started from unless they are named."""
    give(bare, "lamp", classes=("lamp",))
    version = heads.find(bare, "lamp")
    VersionManager(bare).create("fox", heads.tensors(bare, version), version.record)
    assert same(start(bare, "fox"), bare, "lamp@1")
    with pytest.raises(NotFoundError, match="it has none"):
        start(bare, "fox", init="active")
    assert same(start(bare, "fox", init="fox@1"), bare, "fox@1")


@pytest.mark.parametrize(
    ("init", "found"),
    [("mothh", "Did you mean 'moth'"), ("moth@7", "no version 7"), ("ative", "Did you mean 'active'")],
)
def test_what_is_not_there_is_not_started_from(bare, init, found):
    """An unknown head or version is refused, and what comes near is said."""
    with pytest.raises(NotFoundError) as caught:
        start(bare, init=init)
    assert found in str(caught.value)


def test_several_backbones(bare, tmp_path):
    """A new head has to say which; an old one stays on its own; and no head starts from one of another backbone."""
    with_backbone(tmp_path, name="second", store=bare)
    with pytest.raises(NotFoundError, match="several: default, second"):
        start(bare)
    made = start(bare, backbone="second")
    assert (made.backbone.name, made.told) == ("second", "fresh")
    assert (start(bare, "moth").backbone.name, start(bare, "moth").told) == ("default", "moth@1")
    with pytest.raises(NotFoundError, match="Did you mean 'second'"):
        start(bare, backbone="secnd")
    with pytest.raises(IncompatibleError, match=r"it belongs to another backbone: .*min_size") as caught:
        start(bare, init="moth@1", backbone="second")
    assert caught.value.remedy == "Start from a head of 'second', or from init='fresh'."


def test_a_head_may_move_to_another_backbone(bare, tmp_path):
    """A head whose active version is of another backbone starts from what fits the one that is named, or at random."""
    with_backbone(tmp_path, name="second", store=bare)
    made = start(bare, "moth", backbone="second")
    assert (made.told, made.active) == ("fresh", heads.find(bare, "moth"))
    with pytest.raises(IncompatibleError, match="another backbone"):
        start(bare, "moth", init="active", backbone="second")
    give(bare, "owl", seed=2, backbone="second")
    assert same(start(bare, "moth", backbone="second"), bare, "owl@1")
