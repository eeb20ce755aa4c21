"""A training that was stopped is taken up again, and comes to the same bytes as if it had not been."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest
import torch
from store_fixtures import flip
from training_fixtures import CONFIG, TRAIN, checkpoint, learn_shapes, weights_of

from hydra_detect.errors import StoreError, TrainingStoppedError
from hydra_detect.training import loop
from hydra_detect.training.checkpoint import CHECKPOINT, Checkpoint, State
from hydra_detect.training.losses import torchvision_loss
from hydra_detect.training.progress import EpochRecord
from hydra_detect.training.tools import Tools

LONG = attrs.evolve(CONFIG, epochs=4, monitor="loss", views=("plain", "hflip"), box_jitter=0.05, feature_noise=0.05)
HISTORY = (
    EpochRecord(epoch=1, losses={"total": 1.5}, select_losses={"total": 2.0}, f1=0.25, is_best=True),
    EpochRecord(epoch=2, losses={"total": 1.25}),
)
STATE = State(
    tensors={"network.w": torch.arange(6.0).reshape(2, 3), "random": torch.get_rng_state(), "step": torch.tensor(7)},
    history=HISTORY,
    steps=8,
    waited=1,
    seconds=1.5,
)


@pytest.fixture(autouse=True)
def each_epoch(monkeypatch):
    """Keep a checkpoint after each epoch, however short it was."""
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Give where the training ends when nobody stops it."""
    folder = tmp_path_factory.mktemp("whole")
    learn_shapes(folder, config=LONG)
    return end(folder)


def end(folder):
    """Return all that a training ended with as bytes: weights, their average, the best, moments, random numbers."""
    tensors = checkpoint(folder).read().tensors
    return {name: value.numpy().tobytes() for name, value in tensors.items()}


class InterruptionError(Exception):
    """What a test throws into a training."""


def after(epoch, act):
    """Return a callback that acts once so many epochs are done."""

    def progress(state):
        if state.latest.epoch == epoch:
            act()

    return progress


def interrupt():
    """Stop whatever calls this."""
    raise InterruptionError


def same(one, other):
    """Whether two states are equal in every bit."""
    tensors = one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(value, other.tensors[name]) for name, value in one.tensors.items()
    )
    return tensors and attrs.evolve(one, tensors={}) == attrs.evolve(other, tensors={})


def test_nothing_yet(tmp_path, caplog):
    """Where there is no checkpoint there is nothing to read, and nothing to say."""
    assert checkpoint(tmp_path).read() is None
    assert caplog.text == ""


def test_a_state_is_read_as_it_was_written(tmp_path):
    """Tensors come back bit for bit, history and counts with them, and nothing else lies in the folder."""
    kept = checkpoint(tmp_path)
    kept.write(attrs.evolve(STATE, history=()))
    kept.write(STATE)
    assert same(kept.read(), STATE)
    assert [path.name for path in kept.path.parent.iterdir()] == [CHECKPOINT]


def test_what_was_read_does_not_change_with_the_file(tmp_path):
    """A state that was read stays what it is when the file is written over in place."""
    kept = checkpoint(tmp_path)
    kept.write(STATE)
    state = kept.read()
    size = kept.path.stat().st_size
    with kept.path.open("r+b") as file:
        file.write(b"\xff" * size)
    assert same(state, STATE)


def test_a_disk_that_refuses(tmp_path):
    """A folder that cannot be made is a StoreError that names it."""
    (tmp_path / "run").write_text("")
    with pytest.raises(StoreError, match=r"keep a checkpoint in .*run"):
        checkpoint(tmp_path).write(STATE)


@pytest.mark.parametrize("damage", ["emptied", "truncated", "no tensors", "first bit", "last bit", "a folder"])
def test_a_damaged_one_is_said_and_passed_over(tmp_path, caplog, damage):
    """A checkpoint that is not what was written is passed over with a warning, down to a single bit of a weight."""
    kept = checkpoint(tmp_path)
    kept.write(STATE)
    data = kept.path.read_bytes()
    if damage.endswith("bit"):
        start = 8 + int.from_bytes(data[:8], "little")
        flip(kept.path, start if damage == "first bit" else -1)
    elif damage == "a folder":
        kept.path.unlink()
        kept.path.mkdir()
    else:
        kept.path.write_bytes({"emptied": b"", "truncated": data[:-1], "no tensors": b"owl" * 100}[damage])
    with caplog.at_level(logging.WARNING):
        assert kept.read() is None
    assert f"the checkpoint {kept.path} cannot be used" in caplog.text


def test_no_bit_changes_unnoticed(tmp_path):
    """Whichever bit of a small checkpoint is flipped, it is passed over, or says the same."""
    kept = checkpoint(tmp_path)
    kept.write(attrs.evolve(STATE, tensors={"w": torch.arange(3.0)}))
    data, right = kept.path.read_bytes(), kept.read()
    passed_over = 0
    for place in range(0, len(data), 3):
        kept.path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        found = kept.read()
        assert found is None or same(found, right), place
        passed_over += found is None
    assert passed_over > 0.9 * len(range(0, len(data), 3))


def test_that_of_another_training_is_passed_over(tmp_path, caplog):
    """A checkpoint with another fingerprint is never taken up; it is said whose it is not."""
    checkpoint(tmp_path).write(STATE)
    with caplog.at_level(logging.WARNING):
        assert checkpoint(tmp_path, "another").read() is None
    assert "belongs to another training" in caplog.text
    assert same(checkpoint(tmp_path).read(), STATE)


def test_a_training_passes_over_a_damaged_checkpoint(tmp_path, caplog, whole):
    """A training whose checkpoint is damaged begins anew, says so, and comes to the same bytes."""
    with pytest.raises(InterruptionError):
        learn_shapes(tmp_path, config=LONG, progress=after(2, interrupt))
    flip(tmp_path / "run" / CHECKPOINT, -1)
    told = []
    with caplog.at_level(logging.WARNING):
        learn_shapes(tmp_path, config=LONG, progress=told.append)
    assert "the training begins anew" in caplog.text
    assert [state.latest.epoch for state in told] == [1, 2, 3, 4]
    assert end(tmp_path) == whole


@pytest.mark.parametrize("epoch", [1, 3])
def test_taken_up_after_an_exception(tmp_path, whole, epoch):
    """After an error between epochs the same call goes on with the next one, and comes to the same bytes."""
    with pytest.raises(InterruptionError):
        learn_shapes(tmp_path, config=LONG, progress=after(epoch, interrupt))
    told = []
    again = learn_shapes(tmp_path, config=LONG, progress=told.append).fitted
    assert [state.latest.epoch for state in told] == list(range(epoch + 1, 5))
    assert end(tmp_path) == whole
    assert [entry.epoch for entry in again.history] == [1, 2, 3, 4]
    assert again.seconds > sum(entry.seconds for entry in again.history[:epoch])


def test_taken_up_after_an_error_within_an_epoch(tmp_path, whole):
    """An error in the middle of an epoch costs that epoch alone."""
    calls, is_broken = 0, True

    def breaking(predictions, context):
        nonlocal calls
        calls += torch.is_grad_enabled()
        if is_broken and calls == 9:  # one or two in a step, of which an epoch has four
            raise InterruptionError
        return torchvision_loss(predictions, context)

    tools = Tools(losses={"breaking": breaking})
    config = attrs.evolve(LONG, loss="breaking")
    with pytest.raises(InterruptionError):
        learn_shapes(tmp_path, config=config, tools=tools)
    is_broken, told = False, []
    learn_shapes(tmp_path, config=config, tools=tools, progress=told.append)
    assert 1 < told[0].latest.epoch == 5 - len(told)
    assert end(tmp_path) == whole


def test_cancelled_and_taken_up_again(tmp_path, whole):
    """An event stops the training at its next step; the error says where it can be taken up, and it is."""
    cancel = threading.Event()
    with pytest.raises(TrainingStoppedError, match="cancelled in epoch 3") as caught:
        learn_shapes(tmp_path, config=LONG, progress=after(2, cancel.set), tools=Tools(cancel=cancel))
    kept = Path(caught.value.facts["checkpoint"])
    assert kept == tmp_path / "run" / CHECKPOINT
    assert len(checkpoint(tmp_path).read().history) == 2
    cancel.clear()
    learn_shapes(tmp_path, config=LONG, tools=Tools(cancel=cancel))
    assert end(tmp_path) == whole


def test_one_that_is_over_is_not_trained_again(tmp_path):
    """A training that came to its end gives what it came to, without a single step or a call of the callback."""
    first = learn_shapes(tmp_path, config=LONG)
    told = []
    again = learn_shapes(tmp_path, config=LONG, progress=told.append)
    assert told == []
    assert weights_of(again.fitted) == weights_of(first.fitted)
    assert again.features.passes == 0


def test_the_patience_of_both_sessions_counts_together(tmp_path):
    """Epochs without anything better before the interruption count after it."""
    config = attrs.evolve(CONFIG, epochs=9, monitor="loss", min_delta=1, patience=3)
    with pytest.raises(InterruptionError):
        learn_shapes(tmp_path, config=config, progress=after(3, interrupt))
    result = learn_shapes(tmp_path, config=config).fitted
    assert (len(result.history), result.best.epoch, result.early_stopped) == (4, 1, True)


def test_checkpoints_are_kept_from_time_to_time(tmp_path, monkeypatch):
    """Short epochs are not each written: only the first, when seconds have passed, and at the end."""
    written = []
    write = Checkpoint.write

    def note(self, state):
        written.append(len(state.history))
        write(self, state)

    monkeypatch.setattr(Checkpoint, "write", note)
    learn_shapes(tmp_path / "a", config=LONG)
    assert written == [1, 2, 3, 4]
    written.clear()
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_CHECKPOINTS", 1000.0)
    learn_shapes(tmp_path / "b", config=LONG)
    assert written == [1, 4]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_checkpoint import LONG, Tools, after, learn_shapes, loop
loop._SECONDS_BETWEEN_CHECKPOINTS = 0.0
def die():
    os.kill(os.getpid(), signal.SIGKILL)
learn_shapes(Path(sys.argv[2]), config=LONG, progress=after(3, die))
"""


def test_killed_and_taken_up_again(tmp_path, whole):
    """A process killed as it tells of an epoch goes on with that epoch, tells of it, and comes to the same bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", KILLED, here, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    told = []
    result = learn_shapes(tmp_path, config=LONG, progress=told.append)
    assert [state.latest.epoch for state in told] == [3, 4]
    assert end(tmp_path) == whole
    assert result.features.passes <= len(TRAIN)


def test_what_it_holds_is_plain(tmp_path):
    """The file is safetensors with JSON beside: no pickle is read when a training is taken up."""
    import safetensors

    checkpoint(tmp_path).write(STATE)
    with safetensors.safe_open(tmp_path / "run" / CHECKPOINT, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
        assert set(file.keys()) == set(STATE.tensors)
    assert (state["steps"], state["waited"], len(state["history"])) == (8, 1, 2)
