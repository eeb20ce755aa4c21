"""What is too large, or is no number, though every digest is right: refused, however it comes, and nothing is kept."""

import numpy as np
import publishing_fixtures
import pytest
from engine_fixtures import compact
from publishing_fixtures import BACKBONE, BAT, OWL
from test_hub_hostile import at, changed, refused, with_weights

from hydra_detect import HeadRegistry
from hydra_detect.errors import CheckpointError, CorruptError, IncompatibleError, RecordError
from hydra_detect.hub.originals import fetched
from hydra_detect.hub.pull import pull_backbone
from hydra_detect.storage import artifacts
from hydra_detect.tensors import RawTensor, tensors_digest

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
SETTINGS, SIZES = ("record", "settings"), ("record", "backbone", "preprocessing")


def needs(hub, repo, what, place, *, digest=()):
    """Commit a config that names the newest commit of another repository as what it needs, and what lies there."""

    def change(config):
        config[what] = {"repo": place, "commit": hub.repos[place].head.id, "head": ""}
        if digest:
            at(*digest[:-1])(digest[-1])(config)

    changed(hub, change, repo)


def overflowing(hub, repo, part):
    """Commit weights of which one tensor is finite and computes what is not, each digest right; return theirs."""
    tensors = artifacts.decode_tensors(hub.repos[repo].content("model.safetensors"), "them")
    name = next(name for name in tensors if name.endswith(part) and tensors[name].dtype == "F32")
    tensors = {**tensors, name: RawTensor.of(np.full(tensors[name].shape, 1e38, "<f4"))}
    digest = str(tensors_digest(tensors))
    with_weights(hub, artifacts.encode_tensors(tensors), repo=repo)
    key = ("record", "contract", "digest") if repo == BACKBONE else ("record", "tensors")
    changed(hub, at(*key)(digest), repo)
    return digest


def test_a_backbone_whose_numbers_overflow(puller, hub):
    """A backbone of finite weights whose maps are not is refused."""
    overflowing(hub, BACKBONE, "conv1.weight")
    before = puller.contents()
    with pytest.raises(CorruptError, match="not all that it computes is finite"):
        pull_backbone(f"{BACKBONE}@main", puller.store, endpoint=hub.endpoint)
    assert puller.contents() == before


def test_a_head_whose_backbone_overflows(puller, hub):
    """A backbone whose maps are no numbers is refused as what a head needs, too: the head is not kept either."""
    digest = overflowing(hub, BACKBONE, "conv1.weight")
    needs(hub, OWL, "backbone", BACKBONE, digest=("record", "backbone", "digest", digest))
    error = refused(puller, told="not all that it computes is finite")
    assert isinstance(error, CorruptError)
    assert not HeadRegistry(puller.store).backbones()


@pytest.mark.parametrize("part", ["fc6.weight", "cls_score.weight"])
def test_a_reference_that_overflows(puller, hub, part):
    """A reference whose answers are no numbers is refused, be it in a part that the compact head does not use."""
    digest = overflowing(hub, OWL, part)
    needs(hub, BAT, "reference", OWL, digest=("record", "compact", "reference", digest))
    error = refused(puller, told="not all that it computes is finite", ref=f"{BAT}@main")
    assert isinstance(error, CorruptError)


def test_a_reference_that_leans_on_another(publisher, puller, hub):
    """A compact head is no reference, though its digest is the one that is named."""
    elk = compact(publisher.store, "elk", seed=5)
    publisher.push("elk", "org/hydra-elk")
    digest = ("record", "compact", "reference", str(elk.record.tensors))
    needs(hub, BAT, "reference", "org/hydra-elk", digest=digest)
    error = refused(puller, told="which it names as what it leans on, is another head", ref=f"{BAT}@main")
    assert isinstance(error, IncompatibleError)


def test_a_reference_of_another_backbone(puller, hub):
    """The same weights on another backbone are another reference."""
    changed(hub, at(*SIZES, "min_size")(50))
    needs(hub, BAT, "reference", OWL)
    error = refused(puller, told="which it names as what it leans on, is another head", ref=f"{BAT}@main")
    assert isinstance(error, IncompatibleError)
    (difference,) = error.facts["differences"]
    assert "preprocessing.min_size" in difference


def anchors(count):
    """Return what gives each place so many anchors."""

    def change(config):
        at(*SETTINGS, "anchor_sizes")([[float(size) for size in range(1, count + 1)]] * 3)(config)

    return change


def points(across, each):
    """Return what gives a crop so many cells across, and each of them so many points."""

    def change(config):
        at(*SETTINGS, "roi_size")(across)(config)
        at(*SETTINGS, "roi_sampling_ratio")(each)(config)

    return change


BEYOND = {
    "anchors": (anchors(65), "it has 65 anchors at a place"),
    "before suppression": (at(*SETTINGS, "rpn_pre_nms_top_n")(20_001), "it has 20001 proposals before suppression"),
    "proposals": (at(*SETTINGS, "rpn_post_nms_top_n")(20_001), "it has 20001 proposals"),
    "detections": (at(*SETTINGS, "detections_per_image")(20_001), "it has 20001 detections"),
    "points": (points(43, 3), "it has 129 points across a crop"),
    "pixels": (at(*SIZES, "max_size")(10_001), "it has 10001 pixels a side"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_one_more_than_any_head_has(puller, hub, name):
    """A config with one more than the most is refused with that number, before any weights are asked for."""
    change, told = BEYOND[name]
    changed(hub, change)
    before = len(hub.seen())
    assert isinstance(refused(puller, told=rf"describe head 'owl': {told}\."), RecordError)
    assert not [one for one in hub.seen()[before:] if one.path.endswith("model.safetensors")]


def test_as_many_as_a_head_may_have(puller, hub):
    """With the most of everything that its weights leave open, a head is pulled, and its backbone."""
    for name in ("rpn_pre_nms_top_n", "rpn_post_nms_top_n", "detections_per_image"):
        changed(hub, at(*SETTINGS, name)(20_000))
    changed(hub, points(7, 18))
    changed(hub, at("record", "contract", "preprocessing", "max_size")(10_000), BACKBONE)
    needs(hub, OWL, "backbone", BACKBONE, digest=(*SIZES, "max_size", 10_000))
    assert str(puller.pull(f"{OWL}@main")) == "owl@1"


def test_as_many_anchors_as_a_head_may_have(puller, hub):
    """The most anchors are refused for what they are: not those of the weights."""
    changed(hub, anchors(64))
    assert isinstance(refused(puller, told=r"cls_logits\.weight is .* instead of"), CheckpointError)


@pytest.mark.parametrize(("most", "is_taken"), [(10_000, True), (10_001, False)])
def test_pictures_of_a_backbone(puller, hub, most, is_taken):
    """A bare backbone of larger pictures than any network looks at is refused before its weights are asked for."""
    changed(hub, at("record", "contract", "preprocessing", "max_size")(most), BACKBONE)
    before, first = puller.contents(), len(hub.seen())
    if is_taken:
        assert pull_backbone(f"{BACKBONE}@main", puller.store, endpoint=hub.endpoint) == "default"
        return
    with pytest.raises(RecordError, match=r"describe backbone 'default': it has 10001 pixels a side\."):
        pull_backbone(f"{BACKBONE}@main", puller.store, endpoint=hub.endpoint)
    assert puller.contents() == before
    assert not [one for one in hub.seen()[first:] if one.path.endswith("model.safetensors")]


def test_an_original_that_is_too_large(hub, tmp_path, monkeypatch):
    """An original beyond what any may have is refused by its listing: none of it is downloaded, and none is kept."""
    monkeypatch.setenv("HOME", str(tmp_path))
    hub.repo("org/original", {"model.safetensors": bytes(1001), "small.safetensors": bytes(1000)})
    monkeypatch.setattr(artifacts, "MAX_TENSORS_BYTES", 1000)
    with pytest.raises(CorruptError, match="it has 1001 bytes, and such a file 1000 at most"):
        fetched("hf://org/original/model.safetensors", endpoint=hub.endpoint)
    assert not hub.seen("GET", "/resolve/")
    assert not hub.seen(host="cdn")
    assert not list(tmp_path.rglob("*.safetensors"))
    path, _told = fetched("hf://org/original/small.safetensors", endpoint=hub.endpoint)
    assert path.stat().st_size == 1000
