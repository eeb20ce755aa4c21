"""Losing power while an operation runs: at each of its steps, in every way that the steps so far allow."""

import contextlib
import shutil
import tempfile
from pathlib import Path

import worlds
from power import RecordingDisk, Writer, frozen, survivors
from stopping import Stopped

from hydra_detect.errors import HydraDetectError
from hydra_detect.storage.disk import Disk


class Losses:
    """Writes down and checks every state that a power loss could leave, each once."""

    def __init__(self, folder, case, *, go_on_each, count):
        self.folder, self.case, self.go_on_each, self.count = folder, case, go_on_each, count
        self.writer, self.seen = Writer(folder), set()

    def look(self, disk, check, *, acknowledged=False):
        """Check the states that are possible now and were not looked at yet."""
        for state in survivors(disk, seed=str(self.case)):
            key = (acknowledged, frozen(state))
            if key in self.seen:
                continue
            self.seen.add(key)
            lost = self.folder / "lost"
            self.writer.write(state, lost)
            try:
                known = check(lost)
            except Exception as error:
                raise AssertionError(f"power lost in {self.case} at step {disk.steps}: {error}") from error
            if len(self.seen) % self.go_on_each == 0:
                worlds.check_goes_on(lost, worlds.highest(known))
            shutil.rmtree(lost)
            self.count(*self.case, len(self.seen))


def lose_power(origin, operation, state, *, go_on_each, count):
    """Run an operation on a copy of a store and lose the power in every way."""
    with tempfile.TemporaryDirectory(dir=origin.parent) as folder:
        done, root = (Path(shutil.copytree(origin, Path(folder) / name)) for name in ("done", "store"))
        before = worlds.facts(origin)
        worlds.outcome(done, operation)
        after = worlds.facts(done)
        worlds.check_sense(operation, before, after)
        losses = Losses(Path(folder), (operation, state), go_on_each=go_on_each, count=count)
        disk = RecordingDisk(root)

        def look(*, acknowledged=False):
            def check(lost):
                return worlds.check_world(lost, operation, before, after, acknowledged=acknowledged)

            losses.look(disk, check, acknowledged=acknowledged)

        disk.on_step = look
        with contextlib.suppress(HydraDetectError):
            worlds.OPERATIONS[operation](worlds.manager_of(root, disk))
            look(acknowledged=True)


def lose_power_after_a_kill(origin, step, follower, *, count):
    """Kill a publishing at a step, let another process work in the same store to its end, then lose the power.

    What the second was told is done must last, though it builds on what the first never synced.
    """
    with tempfile.TemporaryDirectory(dir=origin.parent) as folder:
        root = Path(shutil.copytree(origin, Path(folder) / "store"))
        first = RecordingDisk(root)

        def stop():
            if first.steps >= step:
                raise Stopped

        first.on_step = stop
        try:
            worlds.create(worlds.manager_of(root, first), worlds.NEW)
        except Stopped:
            pass
        else:
            return False
        second = RecordingDisk(root, first)
        worlds.OPERATIONS[follower](worlds.manager_of(root, second))
        live = worlds.facts(root)

        def check(lost):
            now = worlds.facts(lost)
            if follower == "create":  # the first one's version may be lost; the second one's may not
                newest = max(live["owl"][3])
                assert now["owl"][3].get(newest) == live["owl"][3][newest], f"{newest} is lost"
            else:
                assert now["owl"] == live["owl"], f"{now['owl']} instead of {live['owl']}"
            return now

        losses = Losses(Path(folder), (f"create, killed at {step}", follower), go_on_each=4, count=count)
        losses.look(second, check, acknowledged=True)
        return True


def lose_power_while_repairing(origin, state, *, count):
    """Lose the power in every way while a damaged store is repaired: what was damaged is never lost, nor believed."""
    with tempfile.TemporaryDirectory(dir=origin.parent) as folder:
        root = Path(shutil.copytree(origin, Path(folder) / "store"))
        evidence = {path.read_bytes() for path in root.rglob("*") if path.is_file()}
        disk = RecordingDisk(root)
        losses = Losses(Path(folder), ("repair", state), go_on_each=4, count=count)

        def check(lost, *, acknowledged=False):
            if acknowledged:
                assert worlds.manager_of(lost, Disk("fast")).verify().is_sound, "repaired, and damaged again"
            left = {path.read_bytes() for path in lost.rglob("*") if path.is_file()}
            assert evidence <= left, "something that was there is nowhere any more"
            worlds.manager_of(lost, Disk("fast")).repair()
            return worlds.facts(lost)

        disk.on_step = lambda: losses.look(disk, check)
        worlds.manager_of(root, disk).repair()
        losses.look(disk, lambda lost: check(lost, acknowledged=True), acknowledged=True)
