"""Recovery: what dead processes left is cleared away, what was taken away is finished, and nothing else is touched."""

import errno
import os
from pathlib import Path

import pytest
import store_fixtures
from store_fixtures import (
    Stopped,
    WatchedDisk,
    create,
    dead_name,
    failing,
    flip,
    leftovers,
    on_disk,
    open_descriptors,
    publish,
    snapshot,
    stopping,
)

from hydra_detect.errors import NotFoundError, StoreError
from hydra_detect.storage import heads, owners, recovery
from hydra_detect.storage.disk import Disk
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled


def enter(store, name="owl"):
    """Do nothing but take the lock of a head, which is when recovery happens."""
    with store.head(name).changing():
        pass


def contents(folder):
    """Return what files there are and what they hold."""
    return {name: facts[3] for name, facts in snapshot(folder).items()}


@pytest.fixture
def pruned(filled):
    """Give the manager of a store in which a process died between taking versions 1 and 2 away and deleting them."""
    contract = heads.find(filled.store, "owl@1").record.backbone
    for seed in (2, 3):
        create(filled, seed=seed, backbone=contract)
    for number in (3, 4):
        filled.promote("owl", number)

    def die(step, *_arguments):
        if step == "rename":
            raise Stopped

    with pytest.raises(Stopped):
        VersionManager(on_disk(filled.store, WatchedDisk(die))).prune("owl", keep=1)
    assert filled.store.head("owl").place.version_numbers() == [1, 2, 3, 4]
    return filled


# Leftovers


@pytest.mark.parametrize("place", ["tmp", "heads/owl/tmp"])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "read-only"])
def test_leftovers_of_dead_processes_are_cleared_away(filled, tmp_path, place, kind):
    """Files, links and whole folders that a dead process staged are gone once somebody changes the head."""
    folder = filled.store.root / place
    folder.mkdir(exist_ok=True)
    (tmp_path / "precious").write_bytes(b"x")
    path = folder / dead_name()
    if kind in {"folder", "read-only"}:
        (path / "deep").mkdir(parents=True)
        (path / "deep" / "file").write_bytes(b"half")
        (path / "deep" / "file").chmod(0o444)
        (path / "link").symlink_to(tmp_path / "precious")
    elif kind == "link":
        path.symlink_to(tmp_path)
    else:
        path.write_bytes(b"half")
    before = contents(filled.store.root / "heads" / "owl" / "versions")
    enter(filled.store)
    assert leftovers(filled.store) == []
    assert (tmp_path / "precious").read_bytes() == b"x"
    assert contents(filled.store.root / "heads" / "owl" / "versions") == before


def test_what_the_living_and_others_stage_is_left_alone(filled):
    """What a living process stages, what another host staged today, and what is not ours stays as it is."""
    folder = filled.store.head("owl").place.staging
    mine = owners.staging_name()
    for name in (mine, f"elsewhere.1.{mine[-32:]}", "README", "000001"):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(b"x")
    before = snapshot(folder)
    enter(filled.store)
    assert snapshot(folder) == before


def test_another_heads_staging_is_left_to_its_own_lock(filled):
    """Whoever changes one head does not look into the staging folder of another."""
    path = filled.store.head("owl").place.staging / dead_name()
    path.write_bytes(b"half")
    enter(filled.store, "fox")
    assert path.read_bytes() == b"half"
    enter(filled.store, "owl")
    assert not path.exists()


def test_what_cannot_be_moved_now_hinders_nobody(filled):
    """A leftover that cannot be moved now stays as it is for the next recovery; the change goes on."""
    path = filled.store.head("owl").place.staging / dead_name()
    path.write_bytes(b"half")
    disk, calls = failing("rename", 1, errno.EACCES)
    assert VersionManager(on_disk(filled.store, disk)).promote("owl", 2).number == 2
    assert calls[0][0] == path
    assert path.read_bytes() == b"half"
    filled.rollback("owl")
    assert leftovers(filled.store) == []


def test_what_cannot_be_deleted_now_hinders_nobody(filled):
    """A leftover that can be moved and not deleted is by then this process's own, and goes once that has ended."""
    staging = filled.store.head("owl").place.staging
    (staging / dead_name()).write_bytes(b"half")
    disk, calls = failing("unlink", 1, errno.EACCES)
    assert VersionManager(on_disk(filled.store, disk)).promote("owl", 2).number == 2
    (left,) = staging.iterdir()
    assert calls[0] == (left,)
    assert not owners.is_abandoned(left)
    left.rename(staging / dead_name())
    filled.rollback("owl")
    assert leftovers(filled.store) == []


@pytest.mark.parametrize("place", ["tmp", "heads/owl/tmp"])
def test_a_staging_folder_that_is_a_link(filled, tmp_path, place):
    """Recovery never looks behind a link: what lies there is not the store's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / dead_name()).write_bytes(b"not ours")
    folder = filled.store.root / place
    folder.rmdir()
    folder.symlink_to(outside)
    before = snapshot(outside)
    enter(filled.store)
    assert recovery.abandoned(folder) == []
    assert snapshot(outside) == before


# Moving aside


def steps(act):
    """Return what something does on a disk, given that: each step with the names of the paths it is taken on."""
    taken = []
    act(WatchedDisk(lambda step, *paths: taken.append((step, *(getattr(path, "name", "") for path in paths)))))
    return taken


def staged(folder):
    """Stage a version in a folder as a process does that seems to be dead."""
    stage = folder / dead_name()
    stage.mkdir(parents=True)
    for name in ("a", "b"):
        (stage / name).write_bytes(b"whole")
    return stage


def test_what_is_swept_leaves_its_place_in_one_step(tmp_path):
    """A folder is out of its place before the first of its files is deleted, and at the end of it nothing is left."""
    stage = staged(tmp_path)
    taken = steps(lambda disk: recovery.sweep(disk, stage, tmp_path))
    assert [step for step, *_names in taken] == ["rename", "unlink", "unlink", "remove_folder"]
    assert taken[0][1] == stage.name
    assert list(tmp_path.iterdir()) == []


def test_an_owner_who_is_alive_after_all(tmp_path):
    """Whoever was taken for dead sees his next step fail, and neither he nor anybody else sees half of his version."""
    stage, target, errors = staged(tmp_path / "tmp"), tmp_path / "version", []

    def look(step, *_paths):
        if step in {"unlink", "remove_folder"}:
            with pytest.raises(FileNotFoundError, match=stage.name) as caught:
                stage.rename(target)
            errors.append(caught.value)

    assert recovery.sweep(WatchedDisk(look), stage, tmp_path / "tmp")
    assert len(errors) == 3
    assert not target.exists()


def test_an_owner_who_is_alive_after_all_and_first(tmp_path):
    """Whoever was taken for dead and gives his version its place at the last moment keeps it whole."""
    stage, target = staged(tmp_path / "tmp"), tmp_path / "version"
    disk = WatchedDisk(lambda step, *_paths: stage.rename(target) if step == "rename" else None)
    assert not recovery.sweep(disk, stage, tmp_path / "tmp")
    assert contents(target) == {"a": b"whole", "b": b"whole"}
    assert list((tmp_path / "tmp").iterdir()) == []


def test_two_who_sweep_the_same(tmp_path):
    """Of two that clear the same away one does, and the other is told that it was not him."""
    stage, done = staged(tmp_path), []

    def look(step, *_paths):
        if step == "rename" and not done:
            done.append("theirs")
            done.append(recovery.sweep(Disk(), stage, tmp_path))

    assert not recovery.sweep(WatchedDisk(look), stage, tmp_path)
    assert done == ["theirs", True]
    assert list(tmp_path.iterdir()) == []


def test_a_staging_folder_that_may_not_be_listed(filled, monkeypatch):
    """What the system refuses to list is told with a remedy for reading, and no change goes on without it."""

    def refuse(_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StoreError, match=f"cannot list {filled.store.layout.staging}: Permission denied") as caught:
        enter(filled.store)
    assert caught.value.remedy == "See to the file system, and whether you have the right to read there."


# Versions that were taken away


def test_versions_that_were_taken_away_are_gone_before_they_are_deleted(pruned):
    """From the pointer on nobody sees them, finds them or promotes them, although their files are still there."""
    store = pruned.store
    assert store.head("owl").numbers() == [3, 4]
    assert recovery.unfinished(store.head("owl")) == [1, 2]
    for ask in (lambda: heads.find(store, "owl@1"), lambda: store.head("owl").manifest(2)):
        with pytest.raises(NotFoundError, match=r"'owl' has no version [12]\. There are versions 3, 4\."):
            ask()
    assert store.head("owl").place.version_numbers() == [1, 2, 3, 4]  # asking finished nothing: readers never write


def test_recovery_finishes_what_was_begun(pruned):
    """The next change deletes what the pointer calls gone, and nothing else."""
    item = pruned.store.head("owl").place
    before = contents(item.root)
    enter(pruned.store)
    gone = [name for name in before if name.startswith(("versions/000001", "versions/000002"))]
    assert len(gone) == 2 * 4  # each a folder with three files
    assert contents(item.root) == {name: data for name, data in before.items() if name not in gone}
    assert pruned.verify().findings == ()


def test_nothing_is_deleted_on_the_word_of_a_state_that_could_be_lost(pruned):
    """Before files go because a state says so, that state is made durable: its writer may have died before he could."""
    taken = [
        step
        for step in steps(lambda disk: enter(on_disk(pruned.store, disk)))
        if step[0] in {"sync_folder", "rename", "unlink", "remove_folder"}
    ]
    assert taken[0] == ("sync_folder", "pointer")
    assert [names[:2] for names in taken if names[0] == "rename"] == [("rename", "000001"), ("rename", "000002")]
    assert pruned.store.head("owl").place.version_numbers() == [3, 4]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_state_that_the_disk_does_not_confirm(pruned, number):
    """Where the disk does not confirm what was taken away, nothing of it is deleted, and whoever writes hears of it."""
    before = contents(pruned.store.head("owl").place.versions)
    disk, calls = failing("sync_folder", 1, number)
    with pytest.raises(StoreError, match="cannot clear away what was left behind at 'owl': ") as caught:
        enter(on_disk(pruned.store, disk))
    assert caught.value.facts == {"errno": number}
    assert [path.name for (path,) in calls] == ["pointer"]
    assert contents(pruned.store.head("owl").place.versions) == before
    enter(pruned.store)
    assert pruned.store.head("owl").place.version_numbers() == [3, 4]


def test_recovery_waits_for_no_disk_where_nothing_was_begun(filled):
    """Where no version waits to be deleted, taking the lock syncs nothing."""
    assert "sync_folder" not in [step for step, *_names in steps(lambda disk: enter(on_disk(filled.store, disk)))]


def test_recovery_can_be_stopped_anywhere(pruned):
    """Wherever a recovery dies, no more and no less is seen than before, and the next one finishes it."""
    at, stopped = 0, True
    expected = [version.manifest for version in pruned.versions("owl")]
    while stopped:
        at += 1
        disk, _wanted = stopping(at)
        try:
            enter(on_disk(pruned.store, disk))
        except Stopped:
            pass
        else:
            stopped = False
        assert [version.manifest for version in pruned.versions("owl")] == expected
    assert at > 3
    enter(pruned.store)
    assert pruned.store.head("owl").place.version_numbers() == [3, 4]


def test_recovery_changes_nothing_where_nothing_is_left(filled):
    """A second recovery, and one of a store that nobody died in, changes no file."""
    enter(filled.store)
    before = snapshot(filled.store.root)
    enter(filled.store)
    assert snapshot(filled.store.root) == before


def test_a_folder_that_cannot_be_moved_now(pruned):
    """A version that a reader on Windows holds is left where it is; it stays gone, and the next recovery takes it."""
    disk, calls = failing("rename", 1, errno.EACCES)
    enter(on_disk(pruned.store, disk))
    assert len(calls) == 2
    assert pruned.store.head("owl").place.version_numbers() == [1, 3, 4]
    assert pruned.store.head("owl").numbers() == [3, 4]
    enter(pruned.store)
    assert pruned.store.head("owl").place.version_numbers() == [3, 4]


def test_versions_that_cannot_be_moved_because_there_is_no_room(pruned):
    """Where nothing can be moved, since its place cannot be made, what is gone stays where it is and hinders nobody."""
    place = pruned.store.head("owl").place
    place.staging.rmdir()

    def look(step, path, *_paths):
        if (step, path) == ("make_folder", place.staging):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    other = on_disk(pruned.store, WatchedDisk(look))
    enter(other)
    assert not recovery.take_away(other.head("owl"), 1)
    assert place.version_numbers() == [1, 2, 3, 4]
    assert recovery.take_away(pruned.store.head("owl"), 1)
    assert place.version_numbers() == [2, 3, 4]


def test_without_knowing_what_is_gone_nothing_is_deleted(pruned):
    """With a damaged pointer recovery leaves every version alone: none is lost by a guess."""
    item = pruned.store.head("owl").place
    flip(item.pointer(item.pointer_generations()[-1]), 30)
    before = contents(item.versions)
    enter(pruned.store)
    assert recovery.unfinished(pruned.store.head("owl")) == []
    assert contents(item.versions) == before


@pytest.mark.parametrize("place", ["heads", "heads/owl", "heads/owl/versions", "heads/owl/versions/000001"])
def test_what_lies_behind_a_link_is_not_deleted(pruned, tmp_path, place):
    """A folder that somebody moved elsewhere and linked keeps all its files, the versions that are gone included."""
    folder, outside = pruned.store.root / place, tmp_path / "outside"
    folder.rename(outside)
    folder.symlink_to(outside)
    before = contents(outside)
    try:
        enter(pruned.store)
    except StoreError as error:
        assert "is no folder" in error.found  # noqa: PT017  refusing is as good
    assert contents(outside) == before


# The lock


def test_recovery_happens_whoever_changes_the_head(filled):
    """Every way of changing a head clears away what was left there first."""
    changes = (
        lambda: publish(filled.store),
        lambda: filled.promote("owl", 2),
        lambda: filled.rollback("owl"),
        lambda: filled.pin("owl", 2),
        lambda: filled.unpin("owl", 2),
        lambda: filled.prune("owl", keep=1),
    )
    for change in changes:
        path = filled.store.head("owl").place.staging / dead_name()
        path.write_bytes(b"half")
        change()
        assert not path.exists()


def test_recovery_leaks_nothing(filled):
    """Taking a lock and recovering leaves no file open."""
    enter(filled.store)
    before = open_descriptors()
    for _ in range(3):
        enter(filled.store)
    assert open_descriptors() == before
