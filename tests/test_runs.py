"""Runs: the folder that a training leaves."""

import csv
import subprocess
import sys

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoint import STATE

from hydra_detect.codec import Record
from hydra_detect.errors import ConflictError, StoreError
from hydra_detect.names import Digest
from hydra_detect.storage.owners import staging_name
from hydra_detect.training.checkpoint import CHECKPOINT
from hydra_detect.training.progress import EpochRecord
from hydra_detect.training.runs import METRICS, REPORT, Run

FINGERPRINT = Digest("0123456789abcdef" * 4)


@attrs.frozen(kw_only=True)
class Report(Record):
    """A report of a test."""

    said: str


DONE = Report(said="done")


def run_of(folder):
    """Return the run of one training in a folder of runs."""
    return Run.of(folder / "runs", FINGERPRINT)


def rows(run):
    """Return what metrics.csv says, by column."""
    with (run.folder / METRICS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_is_written_by_asking(tmp_path):
    """A new run is a name: its folder is made when there is something to keep."""
    run = run_of(tmp_path)
    assert run.folder == tmp_path / "runs" / FINGERPRINT.short
    assert run.checkpoint().read() is None
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_taken_up_and_a_finished_one_is_not(tmp_path):
    """The same training gets its own folder again until that has a report, and then a numbered one beside it."""
    first = run_of(tmp_path)
    first.checkpoint().write(STATE)
    assert run_of(tmp_path) == first
    assert first.finish(DONE) is DONE
    second = run_of(tmp_path)
    assert second.folder.name == f"{FINGERPRINT.short}-2"
    second.finish(DONE)
    assert run_of(tmp_path).folder.name == f"{FINGERPRINT.short}-3"
    assert (first.folder / REPORT).read_bytes() == (second.folder / REPORT).read_bytes()


def test_empty_metrics(tmp_path):
    """Without epochs there is a header."""
    run = run_of(tmp_path)
    run.write_metrics([])
    assert rows(run) == []
    assert (run.folder / METRICS).read_text().strip() == "epoch,seconds,learning_rate,f1,precision,recall,is_best"


def test_metrics(tmp_path):
    """One row an epoch, a column for each part of either loss, and nothing where there is no figure."""
    history = [
        EpochRecord(
            epoch=1, losses={"box": 0.5, "total": 0.75}, select_losses={"total": 1.0}, f1=0.25, precision=0.2,
            recall=1 / 3, is_best=True, learning_rate=1e-3, seconds=2,
        ),
        EpochRecord(epoch=2, losses={"total": 0.5, "my, own": 0.125}),
    ]  # fmt: skip
    run = run_of(tmp_path)
    run.write_metrics(history[:1])
    run.write_metrics(history)
    first, second = rows(run)
    assert list(first) == [
        "epoch", "seconds", "learning_rate", "f1", "precision", "recall", "is_best",
        "loss_box", "loss_my, own", "loss_total", "select_loss_total",
    ]  # fmt: skip
    assert [float(first[name]) for name in ("epoch", "f1", "recall", "loss_box", "seconds")] == [1, 0.25, 1 / 3, 0.5, 2]
    assert (first["is_best"], second["is_best"]) == ("True", "False")
    assert {name for name, value in second.items() if value == ""} == {
        "f1", "precision", "recall", "loss_box", "select_loss_total",
    }  # fmt: skip
    assert [path.name for path in run.folder.iterdir()] == [METRICS]


@given(st.lists(st.dictionaries(st.sampled_from(["class", "box", "total"]), st.floats(0, 1e6)), max_size=4))
def test_metrics_say_every_figure_exactly(tmp_path_factory, losses):
    """What is in the table is what was measured, to the last digit."""
    run = run_of(tmp_path_factory.getbasetemp())
    run.write_metrics([EpochRecord(epoch=n, losses=own) for n, own in enumerate(losses, start=1)])
    found = rows(run)
    assert [int(row["epoch"]) for row in found] == list(range(1, len(losses) + 1))
    for row, own in zip(found, losses, strict=True):
        assert {n.removeprefix("loss_"): float(v) for n, v in row.items() if n.startswith("loss_") and v} == own


def test_stages_have_checkpoints_of_their_own(tmp_path):
    """Each fold of a cross-validation keeps its state apart, and takes up no other's."""
    run = run_of(tmp_path)
    fold, final = run.checkpoint("fold 1 of 5"), run.checkpoint()
    assert (fold.path, final.path) == (run.folder / "fold-1-of-5" / CHECKPOINT, run.folder / CHECKPOINT)
    fold.write(STATE)
    assert (final.read(), fold.read() is None) == (None, False)
    fold.path.replace(final.path)
    assert final.read() is None
    assert run.checkpoint("fold 2 of 5").read() is None


def test_finishing_deletes_checkpoints_and_nothing_else(tmp_path):
    """A finished run has its report and figures, and what others put there; checkpoints and half files are gone."""
    run = run_of(tmp_path)
    run.write_metrics([])
    for stage in ("", "fold 1 of 2", "fold 2 of 2"):
        run.checkpoint(stage).write(STATE)
    here, _pid, began, rest = staging_name().split(".")
    (run.folder / "fold-1-of-2" / f"{here}.999999999.{began}.{rest}").touch()  # of a process that was killed
    (run.folder / "board").mkdir()
    (run.folder / "board" / "events").touch()
    run.finish(DONE)
    assert sorted(str(path.relative_to(run.folder)) for path in run.folder.rglob("*")) == [
        "board", "board/events", METRICS, REPORT,
    ]  # fmt: skip


def test_a_disk_that_refuses(tmp_path):
    """Where the folder cannot be made, each way of writing says so."""
    (tmp_path / "runs").write_text("")
    run = run_of(tmp_path)
    for write in (lambda: run.write_metrics([]), lambda: run.finish(DONE)):
        with pytest.raises(StoreError, match=r"cannot write .*runs"):
            write()


HOLD = """
import sys, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time(tmp_path):
    """The same training in another process is refused while one is at it, and goes ahead once that has ended."""
    run = Run.of(tmp_path / "runs", Digest("0" * 64))
    run.folder.parent.mkdir()
    command = [sys.executable, "-c", HOLD, str(run.folder.with_suffix(".lock"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match="another process has held"), run.alone():
            pass
        other.communicate("")
    with run.alone():
        run.write_metrics([])


def test_a_run_that_another_process_has_finished(tmp_path):
    """Between the look for a run and its lock another process may have finished it: it is not written to."""
    run = Run.of(tmp_path / "runs", Digest("0" * 64))
    run.folder.mkdir(parents=True)
    (run.folder / REPORT).write_text("{}")
    with pytest.raises(ConflictError, match="has just finished it"), run.alone():
        pass
