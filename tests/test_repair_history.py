"""What a repair says, of itself and in the history, and what it does beside others who change the same head."""

import errno
import os
import shutil

import pytest
import store_damage
import store_fixtures
from damage_table import DAMAGES, aside
from store_damage import at, flipped, gone, left_behind, linked, pointer, reworded, version
from store_fixtures import WatchedDisk, create, failing, flip, on_disk, refuse_opening, snapshot
from test_repair import holdings, state

from hydra_detect.errors import ConflictError, StoreError
from hydra_detect.history import history
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import changes, findings, layout, pointers
from hydra_detect.storage.check import Checker
from hydra_detect.storage.pointers import Taken
from hydra_detect.storage.repair import repair
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


def repairs(manager):
    """Return the repairs that the history of `owl` tells of."""
    return [event for event in history(manager.store, "owl") if event.what == pointers.REPAIRED]


def created(manager):
    """Return what the history of `owl` tells of the making of its versions."""
    return [event for event in history(manager.store, "owl") if event.what == "created"]


# The history


@pytest.mark.parametrize("name", DAMAGES)
def test_the_history_says_why(rich, name):
    """One event says what was damaged, what was live and what is now, and who did it; none where the state was true."""
    damage = DAMAGES[name]
    damage.do(rich)
    VersionManager(rich.store, actor="ada").repair()
    told = [(event.reason, event.actor, event.active) for event in repairs(rich)]
    assert told == ([(damage.reason, "ada", damage.active)] if damage.reason else [])


def test_a_repair_is_an_event_like_others(rich):
    """The history names the version that was set aside, with its digest, and everything before it stays as it was."""
    before, damaged = history(rich.store, "owl"), rich.active("owl").manifest
    flip(at(rich, version(2, layout.TENSORS)))
    VersionManager(rich.store, actor="ada").repair()
    *earlier, event = history(rich.store, "owl")
    assert earlier == before
    assert (event.what, event.versions, event.digests) == ("repaired", (2,), (damaged,))
    assert (event.active, event.active_digest) == (3, rich.active("owl").manifest)
    assert str(event).endswith(
        f"  repaired owl@2 {damaged.short} by ada: set aside as damaged: version 2; "
        "version 2 is damaged or missing; version 3 is active again  [active: 3]"
    )


def test_what_was_before_can_still_be_gone_back_to(rich):
    """After falling back a rollback leads further back, as if the damaged version had never been active."""
    flip(at(rich, version(2, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 3, 4], 3, (1,), (4,))
    assert rich.rollback("owl").number == 1


def test_a_rollback_after_a_repair_leads_elsewhere(rich):
    """Where the version between two promotions of another is set aside, no rollback leads from that one to itself."""
    rich.promote("owl", 3)
    flip(at(rich, version(2, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 3, 4], 3, (1,), (4,))
    assert rich.rollback("owl").number == 1


def test_a_repair_of_the_state_names_what_is_active(rich):
    """Where no version was set aside the event is one of the version that is active now."""
    flip(at(rich, pointer(4)), 30)
    rich.repair()
    (event,) = repairs(rich)
    assert (event.versions, event.digest) == ((2,), rich.active("owl").manifest)


def test_falling_back_goes_by_the_history(rich):
    """A repair goes back to what was active before, not to the highest number that ever was."""
    rich.promote("owl", 4)
    flip(at(rich, version(4, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 2, 3], 2, (1, 3), ())


def test_pins_of_damaged_versions_go_with_them_and_are_named(rich):
    """A version that is set aside is pinned no more; each reason that it was kept for is named in the history."""
    rich.pin("owl", 4, reason="shipped")
    rich.pin("owl", 1)
    flip(at(rich, version(4, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 2, 3], 2, (1, 3), (1,))
    (event,) = repairs(rich)
    assert event.reason == f"{aside(4)}; no longer pinned: 4 (paper), 4 (shipped)"


def test_many_damaged_versions_do_not_hide_what_is_active(rich):
    """However many versions are set aside, the history still says which one is active now."""
    for seed in range(10, 50):
        create(rich, seed=seed)
    rich.promote("owl", 44)
    flipped(*(version(number, layout.RECORD) for number in range(5, 45)))(rich)
    rich.repair()
    (event,) = repairs(rich)
    assert len(event.reason) <= changes.MOST_CHARACTERS
    assert event.versions == tuple(range(5, 45))
    assert event.reason.endswith("version 44 is damaged or missing; version 2 is active again")


@pytest.mark.parametrize("path", [layout.TENSORS, layout.RECORD])
def test_every_version_was_created(rich, path):
    """A version that was set aside was still created, by whom and when it was, through repairs and prunings since."""
    before = created(rich)
    flip(at(rich, version(1, path)))
    rich.repair()
    assert created(rich) == before
    rich.promote("owl", 4)
    rich.unpin("owl", 4)
    flip(at(rich, version(3, path)))
    rich.repair()
    flip(at(rich, pointer(5)), 30)  # the generation of the first repair: what it alone remembers is lost with it
    rich.repair()
    assert [event.versions for event in created(rich)] == [(2,), (3,), (4,)]
    assert created(rich) == before[1:]


def test_what_cannot_be_read_is_remembered_by_its_number(rich):
    """Of a version whose manifest is damaged the history keeps the number, and goes on without the rest."""
    before = created(rich)
    flip(at(rich, version(2, layout.MANIFEST)))
    rich.repair()
    assert rich.store.head("owl").pointer().change.taken == (Taken(version=2),)
    assert (repairs(rich)[0].versions, repairs(rich)[0].digests) == ((2,), (None,))
    assert created(rich) == [event for event in before if event.versions != (2,)]


def test_set_aside_is_told_once(rich):
    """Whoever repairs after another one, or after a pruning, has nothing to add to what the history says already."""
    before = created(rich)
    flipped(version(1, layout.TENSORS), version(3, layout.RECORD))(rich)
    for _ in range(2):
        VersionManager(rich.store.root).repair()
    rich.unpin("owl", 4)
    create(rich, seed=20)
    rich.prune("owl", keep=1)
    assert rich.repair().mended == ()
    assert [event.reason for event in repairs(rich)] == [aside(1, 3)]
    assert created(rich)[:-1] == before


def test_no_version_is_told_twice_that_is_damaged_again(rich):
    """A version that was put back damaged is set aside again, and the history need not say so again."""
    flip(at(rich, version(1, layout.TENSORS)))
    rich.repair()
    (quarantined,) = rich.store.head("owl").place.quarantine.iterdir()
    quarantined.rename(at(rich, version(1)))
    assert len(rich.repair().mended) == 1
    assert rich.store.head("owl").numbers() == [2, 3, 4]
    assert [event.reason for event in repairs(rich)] == [aside(1)]


# What is found under the lock counts


class Interrupted(Checker):
    """A checker after whose first look at everything something else happens."""

    def __init__(self, store, happens, **options):
        super().__init__(store, **options)
        self.happens = [happens]

    def run(self):
        """Look at everything, and let it happen."""
        report = super().run()
        if self.happens:
            self.happens.pop()()
        return report


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_restored_meanwhile_stays(rich, tmp_path, name):
    """What was damaged when it was looked at, and is whole again before it is moved, stays where it is, and active."""
    good = shutil.copytree(rich.store.root, tmp_path / "good")
    DAMAGES[name].do(rich)

    def restore():
        for path in list(rich.store.root.iterdir()):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(good, rich.store.root, dirs_exist_ok=True)
        rich.store.root.chmod(0o755)

    report = repair(rich.store, Interrupted(rich.store, restore))
    removed = [text for text in report.mended if text.endswith(" was removed")]  # by whoever restored it
    assert (report.findings, report.mended) == ((), tuple(removed))
    contents = {path: facts[3] for path, facts in snapshot(rich.store.root).items() if facts[3]}
    assert contents == {path: facts[3] for path, facts in snapshot(good).items() if facts[3]}
    assert rich.active("owl").number == 2


@pytest.mark.parametrize("folder", ["heads", "backbones"])
def test_all_that_is_restored_meanwhile_stays(rich, folder):
    """A folder of the store's that was a link, and is a folder again before it is moved, stays with all it holds."""
    linked(folder)(rich)

    def restore():
        at(rich, folder).unlink()
        (rich.store.root.parent / folder).rename(at(rich, folder))

    report = repair(rich.store, Interrupted(rich.store, restore))
    assert (report.findings, report.mended) == ((), ())
    assert rich.active("owl").number == 2


def test_what_is_damaged_meanwhile_is_mended_as_well(rich):
    """What is found under the lock is mended, whether it was found before or not."""
    flip(at(rich, version(1, layout.TENSORS)))
    report = repair(rich.store, Interrupted(rich.store, lambda: flip(at(rich, version(2, layout.TENSORS)))))
    assert report.findings == ()
    assert state(rich) == ([3, 4], 3, (), (4,))


def test_two_repairers(rich):
    """If another one repairs between the look and the lock, nothing is left to do, and nothing is told twice."""
    before = created(rich)
    flipped(version(2, layout.TENSORS), pointer(1), place=30)(rich)
    other = VersionManager(rich.store.root, actor="bo")
    report = repair(rich.store, Interrupted(rich.store, other.repair), actor="ada")
    assert (report.findings, report.mended) == ((), ())
    assert [(event.actor, event.versions) for event in repairs(rich)] == [("bo", (2,))]
    assert created(rich) == before


def test_somebody_else_changes_the_head_meanwhile(rich):
    """A head that changes while it is repaired, where locks do nothing, is told; nothing is overwritten."""
    flip(at(rich, version(2, layout.RECORD)))
    other, done = VersionManager(rich.store.root), []

    def look(step, *_arguments):
        if step == "link" and not done:
            done.append(other.promote("owl", 1))

    with pytest.raises(ConflictError, match="cannot repair 'owl': another process changed it first") as caught:
        VersionManager(on_disk(rich.store, WatchedDisk(look))).repair()
    assert caught.value.remedy == "Run the repair again."
    assert rich.active("owl").number == 1
    assert rich.repair().is_sound
    assert rich.active("owl").number == 1


def test_a_version_that_vanishes_before_it_is_set_aside(rich):
    """What is gone by the time it would be set aside is passed over, and the rest is mended."""
    flipped(version(3, layout.TENSORS), version(2, layout.TENSORS))(rich)

    def look(step, *_arguments):
        if step == "link" and at(rich, version(3)).exists():
            gone(version(3))(rich)

    report = VersionManager(on_disk(rich.store, WatchedDisk(look))).repair()
    assert report.is_sound
    assert "heads/owl/versions/000003 was gone already" in report.mended
    assert state(rich)[:2] == ([1, 4], 1)


# Progress and errors


def test_progress_of_a_repair(rich):
    """A repair tells the progress of its checks: never more than all, and all of it in the end."""
    calls = []
    flip(at(rich, version(2, layout.TENSORS)))
    rich.repair(progress=lambda *call: calls.append(call))
    assert all(0 < done <= total for done, total in calls)
    assert calls[-1][0] == calls[-1][1] > 0


def test_a_sound_store_is_looked_at_once(rich):
    """A repair that finds nothing reads each file once, like a check: there is nothing to look at again."""
    repaired, checked = [], []
    rich.repair(progress=lambda *call: repaired.append(call))
    rich.verify(progress=lambda *call: checked.append(call))
    assert repaired == checked


def test_what_is_cleared_away_beside_what_is_not_read(rich):
    """Leftovers are deleted and told also at a head that is otherwise left alone."""
    reworded(pointer(4), format=2)(rich)
    left_behind(store_damage.STAGING)(rich)
    (leftover,) = at(rich, store_damage.STAGING).iterdir()
    report = rich.repair()
    assert not leftover.exists()
    assert report.mended == (f"{store_damage.STAGING}/{leftover.name} was removed",)


@pytest.mark.parametrize("step", ["make_folder", "rename", "create", "link", "sync_folder"])
def test_a_repair_on_a_full_disk(rich, step):
    """A repair that runs out of space says that it can be run again, and that is so."""
    flipped(version(2, layout.TENSORS), pointer(1), place=30)(rich)
    at_call, reached, errors = 0, True, []
    before = set(holdings(rich.store.root))
    while reached:
        at_call += 1
        disk, calls = failing(step, at_call, errno.ENOSPC)
        try:
            VersionManager(on_disk(rich.store, disk)).repair()
        except StoreError as error:
            errors.append(error)
        reached = len(calls) >= at_call
        assert before <= set(holdings(rich.store.root))
    assert at_call > 1
    assert errors
    assert {error.facts["errno"] for error in errors} <= {errno.ENOSPC}
    assert all("stays mended" in error.remedy or "power loss" in error.remedy for error in errors)
    assert rich.repair().is_sound
    assert rich.active("owl").number == 3


def test_an_index_that_may_not_be_read_stays(rich, monkeypatch):
    """An index that the system refuses to read is told as that; a repair does not delete it for that."""
    HeadRegistry(rich.store).infos()
    before = rich.store.layout.index.read_bytes()
    refuse_opening(monkeypatch, rich.store.layout.index)
    report = rich.repair()
    assert [(one.what, one.path) for one in report.findings] == [(findings.REFUSED, "registry.json")]
    assert report.mended == ()
    monkeypatch.undo()
    assert rich.store.layout.index.read_bytes() == before
    assert rich.verify().findings == ()


def test_what_could_not_be_removed_is_not_called_removed(rich):
    """A leftover that the system keeps is still told as one, and not as removed."""
    left_behind("tmp")(rich)
    left_behind(store_damage.STAGING)(rich)

    def refuse(step, *_arguments):
        if step in {"unlink", "rename", "remove_folder"}:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    report = VersionManager(on_disk(rich.store, WatchedDisk(refuse))).repair()
    assert report.mended == ()
    assert [one.what for one in report.findings] == [findings.LEFTOVER] * 2
    assert len(rich.repair().mended) == 2
