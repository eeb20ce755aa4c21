"""The safety tests in their short form, for trying them on broken copies of the library: `python safety.py power`."""

import shutil
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[1:1] = [str(Path(__file__).parents[1])]

# The tests' own folders have to be found first.
import worlds
from losing import lose_power, lose_power_after_a_kill, lose_power_while_repairing
from power import RecordingDisk, survivors
from stopping import CountingDisk, CrashingDisk, Stopped
from store_fixtures import flip, rewrite

from hydra_detect.errors import CorruptError, HydraDetectError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import artifacts, heads, layout
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

POWER = [
    ("create", "one active"),
    ("create first of its name", "empty"),
    ("promote newest", "two, rolled back"),
    ("roll back", "six, promoted"),
    ("prune", "six, promoted"),
    ("rename", "one active"),
    ("remove", "one active"),
    ("publish a backbone", "empty"),
]


def _count(*_facts):
    """Count nothing: here only violations matter."""


def power(operation, state):
    """Return a suite: what is acknowledged outlasts a power loss, and nothing half-done is ever seen."""
    return lambda states: lose_power(states[state], operation, state, go_on_each=10, count=_count)


def power_while_repairing(states):
    """What was damaged is kept, and is not believed again."""
    for state in sorted(worlds.DAMAGED):
        lose_power_while_repairing(states[state], state, count=_count)


def kill_and_power(states):
    """The same where another process was killed first."""
    followers = {"one active": ("promote newest", "create"), "empty": ("create",)}
    for state, operations in followers.items():
        for follower in operations:
            step = 1
            while lose_power_after_a_kill(states[state], step, follower, count=_count):
                step += 1


def new_store(states):
    """A store that was made outlasts a power loss."""
    parent = states["empty"].parent / "new" / "disk"
    parent.parent.mkdir()
    parent.mkdir()
    disk = RecordingDisk(parent)
    Store(parent / "a" / "store", disk=disk)._establish()
    for state in survivors(disk):
        assert state.get("a", {}).get("store", {}).get("STORE.json"), "acknowledged and lost"


def crash(states):
    """A stop at any step leaves the old world or the new one, and what is left behind is cleared away."""
    for operation, state in POWER:
        before = worlds.facts(states[state])
        done = shutil.copytree(states[state], states[state].parent / "done")
        worlds.outcome(done, operation)
        after = worlds.facts(done)
        worlds.check_sense(operation, before, after)
        disk = CountingDisk(disk=Disk("fast"))
        now = states[state].parent / "now"
        shutil.copytree(states[state], now)
        worlds.OPERATIONS[operation](worlds.manager_of(now, disk))
        for step in range(1, disk.count + 1):
            shutil.rmtree(now)
            shutil.copytree(states[state], now)
            try:
                worlds.OPERATIONS[operation](worlds.manager_of(now, CrashingDisk(step, Disk("fast"))))
            except Stopped:
                bury(now)
                known = worlds.check_world(now, operation, before, after, acknowledged=False)
                worlds.check_goes_on(now, max(worlds.highest(before), worlds.highest(known)))
        shutil.rmtree(now)
        shutil.rmtree(done)


def bury(root):
    """Make what this process left behind look like a dead one's."""
    for path in [*root.glob("tmp/*"), *root.glob("*/*/tmp/*")]:
        host, _process, name = path.name.split(".")
        path.rename(path.with_name(f"{host}.99999999.{name}"))


def reading(states):
    """Damage is found by whoever reads, whatever is damaged."""
    root = states["six, promoted"]
    manager = worlds.manager_of(root)
    worlds.build_states(root.parent / "elsewhere", ["empty", "six, none active"])
    folder = root / "heads/owl/versions/000003"
    for name in (layout.TENSORS, layout.RECORD, layout.MANIFEST):
        kept = (folder / name).read_bytes()
        flipped = [kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :] for place in (20, len(kept) - 1)]
        for damaged in (*flipped, kept[:-1], kept + b" "):
            rewrite(folder / name, damaged)
            _refused(lambda: heads.load(manager.store, "owl@3"), f"{name} is damaged")
            _refused(lambda: manager.promote("owl", 3), f"{name} is damaged and was promoted")
            rewrite(folder / name, kept)
    shutil.copytree(root / "heads/owl/versions/000002", root / "heads/owl/versions/000007")
    _refused(lambda: heads.load(manager.store, "owl@7"), "a version in the place of another")
    kept = manager.create("owl", *worlds.head_of(50), attachments={"note.txt": b"owls"}).number
    flip(root / f"heads/owl/versions/{kept:06}/note.txt")
    _refused(lambda: manager.store.read(manager.store.item(*worlds.OWL).manifest(kept), "note.txt"), "a note was changed")
    shutil.rmtree(root / "heads/owl/versions/000003")
    elsewhere = root.parent / "elsewhere/six-none-active/heads/owl/versions/000003"
    shutil.copytree(elsewhere, root / "heads/owl/versions/000003")
    _refused(lambda: manager.active("owl"), "the active version was exchanged")
    pointer = root / "heads/owl/pointer/00000004.json"
    flip(pointer, place=len(pointer.read_bytes()) // 2)
    _refused(lambda: manager.store.item(*worlds.OWL).pointer(), "the pointer is damaged")
    _strangers(manager, *worlds.head_of(50))


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
    except (CorruptError, HydraDetectError):
        return
    raise AssertionError(f"{what}, and nobody noticed")


def races(states):
    """Of two writers who looked at the same state one is refused, and no version that is in use is taken away."""
    root = states["six, promoted"]
    first, second = worlds.manager_of(root), worlds.manager_of(root)
    looked = first.store.item(*worlds.OWL).pointer()
    second.pin("owl", 5)
    _refused(
        lambda: first.store.item(*worlds.OWL).swap(looked, {"event": "unpinned", "at": "", "actor": "", "reason": ""}),
        "two changes of one state",
    )
    worlds.manager_of(root).unpin("owl", 5)
    (root / "heads/owl/pointer/00000005.json").rename(root / "heads/owl/elsewhere")
    _refused(
        lambda: first.store.item(*worlds.OWL).swap(looked, {"event": "pinned", "at": "", "actor": "", "reason": ""}),
        "a change of an old state, into a gap of the history",
    )
    (root / "heads/owl/elsewhere").rename(root / "heads/owl/pointer/00000005.json")
    swap = Store.swap

    def overtaken(store, kind, name, before, after):
        """Let another process promote what is about to be pruned, just before the pruning is written down."""
        Store.swap = swap
        second.promote("owl", 4)
        return swap(store, kind, name, before, after)

    Store.swap = overtaken
    try:
        first.prune("owl", keep=1)
    finally:
        Store.swap = swap
    assert first.active("owl").number == 4, "pruned although it was active by then"
    heads.load(first.store, "owl")
    assert {1, 2, 6} & set(first.store.item(*worlds.OWL).numbers()) == {6}, (
        "kept what nobody needs, or lost what somebody does"
    )
    assert first.store.item(*worlds.OWL).pointer().previous == 3
    assert HeadRegistry(root).info("owl").active == 4


SUITES = {
    **{f"power, {operation}": power(operation, state) for operation, state in POWER},
    "power, repair": power_while_repairing,
    "kill and power": kill_and_power,
    "new store": new_store,
    "crash": crash,
    "reading": reading,
    "races": races,
}


def main():
    """Run one suite; a traceback and exit code 1 if safety is violated."""
    folder = tempfile.mkdtemp(dir=worlds.MEMORY)
    try:
        SUITES[sys.argv[1]](worlds.build_states(folder))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
