"""Random operations and crashes in any order, against a model of what a head is."""

import shutil
import tempfile
from pathlib import Path

import pytest
import worlds
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stopping import CountingDisk, CrashingDisk, Stopped

from hydra_detect.errors import NotFoundError
from hydra_detect.storage import backbones, layout
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

# A step at which the operation is cut off; 0 lets it end, which one in two may, or nothing would ever be there.
CRASH = st.one_of(st.just(0), st.integers(1, 24))

COUNTS = {"operations": 0, "crashes": 0, "longest": 0}


class Model:
    """What a head is, in a few lines: versions, who is active, who was before, who is pinned."""

    def __init__(self):
        self.weights, self.active, self.earlier, self.pinned, self.high = {}, None, [], [], 0

    def copy(self):
        """Return the same, independent."""
        other = Model()
        other.weights, other.earlier = dict(self.weights), list(self.earlier)
        other.active, other.pinned, other.high = self.active, list(self.pinned), self.high
        return other

    def facts(self):
        """Return what can be seen of it."""
        return self.active, tuple(self.earlier), tuple(self.pinned), dict(self.weights)

    def create(self, number, seed):
        """A version more."""
        self.weights[number], self.high = seed, number

    def promote(self, number):
        """Another active version."""
        if number != self.active:
            self.earlier += [self.active] if self.active else []
            self.active = number

    def rollback(self):
        """The one before."""
        self.active = self.earlier.pop()

    def prune(self, keep):
        """Fewer versions."""
        stay = {*sorted(self.weights)[-keep:], self.active, *self.earlier[-1:], *self.pinned}
        self.weights = {number: seed for number, seed in self.weights.items() if number in stay}
        left = [number for number in self.earlier if number in stay]
        # A step back that leads to where one is, is none.
        self.earlier = [number for place, number in enumerate(left) if number != [*left, self.active][place + 1]]


class HeadMachine(RuleBasedStateMachine):
    """One head under random operations, each of which may be cut off at any step."""

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

    def run(self, work, change, crash):
        """Do something that may be cut off at step `crash`; see that the store is the model before or after it.

        `change` takes the model and what `work` returned, None if it was cut off.
        """
        COUNTS["operations"] += 1
        before, after = self.model, self.model.copy()
        disk = CrashingDisk(crash, Disk("fast")) if crash else CountingDisk(disk=Disk("fast"))
        try:
            result, ended = work(worlds.manager_of(self.root, disk)), True
        except Stopped:
            COUNTS["crashes"] += 1
            result, ended = None, False
        except NotFoundError:
            change, result, ended = (lambda _model, _result: None), None, True
        COUNTS["longest"] = max(COUNTS["longest"], disk.count)
        change(after, result)
        now = self.seen()
        if ended:
            assert now == after.facts(), (now, after.facts())
        else:
            assert now in (before.facts(), after.facts()), (now, before.facts(), after.facts())
        self.model = after if now == after.facts() else before
        assert all(number > 0 for number in now[3])

    def seen(self):
        """Return what the store says of the head, each version read and checked."""
        store = Store.open(self.root)
        state = store.head("owl").pointer()
        found = worlds.facts(self.root).get("owl")
        weights = {number: digest for number, (digest, _data) in found[3].items()} if found else {}
        return state.active, state.earlier, state.pinned, weights

    @rule(crash=CRASH)
    def create(self, crash):
        """Publish a version; its number is new for ever."""
        self.seed += 1
        seed, known = self.seed, set(Store.open(self.root).item(*worlds.OWL).numbers())
        digest = str(worlds.head_of(seed)[1].tensors)

        def change(model, version):
            now = set(Store.open(self.root).item(*worlds.OWL).numbers()) - known
            for number in [version.number] if version else now:
                assert number > model.high, f"number {number} was used before"
                model.create(number, digest)

        self.run(lambda manager: worlds.create(manager, seed), change, crash)

    @precondition(lambda self: self.model.weights)
    @rule(crash=CRASH, place=st.integers(0, 30))
    def promote(self, crash, place):
        """Make any version active."""
        number = self.pick(place)
        self.run(lambda manager: manager.promote("owl", number), lambda model, _: model.promote(number), crash)

    @precondition(lambda self: self.model.active)
    @rule(crash=CRASH)
    def rollback(self, crash):
        """Go back, if there is anything to go back to."""
        possible = bool(self.model.earlier)
        self.run(
            lambda manager: manager.rollback("owl"), lambda model, _: model.rollback() if possible else None, crash
        )

    @precondition(lambda self: self.model.weights)
    @rule(crash=CRASH, keep=st.integers(1, 3))
    def prune(self, crash, keep):
        """Take old versions away."""
        self.run(lambda manager: manager.prune("owl", keep=keep), lambda model, _: model.prune(keep), crash)

    @precondition(lambda self: self.model.weights)
    @rule(crash=CRASH, place=st.integers(0, 30))
    def pin(self, crash, place):
        """Pin a version, or let go of it."""
        number = self.pick(place)
        if number in self.model.pinned:
            self.run(lambda manager: manager.unpin("owl", number), lambda model, _: model.pinned.remove(number), crash)
        else:
            self.run(lambda manager: manager.pin("owl", number), lambda model, _: model.pinned.append(number), crash)

    @rule()
    def verify(self):
        """A check finds nothing but what the dead left."""
        COUNTS["operations"] += 1
        report = worlds.manager_of(self.root, Disk("fast")).verify(depth="quick")
        assert report.is_sound, str(report)

    def pick(self, place):
        """Return one of the versions, or number 1 of none."""
        numbers = sorted(self.model.weights)
        return numbers[place % len(numbers)] if numbers else 1


def test_random_operations_and_crashes(tally, exhaustive):
    """After any sequence of operations and crashes the store is what the model is; every version reads back whole."""
    operations, crashes = tally("random operations against a model"), tally("crashes among them")
    least = (100_000, 20_000) if exhaustive else (20_000, 4_000)
    seed = 0
    while COUNTS["operations"] < least[0] or COUNTS["crashes"] < least[1]:
        seed += 1

        class Machine(HeadMachine):
            """One more run: another class, so that Hypothesis draws anew."""

        Machine._hypothesis_internal_use_seed = seed
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=100,
                stateful_step_count=50,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    for number in range(COUNTS["operations"]):
        operations.case(number)
    for number in range(COUNTS["crashes"]):
        crashes.case(number)
    operations.require(least[0])
    crashes.require(least[1])


def test_the_machine_fails_when_it_should(monkeypatch):
    """A rollback that went to the number below, as the first Hydra did, is found by the machine."""
    from hydra_detect.versions import VersionManager

    def wrong(self, head, **_options):
        pointer = self.store.head(head).pointer()
        if pointer.previous is None:
            raise NotFoundError("roll back", "nothing", "")
        below = [number for number in self.store.head(head).numbers() if number < pointer.active]
        return self.promote(head, below[-1] if below else pointer.previous)

    monkeypatch.setattr(VersionManager, "rollback", wrong)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            HeadMachine,
            settings=settings(
                max_examples=300, deadline=None, database=None, phases=[Phase.generate], derandomize=True
            ),
        )
