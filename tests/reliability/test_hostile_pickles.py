"""Pickles: whatever a file is called and wherever it lies, nothing in it is ever run."""

import itertools
import pickle

import damage
import pickles
import pytest
from store_fixtures import AT, a_backbone, a_record, some_tensors

from hydra_detect import codec
from hydra_detect.errors import CheckpointError, CorruptError, HydraDetectError
from hydra_detect.storage import artifacts, heads, layout, manifests
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

WHOLE = artifacts.encode_tensors(some_tensors())


def bring(root, data):
    """Put a version 7 of `owl` into a store whose weights are these bytes, with digests that are right."""
    tensors = some_tensors()
    record = codec.encode(a_record(tensors, backbone=a_backbone()[1].contract))
    files = {layout.TENSORS: data, layout.RECORD: record, "model.pth": data, "pytorch_model.bin": data}
    listing = manifests.listing_of(files)
    files[layout.MANIFEST] = manifests.text("heads", "owl", 7, listing=listing, created_at=AT, actor="x", parent=None)
    folder = root / "heads" / "owl" / "versions" / "000007"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_canary_can_fire(tmp_path):
    """Each of the pickles runs its command where it is unpickled: the other tests could fail."""
    for number, how in enumerate(pickles.HOWS):
        canary = tmp_path / str(number)
        pickle.loads(pickle.dumps(pickles.Fires(canary, how)))  # noqa: S301  the point of this file
        assert canary.exists(), how


def test_pickles_as_weights(copy, tmp_path, tally):
    """As the weights of a version a pickle is refused by every reader, and is not run."""
    cases = tally("pickles as weights of a version, none run")
    canary = tmp_path / "canary"
    for name, data in pickles.shapes(canary, WHOLE).items():
        root = copy()
        bring(root, data)
        manager = VersionManager(Store.open(root, durability="fast"))
        manager.promote("owl", 7)  # it is, byte for byte, what its manifest says, and no more is claimed
        for ref in ("owl@7", "owl"):
            with pytest.raises(CorruptError, match=r"^cannot (read|load) the weights of owl@7: "):
                heads.load(manager.store, ref)
        assert not manager.verify(depth="deep").is_sound
        assert [version.number for version in manager.versions("owl")] == [1, 2, 5, 6, 7]
        if name not in {"as tensor data", "as metadata"}:  # whose numbers are numbers like any others
            with pytest.raises(CorruptError, match=r"^cannot read the weights of owl@7: "):
                manager.compare("owl", 1, 7)
        assert manager.rollback("owl").number == 2
        manager.repair()
        assert manager.active("owl").number == 2
        assert not canary.exists(), name
        cases.case(name)
    cases.require(25)


def test_pickles_as_originals(tmp_path, tally):
    """As an original to be split a pickle is refused whatever its name ends in, and is not run."""
    from hydra_detect.checkpoints.reader import read_checkpoint

    cases = tally("pickles as originals x endings of their names, none run")
    canary, endings = tmp_path / "canary", (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".pkl", "")
    for ending, (name, data) in itertools.product(endings, pickles.shapes(canary, WHOLE).items()):
        path = tmp_path / f"weights{ending}"
        path.write_bytes(data)
        if name == "as tensor data" and ending == ".safetensors":
            assert read_checkpoint(path).tensors["w"].numpy().tobytes() in data
        else:
            with pytest.raises(CheckpointError, match=r"^cannot read the checkpoint "):
                read_checkpoint(path)
        assert not canary.exists(), f"{name}{ending}"
        cases.case(name, ending)
    cases.require(25 * 7)


def test_pickles_by_hand(copy, tmp_path):
    """What nobody lists is not opened: a pickle beside the weights, in a staging folder or in quarantine."""
    root, canary = copy(), tmp_path / "canary"
    data = pickles.shapes(canary, WHOLE)["torch archive by system"]
    for folder in ("", "tmp", "quarantine", "heads", "heads/owl", "heads/owl/tmp", "heads/owl/versions/000002"):
        (root / folder).mkdir(exist_ok=True)
        for name in ("model.pth", "model.pt", "model.bin", "data.pkl", "original.pth"):
            (root / folder / name).write_bytes(data)
    manager = VersionManager(Store.open(root, durability="fast"))
    assert tensors_digest(heads.load(manager.store, "owl")[1]) == manager.active("owl").record.tensors
    assert len(manager.repair().mended) == 5  # those in the version's folder are set aside
    assert damage.exercise(root) == []
    assert not canary.exists()


def test_pickled_errors_carry_nothing(tmp_path):
    """The errors that tell of a pickle do not quote it, and can be pickled themselves."""
    from hydra_detect.checkpoints.reader import read_checkpoint

    canary = tmp_path / "canary"
    for data in pickles.shapes(canary, WHOLE).values():
        (tmp_path / "weights.pth").write_bytes(data)
        with pytest.raises(HydraDetectError, match=r"^cannot read the checkpoint ") as caught:
            read_checkpoint(tmp_path / "weights.pth")
        assert len(str(caught.value)) < 1000
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301  our own
    assert not canary.exists()
