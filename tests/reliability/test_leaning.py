"""Stopped while a compact head is published: whatever can be seen of it has what it leans on, and keeps it."""

import contextlib
import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
import worlds
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from losing import Losses
from power import RecordingDisk
from stopping import CrashingDisk, Stopped
from store_fixtures import rewrite

from hydra_detect.errors import ConflictError, NotFoundError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads, layout, references
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

CRASHES = st.one_of(st.just(0), st.integers(1, 90))
"""The step at which an operation is cut off; 0 lets it end."""


@pytest.fixture(params=["one active", "six, promoted"])
def before(request):
    """A store in a prior state, and a folder beside it."""
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        states = worlds.build_states(folder)
        yield request.param, states[request.param], Path(folder)


def keeps_what_it_leans_on(root):
    """See that what there is of the fox can be used, however much of the owl is pruned, and that all can go on."""
    manager, found = worlds.manager_of(root, Disk("fast")), worlds.facts(root)
    there, oldest = manager.store.head("fox").numbers(), manager.store.head("owl").numbers()[0]
    for seed in range(50, 53):
        manager.promote("owl", worlds.create(manager, seed).number)
    manager.prune("owl", keep=1)
    for number in there:
        references.load(manager.store, heads.find(manager.store, f"fox@{number}").record, "use it")
    assert (oldest in manager.store.head("owl").numbers()) is bool(there)
    assert worlds.lean(manager).number > max(there, default=0)
    assert not manager.repair().findings
    return found


def test_killed(before, tally):
    """Killed at any step, it leaves no compact version, or one whose reference stays."""
    cases = tally("kills while a compact head is published")
    state, root, scratch = before
    for step in itertools.count(1):
        now = worlds.linked(root, scratch / "now")
        try:
            with worlds.mortal():
                worlds.lean(worlds.manager_of(now, CrashingDisk(step, Disk("fast"))))
        except Stopped:
            keeps_what_it_leans_on(now)
            cases.case(state, step)
        else:
            break
    assert worlds.manager_of(now).store.head("fox").numbers() == [1]
    cases.require(40)


def test_power_loss(before, tally):
    """Whatever a loss of power leaves at any step, it is no compact version, or one whose reference stays."""
    cases = tally("states of the disk after a power loss while a compact head is published")
    state, root, scratch = before
    disk = RecordingDisk(worlds.linked(root, scratch / "now"))
    losses = Losses(scratch, ("lean", state), go_on_each=1 << 30)
    disk.on_step = lambda: losses.look(disk, keeps_what_it_leans_on)
    made = worlds.lean(worlds.manager_of(scratch / "now", disk))

    def is_there(lost):
        assert heads.find(worlds.manager_of(lost).store, made.ref) == made
        return keeps_what_it_leans_on(lost)

    losses.look(disk, is_there, acknowledged=True)
    cases.cases.update(losses.cases)
    cases.require(100)


class Leaning(RuleBasedStateMachine):
    """Full and compact heads under random operations, each of which may be cut off: none loses what it leans on."""

    @initialize()
    def begin(self):
        """Make a store with a full head."""
        self.folder = Path(tempfile.mkdtemp(dir=worlds.MEMORY))
        self.root = Store.create(self.folder / "store", durability="fast").root
        backbones.publish(Store.open(self.root), "demo", worlds.BACKBONE_RECORD, worlds.BACKBONE)
        self.seed, self.full = 0, "owl-0"
        self.create(crash=0)

    def teardown(self):
        """Remove the store."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, work, crash):
        """Do something that may be cut off at a step, or refused."""
        disk = CrashingDisk(crash, Disk("fast")) if crash else Disk("fast")
        with contextlib.suppress(Stopped, ConflictError, NotFoundError), worlds.mortal():
            work(worlds.manager_of(self.root, disk))
        names = Store.open(self.root).names(layout.HEADS)
        self.full = next((name for name in reversed(names) if name.startswith("owl")), f"owl-{self.seed}")

    @rule(crash=CRASHES)
    def create(self, crash):
        """Publish a version of the full head."""
        self.seed += 1
        self.run(lambda manager: worlds.create(manager, self.seed, self.full), crash)

    @rule(crash=CRASHES, place=st.integers(0, 9))
    def lean(self, crash, place):
        """Publish a compact version that leans on one of the full ones."""
        self.seed += 1
        self.run(lambda manager: worlds.lean(manager, self.full, place, seed=self.seed), crash)

    @rule(crash=CRASHES, keep=st.integers(1, 2), is_compact=st.booleans())
    def prune(self, crash, keep, is_compact):
        """Take old versions away."""
        self.run(lambda manager: manager.prune("fox" if is_compact else self.full, keep=keep), crash)

    @rule(crash=CRASHES)
    def rename(self, crash):
        """Give the full head another name, or finish what was begun."""
        self.seed += 1
        old = min((n for n in Store.open(self.root).names(layout.HEADS) if n.startswith("owl")), default=self.full)
        new = self.full if self.full != old else f"owl-{self.seed + 1000}"
        self.run(lambda manager: HeadRegistry(manager.store).rename(old, new), crash)

    @rule(crash=CRASHES)
    def remove(self, crash):
        """Take the full head away, which is refused while something leans on it."""
        self.run(lambda manager: HeadRegistry(manager.store).remove(self.full), crash)

    @rule(crash=CRASHES, place=st.integers(0, 9), is_restored=st.booleans())
    def damage(self, crash, place, is_restored):
        """Damage a note beside a full version, and repair the store."""
        numbers = Store.open(self.root).head(self.full).numbers()
        if numbers:
            note = Store.open(self.root).head(self.full).place.version(numbers[place % len(numbers)]) / worlds.NOTE
            kept = note.read_bytes()
            rewrite(note, bytes([kept[0] ^ 1]) + kept[1:])
            self.run(lambda manager: manager.repair(), crash)
            if is_restored and note.exists():
                rewrite(note, kept)

    @invariant()
    def keeps_what_it_leans_on(self):
        """Whatever can be seen of the compact head can be used."""
        store = Store.open(self.root)
        for number in store.head("fox").numbers():
            references.load(store, heads.find(store, f"fox@{number}").record, "use it")


def test_in_any_order():
    """Whatever is done to heads that others lean on, in any order and cut off anywhere, none loses what it leans on."""
    run_state_machine_as_test(
        Leaning,
        settings=settings(max_examples=25, stateful_step_count=30, deadline=None, database=None,
                          suppress_health_check=list(HealthCheck)),
    )  # fmt: skip
