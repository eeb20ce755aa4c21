"""Watching: a thread that looks again and again, outlives every error, and never keeps alive what it watches."""

import gc
import logging
import math
import threading
import time
import weakref

import attrs
import pytest

from hydra_detect.errors import CorruptError, HydraDetectError, InputError, StoreError
from hydra_detect.watching import Refreshed, Watcher, check_seconds, refusal

SOON = 0.005
PATIENCE = 30.0  # seconds after which a busy machine is no excuse


class Clock:
    """Something with a method to call: it counts the calls, and may fail."""

    def __init__(self, error=None):
        self.calls, self.error, self.ticked = 0, error, threading.Event()

    def tick(self):
        """Count a call."""
        self.calls += 1
        self.ticked.set()
        if self.error:
            raise self.error

    def wait(self):
        """Wait for another call."""
        self.ticked.clear()
        assert self.ticked.wait(PATIENCE)


def watchers():
    """Return the threads that watch."""
    return [thread for thread in threading.enumerate() if thread.name == "hydra-detect-watch"]


def until(condition):
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(SOON)


@pytest.fixture(autouse=True)
def _nobody_is_left():
    """See that no test leaves a thread behind."""
    yield
    gc.collect()
    until(lambda: not watchers())


def test_it_looks_again_and_again():
    """The method is called every so many seconds, not before the first of them are over, and not after the end."""
    clock = Clock()
    watcher = Watcher(clock.tick, SOON)
    for _ in range(3):
        clock.wait()
    watcher.stop()
    calls = clock.calls
    assert calls >= 3
    time.sleep(5 * SOON)
    assert clock.calls == calls


def test_it_waits_first():
    """The first look is after the first interval: whoever starts to watch has just looked."""
    clock = Clock()
    watcher = Watcher(clock.tick, 3600)
    watcher.stop()
    assert clock.calls == 0


def test_stopping_does_not_wait_for_the_interval():
    """However long the interval is, stopping takes no time, and a second time does nothing."""
    began = time.monotonic()
    watcher = Watcher(Clock().tick, 3600)
    watcher.stop()
    watcher.stop()
    assert time.monotonic() - began < PATIENCE
    assert watchers() == []


def test_stopping_waits_for_the_call_in_progress():
    """After stopping no call is running any more: whoever stops may take the store away."""
    entered, leave, done = threading.Event(), threading.Event(), []

    class Slow:
        def look(self):
            entered.set()
            leave.wait(PATIENCE)
            done.append(True)

    slow = Slow()
    watcher = Watcher(slow.look, SOON)
    assert entered.wait(PATIENCE)
    stopper = threading.Thread(target=watcher.stop)
    stopper.start()
    time.sleep(5 * SOON)
    assert stopper.is_alive()
    leave.set()
    stopper.join(PATIENCE)
    assert done == [True]
    assert watchers() == []


def test_stopping_from_within(caplog):
    """A call may stop its own watcher without waiting for itself, and that is no error."""

    class Once:
        watcher = None

        def look(self):
            self.watcher.stop()

    once = Once()
    once.watcher = Watcher(once.look, 10 * SOON)
    until(lambda: not watchers())
    assert caplog.records == []


@pytest.mark.parametrize("error", [StoreError("a", "b", "c"), OSError("gone"), RuntimeError("bug"), MemoryError()])
def test_errors_do_not_end_it(error, caplog):
    """Whatever a look raises is logged with its trace, and the next look comes all the same."""
    clock = Clock(error)
    watcher = Watcher(clock.tick, SOON)
    for _ in range(3):
        clock.wait()
    watcher.stop()
    records = [record for record in caplog.records if record.name == "hydra_detect.watching"]
    assert len(records) >= 2
    assert {record.levelno for record in records} == {logging.ERROR}
    assert records[0].exc_info[1] is error
    assert records[0].getMessage() == "a look at the store failed; what is loaded keeps serving"


def test_it_keeps_nothing_alive():
    """What is watched can be dropped like anything else, and the thread ends by itself then."""
    clock = Clock()
    watched = weakref.ref(clock)
    watcher = Watcher(clock.tick, SOON)
    clock.wait()
    del clock
    gc.collect()
    until(lambda: watched() is None)
    until(lambda: not watchers())
    watcher.stop()


def test_it_keeps_no_process_alive():
    """A program that forgets to stop watching ends all the same."""
    clock = Clock()
    watcher = Watcher(clock.tick, 3600)
    assert [thread.daemon for thread in watchers()] == [True]
    watcher.stop()


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, "5", True, 1e300, [1]])
def test_intervals_that_cannot_be(seconds):
    """An interval that no thread could wait for is refused, and no thread is started."""
    for act in (check_seconds, lambda seconds: Watcher(Clock().tick, seconds)):
        with pytest.raises(InputError, match=r"cannot watch the store: watch is .*\. Give seconds, above 0\."):
            act(seconds)
    assert watchers() == []


@pytest.mark.parametrize("seconds", [None, 1, 0.001, 86400])
def test_intervals_that_can_be(seconds):
    """Any number of seconds above 0 will do, and none for no looks at all."""
    assert check_seconds(seconds) is None


def test_refreshed_is_a_value():
    """What a refresh came to is a value like any other."""
    assert Refreshed({}, {}) == Refreshed({}, {})
    with pytest.raises(attrs.exceptions.FrozenInstanceError, match="can't set attribute"):
        Refreshed({}, {}).swapped = {"owl": None}


def fail(error):
    """Raise an error, which gives it a trace."""
    raise error


def test_a_refusal_is_the_error_without_its_trace():
    """Why a head was not swapped is the library's own error with its facts, without frames that would hold heads."""
    with pytest.raises(CorruptError, match="it is damaged") as caught:
        fail(CorruptError("read it", "it is damaged", "Restore it.", bytes=5))
    found = refusal("owl", caught.value)
    assert type(found) is CorruptError
    assert (found.to_dict(), found.__traceback__) == (caught.value.to_dict(), None)
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("no room"), RuntimeError("no room")])
def test_a_refusal_of_any_kind(error):
    """Whatever kept a head from being swapped is told in our form: the head, what it was, and what comes next."""
    with pytest.raises(type(error), match="no room"):
        fail(error)
    found = refusal("owl", error)
    assert type(found) is HydraDetectError
    assert (found.asked, found.found) == ("load the new version of 'owl'", f"{type(error).__name__}: no room")
    assert found.remedy == "See to it; each look at the store tries again."
    assert (found.__traceback__, found.__cause__, found.__context__) == (None, None, None)
