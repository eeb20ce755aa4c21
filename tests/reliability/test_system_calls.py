"""kill -9, a full disk and an I/O error at the real system calls of every operation, injected from outside by strace.

The other tests stop at the steps of `storage.disk.Disk`. Here the system itself fails, below Python, so that nothing
that bypasses those steps can hide; and that nothing does is a test of its own.
"""

import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

import pytest
import traced
import worlds
from recording import RecordingDisk
from store_fixtures import snapshot
from traced import IO_ERROR, KILL, NO_SPACE

from hydra_detect.storage import check
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

MEMORY = Path("/dev/shm")  # noqa: S108  a file system, not a file
CASES = (
    ("create", "empty"),
    ("create", "six, promoted"),
    ("promote newest", "six, promoted"),
    ("roll back", "six, promoted"),
    ("pin", "six, promoted"),
    ("unpin", "six, pinned"),
    ("prune", "six, promoted"),
    ("rename", "two, rolled back"),
    ("remove", "two, rolled back"),
    ("publish a backbone", "empty"),
    ("list", "six, promoted"),
    ("repair", "damaged version"),
    ("repair", "damaged pointer"),
)
FAULTS = {
    **dict.fromkeys(("mkdir", "create", "write", "fsync", "link", "rename"), (KILL, NO_SPACE, IO_ERROR)),
    **dict.fromkeys(("unlink", "rmdir", "flock"), (KILL, IO_ERROR)),
    **dict.fromkeys(("open", "read", "list"), (IO_ERROR,)),
}
READING = frozenset(["open", "read", "list", "flock", "ask"])
REMOVALS = frozenset(["unlink", "unlinkat", "rmdir"])
LEFT_BEHIND = frozenset([check.LEFTOVER, check.UNFINISHED])
# What these acknowledge, a failed fsync would make a lie. The others sync after it, for what they then take away.
WAITED_FOR = frozenset(["create", "promote newest", "roll back", "pin", "unpin", "publish a backbone", "make"])
IN_TWO = frozenset(["publish a backbone"])  # its version can be seen before it is the one of its name
STAGED = re.compile(r"[a-z0-9-]+\.[0-9]+\.[0-9a-f]{32}")
NUMBER = re.compile(r"[0-9]{6,8}")


@pytest.fixture(scope="module")
def states():
    """A store in each prior state, in memory: the calls are what counts here, not how long a disk takes for them."""
    problem = traced.why_not()
    if problem:
        pytest.skip(f"no system call can be made to fail: {problem}")
    folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield worlds.build_states(folder)
    shutil.rmtree(folder)


@pytest.fixture
def scratch(states):
    """A folder on the file system of the states."""
    folder = Path(tempfile.mkdtemp(dir=next(iter(states.values())).parent))
    yield folder
    shutil.rmtree(folder)


def linked(root, target):
    """Return a copy of a store whose files are links to the original's: nothing may ever write into one."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(root, target, symlinks=True, copy_function=os.link))


def perform(operation, root, disk=None):
    """Run an operation as it is used, waiting for every sync; return whether it says that all is well."""
    return getattr(worlds.OPERATIONS[operation](worlds.manager_of(root, disk or Disk())), "is_sound", True)


def make(root):
    """Make a store."""
    Store(root, disk=Disk())._establish()


def calls_in(root, work, log):
    """Return the system calls that an operation makes within a folder, undisturbed."""
    outcome = traced.run(work, log=log)
    assert outcome.end == "done", outcome.text
    return [call for call in outcome.calls if f"{call.path}/".startswith(f"{root}/")]


def injections(calls, operation, *, exhaustive):
    """Return each fault at each call that can have it; of those on paths of the same kind the first, unless exhaustive.

    A repair reads the pointer again and again, and decides something else by it each time: each time is tried.
    """
    found = {}
    for call in calls:
        for fault in FAULTS.get(call.kind, ()):
            is_decisive = operation == "repair" and call.kind == "read" and "/pointer/" in call.path
            is_own = exhaustive or is_decisive or call.kind == "flock"
            path = NUMBER.sub("number", STAGED.sub("staged", call.path))
            found.setdefault((call.name, call.number if is_own else path, fault), (call, fault))
    return list(found.values())


def disturbed(work, where, log):
    """Run something with a fault at one of its calls, and see that it ends in a way its caller can rely on."""
    operation, _state, name, number, fault = where
    outcome = traced.run(work, log=log, inject=f"{name}:{fault}:when={number}")
    assert outcome.was_injected, (where, outcome)
    if fault == KILL:
        assert outcome.end == "killed", where
        return outcome
    assert outcome.end in {"done", "error"}, (where, outcome.text)
    if name in {"fsync", "fdatasync"} and operation in WAITED_FOR:
        assert outcome.end != "done", f"{where}: acknowledged, although the disk did not confirm it"
    return outcome


def test_every_call_is_a_step(states, scratch, tally):
    """What strace saw an operation change is, call by call and path by path, what the steps of `Disk` say it changed.

    So a fault, a kill or a power loss at each step is one at each call, and no write, link or removal of its own
    passes by. The folder of locks aside: its files are the lock library's, and hold nothing.
    """
    cases = tally("system calls that are steps of the disk, one for one")
    for operation, state in CASES:
        root, disk = linked(states[state], scratch / "store"), RecordingDisk()

        def recorded(operation=operation, root=root, disk=disk):
            perform(operation, root, disk)
            return disk.steps

        outcome = traced.run(recorded, log=scratch / "log")
        inside = [call for call in outcome.calls if f"{call.path}/".startswith(f"{root}/")]
        changes = [[call.kind, call.path] for call in inside if call.kind not in READING]
        seen, steps = ([step for step in side if "/locks" not in step[1]] for side in (changes, outcome.returned))
        assert seen == steps, operation
        for number, step in enumerate(steps):
            cases.case(operation, state, number, *step)
    cases.require(400)


def test_fault_at_every_call(states, scratch, tally, exhaustive):
    """Whatever call is killed or fails: old world or new, acknowledged is there, only our errors, and it goes on."""
    cases = tally("kill -9, ENOSPC and EIO at real system calls")
    for operation, state in CASES:
        intact = snapshot(states[state])
        done = linked(states[state], scratch / "done")
        calls = calls_in(done, partial(perform, operation, done), scratch / "log")
        before, after = (None if state in worlds.DAMAGED else worlds.facts(states[state])), worlds.facts(done)
        seen = set()  # looks of stores that were gone on with
        for call, fault in injections(calls, operation, exhaustive=exhaustive):
            where = (operation, state, call.name, call.number, fault)
            root = linked(states[state], scratch / "store")
            outcome = disturbed(partial(perform, operation, root), where, scratch / "log")
            if state in worlds.DAMAGED:
                known = check_repairable(where, root, after, outcome)
            else:
                known = check_sound(where, root, before, after, outcome)
            appearance = look(root)
            if exhaustive or appearance not in seen:
                seen.add(appearance)
                worlds.check_goes_on(root, known)
            cases.case(*where)
        shutil.rmtree(done)
        shutil.rmtree(scratch / "store")
        assert snapshot(states[state]) == intact, f"{operation} wrote into a file that was there before"
    cases.require(3000 if exhaustive else 1000)


def look(root):
    """Return all paths in a store, without whose and when."""
    return frozenset(STAGED.sub("staged", str(path.relative_to(root))) for path in root.rglob("*"))


def check_sound(where, root, before, after, outcome):
    """See that a store is in the old world or the new, that an error said nothing else, and what was left behind.

    Returns the highest version number that was ever seen.
    """
    now = worlds.check_world(root, where[0], before, after, acknowledged=outcome.end == "done")
    if outcome.end == "error":
        assert now == before or "nothing was changed" not in outcome.text, (where, outcome.text)
        assert now != before or "can be seen" not in outcome.text or where[0] in IN_TWO, (where, outcome.text)
    findings = worlds.manager_of(root).verify().findings
    assert {finding.what for finding in findings} <= LEFT_BEHIND, (where, list(map(str, findings)))
    if outcome.end != "killed" and where[0] in WAITED_FOR and where[2] not in REMOVALS:
        assert not findings, (where, list(map(str, findings)))
    return max(worlds.highest(before), worlds.highest(now))


def check_repairable(where, root, after, outcome):
    """See that a repair that was cut off kept the evidence, and that the next one ends where it would have ended.

    Returns the highest version number that was ever seen.
    """
    if outcome.end == "done" and outcome.returned:
        assert worlds.facts(root) == after, where
    assert "nothing was changed" not in outcome.text, (where, outcome.text)
    worlds.manager_of(root).repair()
    assert worlds.facts(root) == after, where
    assert len(list((root / "heads/owl/quarantine").iterdir())) == 1, f"{where}: what was damaged is kept, once"
    return max(worlds.highest(after), 6)


def test_fault_while_a_store_is_made(scratch, tally, exhaustive):
    """A store whose making was cut off at any call is no foreign folder: the next one who tries makes it."""
    cases = tally("kill -9, ENOSPC and EIO at real system calls while a store is made")
    (scratch / "done").mkdir()
    calls = calls_in(scratch, partial(make, scratch / "done" / "store"), scratch / "log")
    for number, (call, fault) in enumerate(injections(calls, "make", exhaustive=exhaustive)):
        where = ("make", "nothing", call.name, call.number, fault)
        (scratch / str(number)).mkdir()
        root = scratch / str(number) / "store"
        disturbed(partial(make, root), where, scratch / "log")
        worlds.manager_of(Store.create(root).root)
        assert worlds.facts(root) == {}, where
        cases.case(*where)
    cases.require(25)


@pytest.mark.parametrize(
    ("state", "fault"), [("six, promoted", "error=EACCES"), ("damaged version", IO_ERROR)], ids=["rights", "disk"]
)
def test_file_that_cannot_be_read(state, fault, states, scratch, tally):
    """What the system refuses to read proves no damage: a repair leaves it in its place, and decides nothing by it."""
    cases = tally(f"files that cannot be read while a store is repaired: {fault}")
    done = linked(states[state], scratch / "done")
    worlds.OPERATIONS["repair"](worlds.manager_of(done))
    after = worlds.facts(done)
    for file in sorted(path.relative_to(states[state]) for path in states[state].rglob("*.*") if path.is_file()):
        if file.suffix == ".lock":
            continue
        root = linked(states[state], scratch / "store")
        work, log = partial(perform, "repair", root), scratch / "log"
        outcome = traced.run(work, log=log, inject=f"openat:{fault}", path=root / file)
        where = ("repair", state, str(file), fault)
        if not outcome.was_injected:  # it was not asked for: another file of its version is damaged
            continue
        assert outcome.end in {"done", "error"}, (where, outcome.text)
        assert not outcome.returned, f"{where}: called sound, and never read"
        assert (root / file).is_file(), f"{where}: moved away"
        if state in worlds.DAMAGED:
            check_repairable(where, root, after, outcome)
        else:
            assert worlds.manager_of(root).verify().findings == (), where
            assert worlds.facts(root) == after, where
        cases.case(*where)
    cases.require(25)
