"""kill -9 at every step of every operation, and at every step of the recovery after it."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
import worlds
from stopping import CountingDisk, killed
from store_fixtures import snapshot

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import recovery
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

CASES = [
    (operation, state) for operation in worlds.OPERATIONS for state in worlds.STATES if worlds.applies(operation, state)
]


@pytest.fixture(scope="module")
def states():
    """A store in each prior state, in memory."""
    folder = tempfile.mkdtemp(dir=worlds.MEMORY)
    yield worlds.build_states(folder)
    shutil.rmtree(folder)


@pytest.fixture
def scratch(states):
    """A folder beside the states that a test may fill."""
    folder = Path(tempfile.mkdtemp(dir=next(iter(states.values())).parent))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def perform(root, operation, disk):
    """Run an operation with a disk."""
    return worlds.OPERATIONS[operation](worlds.manager_of(root, disk))


def copy_of(root, target):
    """Return a fresh copy of a store."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(root, target, symlinks=True))


def steps_of(root, operation):
    """Return how many steps an operation takes, whether or not it succeeds."""
    disk = CountingDisk(disk=Disk("fast"))
    with contextlib.suppress(HydraDetectError):
        perform(root, operation, disk)
    return disk.log


def shape(root):
    """Return what a stop left behind: the names in a store but for process numbers."""
    return tuple(
        (path.relative_to(root).as_posix() if "tmp/" not in str(path) else f"tmp {path.suffix or path.name[-6:]}")
        for path in sorted(root.rglob("*"))
    )


def recover(root, disk):
    """Do what every writer does before its own work."""
    store = Store.open(root)
    store.disk = disk
    for kind, name in (worlds.OWL, ("heads", "fox"), ("heads", "strix"), ("backbones", "other")):
        recovery.recover(store.disk, store.layout, store.layout.item(kind, name))


def test_kill_at_every_step(states, scratch, tally, exhaustive):
    """Whatever step an operation is killed at, the store is in the old state or the new one, and can be gone on with.

    A step is one system call that changes the disk; half a write is one too. What a kill leaves behind is gone on
    with once for each shape of it, and so is the recovery killed, at two of its steps if not at all.
    """
    cases = tally("kill -9 at every step of every operation")
    recoveries = tally("kill -9 at every step of the recovery after such a kill")
    seen = set()
    for operation, state in CASES:
        root = states[state]
        repaired = state in worlds.DAMAGED
        log = steps_of(copy_of(root, scratch / "count"), operation)
        before = None if repaired else worlds.facts(root)
        done = copy_of(root, scratch / "done")
        worlds.outcome(done, operation)
        after = worlds.facts(done) if operation == "repair" or not repaired else None
        if not repaired:
            worlds.check_sense(operation, before, after)
        for step in range(1, len(log) + 2):
            now = copy_of(root, scratch / "now")
            end = killed(lambda disk, now=now, operation=operation: perform(now, operation, disk), step)
            assert (end == "killed") == (step <= len(log)), (operation, state, step, end)
            left, is_new = (state, shape(now)), False
            if left not in seen:
                seen.add(left)
                is_new = True
                if "tmp " in str(left):
                    kill_recovery(now, scratch, recoveries, (operation, state, step), most=None if exhaustive else 2)
            check(now, operation, state, (before, after), acknowledged=end == "done", go_on=is_new)
            if end == "killed":
                cases.case(operation, state, step)
    total = len(cases) + len(recoveries)
    assert total >= 2000, f"{len(cases)} + {len(recoveries)}"


def check(root, operation, state, worlds_around, *, acknowledged, go_on):
    """See that a store is as promised; a damaged one has to be repairable to what an undisturbed repair gives."""
    before, after = worlds_around
    if state not in worlds.DAMAGED:
        now = worlds.check_world(root, operation, before, after, acknowledged=acknowledged)
        if go_on:
            worlds.check_goes_on(root, max(worlds.highest(before), worlds.highest(now)))
        return
    worlds.manager_of(root, Disk("fast")).repair()
    if after is not None:
        assert worlds.facts(root) == after
    quarantine = root / "heads/owl/quarantine"
    assert len(list(quarantine.iterdir())) == 1, "what was damaged is kept, once"
    worlds.check_goes_on(root, 6)


def kill_recovery(root, scratch, cases, where, *, most):
    """Kill the recovery at its steps, recover again, and see that it comes to the same as undisturbed."""
    disk = CountingDisk(disk=Disk("fast"))
    undisturbed = copy_of(root, scratch / "undisturbed")
    recover(undisturbed, disk)
    expected = contents(undisturbed)
    every = range(1, disk.count + 1)
    for step in every if most is None else every[:: max(1, disk.count // most)]:
        again = copy_of(root, scratch / "again")
        assert killed(lambda disk, again=again: recover(again, disk), step) == "killed"
        recover(again, Disk("fast"))
        assert contents(again) == expected, (where, step)
        cases.case(*where, step)


def contents(root):
    """Return the names and bytes in a store."""
    return {path: facts[3] for path, facts in snapshot(root).items() if "/locks" not in path}


def test_kill_while_a_store_is_made(scratch, tally):
    """A store whose making was killed at any step is made by the next who tries, and is no foreign folder."""
    cases = tally("kill -9 at every step of making a store")
    disk = CountingDisk(disk=Disk("fast"))
    Store(scratch / "count" / "store", disk=disk)._establish()
    for step in range(1, disk.count + 1):
        root = scratch / str(step) / "store"
        assert killed(lambda disk, root=root: Store(root, disk=disk)._establish(), step) == "killed"
        store = Store.create(root)
        assert store.root == root
        assert worlds.facts(root) == {}
        worlds.manager_of(root)
        cases.case("make", step)
    cases.require(disk.count)
