"""Runs side by side: what trainings of a store came to, from the reports that they left."""

import json
import os

import lifecycle_fixtures
import pytest
from lifecycle_fixtures import BADLY, teach

from hydra_detect import codec
from hydra_detect.cli.output import runs_table
from hydra_detect.errors import NotFoundError
from hydra_detect.lifecycle.original import OriginalReport
from hydra_detect.lifecycle.runs import DAMAGED, compare_runs
from hydra_detect.training.config import TrainingConfig
from hydra_detect.training.original import OriginalSettings

bare, taught = lifecycle_fixtures.bare, lifecycle_fixtures.taught


def put(store, report, head="lamp", name="elsewhere", *, at=None):
    """Leave a report as a run does; return its file."""
    path = store.layout.runs(head) / name / "report.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(codec.encode(report))
    if at is not None:
        os.utime(path, (at, at))
    return path


def original(report):
    """Return the report of an original that came to the same figures."""
    return OriginalReport(
        head="lamp", version=2, backbone="default", architecture="resnet18",
        settings=OriginalSettings(), config=TrainingConfig(epochs=7),
        seed=0, history=report.training.course.history, best_epoch=3, calibration=report.calibration,
        metrics=report.metrics, original="original.pth", run="",
    )  # fmt: skip


def test_no_runs(bare):
    """A store in which nothing was trained has no runs, and neither has a head that was not trained here."""
    assert compare_runs(bare) == []
    assert compare_runs(bare, ["moth"]) == []
    assert runs_table([]) == "No training has finished yet."


def test_a_head_that_is_none(taught):
    """A name that neither a head nor runs have is refused with those that come near, of both."""
    store, report = taught
    put(store, report, head="ember")
    for name, near in (("lmap", "lamp"), ("emberr", "ember"), ("mothh", "moth")):
        with pytest.raises(NotFoundError, match=rf"no such head, and no runs of one\. Did you mean '{near}'"):
            compare_runs(store, ["lamp", name])
    assert len(compare_runs(store, ["ember", "moth"])) == 1


def test_a_run_at_a_glance(taught):
    """A finished run is summed up: what it made, on what it was measured, how long it took, what was set."""
    store, report = taught
    (run,) = compare_runs(store.root)
    course = report.training.course
    assert (run.name, run.head, run.version, run.outcome) == (report.run.rsplit("/", 1)[-1], "lamp", 1, "promoted")
    assert (run.method, run.figures) == ("held-out", report.metrics.figures())
    assert run.samples_digest == str(report.metrics.samples_digest)
    assert (run.epochs, run.best_epoch, run.seconds) == (4, course.best_epoch, course.seconds["training"])
    assert run.settings["learning_rate"] == 0.01
    assert "loss" not in run.settings  # it is the usual one
    assert json.loads(json.dumps(run.to_dict()))["figures"]["f1"] == 1.0


def test_both_kinds_side_by_side(taught):
    """Runs of heads and of originals are listed by head, the oldest first; only those of named heads where any is."""
    store, report = taught
    teach(store, **BADLY, publish=False)
    put(store, original(report), name="first", at=1)
    put(store, report, head="ember", name="other")
    found = compare_runs(store)
    assert [(run.head, run.outcome, run.version) for run in found[1:]] == [
        ("lamp", "original", 2), ("lamp", "promoted", 1), ("lamp", "not published", None),
    ]  # fmt: skip
    assert found[0].name == "other"
    assert (found[1].settings, found[1].best_epoch) == ({"epochs": 7}, 3)
    assert found[1].seconds == sum(epoch.seconds for epoch in report.training.course.history)
    assert compare_runs(store, ["lamp"]) == found[1:]
    assert compare_runs(store, ["moth"]) == []


def test_the_table(taught):
    """For people there is a line for each run, with its figures, what they are of, and the settings that differ."""
    store, report = taught
    put(store, original(report), name="first", at=1)
    header, one, two = runs_table(compare_runs(store)).splitlines()
    assert header.split() == ["head", "outcome", "F1", "AP50", "AP", "on", "best", "time", "run", "settings"]
    assert one.split()[:4] == ["lamp@2", "original", "1.000", "1.000"]
    assert two.startswith("lamp@1  promoted")
    assert report.metrics.samples_digest.short[:6] in two
    assert two.endswith("cache_bytes=100000000, rpn_batch=64, box_batch=32, proposals=50, validation=held-out")


def test_an_unfinished_run_is_none(taught):
    """A folder without a report is a training that was stopped, and is not listed."""
    store, report = taught
    (store.layout.runs("lamp") / "stopped").mkdir()
    assert [run.name for run in compare_runs(store)] == [report.run.rsplit("/", 1)[-1]]


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"schema": 1}', b"", b'{"schema": 1, "training": {}}', b"3"])
def test_a_damaged_report_hides_no_other(taught, data):
    """A report that cannot be read is listed as damaged with what is wrong, beside those that can."""
    store, report = taught
    (good,) = compare_runs(store)
    path = put(store, report)
    path.write_bytes(data)
    os.utime(path, (1, 1))
    damaged, other = compare_runs(store)
    assert other == good
    assert (damaged.name, damaged.head, damaged.outcome, damaged.version) == ("elsewhere", "lamp", DAMAGED, None)
    assert damaged.trouble
    line = runs_table([damaged]).splitlines()[1]
    assert line.split()[:2] == ["lamp", "damaged"]
    assert line.split()[-1] != "elsewhere"
