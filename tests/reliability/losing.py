"""Losing power while an operation runs: at each of its steps, in every way that the steps so far allow. Run apart."""

import contextlib
import functools
import shutil
import tempfile
from pathlib import Path

import worlds
from power import RecordingDisk, Writer, frozen, survivors
from stopping import Stopped

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

CASES = [
    (operation, state)
    for operation in worlds.OPERATIONS
    for state in worlds.STATES
    if worlds.applies(operation, state) and state not in worlds.DAMAGED and operation != "repair"
]
LIKE_OTHERS = frozenset(["six, none active"])
"""Prior states that add little to the others: tried if exhaustive."""
FIRSTS = ("create", "promote newest", "roll back", "pin", "prune", "rename", "remove", "publish a backbone")
SECONDS = (
    "create", "promote newest", "promote the active", "roll back", "pin", "pin again", "unpin", "prune", "rename",
    "remove", "publish a backbone", "publish the backbone again",
)  # fmt: skip
TAKEN_AWAY_BY = frozenset(["prune", "remove"])
"""What the next writer has to finish: until that is done a loss of power may bring back the state before."""
QUICK_SECONDS = ("create", "promote the active", "prune", "publish a backbone")
AFTER_A_KILL = ("create", "promote the active")
DECISIVE = frozenset(["link", "rename", "replace"])


class Losses:
    """Writes down and checks every state that a power loss could leave, each once.

    Args:
        folder: Where.
        case: What was going on.
        go_on_each: Of so many states one is also worked on afterwards: published to, promoted, pruned, verified.
        known: The highest version number that there was before.

    """

    def __init__(self, folder, case, *, go_on_each, known=0):
        self.folder, self.case, self.go_on_each, self.known = folder, case, go_on_each, known
        self.writer, self.seen, self.states = Writer(folder), set(), set()

    def look(self, disk, check, *, acknowledged=False):
        """Check the states that are possible now and were not looked at yet."""
        self.look_at(self.states_of(disk), check, f"step {disk.steps}", acknowledged=acknowledged)

    def states_of(self, disk):
        """Return the states that are possible now."""
        return survivors(disk, seed=str(self.case))

    def look_at(self, states, check, when, *, acknowledged=False):
        """Check those of some states that were not looked at yet."""
        for state in states:
            key = frozen(state)
            if (acknowledged, key) in self.seen:
                continue
            self.seen.add((acknowledged, key))
            self.states.add(key)
            lost = self.folder / "lost"
            self.writer.write(state, lost)
            try:
                found = check(lost)
                if len(self.seen) % self.go_on_each == 0:
                    worlds.check_goes_on(lost, max(self.known, worlds.highest(found)))
            except Exception as error:
                raise AssertionError(f"power lost in {self.case} at {when}: {error}") from error
            shutil.rmtree(lost)

    @property
    def cases(self):
        """What was looked at, each state once."""
        return [(*self.case, number) for number in range(len(self.states))]


def in_states(work):
    """Run some work with a store in each prior state, in memory, and a folder beside them."""

    @functools.wraps(work)
    def run(share, **options):
        with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
            return work(share, worlds.build_states(folder), Path(folder), **options)

    return run


@in_states
def lose_power_everywhere(share, states, scratch, *, exhaustive):
    """Lose the power at every step of every operation in every state."""
    go_on_each = 1 if exhaustive else 40
    chosen = [case for case in CASES if exhaustive or case[1] not in LIKE_OTHERS]
    return [case for one in share(chosen) for case in lose_power(states, scratch, one, go_on_each=go_on_each)]


def lose_power(states, scratch, case, *, go_on_each):
    """Run an operation on a copy of a store and lose the power in every way; return the cases."""
    operation, state = case
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root, done = (Path(folder) / name for name in ("store", "done"))
        disk = RecordingDisk(worlds.linked(states[state], root))
        worlds.outcome(worlds.linked(states[state], done), operation)
        around = worlds.facts(states[state]), worlds.facts(done)
        worlds.check_sense(operation, *around)
        return cut_off(disk, root, operation, around, Losses(Path(folder), case, go_on_each=go_on_each))


def cut_off(disk, root, operation, around, losses):
    """Run an operation; at each of its steps, and at its end, look at what a power loss would leave; return cases.

    What an operation says is done has to last.
    """
    losses.known = max(losses.known, worlds.highest(around[0]))

    def look(*, acknowledged=False):
        def check(lost):
            return worlds.check_world(lost, operation, *around, acknowledged=acknowledged)

        losses.look(disk, check, acknowledged=acknowledged)

    disk.on_step = look
    with contextlib.suppress(HydraDetectError):
        worlds.OPERATIONS[operation](worlds.manager_of(root, disk))
        look(acknowledged=True)
    return losses.cases


@in_states
def lose_power_in_the_second(share, states, scratch, *, exhaustive):
    """Let one operation end, and lose the power at every step of another that follows it on the same disk."""
    pairs = [(first, second) for first in FIRSTS for second in (SECONDS if exhaustive else QUICK_SECONDS)]
    go_on_each = 4 if exhaustive else 100
    return [case for pair in share(pairs) for case in lose_power_in_one_that_follows(states, scratch, pair, go_on_each)]


def lose_power_in_one_that_follows(states, scratch, pair, go_on_each):
    """Run two operations one after the other, and cut off the second; return the cases."""
    first, second = pair
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root, done = (Path(folder) / name for name in ("store", "done"))
        disk = RecordingDisk(worlds.linked(states["six, pinned"], root))
        worlds.linked(states["six, pinned"], done)
        for operation in pair:
            before = worlds.facts(done)
            worlds.outcome(done, operation)
        with contextlib.suppress(HydraDetectError):
            worlds.OPERATIONS[first](worlds.manager_of(root, disk))
        losses = Losses(Path(folder), ("after", *pair), go_on_each=go_on_each, known=6)
        return cut_off(RecordingDisk(root, disk), root, second, (before, worlds.facts(done)), losses)


@in_states
def lose_power_after_kills(share, states, scratch, *, exhaustive):
    """Kill an operation, let another process work to its end in the same store, then lose the power.

    The first is killed just after each of its links and renames; after each of its steps if exhaustive.
    """
    pairs = [(first, second) for first in FIRSTS for second in (SECONDS if exhaustive else AFTER_A_KILL)]
    found = []
    for pair in share(pairs):
        kinds, step = [""], 1
        while step <= len(kinds):
            if exhaustive or kinds[step - 1] in {*DECISIVE, ""}:
                kinds, cases = lose_power_after_a_kill(states, scratch, pair, step)
                found += cases
            step += 1
    return found


def lose_power_after_a_kill(states, scratch, pair, step):
    """Kill the first of two operations at a step; return the steps that it has, and the cases.

    What the second is told is done must last, though it builds on what the first never synced; and while it
    finishes what the first began, a loss at any step leaves one of the states that there were.
    """
    first, second = pair
    state = "six, promoted" if {first, second} & {"rename", "remove"} else "six, pinned"
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root = worlds.linked(states[state], Path(folder) / "store")
        before = worlds.facts(root)
        log = kinds_of(states[state], Path(folder) / "count", first)
        disk = RecordingDisk(root)

        def stop():
            if disk.steps >= step:
                raise Stopped

        disk.on_step = stop
        with worlds.mortal(), contextlib.suppress(Stopped, HydraDetectError):
            worlds.OPERATIONS[first](worlds.manager_of(root, disk))
        between = worlds.facts(root)
        following, meanwhile = RecordingDisk(root, disk), []
        losses = Losses(Path(folder), (f"{first}, killed at {step}", second), go_on_each=100, known=6)

        def look_meanwhile():
            if "create" not in following.log:  # the recovery, which comes before
                meanwhile.extend(losses.states_of(following))

        if first in TAKEN_AWAY_BY and second == "create":
            following.on_step = look_meanwhile
        try:
            told = worlds.OPERATIONS[second](worlds.manager_of(root, following))
        except HydraDetectError:
            return log, []
        live = worlds.facts(root)
        around = (*worlds.allowed(first, before, live), between, live)

        def check_meanwhile(lost):
            now = worlds.facts(lost)
            worlds.check_between(now, told, around)
            return now

        def check(lost):
            now = worlds.facts(lost)
            worlds.check_acknowledged(now, second, told, around)
            return now

        losses.look_at(meanwhile, check_meanwhile, "one of its steps")
        losses.look(following, check, acknowledged=True)
        return log, losses.cases


def kinds_of(origin, root, operation):
    """Return the kinds of steps of an operation."""
    disk = RecordingDisk(worlds.linked(origin, root))
    with contextlib.suppress(HydraDetectError):
        worlds.OPERATIONS[operation](worlds.manager_of(root, disk))
    return disk.log


@in_states
def lose_power_while_repairing(share, states, scratch):
    """Lose the power while each damaged store is repaired; return the cases."""
    return [case for state in share(sorted(worlds.DAMAGED)) for case in lose_power_in_a_repair(states, scratch, state)]


def lose_power_in_a_repair(states, scratch, state):
    """Lose the power in every way while a damaged store is repaired: what was damaged is never lost, nor believed."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root, done = (worlds.linked(states[state], Path(folder) / name) for name in ("store", "done"))
        evidence = {path.read_bytes() for path in root.rglob("*") if path.is_file() and "tmp" not in path.parts}
        worlds.outcome(done, "repair")
        after = worlds.facts(done)
        losses = Losses(Path(folder), ("repair", state), go_on_each=4, known=6)

        def check(lost):
            left = {path.read_bytes() for path in lost.rglob("*") if path.is_file()}
            assert evidence <= left, "something that was there is nowhere any more"
            worlds.manager_of(lost, Disk("fast")).repair()
            worlds.check_evidence(lost, state)
            found = worlds.facts(lost)
            assert found == after, f"another repair came to {found} instead of {after}"
            return found

        def check_acknowledged(lost):
            assert worlds.manager_of(lost, Disk("fast")).verify().is_sound, "repaired, and damaged again"
            assert worlds.facts(lost) == after, "repaired, and otherwise"
            return check(lost)

        disk = RecordingDisk(root)
        disk.on_step = lambda: losses.look(disk, check)
        worlds.manager_of(root, disk).repair()
        losses.look(disk, check_acknowledged, acknowledged=True)
        return losses.cases


def lose_power_while_a_store_is_made(share):
    """Lose the power while a store is made, also where another process was killed at it before; return the cases."""
    found = []
    for killed_at in share(range(30)):
        with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
            found += lose_power_in_a_new_store(Path(folder), killed_at)
    return found


def lose_power_in_a_new_store(scratch, killed_at):
    """Lose the power while a store is made: one that was made is there, and one that was being made can be made.

    Args:
        scratch: An empty folder.
        killed_at: The step at which another process was killed that made it before; 0 if there was none.

    """
    parent = scratch / "disk"
    parent.mkdir()
    root, first = parent / "a" / "store", RecordingDisk(parent)

    def stop():
        if first.steps >= killed_at:
            raise Stopped

    first.on_step = stop
    with worlds.mortal(), contextlib.suppress(Stopped):
        if killed_at:
            Store(root, disk=first)._establish()
    losses, disk = Losses(scratch, ("make", killed_at), go_on_each=1 << 30), RecordingDisk(parent, first)

    def check(lost):
        return worlds.facts(Store.create(lost / "a" / "store").root)

    def check_acknowledged(lost):
        Store.open(lost / "a" / "store")
        return check(lost)

    disk.on_step = lambda: losses.look(disk, check)
    store = Store.find(root) or Store(root, disk=disk)
    store.disk = disk
    store._establish()
    losses.look(disk, check_acknowledged, acknowledged=True)
    return losses.cases
