"""Random operations and crashes in any order, against a model of what a head is. Run apart."""

import contextlib
import hashlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import worlds
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from stopping import CountingDisk, CrashingDisk, Stopped

from hydra_detect.errors import NotFoundError
from hydra_detect.storage import backbones
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

PARTS = 1000
# Where an operation is cut off, as a part of the steps that it usually has; 0 lets it end, which one in two may, or
# nothing would ever be there.
CRASH = st.one_of(st.just(0), st.sampled_from(range(20, PARTS + 1, 20)))
USUAL = {"create": 42, "promote": 24, "rollback": 24, "prune": 48, "pin": 24, "unpin": 24}
"""About as many steps as each has; a crash beyond its last is none."""


SHARED = 1.15
"""How many more each process does, because what two of them did counts once."""


class Model:
    """What a head is: versions, who is active, who was before, who is pinned, and what is told of it."""

    def __init__(self):
        self.weights, self.active, self.earlier, self.pinned, self.high, self.told = {}, None, [], [], 0, []

    def copy(self):
        """Return the same, independent."""
        other = Model()
        other.weights, other.earlier = dict(self.weights), list(self.earlier)
        other.active, other.pinned, other.high = self.active, list(self.pinned), self.high
        other.told = list(self.told)
        return other

    def facts(self):
        """Return what can be seen of it."""
        return self.active, tuple(self.earlier), tuple(self.pinned), dict(self.weights)

    def key(self):
        """Return the same, and the highest number, as something that a set can hold."""
        return self.active, tuple(self.earlier), tuple(self.pinned), tuple(self.weights), self.high

    def create(self, number, digest):
        """A version more."""
        self.weights[number], self.high = digest, number

    def promote(self, number):
        """Another active version."""
        if number != self.active:
            self.earlier += [self.active] if self.active else []
            self.active = number
            self.tell("promoted")

    def rollback(self):
        """The one before."""
        self.active = self.earlier.pop()
        self.tell("rolled back")

    def pin(self, number):
        """A pin more."""
        self.pinned.append(number)
        self.tell("pinned")

    def unpin(self, number):
        """A pin fewer."""
        self.pinned.remove(number)
        self.tell("unpinned")

    def prune(self, keep):
        """Fewer versions."""
        stay = {*sorted(self.weights)[-keep:], self.active, *self.earlier[-1:], *self.pinned}
        if not stay >= set(self.weights):
            self.tell("pruned")
        self.weights = {number: digest for number, digest in self.weights.items() if number in stay}
        left = [number for number in self.earlier if number in stay]
        # A step back that leads to where one is, is none.
        self.earlier = [number for place, number in enumerate(left) if number != [*left, self.active][place + 1]]

    def tell(self, what):
        """What happened, and who is active since."""
        self.told.append((what, self.active))


class Counts:
    """What was done: operations and crashes, each distinct one once, and the steps that were crashed at."""

    def __init__(self):
        self.operations, self.crashes, self.verifications, self.kinds = set(), set(), 0, Counter()


class HeadMachine(RuleBasedStateMachine):
    """One head under random operations, each of which may be cut off at any step."""

    counts = Counts()

    @initialize()
    def begin(self):
        """Make a store with a backbone."""
        self.folder = Path(tempfile.mkdtemp(dir=worlds.MEMORY))
        self.root = Store.create(self.folder / "store", durability="fast").root
        store = Store.open(self.root, durability="fast")
        backbones.publish(store, "demo", worlds.BACKBONE_RECORD, worlds.BACKBONE)
        self.model, self.seed = Model(), 0

    def teardown(self):
        """Remove the store."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, work, change, crash, what, *, is_possible=True):
        """Do something that may be cut off; see that the store is the model before or after it.

        Args:
            work: Takes a manager.
            change: Takes the model and what `work` returned, None if it was cut off.
            crash: Where, as a part of the operation's usual steps.
            what: The operation and its argument.
            is_possible: Whether it may not be refused.

        """
        before, after = self.model, self.model.copy()
        at = -(-crash * USUAL[what[0]] // PARTS)
        disk = CrashingDisk(at, Disk("fast")) if at else CountingDisk(disk=Disk("fast"))
        refused = False
        try:
            with worlds.mortal() if at else contextlib.nullcontext():
                result, ended = work(worlds.manager_of(self.root, disk)), True
        except Stopped:
            result, ended = None, False
            self.counts.crashes.add((what, at, before.key()))
            self.counts.kinds[what[0], disk.log[at - 1]] += 1
        except NotFoundError:
            assert not is_possible, f"{what} was refused"
            result, ended, refused = None, True, True
        self.counts.operations.add((what, 0 if ended else at, before.key()))
        if not refused:
            change(after, result)
        now = self.seen()
        if ended:
            assert now == after.facts(), (now, after.facts())
        else:
            assert now in (before.facts(), after.facts()), (now, before.facts(), after.facts())
        self.model = after if now == after.facts() else before

    def seen(self):
        """Return what the store says of the head, each version read and checked; again where its files were touched."""
        state = Store.open(self.root).head("owl").pointer()
        found = worlds.facts(self.root, with_history=False).get("owl")
        weights = {number: digest for number, (digest, *_rest) in found[3].items()} if found else {}
        return state.active, state.earlier, state.pinned, weights

    @rule(crash=CRASH)
    def create(self, crash):
        """Publish a version; its number is new for ever, and it is one."""
        self.seed += 1
        own, known = self.seed, set(Store.open(self.root).head("owl").numbers())
        digest = str(worlds.head_of(own)[1].tensors)

        def change(model, version):
            added = set(Store.open(self.root).head("owl").numbers()) - known
            assert len(added) <= 1, f"{len(added)} versions of one creation"
            for number in [version.number] if version else added:
                assert number > model.high, f"number {number} was used before"
                model.create(number, digest)

        self.run(lambda manager: worlds.create(manager, own), change, crash, ("create",))

    @precondition(lambda self: self.model.weights)
    @rule(crash=CRASH, place=st.integers(0, 30))
    def promote(self, crash, place):
        """Make any version active."""
        number = self.pick(place)
        change = lambda model, _: model.promote(number)  # noqa: E731
        self.run(lambda manager: manager.promote("owl", number), change, crash, ("promote", number))

    @precondition(lambda self: self.model.active)
    @rule(crash=CRASH)
    def rollback(self, crash):
        """Go back; where there is nothing to go back to, that is refused."""
        possible = bool(self.model.earlier)

        change = (lambda model, _: model.rollback()) if possible else _refused
        self.run(lambda manager: manager.rollback("owl"), change, crash, ("rollback",), is_possible=possible)

    @precondition(lambda self: self.model.weights)
    @rule(crash=CRASH, keep=st.integers(1, 3))
    def prune(self, crash, keep):
        """Take old versions away."""
        change = lambda model, _: model.prune(keep)  # noqa: E731
        self.run(lambda manager: manager.prune("owl", keep=keep), change, crash, ("prune", keep))

    @precondition(lambda self: self.model.weights)
    @rule(crash=CRASH, place=st.integers(0, 30))
    def pin(self, crash, place):
        """Pin a version, or let go of it."""
        number = self.pick(place)
        verb, change = (
            ("unpin", lambda model, _: model.unpin(number))
            if number in self.model.pinned
            else ("pin", lambda model, _: model.pin(number))
        )
        self.run(lambda manager: getattr(manager, verb)("owl", number), change, crash, (verb, number))

    @rule()
    def verify(self):
        """A check finds nothing but what the dead left, and the history tells what happened."""
        report = worlds.manager_of(self.root, Disk("fast")).verify(depth="quick")
        assert report.is_sound, str(report)
        assert {finding.what for finding in report.findings} <= worlds.WAITING, str(report)
        created, happened = worlds.story(Store.open(self.root), "owl")
        assert [(what, active) for what, _head, _versions, _other, active, *_why in happened] == self.model.told
        assert {number for _head, number, _actor in created} >= set(self.model.weights)
        self.counts.verifications += 1

    def pick(self, place):
        """Return one of the versions."""
        numbers = sorted(self.model.weights)
        return numbers[place % len(numbers)]


def _refused(_model, _result):
    message = "done, though there was nothing to go back to"
    raise AssertionError(message)


def run_machines(share, *, operations, crashes):
    """Run random sequences until there were so many operations and crashes, each distinct; return what was done."""
    counts, number, alone = Counts(), share.number, SHARED / share.of
    while len(counts.operations) < operations * alone or len(counts.crashes) < crashes * alone:
        number += share.of

        @seed(number)
        class Machine(HeadMachine):
            """One more run: another class, so that Hypothesis draws anew."""

        Machine.counts = counts
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=10,
                stateful_step_count=80,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    kinds = [(*kind, count) for kind, count in sorted(counts.kinds.items())]
    return {"operations": _marks(counts.operations), "crashes": _marks(counts.crashes), "kinds": kinds}


def _marks(cases):
    """Return a short mark of each case, by which it is known among the cases of another process."""
    return [hashlib.blake2b(repr(case).encode(), digest_size=8).hexdigest() for case in cases]
