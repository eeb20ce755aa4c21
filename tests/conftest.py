"""What all tests share: the Hypothesis profile, and one small split store for those that only read it."""

import os
import sys
import threading
from pathlib import Path

import pytest
from hub_fixtures import canary, hub  # noqa: F401  fixtures
from hypothesis import settings

if Path("/dev/shm").is_dir():  # noqa: S108  pytest makes its own folder in it; stores are written faster to memory
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")  # noqa: S108  same

if "PYTEST_XDIST_WORKER" in os.environ:  # several of which share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a busy machine is no failing test. At a desk examples vary from run to run, so that runs add up; in CI
# they are the same each time, so that a change is judged by what it changed.
settings.register_profile("desk", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


REPORTED = "reported"


def pytest_addoption(parser):
    """Add the flags of tests/reliability: for its larger figures, and for writing its golden stores."""
    parser.addoption(
        "--exhaustive", action="store_true", help="reliability tests in their larger form: hours, not minutes"
    )
    parser.addoption(
        "--update-goldens", action="store_true", help="write tests/golden anew: for a format that is not released yet"
    )


@pytest.fixture
def reported(record_property):
    """Return what adds a line to the end of the run's output: `reported("under which title", "the line")`."""
    return lambda title, line: record_property(REPORTED, (title, line))


def pytest_terminal_summary(terminalreporter):
    """Print what the tests reported, whichever process they ran in, before pytest's own summary."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    said = [line for report in ended for name, line in report.user_properties if name == REPORTED]
    for title in dict.fromkeys(title for title, _line in said):
        terminalreporter.section(title)
        for line in [line for under, line in said if under == title]:
            terminalreporter.write_line(line)


@pytest.fixture
def untraced():
    """Measure no coverage: for tests that go over the same lines thousands of times, which would take twice as long."""
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    yield
    sys.settrace(tracer)
    threading.settrace(of_threads)


@pytest.fixture(scope="session")
def split_store(tmp_path_factory):
    """A store with heads `rbc` (versions 1 and 2, 1 active) and `wbc` on one backbone; nobody may write to it."""
    import torch
    from originals import SETTINGS, restless, save, small

    from hydra_detect import split_checkpoint

    folder = tmp_path_factory.mktemp("split")
    store, model = folder / "store", small()
    backbone = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    for head, seed in (("rbc", 0), ("wbc", 1), ("rbc", 2)):
        restless(model, seed)
        model.backbone.load_state_dict(backbone)
        path = save(model, folder / f"{head}-{seed}.pth")
        split_checkpoint(path, store, head=head, settings=SETTINGS)
    torch.manual_seed(0)
    return store


@pytest.fixture(scope="session")
def split_original(split_store):
    """The checkpoint that `rbc@1` of `split_store` was split from."""
    return split_store.parent / "rbc-0.pth"


@pytest.fixture
def detector(split_store):
    """A detector with all heads of `split_store`."""
    from hydra_detect import HydraDetector

    return HydraDetector.from_store(split_store, device="cpu")
