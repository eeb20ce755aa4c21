"""kill -9 at every step of every operation, and of the recovery after it: run apart, see `apart`."""

import contextlib
import re
import tempfile
from pathlib import Path

import worlds
from stopping import CountingDisk, killed
from store_fixtures import snapshot

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage import recovery
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

STAGED = re.compile(r"[a-z0-9-]+\.[0-9]+\.[0-9]+\.[0-9a-f]{32}")
CASES = [
    (operation, state) for operation in worlds.OPERATIONS for state in worlds.STATES if worlds.applies(operation, state)
]

LIKE_OTHERS = frozenset(["one version", "six, none active", "listed"])
"""Prior states that add little to the others: tried if exhaustive."""


def kill_at_every_step(share, *, exhaustive):
    """Kill each operation at each of its steps; return the kills, and the kills of the recoveries after them.

    A step is one system call that changes the disk; half a write is one too. At whatever step, the store has to be in
    the old state or the new one. What a kill left behind is gone on with once for each shape of it, and its recovery is
    killed in turn, at every step.
    """
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        states = worlds.build_states(folder)
        killing = Killing(Path(folder))
        for operation, state in share([case for case in CASES if exhaustive or case[1] not in LIKE_OTHERS]):
            killing.kill(operation, state, states[state])
        return [killing.kills, killing.recoveries]


class Killing:
    """What was killed so far, and which shapes of leftovers were seen."""

    def __init__(self, scratch):
        self.scratch = scratch
        self.kills, self.recoveries, self.seen = [], [], set()

    def kill(self, operation, state, root):
        """Kill an operation at each of its steps, and see to what is left."""
        log = steps_of(worlds.linked(root, self.scratch / "count"), operation)
        around = self.around(operation, state, root)
        for step in range(1, len(log) + 2):
            now = worlds.linked(root, self.scratch / "now")
            end = killed(lambda disk, now=now: perform(now, operation, disk), step)
            assert (end == "killed") == (step <= len(log)), (operation, state, step, end)
            where, shape = (operation, state, step), left_behind(now)
            is_new = (state, shape) not in self.seen
            unfinished = tuple(recovery.unfinished(Store.open(now).head("owl")))
            leftovers = (*unfinished, *(entry for entry in shape if "staged" in entry[0]))
            is_new_to_recover = bool(leftovers) and leftovers not in self.seen
            self.seen.update([(state, shape), leftovers])
            if is_new_to_recover:
                self.kill_recovery(now, where)
            try:
                check(now, operation, state, around, acknowledged=end == "done", go_on=is_new)
            except Exception as error:
                raise AssertionError(f"killed at {where}: {error}") from error
            if end == "killed":
                self.kills.append(where)

    def around(self, operation, state, root):
        """Return what a store says before an operation and after it; of a damaged one, after its repair alone."""
        done = worlds.linked(root, self.scratch / "done")
        before = None if state in worlds.DAMAGED else worlds.facts(root)
        worlds.outcome(done, operation)
        if before is None:
            return None, worlds.facts(done) if operation == "repair" else None
        after = worlds.facts(done)
        worlds.check_sense(operation, before, after)
        return before, after

    def kill_recovery(self, root, where):
        """Kill the recovery at its steps, recover again, and see that it comes to the same as undisturbed."""
        disk = CountingDisk(disk=Disk("fast"))
        undisturbed = worlds.linked(root, self.scratch / "undisturbed")
        worlds.recover(undisturbed, disk)
        expected = contents(undisturbed)
        if where[1] not in worlds.DAMAGED:
            assert worlds.facts(undisturbed) == worlds.facts(root), f"recovery changed what there was, after {where}"
        for step in range(1, disk.count + 1):
            again = worlds.linked(root, self.scratch / "again")
            assert killed(lambda disk, again=again: worlds.recover(again, disk), step) == "killed"
            worlds.recover(again, Disk("fast"))
            assert contents(again) == expected, (where, step)
            self.recoveries.append((*where, step))


def perform(root, operation, disk):
    """Run an operation with a disk."""
    return worlds.OPERATIONS[operation](worlds.manager_of(root, disk))


def steps_of(root, operation):
    """Return the steps that an operation takes, whether or not it succeeds."""
    disk = CountingDisk(disk=Disk("fast"))
    with contextlib.suppress(HydraDetectError):
        perform(root, operation, disk)
    return disk.log


def left_behind(root):
    """Return the shape of a store: names and sizes, but for whose and when."""
    return tuple(
        sorted(
            (STAGED.sub("staged", path.relative_to(root).as_posix()), path.stat().st_size if path.is_file() else 0)
            for path in root.rglob("*")
            if "locks" not in path.parts
        )
    )


def contents(root):
    """Return the names and bytes in a store."""
    return {path: facts[3] for path, facts in snapshot(root).items() if "locks" not in path.split("/")}


def check(root, operation, state, around, *, acknowledged, go_on):
    """See that a store is as promised; a damaged one has to be repairable to what an undisturbed repair gives."""
    before, after = around
    if acknowledged and operation == "create":
        worlds.check_newest(root)
    if state not in worlds.DAMAGED:
        now = worlds.check_world(root, operation, before, after, acknowledged=acknowledged)
        if go_on:
            worlds.check_goes_on(root, max(worlds.highest(before), worlds.highest(now)))
        return
    worlds.manager_of(root, Disk("fast")).repair()
    if acknowledged and operation == "create":
        worlds.check_newest(root)
    if after is not None:
        assert worlds.facts(root) == after
    worlds.check_evidence(root, state)
    worlds.check_goes_on(root, 6)


def kill_while_a_store_is_made(share):
    """Kill the making of a store at each step; the next who tries has to make it, in folders that are there or not."""
    found = []
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        scratch = Path(folder)
        for depth in ("store", "folder/store"):
            disk = CountingDisk(disk=Disk("fast"))
            (scratch / depth / "count").parent.mkdir(parents=True)
            Store(scratch / depth / "count" / "store", disk=disk)._establish()
            for step in share(range(1, disk.count + 1)):
                root = scratch / depth / str(step) / "store"
                assert killed(lambda disk, root=root: Store(root, disk=disk)._establish(), step) == "killed"
                assert worlds.facts(Store.create(root).root) == {}
                found.append((depth, step))
    return found
