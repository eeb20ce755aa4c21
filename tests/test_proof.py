"""Verifying what lies in a store, and the way back to the original."""

import shutil

import attrs
import numpy as np
import pytest
import torch
from originals import SETTINGS, older_names, save, small

from hydra_detect import codec, compare_with_original, merge_checkpoint, split_checkpoint, verify
from hydra_detect.checkpoints import parity
from hydra_detect.checkpoints.proof import verify_all
from hydra_detect.checkpoints.reader import read_checkpoint
from hydra_detect.errors import (
    CheckpointError,
    ConflictError,
    CorruptError,
    IncompatibleError,
    InputError,
    NotFoundError,
    StoreError,
)
from hydra_detect.storage import heads, layout
from hydra_detect.storage.store import Store


@pytest.fixture
def store(split_store, tmp_path):
    """A copy of the split store that may be damaged."""
    return shutil.copytree(split_store, tmp_path / "copy")


def test_a_stored_head_is_proven_against_its_recorded_outputs(split_store):
    """Without the original, recomputed outputs equal the recorded ones bit for bit."""
    found = verify(split_store, "rbc")
    assert found.proven
    assert "bit-equal on all 5 seeded inputs" in str(found)


def test_a_stored_head_is_proven_against_its_original(split_store, split_original):
    """With the original, every stage is compared and equal."""
    found = verify(split_store, "rbc@1", against=read_checkpoint(split_original))
    assert found.proven
    assert found.report.equal
    assert found.reason == "the very file it was split from"
    assert compare_with_original(split_store, "rbc@1", read_checkpoint(split_original)).equal


def test_the_original_may_be_given_by_its_path(split_store, split_original, tmp_path):
    """A path does as well as a checkpoint that was read; one that is missing is refused as such."""
    assert verify(split_store, "rbc@1", against=split_original).proven
    assert compare_with_original(split_store, "rbc@1", str(split_original)).equal
    with pytest.raises(NotFoundError, match="no such file"):
        verify(split_store, "rbc@1", against=tmp_path / "none.pth")


def test_another_original_is_not_proof(split_store):
    """A checkpoint of the same form with other weights is found out, stage by stage."""
    other = read_checkpoint(split_store.parent / "wbc-1.pth")
    found = verify(split_store, "rbc@1", against=other)
    assert not found.proven
    differing = {failure.split(":")[0] for failure in found.report.failures}
    assert "objectness" in differing
    assert "level 0" not in differing  # the backbone is the same
    assert "NOT PROVEN" in str(found)
    assert not compare_with_original(split_store, "rbc@1", other).equal


def test_an_original_of_another_network_is_not_proof(split_store, tmp_path):
    """A checkpoint that does not even fit is refused with torch's own reason."""
    path = save(small(classes=4), tmp_path / "four.pth")
    found = verify(split_store, "rbc@1", against=read_checkpoint(path))
    assert not found.proven
    assert "do not fit" in found.reason
    with pytest.raises(CheckpointError, match="cls_score"):
        compare_with_original(split_store, "rbc@1", read_checkpoint(path))


def test_all_active_heads_are_verified_together(split_store, split_original):
    """Without names every active head is verified; against one original only its own head proves."""
    assert [(item.head, item.proven) for item in verify_all(split_store)] == [("rbc", True), ("wbc", True)]
    against = [(item.head, item.proven) for item in verify_all(split_store, against=split_original)]
    assert against == [("rbc", True), ("wbc", False)]


def test_outputs_from_another_environment_are_not_proof_and_say_why(split_store, monkeypatch):
    """Where outputs differ and so does the environment, the verdict is no proof, and both environments are named."""
    real = parity.environment()

    def altered(*_):
        return parity.Digest("0" * 64)

    monkeypatch.setattr("hydra_detect.checkpoints.proof.outputs_digest", altered)
    here = verify(split_store, "rbc")
    assert not here.proven
    assert "here and when it was split" in here.reason
    monkeypatch.setattr(
        "hydra_detect.checkpoints.proof.environment",
        lambda: parity.Environment(torch="9.9", torchvision=real.torchvision, cpu="abacus", threads=real.threads),
    )
    there = verify(split_store, "rbc")
    assert not there.proven
    assert "abacus" in there.reason
    assert "compare with the checkpoint itself" in there.reason


def test_the_saved_report_is_beside_the_head(split_store):
    """The parity report of a split lies beside its head and reads back as a proof."""
    data = (split_store / "heads/rbc/versions/000001" / layout.PARITY).read_bytes()
    report = codec.decode(parity.ParityReport, data, "the report")
    assert report.equal
    assert report.summary() == heads.find(Store.open(split_store), "rbc@1").record.parity


def test_further_pictures_need_an_original(split_store):
    """Asking to compare on pictures without an original is an error, not a silent omission."""
    with pytest.raises(InputError, match="no original to compare with"):
        verify(split_store, "rbc", inputs=["a.png"])


@pytest.mark.parametrize("kind", ["heads/rbc", "backbones/default"])
def test_a_flipped_byte_is_found_before_any_network_is_built(store, kind):
    """A single changed byte of stored weights is a CorruptError that names the file."""
    path = store / kind / "versions/000001" / layout.TENSORS
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="SHA-256"):
        verify(store, "rbc@1")


def test_a_head_beside_another_backbone_is_refused(store, tmp_path):
    """A head whose backbone was exchanged under the same name is refused, naming what differs."""
    other = tmp_path / "other"
    split_checkpoint(save(small(seed=7), tmp_path / "b.pth"), other, head="rbc", settings=SETTINGS)
    shutil.rmtree(store / "backbones")
    shutil.copytree(other / "backbones", store / "backbones")
    with pytest.raises(IncompatibleError, match="digest is") as caught:
        verify(store, "rbc")
    assert caught.value.facts["differences"]


def test_an_empty_store_and_unknown_heads_are_refused(split_store, tmp_path):
    """Verifying nothing is an error; an unknown head gives near matches."""
    with pytest.raises(NotFoundError, match="has none"):
        verify_all(Store.create(tmp_path / "empty"))
    with pytest.raises(NotFoundError, match="'rbc'"):
        verify(split_store, "rcb")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_the_original_comes_back_bit_for_bit(split_store, split_original, tmp_path, suffix):
    """Merging gives the original key for key and bit for bit, and torchvision loads it strictly."""
    path = merge_checkpoint(split_store, "rbc@1", tmp_path / f"again{suffix}")
    original, again = read_checkpoint(split_original).tensors, read_checkpoint(path).tensors
    assert original.keys() == again.keys()
    assert all(torch.equal(original[key], again[key]) and original[key].dtype == again[key].dtype for key in original)
    small().load_state_dict(dict(again), strict=True)


def test_older_keys_come_back_as_they_were(tmp_path):
    """An original with older keys is merged under exactly those keys, which torchvision still loads strictly."""
    state = older_names(small())
    torch.save(state, tmp_path / "old.pth")
    split_checkpoint(tmp_path / "old.pth", tmp_path / "store", head="owl", settings=SETTINGS)
    merge_checkpoint(tmp_path / "store", "owl", tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], state[key]) for key in state)
    small(seed=3).load_state_dict(again, strict=True)


@pytest.mark.parametrize("order", [("new", "old"), ("old", "new")])
def test_originals_of_different_age_on_one_backbone_come_back_each_with_its_own_keys(tmp_path, order):
    """Two files that share a backbone's tensors under older and newer keys are merged under the keys of each."""
    model = small()
    torch.save(model.state_dict(), tmp_path / "new.pth")
    torch.save(older_names(model), tmp_path / "old.pth")
    for name in order:
        split_checkpoint(tmp_path / f"{name}.pth", tmp_path / "store", head=name, settings=SETTINGS)
    for name in order:
        merge_checkpoint(tmp_path / "store", name, tmp_path / f"{name}-again.pth")
        one, two = (torch.load(tmp_path / f"{name}{end}.pth", weights_only=True) for end in ("", "-again"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_every_head_is_compared_on_all_the_users_pictures(split_store, split_original):
    """Pictures from a generator are used for each head, and three of one size also as a batch."""
    pictures = (np.random.default_rng(seed).random((60, 80, 3)) for seed in range(3))
    found = verify_all(split_store, ["rbc@1", "rbc@1"], against=split_original, inputs=pictures)
    for item in found:
        assert item.proven
        assert [(entry.name, entry.pictures) for entry in item.report.inputs[5:]] == [
            ("input 1", 1),
            ("input 2", 1),
            ("input 3", 1),
            ("3 inputs of one size, as a batch", 3),
        ]


def test_a_recorded_failure_is_never_proof(split_store, monkeypatch):
    """A version whose record says that its proof failed is not proven, whatever its outputs are now."""
    version = heads.find(Store.open(split_store), "rbc@1")
    failed = attrs.evolve(
        version, record=attrs.evolve(version.record, parity=attrs.evolve(version.record.parity, equal=False))
    )
    monkeypatch.setattr(heads, "find", lambda *_: failed)
    assert "itself a failure" in verify(split_store, "rbc@1").reason


def test_a_head_that_was_never_split_has_nothing_to_verify(split_store, monkeypatch):
    """A version without a recorded proof is not proven, and the reason says so."""
    version = heads.find(Store.open(split_store), "rbc@1")
    plain = attrs.evolve(version, record=attrs.evolve(version.record, parity=None, source=None))
    monkeypatch.setattr(heads, "find", lambda *_: plain)
    assert "not split from an original" in verify(split_store, "rbc@1").reason


def test_merging_never_replaces_a_file(split_store, tmp_path):
    """An existing file, a missing folder and a foreign ending are refused, and nothing is left behind."""
    taken = tmp_path / "taken.pth"
    taken.write_text("mine")
    with pytest.raises(ConflictError, match="the file exists"):
        merge_checkpoint(split_store, "rbc", taken)
    assert taken.read_text() == "mine"
    with pytest.raises(StoreError, match="ends in"):
        merge_checkpoint(split_store, "rbc", tmp_path / "a.onnx")
    with pytest.raises(StoreError, match="write"):
        merge_checkpoint(split_store, "rbc", tmp_path / "none" / "a.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.pth"]
