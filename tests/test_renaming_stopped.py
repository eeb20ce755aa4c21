"""Renaming and removing heads that are stopped on the way, or meet others: no version is ever without a name."""

import errno
import shutil
import time

import pytest
import store_damage
import store_fixtures
import test_renaming
from store_damage import at, reworded
from store_fixtures import Stopped, WatchedDisk, create, failing, leftovers, on_disk, publish, snapshot, stopping
from test_renaming import TAKEN, facts, rename

from hydra_detect.errors import ConflictError, CorruptError, NotFoundError, StoreError
from hydra_detect.history import history
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import layout, manifests, renaming
from hydra_detect.versions import VersionManager

pytestmark = pytest.mark.usefixtures("untraced")  # the same lines again at each step

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich, owls = store_damage.rich, test_renaming.owls

# Stopped on the way


def copied(manager, root):
    """Return the manager of a copy of a store."""
    return VersionManager(shutil.copytree(manager.store.root, root))


def change_name(manager, change, disk=None):
    """Rename or remove `owl`, on a disk of the test's own."""
    if change == "rename":
        rename(manager, "owl", "strix", disk)
    else:
        renaming.remove(on_disk(manager.store, disk) if disk else manager.store, "owl", actor="ada")


def told(manager, *heads):
    """Return what the histories of heads tell, but for when: that differs from run to run."""
    return [
        (event.head, event.what, event.versions, event.active, event.other, event.reason, event.generation)
        for head in heads or ("owl", "strix")
        for event in history(manager.store, head)
    ]


@pytest.mark.parametrize("change", ["rename", "remove"])
def test_stopped_at_any_step(owls, tmp_path, change):
    """Wherever it is stopped, every version is there under at least one of the names, and a second call finishes it."""
    owls.prune("owl", keep=1)
    create(owls, seed=9)
    before, at_step, stopped = facts(owls, "owl"), 0, True
    undisturbed = copied(owls, tmp_path / "undisturbed")
    change_name(undisturbed, change)
    expected = told(undisturbed)
    while stopped:
        at_step += 1
        stopped = False
        other = copied(owls, tmp_path / str(at_step))
        disk, _wanted = stopping(at_step)
        try:
            change_name(other, change, disk)
        except Stopped:
            stopped = True
        there = [facts(other, name) for name in ("owl", "strix") if name in HeadRegistry(other.store)]
        assert all(found == before for found in there)
        assert there or (change == "remove")
        if "owl" in HeadRegistry(other.store):
            change_name(other, change)
        else:
            with pytest.raises(NotFoundError, match=r"it was re(named to 'strix'|moved) by ada"):
                change_name(other, change)
        assert list(HeadRegistry(other.store)) == (["fox", "strix"] if change == "rename" else ["fox"])
        if change == "rename":
            assert facts(other, "strix") == before
            assert other.store.head("strix").pointer().gone == ()  # what was pruned before is the old name's matter
        assert told(other) == expected
        assert {finding.what for finding in other.verify().findings} <= {"unfinished"}
        other.repair()
        assert (other.verify().findings, other.store.head("owl").place.version_numbers()) == ((), [])
    assert at_step > 10


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


def test_what_arrived_is_seen_before_the_old_name_goes(begun):
    """If a version is not whole any more under the new name the old one keeps its head, and the message says so."""
    at(begun, f"heads/strix/versions/000003/{layout.TENSORS}").unlink()
    before = facts(begun, "owl")
    with pytest.raises(CorruptError, match="cannot rename head 'owl' to 'strix': strix@3 is not whole") as caught:
        rename(begun, "owl", "strix")
    assert caught.value.remedy == "Remove 'strix'; 'owl' is as it was."
    HeadRegistry(begun.store).remove("strix")
    assert facts(begun, "owl") == before
    rename(begun, "owl", "bubo")
    assert facts(begun, "bubo") == before


@pytest.mark.parametrize("head", ["owl", "strix"])
def test_one_of_two_names_can_be_removed(begun, head):
    """A renaming that was cut off and cannot be finished is ended by removing either name; the other keeps its head."""
    before, other = facts(begun, "owl"), {"owl": "strix", "strix": "owl"}[head]
    begun.promote(head, 4)
    with pytest.raises(ConflictError, match="the name 'strix' is in use, or was") as caught:
        rename(begun, "owl", "strix")
    assert caught.value.remedy == TAKEN
    HeadRegistry(begun.store).remove(head)
    assert facts(begun, other) == before
    assert {finding.what for finding in begun.verify().findings} == set()


def test_the_history_while_both_names_are_there(begun):
    """Between the two steps the new name tells the story of the old one, and the old one knows nothing of the new."""
    owl, strix = told(begun, "owl"), told(begun, "strix")
    assert [what for _head, what, *_others in owl if what == "renamed"] == []
    assert strix == [*owl, ("strix", "renamed", (), 2, "owl", "taxonomy", 1)]


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
    """A head that was renamed from elsewhere is not taken for the one that was begun, however like it that is."""
    create(begun, "lynx", 3)
    born = begun.store.head("lynx").manifest(1)
    create(begun, "wolf", 3)
    reworded("heads/wolf/versions/000001/MANIFEST.json", created_at=born.created_at, actor=born.actor)(begun)
    rename(begun, "lynx", "felis")
    with pytest.raises(ConflictError, match="the name 'felis' is in use, or was"):
        rename(begun, "wolf", "felis")
    assert "wolf" in HeadRegistry(begun.store)


@pytest.fixture
def crowd(manager):
    """Give the manager of a store in which `owl` has 1,500 versions, of which 7 is active."""
    create(manager)
    item, first = manager.store.head("owl"), manager.store.head("owl").manifest(1)
    for number in range(2, 1501):
        item.place.version(number).mkdir()
        item.place.claim(number).touch()
        for path in first.files:
            (item.place.version(number) / path).hardlink_to(item.place.version(1) / path)
        facts = {"listing": first.files, "created_at": first.created_at, "actor": "bo", "parent": number - 1}
        data = manifests.text(layout.HEADS, "owl", number, **facts)
        (item.place.version(number) / layout.MANIFEST).write_bytes(data)
    manager.promote("owl", 7)
    return manager


def test_a_head_of_many_versions(crowd):
    """However many versions there are, a renaming that was cut off is finished by the next call, with one change."""
    item, generation = crowd.store.head("owl"), crowd.store.head("owl").pointer().generation

    def die(step, _path, *target):
        if step == "link" and target[0].parent == item.place.pointers:
            raise Stopped

    with pytest.raises(Stopped):
        rename(crowd, "owl", "strix", WatchedDisk(die))
    assert len(crowd.store.head("strix").numbers()) == len(item.numbers()) == 1500
    rename(crowd, "owl", "strix")
    state = item.pointer()
    assert (state.generation, state.change.what, len(state.change.taken)) == (generation + 1, "renamed", 1500)
    assert item.place.version_numbers() == []
    assert (crowd.store.head("strix").numbers(), crowd.active("strix").number) == (list(range(1, 1501)), 7)
    assert crowd.store.head("strix").manifest(900).parent == 899


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


def test_a_folder_takes_the_new_name_meanwhile(owls):
    """An empty folder in the place of the new name, which a rename would replace, belongs to whoever made it."""

    def look(step, path, *_given):
        if step == "create" and path.name == "00000001.json":
            at(owls, "heads/strix").mkdir()

    before = facts(owls, "owl")
    with pytest.raises(ConflictError, match=f"{at(owls, 'heads/strix')} is there already"):
        rename(owls, "owl", "strix", WatchedDisk(look))
    assert facts(owls, "owl") == before
    assert list(at(owls, "heads/strix").iterdir()) == []


@pytest.mark.parametrize("step", ["make_folder", "create", "write", "sync", "sync_folder", "link", "rename"])
def test_on_a_full_disk(owls, tmp_path, step):
    """Whichever step fails, no version is lost, the error says what is there, and it can be run again with success."""
    before, at_call, reached = facts(owls, "owl"), 0, True
    while reached and at_call < 60:
        at_call += 1
        other = copied(owls, tmp_path / str(at_call))
        disk, calls = failing(step, at_call, errno.ENOSPC)
        try:
            rename(other, "owl", "strix", disk)
        except StoreError as error:
            names = set(HeadRegistry(other.store)) - {"fox"}
            assert error.facts == {"errno": errno.ENOSPC}  # noqa: PT017  the last round has no error
            assert REMEDIES[tuple(sorted(names))] in error.remedy  # noqa: PT017  same
        reached = len(calls) >= at_call
        if "owl" in HeadRegistry(other.store):
            assert facts(other, "owl") == before
            rename(other, "owl", "strix")
        assert facts(other, "strix") == before
        assert leftovers(other.store) == []
    assert at_call > 1


REMEDIES = {
    ("owl",): "nothing was changed",
    ("owl", "strix"): "Run it again, which finishes it: so far 'strix' is there as well.",
    ("strix",): "The change can be seen, but a power loss could undo it",
}


def test_the_history_of_a_renaming_that_was_cut_off(owls):
    """What the old name does after a renaming that was cut off belongs to the old name alone."""

    def die(step, _path, *target):
        if step == "link" and target[0].parent == at(owls, "heads/owl/pointer"):  # the old name would be gone
            raise Stopped

    before = [str(event) for event in owls.history("owl")]
    with pytest.raises(Stopped):
        rename(owls, "owl", "strix", WatchedDisk(die))
    time.sleep(0.01)  # times have milliseconds
    number = create(owls, seed=60).number
    owls.promote("owl", number)
    for pin in owls.store.head("owl").pointer().pins:
        owls.unpin("owl", pin.version, pinned_for=pin.reason)
    HeadRegistry(owls.store).remove("owl")
    *earlier, last = owls.history("strix")
    assert [str(event) for event in earlier] == before
    assert (last.what, last.other) == ("renamed", "owl")
    assert [event.what for event in owls.history("owl")][-1] == "removed"
