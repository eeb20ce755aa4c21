"""Reading foreign checkpoints: every form people save, and every file that is not one."""

import pickle
import struct

import pytest
import torch
from originals import older_names, save, small
from safetensors.torch import save_file

from hydra_detect.checkpoints.reader import read_checkpoint
from hydra_detect.errors import CheckpointError, NotFoundError


@pytest.fixture(scope="module")
def model():
    """One small detector for the whole module."""
    return small()


def same(found, state):
    """Whether two state dicts are equal, key for key and bit for bit."""
    return found.keys() == state.keys() and all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_every_usual_wrapping_reads_as_the_same_tensors(model, tmp_path, wrap, prefix):
    """A state dict reads the same bare or nested, with or without a wrapper's prefix, beside other entries."""
    path = save(model, tmp_path / "a.pth", wrap=wrap, prefix=prefix, extra={"epoch": 3, "optimizer": {"lr": 0.1}})
    assert same(read_checkpoint(path).tensors, model.state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_files_from_before_the_zip_format_are_read(model, tmp_path, suffix):
    """A file in torch's format from before 1.6 is read with weights_only too."""
    path = tmp_path / f"old{suffix}"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(path).tensors, model.state_dict())


def test_safetensors_are_read(model, tmp_path):
    """A safetensors file reads as the same tensors, and its digest is that of the file."""
    path = tmp_path / "a.safetensors"
    save_file(dict(model.state_dict()), path)
    found = read_checkpoint(path)
    assert same(found.tensors, model.state_dict())
    assert found.nbytes == path.stat().st_size


def test_older_keys_get_their_present_names_and_are_remembered(model, tmp_path):
    """Keys from before torchvision 0.13 are renamed, and the record says from what."""
    path = tmp_path / "old.pth"
    torch.save(older_names(model), path)
    found = read_checkpoint(path)
    assert same(found.tensors, model.state_dict())
    assert found.renamed["rpn.head.conv.0.0.weight"] == "rpn.head.conv.weight"
    assert len(found.renamed) == 18  # 4 levels x 2 blocks x (weight, bias), and the RPN's convolution


def test_reading_never_runs_what_a_pickle_asks_for(tmp_path):
    """A pickle with a payload is refused and the payload never runs."""
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {"weight": Payload()}}, path)
    with pytest.raises(CheckpointError, match="weights_only"):
        read_checkpoint(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError):
        read_checkpoint(plain)
    assert not canary.exists()


def test_a_pickled_module_is_refused_with_the_lines_that_convert_it(model, tmp_path):
    """A whole pickled module is refused, and the two lines that make a state dict of it are given."""
    path = tmp_path / "module.pth"
    torch.save(model, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "torch.load('module.pth', weights_only=False)" in caught.value.remedy


class Settings:
    """Something that is no tensor, as training scripts keep beside their weights."""


@pytest.mark.parametrize("form", ["module", "dict with settings", "module in a dict"])
def test_the_lines_that_convert_do_convert(model, tmp_path, monkeypatch, form):
    """Running the printed lines, where the file is trusted, makes a checkpoint that reads."""
    monkeypatch.chdir(tmp_path)
    held = {
        "module": model,
        "dict with settings": {"model": model.state_dict(), "args": Settings(), "epoch": 3},
        "module in a dict": {"model": model, "args": Settings()},
    }[form]
    torch.save(held, "held.pth")
    with pytest.raises(CheckpointError, match="weights_only") as caught:
        read_checkpoint("held.pth")
    _why, *lines = caught.value.remedy.splitlines()
    assert len(lines) == 2
    exec("import torch\n" + "\n".join(line.strip() for line in lines), {})  # noqa: S102  what the user would do
    assert same(read_checkpoint("weights.pth").tensors, model.state_dict())


def _broken(model, folder):
    good = save(model, folder / "good.pth").read_bytes()
    tensors = folder / "good.safetensors"
    save_file(dict(model.state_dict()), tensors)
    header = struct.pack("<Q", 1 << 40) + b"{}"
    return {
        "empty.pth": b"",
        "text.pth": b"<html>404 not found</html>",
        "short.pth": good[: len(good) // 2],
        "cut.pth": good[:-100],
        "short.safetensors": tensors.read_bytes()[:-1],
        "huge-header.safetensors": header,
        "empty.safetensors": b"",
        "text.safetensors": b"hello, this is text",
        "pickle.safetensors": good,
    }


def test_files_that_are_no_checkpoints_are_refused(model, tmp_path):
    """Empty, truncated, huge-header and text files are refused, each naming the file and what to do."""
    for name, data in _broken(model, tmp_path).items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=name) as caught:
            read_checkpoint(path)
        assert caught.value.remedy, name


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"state_dict": {}}, {"a": 1, "b": torch.zeros(1)}, torch.zeros(3)], ids=repr
)
def test_content_without_a_state_dict_is_refused(tmp_path, content):
    """A file that holds something else than tensors by name is refused, saying what it holds."""
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"holds|no tensors"):
        read_checkpoint(path)


def test_missing_files_folders_and_foreign_endings_are_refused(tmp_path):
    """What is not there, is a folder, or ends otherwise is refused by name."""
    with pytest.raises(NotFoundError, match="no such file"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(NotFoundError, match="it is a folder"):
        read_checkpoint(tmp_path / "folder.pth")
    with pytest.raises(CheckpointError, match=r"ends in '\.onnx'"):
        read_checkpoint(tmp_path / "a.onnx")
