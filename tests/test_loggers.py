"""Loggers: the figures of each epoch, read back with the trackers' own readers."""

import json
import os
import subprocess
import sys

import pytest
from test_progress import state

import hydra_detect
from hydra_detect.errors import ExtraMissingError, StoreError
from hydra_detect.training.loggers import MLflowLogger, TensorBoardLogger, figures, together
from hydra_detect.training.progress import EpochRecord, TrainingProgress


def judged(epoch, *, stage=""):
    """Return where a training with a select role stands after an epoch."""
    latest = EpochRecord(
        epoch=epoch, losses={"box": 0.5 / epoch, "total": 1.5 / epoch}, select_losses={"total": 2.0}, f1=0.25 * epoch,
        precision=0.5, recall=0.125, learning_rate=1e-3, seconds=3,
    )  # fmt: skip
    return TrainingProgress(history=(latest,), best=latest, epochs=4, elapsed=1.0, remaining=2.0, stage=stage)


EXPECTED = {
    "loss/box": 0.25, "loss/total": 0.75, "select_loss/total": 2.0, "f1": 0.5, "precision": 0.5, "recall": 0.125,
    "best_f1": 0.5, "learning_rate": 0.001, "seconds": 3.0,
}  # fmt: skip


def test_figures_of_an_epoch():
    """Each figure has a name; what was not measured has none, and a figure of 0 is one."""
    assert figures(judged(2)) == EXPECTED
    assert figures(state(2)) == {"loss/total": 0.75, "learning_rate": 0.0, "seconds": 0.0}
    assert figures(state(1, f1=0.0, best=0.0))["f1"] == 0.0


def test_names_that_every_tracker_takes():
    """The stage comes first, and what not every tracker takes in a name becomes an underscore."""
    assert set(figures(judged(2, stage="fold 2 of 5"))) == {f"fold_2_of_5/{name}" for name in EXPECTED}
    odd = TrainingProgress(
        history=(EpochRecord(epoch=1, losses={"größe (px)": 1.0}),),
        best=state(1).best,
        epochs=1,
        elapsed=0,
        remaining=0,
    )
    assert "loss/gr__e__px_" in figures(odd)


def test_together():
    """Several callbacks are called in order with the same state; none at all do nothing."""
    called = []
    first, second = (lambda told, name=name: called.append((name, told)) for name in "ab")
    together()(state(1))
    told = state(2)
    together(first, second, first)(told)
    assert called == [("a", told), ("b", told), ("a", told)]


def test_what_one_of_them_raises_is_seen():
    """A callback that fails stops the rest: nothing is hidden."""
    called = []

    def fail(_told):
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        together(fail, called.append)(state(1))
    assert called == []


def test_the_extras_are_extras(monkeypatch, tmp_path):
    """Without the package each error tells which extra to install, and nothing is written."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for module in ("tensorboard", "torch.utils.tensorboard", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissingError, match=r"log to TensorBoard in .*hydra-detect\[tensorboard\]"):
        TensorBoardLogger(tmp_path / "board")
    with pytest.raises(ExtraMissingError, match=r"log to MLflow .*hydra-detect\[mlflow\]"):
        MLflowLogger(tracking_uri=f"file:{tmp_path}/runs")
    assert list(tmp_path.iterdir()) == []


BOARD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_loggers import TensorBoardLogger, judged, state, together
with TensorBoardLogger(sys.argv[2]) as board:
    pass
with TensorBoardLogger(sys.argv[3]) as board:
    progress = together(board)
    progress(judged(1))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    early = EventAccumulator(sys.argv[3]); early.Reload()
    assert [event.step for event in early.Scalars("f1")] == [1]
    progress(judged(2))
    progress(judged(1, stage="fold 2 of 5"))
board.close()
events = EventAccumulator(sys.argv[3]); events.Reload()
empty = EventAccumulator(sys.argv[2]); empty.Reload()
scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
print(json.dumps({name: [(e.step, round(e.value, 6)) for e in found] for name, found in scalars.items()}))
print(empty.Tags()["scalars"])
"""


def process(program, *arguments, **environment):
    """Run a program where each warning is an error; return what it prints."""
    here = os.path.dirname(__file__)  # noqa: PTH120  as text
    command = [sys.executable, "-W", "error", "-c", program, here, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(hydra_detect.__file__)), **environment}  # noqa: PTH120
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tensorboard_reads_what_was_logged(tmp_path):
    """TensorBoard's own reader finds each figure under its name at its epoch, while the training runs and after."""
    pytest.importorskip("tensorboard")
    first, second = process(BOARD, tmp_path / "empty", tmp_path / "board" / "new").splitlines()
    expected = {name: [[2, value]] for name, value in EXPECTED.items()}
    found = json.loads(first)
    assert {name: values[1:] for name, values in found.items() if name[:4] != "fold"} == expected
    assert found["f1"] == [[1, 0.25], [2, 0.5]]
    assert found["fold_2_of_5/f1"] == [[1, 0.25]]
    assert second == "[]"


def test_tensorboard_where_nothing_can_be_written(tmp_path):
    """A file where the folder would be is an error that names it."""
    pytest.importorskip("tensorboard")
    (tmp_path / "board").write_text("")
    with pytest.raises(StoreError, match=r"log to TensorBoard in .*board"):
        TensorBoardLogger(tmp_path / "board")


RUNS = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from test_loggers import MLflowLogger, judged
from hydra_detect.errors import TrainingError, TrainingStoppedError
address = sys.argv[2]
def begun(name, error=None):
    logger = MLflowLogger(tracking_uri=address, experiment="shapes", run_name=name)
    try:
        with logger:
            if error: raise error
    except (ValueError, TrainingStoppedError, KeyboardInterrupt): pass
    return logger
with MLflowLogger(tracking_uri=address, experiment="shapes", run_name="first") as logger:
    logger(judged(1))
    logger(judged(2))
    import mlflow
    client = mlflow.MlflowClient(tracking_uri=address)
    assert client.get_run(logger.run_id).info.status == "RUNNING"
logger.close(status="FAILED")  # it is closed already
stopped = TrainingStoppedError("go on", "it was cancelled", "Call it again.")
loggers = [logger, begun("stopped", stopped), begun("hurt", ValueError()), begun("broken off", KeyboardInterrupt())]
runs = [client.get_run(one.run_id) for one in loggers]
print(json.dumps([[run.info.run_name, run.info.status] for run in runs]))
names = list(runs[0].data.metrics)
print(json.dumps({n: [[m.step, m.value] for m in client.get_metric_history(logger.run_id, n)] for n in names}))
print({client.get_experiment(run.info.experiment_id).name for run in runs}, mlflow.active_run())
from mlflow.telemetry import get_telemetry_client
print(os.environ["MLFLOW_DISABLE_TELEMETRY"], get_telemetry_client())
for place, experiment in (("nowhere://at/all", "hydra-detect"), (address, "")):
    try: MLflowLogger(tracking_uri=place, experiment=experiment)
    except TrainingError as error: print(error.asked, "|", error.found)
client.delete_run(logger.run_id)
try: logger(judged(3))
except TrainingError as error: print(error.asked, "|", error.remedy)
"""


def test_mlflow_reads_what_was_logged(tmp_path):
    """MLflow's own client finds each figure at its epoch, and how each run ended; MLflow phones nobody."""
    pytest.importorskip("mlflow")
    lines = process(RUNS, f"file:{tmp_path}/runs", MLFLOW_ALLOW_FILE_STORE="true").splitlines()
    assert json.loads(lines[0]) == [
        ["first", "FINISHED"], ["stopped", "KILLED"], ["hurt", "FAILED"], ["broken off", "KILLED"],
    ]  # fmt: skip
    found = json.loads(lines[1])
    assert {name: values[1:] for name, values in found.items()} == {n: [[2, v]] for n, v in EXPECTED.items()}
    assert found["f1"] == [[1, 0.25], [2, 0.5]]
    assert lines[2:4] == ["{'shapes'} None", "true None"]
    assert "begin a run in experiment 'hydra-detect' of nowhere://at/all | MLflow refused (" in lines[4]
    assert "begin a run in experiment ''" in lines[5]
    assert lines[6].startswith("log epoch 3 in experiment 'shapes'")
    assert "leave the logger out" in lines[6]
