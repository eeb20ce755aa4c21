"""Power loss: every state of the disk that a log of steps allows, at every step, opened and checked: see `losing`."""

import apart
from power import RecordingDisk, survivors

from hydra_detect import merge_checkpoint
from hydra_detect.storage import files
from hydra_detect.storage.store import Store


def test_power_loss(tally, exhaustive):
    """Whatever a power loss leaves, at any step, is the old state or the new one, and the new if that was said.

    One state in forty is also worked on afterwards: published to, promoted, rolled back, pruned, verified.
    """
    cases = tally("states of the disk after a power loss")
    cases.cases.update(apart.cases("losing", "lose_power_everywhere", exhaustive=exhaustive))
    cases.require(10_000)


def test_power_loss_in_the_second_of_two(tally, exhaustive):
    """An operation that follows another on the same disk makes certain what it builds on, before it says it is done."""
    cases = tally("states of the disk after a power loss in the second of two operations")
    cases.cases.update(apart.cases("losing", "lose_power_in_the_second", exhaustive=exhaustive))
    cases.require(3_000)


def test_power_loss_after_a_kill(tally, exhaustive):
    """What a process acknowledges lasts, also where it builds on what another was killed before it could sync."""
    cases = tally("states of the disk after a kill in one operation, another to its end, and a power loss")
    cases.cases.update(apart.cases("losing", "lose_power_after_kills", exhaustive=exhaustive))
    cases.require(500)


def test_power_loss_while_repairing(tally):
    """Whatever is lost while a store is repaired, the evidence is there, and the repair comes to the same at last."""
    cases = tally("states of the disk after a power loss in a repair")
    cases.cases.update(apart.cases("losing", "lose_power_while_repairing"))
    cases.require(50)


def test_power_loss_while_a_store_is_made(tally):
    """A store that was made is there after a power loss; one that was being made can be made again."""
    cases = tally("states of the disk after a power loss while a store is made")
    cases.cases.update(apart.cases("losing", "lose_power_while_a_store_is_made"))
    cases.require(50)


def test_power_loss_while_an_original_is_written_again(split_store, tmp_path, tally):
    """A merged original is whole or not there, whatever is lost, and there once it was said to be."""
    cases = tally("states of the disk after a power loss while a checkpoint is merged")
    store, disk = Store.open(split_store), RecordingDisk(tmp_path)
    store.disk, path = disk, tmp_path / "again.safetensors"
    found = []  # what a loss at each step could leave

    def look():
        found.append([files.sha256(state[path.name]) if path.name in state else None for state in survivors(disk)])
        cases.cases.update((disk.steps, number) for number in range(len(found[-1])))

    disk.on_step = look
    merge_checkpoint(store, "rbc", path)
    look()
    whole = files.sha256(path.read_bytes())
    assert set().union(*found) == {None, whole}
    assert set(found[-1]) == {whole}
    cases.require(30)


def test_the_model_of_a_file(tmp_path):
    """Before a sync a file may be lost, empty, half, zeros, half of each or whole, and after it only whole."""
    disk = RecordingDisk(tmp_path)
    path = tmp_path / "a"
    descriptor = disk.create(path, 0o666)
    disk.write(descriptor, b"owls")
    uncertain = {None, b"", b"ow", b"\0\0\0\0", b"ow\0\0", b"owls"}
    assert {state.get("a") for state in survivors(disk)} == uncertain
    disk.sync(descriptor)
    assert {state.get("a") for state in survivors(disk)} == {None, b"owls"}
    disk.sync_folder(tmp_path)
    assert {state.get("a") for state in survivors(disk)} == {b"owls"}
    disk.rename(path, tmp_path / "b")
    assert {tuple(state) for state in survivors(disk)} == {("a",), ("b",)}
    disk.sync_folder(tmp_path)
    disk.unlink(tmp_path / "b")
    assert {tuple(state) for state in survivors(disk)} == {("b",), ()}


def test_the_model_of_a_rename_and_what_follows(tmp_path):
    """A rename that the sync of one folder made certain is so in both; a removal after it is as uncertain as ever."""
    disk = RecordingDisk(tmp_path)
    for name in ("here", "there"):
        disk.make_folder(tmp_path / name)
    disk.sync_folder(tmp_path)
    descriptor = disk.create(tmp_path / "here" / "a", 0o666)
    disk.sync(descriptor)
    disk.sync_folder(tmp_path / "here")
    disk.rename(tmp_path / "here" / "a", tmp_path / "there" / "b")
    disk.unlink(tmp_path / "there" / "b")
    disk.sync_folder(tmp_path / "here")
    assert {(tuple(state["here"]), tuple(state["there"])) for state in survivors(disk)} == {((), ("b",)), ((), ())}
    disk.sync_folder(tmp_path / "there")
    assert {(tuple(state["here"]), tuple(state["there"])) for state in survivors(disk)} == {((), ())}
