"""What a training tells while it runs, and the bar that shows it."""

import contextlib
import io
import subprocess
import sys

from hydra_detect import codec
from hydra_detect.training.progress import EpochRecord, ProgressBar, TrainingProgress


def state(epoch, *, f1=None, best=None, stage="", epochs=4):
    """Return where a training stands after an epoch."""
    latest = EpochRecord(epoch=epoch, losses={"total": 1.5 / epoch}, f1=f1)
    return TrainingProgress(
        history=(latest,),
        best=EpochRecord(epoch=1, losses={"total": 1.5}, f1=best),
        epochs=epochs,
        elapsed=2.0,
        remaining=6.0,
        stage=stage,
    )


def shown(monkeypatch, *states):
    """Return what a bar draws of states on a terminal."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with contextlib.closing(ProgressBar()) as bar:
        for one in states:
            bar(one)
    return terminal.getvalue()


def test_nothing_told_is_nothing_shown(monkeypatch):
    """A bar that is never called draws nothing, and may be closed again and again."""
    assert shown(monkeypatch) == ""
    bar = ProgressBar()
    bar.close()
    bar.close()


def test_an_epoch_a_step(monkeypatch):
    """Each epoch moves the bar on, with its loss, its F1 and the best, and the bar is gone afterwards."""
    text = shown(monkeypatch, state(1, f1=0.25, best=0.25), state(3, f1=0.125, best=0.5))
    assert "epochs:  25%" in text
    assert "1/4" in text
    assert "3/4" in text
    assert "loss=0.500, F1=0.125, best=0.500" in text
    assert text.split("\r")[-2].isspace()  # what was drawn last


def test_without_a_select_role(monkeypatch):
    """Without a select role there is a loss and no F1."""
    text = shown(monkeypatch, state(1))
    assert "loss=1.500" in text
    assert "F1" not in text


def test_each_stage_has_a_bar_of_its_own(monkeypatch):
    """The folds of a cross-validation are drawn one after another under their names."""
    text = shown(
        monkeypatch, state(1, stage="fold 1 of 2"), state(4, stage="fold 1 of 2"), state(1, stage="fold 2 of 2")
    )
    assert text.index("fold 1 of 2: 100%") < text.index("fold 2 of 2:  25%")


def test_where_standard_error_is_no_terminal(monkeypatch):
    """Into a file or a pipe nothing is drawn."""
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with contextlib.closing(ProgressBar()) as bar:
        bar(state(1))
    assert log.getvalue() == ""


def test_records_are_read_as_they_were_written():
    """An epoch's record comes back from JSON as it was, with or without a select role."""
    for record in (
        EpochRecord(epoch=1, losses={}),
        EpochRecord(epoch=2, losses={"total": 0.1}, select_losses={"total": 2}, f1=0.5, is_best=True, seconds=3),
    ):
        assert codec.decode(EpochRecord, codec.encode(record), "an epoch") == record


def test_no_torch_is_needed():
    """Progress is values: neither they nor the bar load torch."""
    program = "import sys, hydra_detect.training.progress as p; p.ProgressBar(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
