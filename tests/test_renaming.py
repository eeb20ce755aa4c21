"""Renaming and removing heads: nothing is lost on the way, and a name with a number means one thing for ever."""

import errno
import os

import pytest
import store_damage
import store_fixtures
from store_damage import OWL, at, flipped, version
from store_fixtures import Stopped, WatchedDisk, create, failing, flip, leftovers, on_disk, publish, snapshot, stopping

from hydra_detect.errors import ConflictError, CorruptError, NameInvalidError, NotFoundError, StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import heads, layout, pointers, renaming
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


@pytest.fixture
def owls(rich):
    """Give the manager of a store in which `owl` has four versions, three of them once active, and none pinned."""
    rich.unpin("owl", 4)
    return rich


def facts(manager, head):
    """Return what a head is: its versions with weights, records, times and authors, and its state."""
    state = manager.store.head(head).pointer()
    versions = [
        (item.number, item.created_at, item.actor, item.record, item.files, heads.tensors(manager.store, item))
        for item in manager.versions(head)
    ]
    return versions, state.active, state.earlier


def rename(manager, head, new, disk=None):
    """Rename a head, on a disk of the test's own."""
    store = on_disk(manager.store, disk) if disk else manager.store
    renaming.rename(store, head, new, actor="ada", reason="taxonomy")


# Renaming


def test_rename(owls):
    """Under its new name a head is what it was: weights, records, authors, what is active and what was before."""
    before = facts(owls, "owl")
    HeadRegistry(owls.store).rename("owl", "strix", reason="taxonomy")
    assert facts(owls, "strix") == before
    assert list(HeadRegistry(owls.store)) == ["fox", "strix"]
    assert owls.rollback("strix").number == 3
    assert owls.rollback("strix").number == 1
    assert create(owls, "strix", 9, backbone=owls.active("strix").record.backbone).number == 5
    assert owls.verify().findings == ()
    assert leftovers(owls.store) == []


def test_the_old_name_is_a_plain_miss(owls):
    """Nobody finds anything under the old name, and what was never active there is no error either."""
    rename(owls, "owl", "strix")
    for ask in (
        owls.active,
        owls.versions,
        lambda head: owls.promote(head, 1),
        lambda head: heads.find(owls.store, f"{head}@3"),
    ):
        with pytest.raises(NotFoundError, match=r"no such head|has no 'owl'"):
            ask("owl")
    assert owls.store.head("owl").pointer().active is None


def test_rename_of_a_head_that_was_never_promoted(filled):
    """A head without an active version is renamed as well, and still has none."""
    filled.store.layout.item(layout.HEADS, "fox")
    create(filled, "wolf")
    rename(filled, "wolf", "lupus")
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active"):
        filled.active("lupus")
    assert filled.promote("lupus", 1).number == 1


def test_weights_are_not_copied(owls):
    """Renaming a head of any size takes no time and no room: its files are linked, not written again."""
    inode = at(owls, version(2, layout.TENSORS)).stat().st_ino
    written = []
    rename(
        owls,
        "owl",
        "strix",
        WatchedDisk(lambda step, *given: written.append(len(given[1])) if step == "write" else None),
    )
    path = at(owls, f"heads/strix/versions/000002/{layout.TENSORS}")
    assert (path.stat().st_ino, path.stat().st_nlink, path.stat().st_mode & 0o777) == (inode, 1, 0o444)
    assert len(written) == 4 + 2  # a manifest for each version, and the two pointers


def test_where_the_file_system_has_no_links(owls):
    """Where files cannot be linked they are copied, and the head is the same."""
    before = facts(owls, "owl")

    def look(step, path, *_target):
        if step == "link" and path.name in {layout.TENSORS, layout.RECORD}:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    rename(owls, "owl", "strix", WatchedDisk(look))
    assert facts(owls, "strix") == before
    assert owls.verify().findings == ()


def test_numbers_go_along(owls):
    """Numbers that were given out under the old name, pruned ones included, are not given out under the new one."""
    owls.prune("owl", keep=1)
    for seed in (5, 6):
        create(owls, seed=seed)
    flip(at(owls, version(6, layout.TENSORS)))
    owls.repair()
    rename(owls, "owl", "strix")
    assert create(owls, "strix").number == 7


def test_the_old_name_goes_on_counting(owls):
    """What is made anew under the old name has numbers that never meant anything else."""
    rename(owls, "owl", "strix")
    assert create(owls).number == 5
    owls.promote("owl", 5)
    with pytest.raises(NotFoundError, match="no version is known that was active before version 5"):
        owls.rollback("owl")


# Refusals


@pytest.mark.parametrize("new", ["fox", "owl", "removed", "renamed", "empty", "file", "dangling"])
def test_a_name_is_used_once(owls, new):
    """A name that is in use, was ever used, or stands for anything on the disk is refused; nothing changes."""
    folder = at(owls, "heads")
    for name in ("removed", "renamed"):
        create(owls, name)
    HeadRegistry(owls.store).remove("removed")
    rename(owls, "renamed", "elsewhere")
    (folder / "empty").mkdir()
    (folder / "file").touch()
    (folder / "dangling").symlink_to(folder / "nowhere")
    before = snapshot(folder)
    with pytest.raises(ConflictError, match=f"the name '{new}' is in use, or was") as caught:
        rename(owls, "owl", new)
    assert caught.value.remedy == "Choose another name."
    assert snapshot(folder) == before
    assert leftovers(owls.store) == []


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_refused_while_pinned(rich, change):
    """A head of which somebody relies on a version is neither renamed nor removed; the refusal says which and why."""
    before = snapshot(at(rich, "heads"))
    registry = HeadRegistry(rich.store)
    with pytest.raises(ConflictError, match=r"something relies on it: versions are pinned: 4 \(paper\)") as caught:
        registry.rename("owl", "strix") if change == "rename" else registry.remove("owl")
    assert caught.value.remedy == "Unpin them first, if nothing needs them."
    assert snapshot(at(rich, "heads")) == before
    rich.unpin("owl", 4)
    registry.rename("owl", "strix") if change == "rename" else registry.remove("owl")
    assert "owl" not in registry


def test_unknown_heads(owls):
    """A head that is not there is told with the names that come near, before the new name is looked at."""
    before = snapshot(at(owls, "heads"))
    for change in (lambda: rename(owls, "owk", "strix"), lambda: HeadRegistry(owls.store).remove("owk")):
        with pytest.raises(NotFoundError, match=r"Did you mean 'owl'\?"):
            change()
    with pytest.raises(NameInvalidError, match="as a head name"):
        rename(owls, "owl", "Strix aluco")
    assert snapshot(at(owls, "heads")) == before


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_evidence_is_never_deleted(owls, change):
    """A head with a damaged manifest is neither renamed nor removed: what it was could not be remembered."""
    flip(at(owls, version(3, layout.MANIFEST)), 40)
    before = snapshot(at(owls, "heads"))
    with pytest.raises(CorruptError, match="the manifest of owl@3"):
        rename(owls, "owl", "strix") if change == "rename" else HeadRegistry(owls.store).remove("owl")
    assert snapshot(at(owls, "heads")) == before
    assert leftovers(owls.store) == []


def test_damaged_weights_stay_damaged(owls):
    """Damage goes along with a renaming, and is found under the new name as it was under the old one."""
    flipped(version(3, layout.TENSORS))(owls)
    rename(owls, "owl", "strix")
    assert [finding.path for finding in owls.verify().findings] == [f"heads/strix/versions/000003/{layout.TENSORS}"]


# Removing


def test_remove(owls):
    """A head that was removed takes no disk, is listed nowhere and found by nobody; other heads stay as they are."""
    before = snapshot(at(owls, "heads/fox"))
    HeadRegistry(owls.store).remove("owl", reason="obsolete")
    assert list(HeadRegistry(owls.store)) == ["fox"]
    assert list(owls.store.layout.item(layout.HEADS, "owl").versions.iterdir()) == []
    for ask in (owls.active, owls.versions, owls.rollback, owls.prune, HeadRegistry(owls.store).remove):
        with pytest.raises(NotFoundError, match="no such head"):
            ask("owl")
    assert snapshot(at(owls, "heads/fox")) == before
    assert owls.verify().findings == ()
    assert leftovers(owls.store) == []


def test_numbers_of_a_removed_head_are_never_used_again(owls):
    """A head made anew under the name of a removed one goes on counting, whatever became of the claims."""
    HeadRegistry(owls.store).remove("owl")
    for path in (at(owls, f"{OWL}/claims")).iterdir():
        path.unlink()
    assert create(owls, seed=9).number == 5
    with pytest.raises(NotFoundError, match=r"none of its versions \(5\) is active"):
        owls.active("owl")


# Stopped on the way


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_stopped_at_any_step(owls, tmp_path, change):
    """Wherever it is stopped, every version is there under at least one of the names, and a second call finishes it."""
    before, at_step, stopped = facts(owls, "owl"), 0, True
    while stopped:
        at_step += 1
        stopped = False
        other = VersionManager(_copy(owls, tmp_path / str(at_step)))
        disk, _wanted = stopping(at_step)
        try:
            _change(other, change, disk)
        except Stopped:
            stopped = True
        there = [facts(other, name) for name in ("owl", "strix") if name in HeadRegistry(other.store)]
        assert all(found == before for found in there)
        assert there or (change == "remove")
        if "owl" in HeadRegistry(other.store):
            _change(other, change)
        assert "owl" not in HeadRegistry(other.store)
        assert ("strix" in HeadRegistry(other.store)) == (change == "rename")
        if change == "rename":
            assert facts(other, "strix") == before
        assert {finding.what for finding in other.verify().findings} <= {"unfinished"}
    assert at_step > 10


def _change(manager, change, disk=None):
    if change == "rename":
        rename(manager, "owl", "strix", disk)
    else:
        store = on_disk(manager.store, disk) if disk else manager.store
        renaming.remove(store, "owl", actor="ada")


def _copy(manager, root):
    import shutil

    return shutil.copytree(manager.store.root, root)


@pytest.fixture
def begun(owls):
    """Give the manager of a store in which a renaming from `owl` to `strix` was stopped between its two steps."""

    def die(step, _path, *target):
        if step == "link" and target[0].parent == owls.store.layout.item(layout.HEADS, "owl").pointers:
            raise Stopped

    with pytest.raises(Stopped):
        rename(owls, "owl", "strix", WatchedDisk(die))
    assert list(HeadRegistry(owls.store)) == ["fox", "owl", "strix"]
    return owls


def test_finished_by_a_second_call(begun):
    """A second call does not publish the head anew: it takes the old name away, and that is all."""
    before = snapshot(at(begun, "heads/strix"))
    rename(begun, "owl", "strix")
    assert list(HeadRegistry(begun.store)) == ["fox", "strix"]
    after = snapshot(at(begun, "heads/strix"))
    assert [(name, found[3]) for name, found in after.items()] == [(name, found[3]) for name, found in before.items()]
    assert [event.what for event in begun.history("owl")][-1] == "renamed"


def test_what_was_published_under_the_new_name_since(begun):
    """A version that was published under the new name meanwhile is no reason not to finish, and stays."""
    before = facts(begun, "owl")[0]
    create(begun, "strix", 33)
    rename(begun, "owl", "strix")
    assert facts(begun, "strix")[0][:-1] == before
    assert begun.store.head("strix").numbers() == [1, 2, 3, 4, 5]
    assert "owl" not in HeadRegistry(begun.store)


@pytest.mark.parametrize("head", ["owl", "strix"])
@pytest.mark.parametrize("change", ["create", "promote", "rollback", "prune"])
def test_what_changed_since_is_not_lost(begun, head, change):
    """If either name went its own way since, a second call takes nothing away: neither is what the other is."""
    changes = {
        "create": lambda: [create(begun, name, seed) for name, seed in ((head, 33), ("owl", 34))],
        "promote": lambda: begun.promote(head, 4),
        "rollback": lambda: begun.rollback(head),
        "prune": lambda: begun.prune(head, keep=1),
    }
    if change == "prune":  # which takes something away only where there is something to take
        create(begun, head, 34)
        create(begun, head, 35)
    changes[change]()
    before = [facts(begun, name) for name in ("owl", "strix")]
    with pytest.raises(ConflictError, match="the name 'strix' is in use, or was"):
        rename(begun, "owl", "strix")
    assert [facts(begun, name) for name in ("owl", "strix")] == before


def test_another_renaming_is_not_finished_by_it(begun):
    """A head that was renamed from elsewhere is not taken for the one that was begun."""
    for name in ("lynx", "wolf"):
        create(begun, name, 3)
    rename(begun, "lynx", "felis")
    with pytest.raises(ConflictError, match="the name 'felis' is in use, or was"):
        rename(begun, "wolf", "felis")
    assert "wolf" in HeadRegistry(begun.store)


# Beside others


def test_somebody_changes_the_head_meanwhile(owls):
    """Where locks do nothing: if the head changes between the two steps, both names keep it and the message says so."""
    other, done = VersionManager(owls.store.root), []

    def look(step, _path, *target):
        if step == "link" and target[0].parent == owls.store.layout.item(layout.HEADS, "owl").pointers and not done:
            done.append(other.promote("owl", 4))

    with pytest.raises(ConflictError, match="'strix' is what it was before") as caught:
        rename(owls, "owl", "strix", WatchedDisk(look))
    assert caught.value.remedy == "Remove one of the two: 'owl' is the later one."
    assert (owls.active("owl").number, owls.active("strix").number) == (4, 2)
    assert len(owls.versions("owl")) == len(owls.versions("strix")) == 4


@pytest.mark.parametrize("theirs", ["published", "renamed"])
def test_somebody_takes_the_new_name_meanwhile(owls, theirs):
    """If the new name is taken at the last moment it belongs to the other, and the old name keeps its head."""
    other, done, before = VersionManager(owls.store.root), [], facts(owls, "owl")
    create(owls, "wolf", 8)

    def look(step, _path, *target):
        if step == "rename" and target == (at(owls, "heads/strix"),) and not done:
            done.append(True)
            publish(other.store, "strix") if theirs == "published" else rename(other, "wolf", "strix")

    with pytest.raises(ConflictError, match="the name 'strix' is in use, or was"):
        rename(owls, "owl", "strix", WatchedDisk(look))
    assert facts(owls, "owl") == before
    assert owls.store.head("strix").numbers() == [1]
    assert leftovers(owls.store) == []


@pytest.mark.parametrize("step", ["make_folder", "create", "write", "sync", "sync_folder", "link", "rename"])
def test_on_a_full_disk(owls, tmp_path, step):
    """Whichever step fails, no version is lost, and it can be run again with success."""
    before, at_call, reached = facts(owls, "owl"), 0, True
    while reached and at_call < 60:
        at_call += 1
        other = VersionManager(_copy(owls, tmp_path / str(at_call)))
        disk, calls = failing(step, at_call, errno.ENOSPC)
        try:
            rename(other, "owl", "strix", disk)
        except StoreError as error:
            assert error.facts == {"errno": errno.ENOSPC}  # noqa: PT017  the last round has no error
        reached = len(calls) >= at_call
        if "owl" in HeadRegistry(other.store):
            assert facts(other, "owl") == before
            rename(other, "owl", "strix")
        assert facts(other, "strix") == before
        assert leftovers(other.store) == []
    assert at_call > 1


def test_state_of_a_renamed_head_is_its_own(owls):
    """The pointers of both names say what happened, each of its own name, and can be read by themselves."""
    rename(owls, "owl", "strix")
    old, new = (owls.store.head(name).pointer() for name in ("owl", "strix"))
    assert (old.event, old.other, old.active, old.actor, old.reason) == ("renamed", "strix", None, "ada", "taxonomy")
    assert (new.event, new.other, new.active, new.generation) == ("renamed", "owl", 2, 1)
    assert [taken.version for taken in old.taken] == [1, 2, 3, 4]
    assert new.event in pointers.EVENTS
