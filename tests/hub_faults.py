"""What can go wrong between the test Hub and its client: which request, and in which way.

    plan = hub.faults.on(Status(503), "POST", "/commit/")          # the first commit
    plan = hub.faults.on(Lose(), "POST", "/commit/", nth=2)        # the reply to the second one
    plan = hub.faults.at(5, Drop())                                # the fifth request from now on, whatever it is
    assert plan.fired

A fault may answer before the Hub does, and may change what the Hub answered. Requests are counted from when the fault
was planned.
"""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hub_http import Reply, answer


class Fault:
    """Something that goes wrong with one request; this one does not."""

    def before(self, request):
        """Return the answer that comes in place of the Hub's, if one does."""

    def after(self, request, reply):  # noqa: ARG002  others look at it
        """Return what becomes of the Hub's answer."""
        return reply


@dataclass
class Status(Fault):
    """Answer an error; with `handled`, only after the Hub did what was asked."""

    status: int
    retry_after: int | None = None
    handled: bool = False
    headers: dict = field(default_factory=dict)

    def before(self, request):
        """Answer in the Hub's place."""
        return None if self.handled else self.after(request, None)

    def after(self, request, reply):  # noqa: ARG002  others look at it
        """Answer an error whatever the Hub answered."""
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return answer({"error": f"fault {self.status}"}, self.status, {**wait, **self.headers})


class Drop(Fault):
    """Close the connection before the Hub does anything."""

    def before(self, request):  # noqa: ARG002  others look at it
        """Answer nothing."""
        return Reply(lost=True)


class Lose(Fault):
    """Close the connection after the Hub did what was asked, before it said so."""

    def after(self, request, reply):  # noqa: ARG002  others look at it
        """Lose the answer."""
        return replace(reply, lost=True)


@dataclass
class Truncate(Fault):
    """Close the connection in the middle of the body, or after so many bytes of it."""

    after_bytes: int | None = None

    def after(self, request, reply):  # noqa: ARG002  others look at it
        """Cut the answer."""
        cut = len(reply.body) // 2 if self.after_bytes is None else self.after_bytes
        return replace(reply, cut=cut) if reply.body else replace(reply, lost=True)


class Corrupt(Fault):
    """Flip a bit in the middle of the body: the size stays the same."""

    def after(self, request, reply):  # noqa: ARG002  others look at it
        """Damage the answer."""
        middle = len(reply.body) // 2
        damaged = bytes([reply.body[middle] ^ 1]) if reply.body else b""
        return replace(reply, body=reply.body[:middle] + damaged + reply.body[middle + 1 :])


@dataclass
class Slow(Fault):
    """Answer late; `stop` ends the wait."""

    seconds: float
    stop: threading.Event = field(default_factory=threading.Event)

    def before(self, request):  # noqa: ARG002  others look at it
        """Wait."""
        self.stop.wait(self.seconds)


@dataclass
class Redirect(Fault):
    """Send the client to the same path of another host."""

    to: str
    status: int = 302

    def before(self, request):
        """Answer with the other address."""
        return Reply(self.status, {"Location": self.to + request.target})


@dataclass
class Hook(Fault):
    """Call something before the Hub answers, or after it did what was asked: it may change the Hub."""

    call: Callable
    late: bool = False

    def before(self, request):
        """Call it early."""
        if not self.late:
            self.call(request)

    def after(self, request, reply):
        """Call it late."""
        if self.late:
            self.call(request)
        return reply


@dataclass
class Alter(Fault):
    """Put something else in place of the answer: `change(reply)` returns it."""

    change: Callable

    def after(self, request, reply):  # noqa: ARG002  others look at it
        """Change the answer."""
        return self.change(reply)


@dataclass
class Plan:
    """When a fault strikes: at the `nth` request that fits and, with `times`, at those that follow."""

    fault: Fault
    method: str | None
    path: re.Pattern
    host: str | None
    nth: int
    times: int | None
    met: int = 0
    fired: int = 0

    def strikes(self, request):
        """Count a request, and return whether it is one that the fault is for."""
        if self.method not in {None, request.method} or self.host not in {None, request.host}:
            return False
        if not self.path.search(request.path):
            return False
        self.met += 1
        late = self.times is not None and self.met >= self.nth + self.times
        if self.met < self.nth or late:
            return False
        self.fired += 1
        return True


@dataclass
class Faults:
    """The faults that are planned; the server asks for each request."""

    plans: list[Plan] = field(default_factory=list)

    def on(self, fault, method=None, path="", *, host=None, nth=1, times=1):
        """Plan a fault for the `nth` request of a kind, and for `times` in all; `times=None` is from then on."""
        self.plans.append(Plan(fault, method, re.compile(path), host, nth, times))
        return self.plans[-1]

    def at(self, nth, fault, *, host=None, times=1):
        """Plan a fault for the `nth` request from now on."""
        return self.on(fault, host=host, nth=nth, times=times)

    def clear(self):
        """Let nothing go wrong from now on; waits end."""
        for plan in self.plans:
            if isinstance(plan.fault, Slow):
                plan.fault.stop.set()
        self.plans.clear()

    def strike(self, request):
        """Return what goes wrong with a request."""
        return [plan.fault for plan in self.plans if plan.strikes(request)]
