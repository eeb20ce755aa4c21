"""Detectors that follow the store by themselves: a thread that looks again and again, and ends with them."""

import gc
import time
import weakref

import pytest
import refresh_fixtures
from refresh_fixtures import SOON, damage, found, numbers, point, until, watchers

from hydra_detect import HydraDetector
from hydra_detect.errors import CorruptError, InputError

manager, follower = refresh_fixtures.manager, refresh_fixtures.follower
nobody_is_left = refresh_fixtures.nobody_is_left
pytestmark = pytest.mark.usefixtures("nobody_is_left")


def test_watching_follows_until_it_is_closed(manager):
    """A detector that watches follows by itself; closed, it serves on and follows no more."""
    with HydraDetector.from_store(manager.store, device="cpu", watch=SOON) as detector:
        assert len(watchers()) == 1
        manager.promote("rbc", 2)
        until(lambda: numbers(detector)["rbc"] == 2)
        manager.rollback("rbc")
        until(lambda: numbers(detector)["rbc"] == 1)
    assert watchers() == []
    manager.promote("rbc", 2)
    time.sleep(5 * SOON)
    assert numbers(detector)["rbc"] == 1
    assert found(detector)
    assert list(detector.refresh().swapped) == ["rbc"]
    detector.close()


def test_what_the_thread_was_refused_can_be_asked(manager):
    """A service that watches can ask the detector why a head does not follow, and sees when all is well again."""
    damage(manager, 2)
    with HydraDetector.from_store(manager.store, device="cpu", watch=SOON) as detector:
        point(manager, 2)
        until(lambda: detector.last_refresh.refused)
        assert isinstance(detector.last_refresh.refused["rbc"], CorruptError)
        assert numbers(detector)["rbc"] == 1
        damage(manager, 2)  # the same bit again, which mends it
        until(lambda: numbers(detector)["rbc"] == 2)
        until(lambda: not detector.last_refresh.refused)


def test_watching_ends_with_the_detector(manager):
    """A detector that is dropped is freed, although a thread was watching for it, and the thread ends."""
    detector = HydraDetector.from_store(manager.store, device="cpu", watch=SOON)
    network = weakref.ref(detector._heads["rbc"].network)
    time.sleep(3 * SOON)
    del detector
    gc.collect()
    until(lambda: network() is None)
    until(lambda: not watchers())


def test_nobody_watches_unasked(follower, manager):
    """Unasked no thread is started and closing does nothing; an interval that cannot be is refused."""
    assert watchers() == []
    follower.close()
    for seconds in (0, -1.0, float("nan"), "5"):
        with pytest.raises(InputError, match="Give seconds, above 0"):
            HydraDetector.from_store(manager.store, device="cpu", watch=seconds)
    assert watchers() == []
