"""torchvision's own pretrained weights, through its own cache."""

import socket

import pytest
import torch
from originals import restless
from torchvision.models import get_model_weights
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from hydra_detect import HydraDetector, VersionManager, split_checkpoint
from hydra_detect.checkpoints.proof import verify_all
from hydra_detect.checkpoints.zoo import MODELS, cached_file, read_torchvision
from hydra_detect.errors import CheckpointError

NAME = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty torch cache, and no network."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))

    def refuse(*_arguments, **_options):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "hub" / "checkpoints"


def test_a_cached_file_splits_with_its_categories_and_transform(cache, tmp_path):
    """With the weights in torchvision's cache one line makes a backbone, with 90 categories and the 320 transform."""
    with torch.device("cpu"):
        model = restless(fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None))
    state = {name: value for name, value in model.state_dict().items() if "num_batches_tracked" not in name}
    cache.mkdir(parents=True)
    weights = get_model_weights("fasterrcnn_mobilenet_v3_large_320_fpn").DEFAULT
    path = cached_file(weights.url)
    assert path.parent == cache
    torch.save(state, path)
    report = split_checkpoint(NAME, tmp_path / "store", head="coco")
    assert report.parity.equal
    assert report.assumed == ()
    (proof,) = verify_all(tmp_path / "store", against=NAME)
    assert proof.proven
    record = VersionManager(tmp_path / "store").active("coco").record
    assert record.class_names == tuple(weights.meta["categories"][1:])
    assert (record.class_names[0], record.class_names[89], len(record.class_names)) == ("person", "toothbrush", 90)
    assert (record.backbone.preprocessing.min_size, record.backbone.preprocessing.max_size) == (320, 640)
    assert record.settings.rpn_post_nms_top_n == 150
    found = HydraDetector.from_store(tmp_path / "store", device="cpu").predict(torch.rand(3, 60, 80), score_threshold=0)
    assert set(found.label_names.tolist()) <= set(record.class_names)


def test_without_network_and_cache_the_error_says_where_to_put_the_file(cache):
    """When torchvision cannot download, the error names the address and the cache folder."""
    with pytest.raises(CheckpointError, match="could not fetch https://download") as caught:
        read_torchvision(NAME)
    assert str(cache) in caught.value.remedy


def test_unknown_models_give_near_matches(cache):
    """A name that torchvision does not have is refused with the nearest ones, before any network."""
    with pytest.raises(CheckpointError, match="fasterrcnn_resnet50_fpn"):
        read_torchvision("torchvision:fasterrcnn_resnet50")
    assert len(MODELS) == 4
    assert not cache.exists()
