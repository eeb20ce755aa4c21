"""Stopped while a compact head is published: whatever can be seen of it has what it leans on, and keeps it."""

import itertools
import tempfile
from pathlib import Path

import pytest
import worlds
from losing import Losses
from power import RecordingDisk
from stopping import CrashingDisk, Stopped

from hydra_detect.storage import heads, references
from hydra_detect.storage.disk import Disk


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
