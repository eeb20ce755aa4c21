"""kill -9, a full disk and an I/O error at the real system calls of every operation: run apart, see `apart`."""

import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

import traced
import worlds
from recording import RecordingDisk
from store_fixtures import snapshot
from traced import IO_ERROR, KILL, NO_SPACE

from hydra_detect.storage import findings
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

CASES = (
    ("create", "empty"),
    ("create", "six, promoted"),
    ("promote newest", "six, promoted"),
    ("promote the active", "six, promoted"),
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
    ("repair", "much damaged"),
)
LIKE_OTHERS = frozenset(
    [("create", "six, promoted"), ("unpin", "six, pinned"), ("promote the active", "six, promoted"),
     ("repair", "damaged version")]
)  # fmt: skip
"""What adds little to the others: tried if exhaustive."""
FAULTS = {
    **dict.fromkeys(("mkdir", "create", "write", "fsync", "link", "rename"), (KILL, NO_SPACE, IO_ERROR)),
    **dict.fromkeys(("unlink", "rmdir", "flock"), (KILL, IO_ERROR)),
    **dict.fromkeys(("open", "read", "list", "look"), (IO_ERROR,)),
}
QUICK_FAULTS = {
    **dict.fromkeys(("mkdir", "create", "write"), (KILL, NO_SPACE)),
    **dict.fromkeys(("fsync", "link", "rename"), (KILL, IO_ERROR)),
    **dict.fromkeys(("unlink", "rmdir"), (KILL,)),
    **dict.fromkeys(("flock", "open", "read", "list", "look"), (IO_ERROR,)),
}
READING = frozenset(["open", "read", "list", "look", "flock", "ask"])
DECISIVE = "/pointer/00000005"
"""The newest generation, or the one before it, of the states that are repaired."""
REMOVALS = frozenset(["unlink", "unlinkat", "rmdir"])
LEFT_BEHIND = frozenset([findings.LEFTOVER, findings.UNFINISHED, findings.UNUSED])
# What these acknowledge, a failed fsync would make a lie. The others sync after it, for what they then take away.
WAITED_FOR = frozenset(
    ["create", "promote newest", "promote the active", "roll back", "pin", "unpin", "publish a backbone", "make"]
)
STAGED = re.compile(r"[a-z0-9-]+\.[0-9]+\.[0-9]+\.[0-9a-f]{32}")
NUMBER = re.compile(r"[0-9]{6,8}")


def perform(operation, root, disk=None):
    """Run an operation as it is used, waiting for every sync; return whether it says that all is well."""
    return getattr(worlds.OPERATIONS[operation](worlds.manager_of(root, disk or Disk())), "is_sound", True)


def make(root):
    """Make a store."""
    Store(root, disk=Disk())._establish()


def inside(root, calls):
    """Return the calls within a folder."""
    return [call for call in calls if f"{call.path}/".startswith(f"{root}/")]


def calls_in(root, work, log):
    """Return the system calls that an operation makes within a folder, undisturbed."""
    outcome = traced.run(work, log=log)
    assert outcome.end == "done", outcome.text
    return inside(root, outcome.calls)


def plain(path):
    """Return a path without whose, when and the how manyth."""
    return NUMBER.sub("number", STAGED.sub("staged", path))


def injections(calls, operation, *, exhaustive):
    """Return each fault at each call that can have it; of those on paths of the same kind the first, unless exhaustive.

    A repair reads the pointer again and again, and decides something else by it each time: each time is tried.
    """
    found = {}
    for call in calls:
        for fault in (FAULTS if exhaustive else QUICK_FAULTS).get(call.kind, ()):
            is_decisive = operation == "repair" and call.kind == "read" and DECISIVE in call.path
            is_own = exhaustive or is_decisive or call.kind == "flock"
            place = call.number if is_own else plain(call.path)
            found.setdefault((call.name, place, fault), (call, fault))
    return list(found.values())


def disturbed(work, where, log, call):
    """Run something with a fault at one of its calls, and see that it ends in a way its caller can rely on.

    None if a look was not the how manyth it was before, as happens to few: then it was another one, or none.
    """
    operation, _state, name, number, fault = where
    outcome = traced.run(work, log=log, inject=f"{name}:{fault}:when={number}")
    hit = outcome.calls[-1] if outcome.end == "killed" else outcome.injected
    is_there = hit and (hit.name, plain(hit.path)) == (name, plain(call.path))
    if call.kind == "look" and not is_there:
        return None
    assert is_there, f"{where}: at {hit} instead"
    if fault == KILL:
        assert outcome.end == "killed", where
        return outcome
    assert outcome.end in {"done", "error"}, (where, outcome.text)
    if name in {"fsync", "fdatasync"} and operation in WAITED_FOR:
        assert outcome.end != "done", f"{where}: acknowledged, although the disk did not confirm it"
    return outcome


def compare_calls_with_steps(share):
    """Compare what strace saw each operation change, call by call and path by path, with the steps that `Disk` took."""
    found = []
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        states, scratch = worlds.build_states(folder), Path(folder)
        for operation, state in share(CASES):
            root, disk = worlds.linked(states[state], scratch / "store"), RecordingDisk()

            def recorded(operation=operation, root=root, disk=disk):
                perform(operation, root, disk)
                return disk.steps

            outcome = traced.run(recorded, log=scratch / "log")
            changes = [[call.kind, call.path] for call in inside(root, outcome.calls) if call.kind not in READING]
            seen, steps = ([step for step in side if "/locks" not in step[1]] for side in (changes, outcome.returned))
            assert seen == steps, operation
            found += [(operation, state, number, *step) for number, step in enumerate(steps)]
    return found


def fault_at_every_call(share, *, exhaustive):
    """Kill, or let fail, every kind of call of every operation; return the cases."""
    found = []
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        states, scratch = worlds.build_states(folder), Path(folder)
        for operation, state in share([case for case in CASES if exhaustive or case not in LIKE_OTHERS]):
            intact = snapshot(states[state])
            root = worlds.linked(states[state], scratch / "store")
            calls = calls_in(root, partial(perform, operation, root), scratch / "log")
            before = None if state in worlds.DAMAGED else worlds.facts(states[state])
            around, seen, missed = (before, worlds.facts(root)), set(), 0
            for call, fault in injections(calls, operation, exhaustive=exhaustive):
                where = (operation, state, call.name, call.number, fault)
                root = worlds.linked(states[state], scratch / "store")
                outcome = disturbed(partial(perform, operation, root), where, scratch / "log", call)
                if outcome is None:
                    missed += 1
                    continue
                known = check(where, root, around, outcome)
                appearance = look(root)
                if exhaustive or appearance not in seen:
                    seen.add(appearance)
                    worlds.check_goes_on(root, known)
                found.append(where)
            assert missed <= 2 + len(calls) // 100, f"{missed} looks at {operation} were at something else"
            shutil.rmtree(scratch / "store")
            assert snapshot(states[state]) == intact, f"{operation} wrote into a file that was there before"
    return found


def look(root):
    """Return all paths in a store, without whose and when."""
    return frozenset(STAGED.sub("staged", str(path.relative_to(root))) for path in root.rglob("*"))


def check(where, root, around, outcome):
    """See that a store is as promised; return the highest version number that was ever seen."""
    before, after = around
    if where[1] in worlds.DAMAGED:
        return check_repairable(where, root, after, outcome)
    return check_sound(where, root, before, after, outcome)


def check_sound(where, root, before, after, outcome):
    """See that a store is in the old world or the new, that an error said nothing else, and what was left behind."""
    now = worlds.check_world(root, where[0], before, after, acknowledged=outcome.end == "done")
    if outcome.end == "error":
        assert now == before or "nothing was changed" not in outcome.text, (where, outcome.text)
        seen = where[0] in worlds.TWO_STEPS  # of which the first can be seen, and is not what `facts` looks at
        assert now != before or seen or "can be seen" not in outcome.text, (where, outcome.text)
    report = worlds.manager_of(root).verify()
    assert {finding.what for finding in report.findings} <= LEFT_BEHIND, (where, str(report))
    is_of_removal = where[2] in REMOVALS or (outcome.injected and "staged" in plain(outcome.injected.path))
    if outcome.end != "killed" and where[0] in WAITED_FOR and not is_of_removal:
        begun = {findings.UNUSED} if where[0] in worlds.TWO_STEPS else set()
        assert {finding.what for finding in report.findings} <= begun, (where, str(report))
    return max(worlds.highest(before), worlds.highest(now))


def check_repairable(where, root, after, outcome):
    """See that a repair that was cut off kept the evidence, and that the next one ends where it would have ended."""
    if outcome.end == "done" and outcome.returned:
        assert worlds.facts(root) == after, where
    assert "nothing was changed" not in outcome.text, (where, outcome.text)
    worlds.manager_of(root).repair()
    assert worlds.facts(root) == after, where
    worlds.check_evidence(root, where[1])
    return max(worlds.highest(after), 6)


def fault_while_a_store_is_made(share):
    """Kill, or let fail, every call of making a store: the next one who tries has to make it."""
    found = []
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        scratch, root = Path(folder), Path(folder) / "work" / "store"
        root.parent.mkdir()
        calls = calls_in(root.parent, partial(make, root), scratch / "log")
        for call, fault in share(injections(calls, "make", exhaustive=True)):
            where = ("make", "nothing", call.name, call.number, fault)
            shutil.rmtree(root.parent)
            root.parent.mkdir()
            outcome = disturbed(partial(make, root), where, scratch / "log", call)
            assert worlds.facts(Store.create(root).root) == {}, where
            if outcome:
                found.append(where)
    return found


def files_that_cannot_be_read(share, *, state, fault):
    """Let the system refuse to read each file of a store while it is repaired: that proves no damage."""
    found = []
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        states, scratch = worlds.build_states(folder), Path(folder)
        done = worlds.linked(states[state], scratch / "done")
        worlds.OPERATIONS["repair"](worlds.manager_of(done))
        after = worlds.facts(done)
        paths = [path.relative_to(states[state]) for path in states[state].rglob("*.*") if path.is_file()]
        for file in share(sorted(path for path in paths if path.suffix != ".lock" and "tmp" not in path.parts)):
            root = worlds.linked(states[state], scratch / "store")
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
            found.append(where)
    return found
