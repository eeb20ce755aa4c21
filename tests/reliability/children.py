"""Work in a child process: what it returned, which error it ended with, whether it is still at it."""

import json
import os
import select
import signal
import traceback
import warnings

from hydra_detect.errors import HydraDetectError


class Child:
    """A forked process that does one piece of work and reports how it ended.

    It can be waited for and killed; leaving its `with` block kills it if it is still there.
    """

    def __init__(self, work):
        self._report, say = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the child runs no other thread's code
            self.pid = os.fork()
        if not self.pid:
            _work(work, say)
        os.close(say)
        self._ended = None

    def __enter__(self):
        """Return the child itself."""
        return self

    def __exit__(self, *_error):
        """See that no process stays."""
        if self._ended is None:
            self.kill()

    def result(self, seconds):
        """Return how the work ended, as a dict with "end", or None if it did not within that time."""
        if self._ended is None:
            ready, _, _ = select.select([self._report], [], [], seconds)
            if not ready:
                return None
            with os.fdopen(self._report, "rb") as file:
                text = file.read()
            os.waitpid(self.pid, 0)
            self._ended = json.loads(text) if text else {"end": "silent"}
        return self._ended

    def kill(self):
        """Kill it as `kill -9` does."""
        os.kill(self.pid, signal.SIGKILL)
        self.result(None)


def result_of(work):
    """Do some work in a child and return how it ended."""
    with Child(work) as child:
        return child.result(None)


def _work(work, say):
    """Do the work, report, leave; never returns."""
    try:
        try:
            facts = {"end": "done", "returned": work()}
        except HydraDetectError as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            facts = {"end": "error", "kinds": kinds, "text": str(error), "errno": error.facts.get("errno")}
        except BaseException:  # noqa: BLE001  whatever it is, it goes to the test
            facts = {"end": "bare", "text": traceback.format_exc()}
        os.write(say, json.dumps(facts).encode())
    finally:
        os._exit(0)
