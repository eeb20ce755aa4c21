"""Renaming and removing heads: nothing is lost on the way, and a name with a number means one thing for ever."""

import errno
import os

import pytest
import store_damage
import store_fixtures
from store_damage import OWL, at, cut, flipped, gone, pointer, reworded, version
from store_fixtures import WatchedDisk, create, flip, leftovers, on_disk, snapshot

from hydra_detect.errors import (
    ConflictError,
    CorruptError,
    HydraDetectError,
    NameInvalidError,
    NotFoundError,
    StoreError,
)
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import heads, layout, renaming

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

TAKEN = "Choose another name; if a renaming of 'owl' was cut off, both names have it: remove one."


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
    for ask in (owls.active, owls.versions, owls.rollback, owls.prune, lambda head: owls.promote(head, 1)):
        with pytest.raises(NotFoundError, match=r"it was renamed to 'strix' by ada at 20\S+\. Use 'strix'\.$"):
            ask("owl")
    with pytest.raises(NotFoundError, match="it was renamed to 'strix' by ada at"):
        heads.find(owls.store, "owl@3")
    assert owls.store.head("owl").pointer().active is None
    assert "owl" not in HeadRegistry(owls.store)


def test_rename_of_a_head_that_was_never_promoted(filled):
    """A head without an active version is renamed as well, and still has none."""
    create(filled, "wolf")
    rename(filled, "wolf", "lupus")
    with pytest.raises(NotFoundError, match=r"none of its versions \(1\) is active"):
        filled.active("lupus")
    assert filled.promote("lupus", 1).number == 1


def test_weights_are_not_copied(owls):
    """Renaming a head of any size takes no time and no room: its files are linked, not written again."""
    inode = at(owls, version(2, layout.TENSORS)).stat().st_ino
    written = []
    disk = WatchedDisk(lambda step, *given: written.append(len(given[1])) if step == "write" else None)
    rename(owls, "owl", "strix", disk)
    path = at(owls, f"heads/strix/versions/000002/{layout.TENSORS}")
    assert (path.stat().st_ino, path.stat().st_nlink, path.stat().st_mode & 0o777) == (inode, 1, 0o444)
    assert len(written) == 4 + 2  # a manifest for each version, and the two pointers


def linking(number):
    """Return a disk that refuses to link files of versions."""

    def look(step, path, *_target):
        if step == "link" and path.name in {layout.TENSORS, layout.RECORD}:
            raise OSError(number, os.strerror(number), str(path))

    return WatchedDisk(look)


NO_LINKS = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@pytest.mark.parametrize("number", NO_LINKS, ids=errno.errorcode.get)
def test_where_the_file_system_has_no_links(owls, number):
    """Where files cannot be linked they are copied, and the head is the same."""
    before = facts(owls, "owl")
    inode = at(owls, version(2, layout.TENSORS)).stat().st_ino
    rename(owls, "owl", "strix", linking(number))
    path = at(owls, f"heads/strix/versions/000002/{layout.TENSORS}")
    assert path.stat().st_ino != inode
    assert path.stat().st_mode & 0o777 == 0o444
    assert facts(owls, "strix") == before
    assert owls.verify().findings == ()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
def test_a_disk_that_fails_is_no_file_system_without_links(owls, number):
    """Any other error of linking is told, rather than got round by a copy; the head stays under its name alone."""
    before = snapshot(at(owls, "heads"))
    with pytest.raises(StoreError, match="cannot rename head 'owl' to 'strix'") as caught:
        rename(owls, "owl", "strix", linking(number))
    assert caught.value.facts == {"errno": number}
    assert snapshot(at(owls, "heads")) == before
    assert leftovers(owls.store) == []


def test_damage_is_not_copied(owls):
    """Where files are copied each is checked on the way: a damaged one stops the renaming before it shows."""
    flipped(version(3, layout.TENSORS))(owls)
    before = snapshot(at(owls, "heads"))
    with pytest.raises(CorruptError, match=f"cannot read {layout.TENSORS} of owl@3: its SHA-256 is not"):
        rename(owls, "owl", "strix", linking(errno.EXDEV))
    assert snapshot(at(owls, "heads")) == before
    assert leftovers(owls.store) == []


@pytest.mark.parametrize("do", [cut, gone], ids=["too short", "missing"])
def test_a_version_that_is_not_whole_stops_a_renaming(owls, do):
    """A version whose files are not all there is refused before the new name is taken, which would be for ever."""
    do(version(3, layout.TENSORS))(owls)
    before = snapshot(at(owls, "heads"))
    with pytest.raises(HydraDetectError, match=layout.TENSORS):
        rename(owls, "owl", "strix")
    assert snapshot(at(owls, "heads")) == before
    assert leftovers(owls.store) == []


def test_what_a_later_version_wrote_goes_along(owls):
    """Fields of manifests and of the state that this version does not know are as before under the new name."""
    reworded(version(3, layout.MANIFEST), colour="red", parent=1)(owls)
    reworded(pointer(5), mood="good")(owls)
    rename(owls, "owl", "strix")
    manifest = owls.store.head("strix").manifest(3)
    assert (manifest.unknown, manifest.parent) == ({"colour": "red"}, 1)
    assert [owls.store.head(name).pointer().unknown for name in ("owl", "strix")] == [{"mood": "good"}] * 2


def test_claims_go_along(owls):
    """Numbers that were claimed and came to nothing are not given out under the new name either."""
    owls.store.head("owl").place.claim(9).touch()
    rename(owls, "owl", "strix")
    assert owls.store.head("strix").place.claimed_numbers() == [1, 2, 3, 4, 9]
    gone("heads/owl/claims")(owls)
    assert [create(owls, name).number for name in ("owl", "strix")] == [10, 10]


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
    before, steps = snapshot(folder), []
    is_a_head = new not in {"empty", "file", "dangling"}
    found = f"the name '{new}' is in use, or was" if is_a_head else f"{folder / new} is there already"
    with pytest.raises(ConflictError, match=found) as caught:
        rename(owls, "owl", new, WatchedDisk(lambda step, *_given: steps.append(step)))
    assert caught.value.remedy == (TAKEN if is_a_head else "If nobody is creating that head, move it away.")
    assert set(steps) <= {"make_folder"}  # of the lock: nothing is written in vain
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


def test_what_was_not_promoted_does_not_become_active(owls):
    """A head whose active version is not the one that was promoted is not renamed: it would become the right one."""
    store_damage.exchanged(owls)
    before = snapshot(at(owls, "heads"))
    with pytest.raises(CorruptError, match="version 2 is not the one that was promoted"):
        rename(owls, "owl", "strix")
    assert snapshot(at(owls, "heads")) == before


def test_damaged_weights_stay_damaged(owls):
    """Damage goes along with a renaming, and is found under the new name as it was under the old one."""
    flipped(version(3, layout.TENSORS))(owls)
    rename(owls, "owl", "strix")
    assert [finding.path for finding in owls.verify().findings] == [f"heads/strix/versions/000003/{layout.TENSORS}"]


# Removing


def test_remove(owls):
    """A head that was removed takes no disk, is listed nowhere and found by nobody; other heads stay as they are."""
    before = snapshot(at(owls, "heads/fox"))
    assert HeadRegistry(owls.store).remove("owl", reason="obsolete") == [1, 2, 3, 4]
    assert list(HeadRegistry(owls.store)) == ["fox"]
    assert list(owls.store.layout.item(layout.HEADS, "owl").versions.iterdir()) == []
    told = r"it was removed by \S+ at 20\S+\. 'hydra-detect history owl' tells its story\.$"
    for ask in (owls.active, owls.versions, owls.rollback, owls.prune, HeadRegistry(owls.store).remove):
        with pytest.raises(NotFoundError, match=told):
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


@pytest.mark.parametrize("head", ["owl", "fox"])
def test_a_dry_run_of_a_removal(owls, head):
    """A dry run says which versions would go, as the removal does, and changes nothing."""
    before, registry = snapshot(owls.store.root), HeadRegistry(owls.store)
    planned = registry.remove(head, dry_run=True)
    assert snapshot(owls.store.root) == before
    assert planned == registry.remove(head) == ([1, 2, 3, 4] if head == "owl" else [1])


@pytest.mark.parametrize("why", ["pinned", "unknown", "damaged", "removed"])
def test_a_dry_run_refuses_what_a_removal_would(owls, why):
    """What cannot be removed is told by a dry run in the same words."""
    registry = HeadRegistry(owls.store)
    if why == "pinned":
        owls.pin("owl", 1, reason="paper")
    if why == "damaged":
        flip(at(owls, version(3, layout.MANIFEST)), 40)
    if why == "removed":
        registry.remove("owl")
    head, errors = "owk" if why == "unknown" else "owl", []
    for dry_run in (True, False):
        with pytest.raises((ConflictError, NotFoundError, CorruptError), match=r"owl@3|'owl'") as caught:
            registry.remove(head, dry_run=dry_run)
        errors.append(str(caught.value))
    assert errors[0] == errors[1]
