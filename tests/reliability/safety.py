"""The safety tests in their short form, for trying them on broken copies of the library.

`python safety.py SUITE STATES` runs one suite on stores that an unbroken library built in the folder STATES; exit code
0 if all is well, 1 if safety is violated, and 3 if the suite itself could not run.
"""

import shutil
import sys
import tempfile
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path[1:1] = [str(Path(__file__).parents[1])]

# The tests' own folders have to be found first.
import losing
import worlds
from stopping import CountingDisk, CrashingDisk, Stopped
from store_fixtures import flip, rewrite

from hydra_detect.errors import HydraDetectError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, heads, layout
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.pointers import Change

VIOLATED, BROKEN = 1, 3
STATES = (
    "empty",
    "one active",
    "two, rolled back",
    "six, promoted",
    "six, pinned",
    "damaged version",
    "damaged pointer",
)
POWER = {
    "create": "one active",
    "create first of its name": "empty",
    "promote newest": "two, rolled back",
    "roll back": "six, promoted",
    "prune": "six, promoted",
    "rename": "one active",
    "remove": "one active",
    "publish a backbone": "empty",
}
IN_A_ROW = {"prune then pin": ("prune", "pin"), "create then promote newest": ("create", "promote newest")}
AFTER_A_KILL = {
    "create": ("promote newest", "promote the active", "create"),
    "promote newest": ("promote the active", "create"),
    "pin": ("pin again",),
    "prune": ("create",),
    "remove": ("create",),
    "publish a backbone": ("publish a backbone",),
}


def power(operation, state):
    """Return a suite: what is acknowledged outlasts a power loss, and nothing half-done is ever seen."""
    return lambda states, scratch: losing.lose_power(states, scratch, (operation, state), go_on_each=10)


def power_in_a_row(pair):
    """Return a suite: the same for the second of two operations on one disk."""
    return lambda states, scratch: losing.lose_power_in_one_that_follows(states, scratch, pair, 1 << 30)


def power_after_a_kill(first):
    """Return a suite: the same where another process was killed in this operation before."""

    def run(states, scratch):
        for second in AFTER_A_KILL[first]:
            kinds, step = [""], 1
            while step <= len(kinds):
                if kinds[step - 1] in {*losing.DECISIVE, ""}:
                    kinds, _cases = losing.lose_power_after_a_kill(states, scratch, (first, second), step)
                step += 1

    return run


def crash(operation, state):
    """Return a suite: a stop at any step leaves the old world or the new one, and what is left is cleared away."""

    def run(states, scratch):
        done, now = (worlds.linked(states[state], scratch / name) for name in ("done", "now"))
        worlds.outcome(done, operation)
        before, after = worlds.facts(states[state]), worlds.facts(done)
        worlds.check_sense(operation, before, after)
        disk = CountingDisk(disk=Disk("fast"))
        worlds.OPERATIONS[operation](worlds.manager_of(now, disk))
        for step in range(1, disk.count + 1):
            worlds.linked(states[state], now)
            try:
                with worlds.mortal():
                    worlds.OPERATIONS[operation](worlds.manager_of(now, CrashingDisk(step, Disk("fast"))))
            except Stopped:
                known = worlds.check_world(now, operation, before, after, acknowledged=False)
                worlds.check_goes_on(now, max(worlds.highest(before), worlds.highest(known)))

    return run


def reading(states, scratch):
    """Damage is found by whoever reads, whatever is damaged."""
    root = Path(shutil.copytree(states["six, promoted"], scratch / "store"))
    manager = worlds.manager_of(root)
    folder = root / "heads/owl/versions/000003"
    for name in (layout.TENSORS, layout.RECORD, layout.MANIFEST, worlds.NOTE):
        kept = (folder / name).read_bytes()
        flipped = [kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :] for place in (0, len(kept) - 1)]
        for damaged in (*flipped, kept[:-1], kept + b" "):
            rewrite(folder / name, damaged)
            _refused(lambda: manager.promote("owl", 3), f"{name} is damaged and was promoted")
            if name != worlds.NOTE:
                _refused(lambda: heads.load(manager.store, "owl@3"), f"{name} is damaged")
            rewrite(folder / name, kept)
    shutil.copytree(root / "heads/owl/versions/000002", root / "heads/owl/versions/000007")
    _refused(lambda: heads.load(manager.store, "owl@7"), "a version in the place of another")
    flip(folder / worlds.NOTE)
    note = manager.store.head("owl").manifest(3)
    _refused(lambda: manager.store.head("owl").read(note, worlds.NOTE), "a note was changed")
    shutil.rmtree(folder)
    shutil.copytree(states["six, pinned"] / "heads/owl/versions/000003", folder)
    text = (folder / layout.MANIFEST).read_bytes().replace(b'"actor": "test"', b'"actor": "else"')
    rewrite(folder / layout.MANIFEST, _sealed_anew(text))
    _refused(lambda: manager.active("owl"), "the active version was exchanged")
    pointer = root / "heads/owl/pointer/00000004.json"
    flip(pointer, place=len(pointer.read_bytes()) // 2)
    _refused(lambda: manager.store.head("owl").pointer(), "the pointer is damaged")
    _strangers(manager, *worlds.head_of(50))


def _sealed_anew(text):
    from hydra_detect import codec
    from hydra_detect.storage import sealed

    document = codec.loads(text, "it")
    del document["check"]
    return sealed.seal(document)


def _strangers(manager, tensors, record):
    """What a stranger sealed himself is not believed either."""
    whole = artifacts.encode_tensors(tensors)
    _refused(lambda: artifacts.decode_tensors(whole + b"\0", "it"), "bytes after the last tensor")
    _refused(lambda: artifacts.decode_tensors(whole[:-1], "it"), "a tensor beyond the end")
    _refused(lambda: artifacts.decode_weights(whole, worlds.head_of(51)[1].tensors, "it"), "another's weights")
    weights = bytearray(whole)
    weights[-12:-8] = b"\0\0\xc0\x7f"  # NaN
    decoded = artifacts.decode_tensors(bytes(weights), "it")
    digest = artifacts.tensors_digest(decoded)
    _refused(lambda: artifacts.decode_weights(bytes(weights), digest, "it"), "NaN")
    _refused(lambda: manager.create("fox", worlds.head_of(52)[0], record), "a record of other weights")


def _refused(work, what):
    try:
        work()
    except HydraDetectError:
        return
    raise AssertionError(f"{what}, and nobody noticed")


def races(states, scratch):
    """Of two writers who looked at the same state one is refused, and no version that is in use is taken away."""
    from hydra_detect.storage.items import Item

    root = Path(shutil.copytree(states["six, promoted"], scratch / "store"))
    first, second = worlds.manager_of(root), worlds.manager_of(root)
    item = first.store.head("owl")
    looked = item.pointer()
    second.pin("owl", 5)
    _refused(lambda: item.swap(looked, {}, Change(what="unpinned", at="now")), "two changes of one state")
    worlds.manager_of(root).unpin("owl", 5)
    (root / "heads/owl/pointer/00000005.json").rename(root / "heads/owl/elsewhere")
    _refused(lambda: item.swap(looked, {}, Change(what="pinned", at="now")), "a change of an old state, into a gap")
    (root / "heads/owl/elsewhere").rename(root / "heads/owl/pointer/00000005.json")
    swap = Item.swap

    def overtaken(self, before, after, change):
        """Let another process promote what is about to be pruned, just before the pruning is written down."""
        Item.swap = swap
        second.promote("owl", 4)
        return swap(self, before, after, change)

    Item.swap = overtaken
    try:
        first.prune("owl", keep=1)
    finally:
        Item.swap = swap
    assert first.active("owl").number == 4, "pruned although it was active by then"
    heads.load(first.store, "owl")
    left = set(item.numbers())
    assert {1, 2, 6} & left == {6}, "kept what nobody needs, or lost what somebody does"
    assert item.pointer().previous == 3
    assert HeadRegistry(root).info("owl").active == 4


SUITES = {
    **{f"power, {operation}": power(operation, state) for operation, state in POWER.items()},
    **{f"power, {name}": power_in_a_row(pair) for name, pair in IN_A_ROW.items()},
    **{f"power after a kill in {first}": power_after_a_kill(first) for first in AFTER_A_KILL},
    **{f"crash, {operation}": crash(operation, state) for operation, state in POWER.items()},
    "power, repair": lambda states, scratch: losing.lose_power_in_a_repair(states, scratch, "damaged version"),
    "power, repair of a pointer": lambda states, scratch: losing.lose_power_in_a_repair(
        states, scratch, "damaged pointer"
    ),
    "power, new store": lambda _states, scratch: losing.lose_power_in_a_new_store(scratch, 1),
    "reading": reading,
    "races": races,
}


def main(suite, folder):
    """Run one suite; return the exit code."""
    states = {name: worlds.path_of(folder, name) for name in STATES}
    scratch = Path(tempfile.mkdtemp(dir=worlds.MEMORY))
    try:
        SUITES[suite](states, scratch)
    except (AssertionError, HydraDetectError):
        traceback.print_exc()
        return VIOLATED
    except Exception:  # noqa: BLE001  the mutant or the suite is no program: that is no proof of anything
        traceback.print_exc()
        return BROKEN
    finally:
        shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
