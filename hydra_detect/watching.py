"""Watching a store: what a look at it came to, and a thread that looks again and again."""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.errors import HydraDetectError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hydra_detect.records import VersionRecord

_LOG = logging.getLogger(__name__)


@attrs.frozen
class Refreshed:
    """What a refresh did: heads swapped to their new version, and heads whose new version was refused and why."""

    swapped: Mapping[str, VersionRecord]
    refused: Mapping[str, HydraDetectError]


def refusal(name: str, error: Exception) -> HydraDetectError:
    """Return why a head was not swapped, without a traceback: that would keep heads alive in its frames."""
    if isinstance(error, HydraDetectError):
        return copy.copy(error)
    found = f"{type(error).__name__}: {error}"
    return HydraDetectError(
        f"load the new version of {name!r}", found, "See to it; each look at the store tries again."
    )


def check_seconds(seconds: float | None) -> None:
    """See that there can be a wait of this length between two looks; None is for no looks at all.

    Raises:
        InputError: If it is no number above 0.

    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is not None and not (is_number and 0 < seconds < threading.TIMEOUT_MAX):
        raise InputError("watch the store", f"watch is {seconds!r:.60}", "Give seconds, above 0.")


class Watcher:
    """A thread that calls a method every few seconds, until it is stopped or the method's object is dropped.

    Args:
        call: A bound method; only a weak reference to its object is kept.
        seconds: Between two calls.

    Raises:
        InputError: If `seconds` is no number above 0.

    """

    def __init__(self, call: Callable[[], Any], seconds: float) -> None:
        check_seconds(seconds)
        self._call = weakref.WeakMethod(call)
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hydra-detect-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; a call in progress is waited for."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            call = self._call()
            if call is None:
                return
            try:
                call()
            except Exception:  # noqa: BLE001  see below
                # A service that has a working head must keep it, whatever happens to the store.
                _LOG.exception("a look at the store failed; what is loaded keeps serving")
            del call  # or this thread would keep the object alive while it sleeps
