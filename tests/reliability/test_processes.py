"""Eight processes publish, promote, roll back, prune and pin the same two heads, four verify all they read.

With locks and without, in memory and on disk, and a ninth writer is killed -9 all the while: locks order, and are
not what makes it safe.
"""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
import worlds
from crowd import HEADS, READERS, WRITERS, Crowd, Log, Writer, said
from hindsight import Head, backbones_in, check_reads, deeds_in, reads_in
from store_fixtures import a_backbone

from hydra_detect.storage import backbones, findings, pointers
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

PUBLISHES, READS = 512, 6400  # of each of the four runs
LEAST = {
    pointers.PROMOTED: 150, pointers.ROLLED_BACK: 30, pointers.PRUNED: 30, pointers.PINNED: 10, pointers.UNPINNED: 5,
}  # fmt: skip
"""How often each has to have happened in each run."""


@pytest.fixture(params=["memory", "disk"])
def folder(request):
    """A folder on a file system of one kind."""
    if request.param == "memory" and not worlds.MEMORY:
        pytest.skip("there is no file system in memory")
    place = worlds.MEMORY if request.param == "memory" else request.getfixturevalue("disk_folder")
    with tempfile.TemporaryDirectory(dir=place) as path:
        yield Path(path)


def a_store(root):
    """Return a store with a backbone and no head."""
    store = Store.create(root)
    backbones.publish(store, "demo", worlds.BACKBONE_RECORD, worlds.BACKBONE)
    return store


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no-locks"])
def test_crowd(locks, folder, tally, exhaustive):
    """Nothing is lost, doubled, half-seen, out of order or refused without reason, and nobody waits in vain."""
    times = 4 if exhaustive else 1
    is_in_memory = Path(worlds.MEMORY or "") in folder.parents
    where = f"{'with' if locks else 'without'} locks, {'in memory' if is_in_memory else 'on disk'}"
    store, logs = a_store(folder / "store"), folder / "logs"
    logs.mkdir()
    Writer(store.root, Log(logs / "writer-0"), 0).begin()
    crowd = Crowd(
        root=store.root,
        folder=logs,
        locks=locks,
        publishes=times * PUBLISHES // WRITERS,
        reads=times * READS // READERS,
    )
    kills = crowd.run()
    check_backbones(store, backbones_in(logs))
    deeds, (reads, gone) = deeds_in(logs), reads_in(logs)
    judged = {name: Head(store, name, deeds) for name in HEADS}
    for head in judged.values():
        head.check()
    check_reads(judged, reads, gone)
    check_end(store, judged)
    lost = crowd.races_lost()
    assert (lost > 0) is not locks, f"{lost} races were lost {where}"
    report(tally, where, judged, len(reads), kills, times)


def check_backbones(store, offered):
    """See that of several backbones under one name the first has it for ever, and every other was told so."""
    new = [number for number, end in offered if end == "new"]
    assert len(new) == 1, f"{len(new)} were told that theirs is the one"
    item = store.backbone("shared")
    assert item.place.pointer_generations() == [1]
    _tensors, record = a_backbone(50 + new[0])
    assert backbones.find(store, "shared").record == record
    assert {end for number, end in offered if number == new[0]} <= {"new", "there"}
    assert {end for number, end in offered if number != new[0]} == {"refused"}
    assert len(offered) > WRITERS


def check_end(store, judged):
    """See that every version can be read, that a pruning keeps what it has to, and that nothing is left behind."""
    manager = worlds.manager_of(store.root, Disk("fast"))
    for name, head in judged.items():
        numbers = store.head(name).numbers()
        assert [said(store, f"{name}@{number}")[0] for number in numbers] == numbers
        manager.prune(name)
        assert len(manager.history(name)) >= len(head.published) + len(head.states) - 1
        state = store.head(name).pointer()
        kept = {*numbers[-5:], state.active, state.previous, *state.pinned} - {None}
        assert set(store.head(name).numbers()) == kept
        assert list(head.item.staging.iterdir()) == []
    assert list(store.layout.staging.iterdir()) == []
    assert {finding.what for finding in manager.verify().findings} <= {findings.LEFTOVER}  # at the backbone
    assert manager.repair().findings == ()


def report(tally, where, judged, reads, kills, times):
    """Count what was done."""
    publishes, verified = tally(f"publications by 8 processes, {where}"), tally(f"verified reads beside it, {where}")
    changes, killed = tally(f"changes of what is active beside it, {where}"), tally(f"kill -9 of a ninth, {where}")
    for name, head in judged.items():
        for number in head.published:
            publishes.case(name, number)
        for state in head.states[1:]:
            changes.case(name, state.generation)
    for counted, count in ((verified, reads), (killed, kills)):
        for number in range(count):
            counted.case(number)
    publishes.require(times * 500)
    verified.require(times * 6250)
    changes.require(times * 300)
    killed.require(3)
    whats = Counter(state.change.what for head in judged.values() for state in head.states[1:])
    for what, least in LEAST.items():
        assert whats[what] >= times * least, f"{what}: {whats[what]} times, {times * least} were meant"
