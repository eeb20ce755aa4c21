"""Power loss: every state of the disk that a log of steps allows, at every step, opened and checked."""

import shutil
import tempfile

import pytest
import worlds
from losing import lose_power, lose_power_after_a_kill, lose_power_while_repairing
from power import RecordingDisk, survivors

CASES = [
    (operation, state)
    for operation in worlds.OPERATIONS
    for state in worlds.STATES
    if worlds.applies(operation, state) and state not in worlds.DAMAGED and operation != "repair"
]


@pytest.fixture(scope="module")
def states():
    """A store in each prior state, in memory."""
    folder = tempfile.mkdtemp(dir=worlds.MEMORY)
    yield worlds.build_states(folder)
    shutil.rmtree(folder)


def test_power_loss(states, tally, exhaustive):
    """Whatever a power loss leaves, at any step, is the old state or the new one, and the new if that was said.

    One state in forty is also worked on afterwards: published to, promoted, rolled back, pruned, verified.
    """
    cases = tally("states of the disk after a power loss")
    for operation, state in CASES:
        lose_power(states[state], operation, state, go_on_each=1 if exhaustive else 40, count=cases.case)
    cases.require(10_000)


@pytest.mark.parametrize("follower", ["promote newest", "create", "prune"])
def test_power_loss_after_a_kill(states, tally, follower):
    """What a process acknowledges lasts, also where it builds on what another was killed before it could sync."""
    cases = tally(f"states after a kill in create, then {follower}, then a power loss")
    step = 1
    while lose_power_after_a_kill(states["six, promoted"], step, follower, count=cases.case):
        step += 1
    cases.require(step)


@pytest.mark.parametrize("state", sorted(worlds.DAMAGED))
def test_power_loss_while_repairing(states, tally, state):
    """Whatever is lost while a store is repaired, the evidence is there, and the repair can be made again."""
    cases = tally(f"states of the disk after a power loss in the repair of a {state}")
    lose_power_while_repairing(states[state], state, count=cases.case)
    cases.require(10)


def test_power_loss_of_a_new_store(tmp_path, tally):
    """A store that was made is there after a power loss; one that was being made can be made again."""
    cases = tally("states of a new store after a power loss")
    from hydra_detect.storage.store import Store

    root = tmp_path / "disk" / "store"
    root.parent.mkdir()
    disk = RecordingDisk(root.parent)
    Store(root, disk=disk)._establish()
    for state in survivors(disk):
        assert "STORE.json" in state["store"], "acknowledged and lost"
        cases.case(str(state))
    cases.require(1)


def test_the_model_itself(tmp_path):
    """Before a sync a file may be lost, empty, half, zeros or whole, and after it only whole."""
    disk = RecordingDisk(tmp_path)
    path = tmp_path / "a"
    descriptor = disk.create(path, 0o666)
    disk.write(descriptor, b"owls")
    assert {state.get("a") for state in survivors(disk)} == {None, b"", b"ow", b"\0\0\0\0", b"owls"}
    disk.sync(descriptor)
    assert {state.get("a") for state in survivors(disk)} == {None, b"owls"}
    disk.sync_folder(tmp_path)
    assert {state.get("a") for state in survivors(disk)} == {b"owls"}
    disk.rename(path, tmp_path / "b")
    assert {tuple(state) for state in survivors(disk)} == {("a",), ("b",)}
    disk.sync_folder(tmp_path)
    disk.unlink(tmp_path / "b")
    assert {tuple(state) for state in survivors(disk)} == {("b",), ()}
