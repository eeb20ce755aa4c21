"""Repair: the store is sound again, what was acknowledged and is whole is still there, and no evidence is deleted."""

import collections
import contextlib
import errno

import pytest
import store_damage
import store_fixtures
from store_damage import DAMAGES, HARMLESS, OWL, POINTERS, VERSIONS, at, flipped, gone, linked, pointer, version
from store_fixtures import Stopped, WatchedDisk, create, failing, flip, on_disk, rewrite, snapshot, stopping

from hydra_detect import codec
from hydra_detect.errors import ConflictError, NotFoundError, StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, check, heads, layout, pointers, repair
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

HEAD = (layout.HEADS, "owl")
DELETED = (check.INDEX, check.LEFTOVER, check.UNFINISHED)  # what is derived, or was never named
STOPPED_AT_EACH_STEP = [
    "the active version and the one before", "a damaged newest generation", "a lost and a damaged generation",
    "a damaged generation and a damaged version", "a file that nobody listed", "claims that are a link", "lost claims",
    "an unfinished pruning", "a leftover of a head", "a damaged backbone", "a version in the place of another",
]  # fmt: skip


def holdings(root):
    """Return what is held below a folder, wherever it lies: how often each content of a file is there."""
    return collections.Counter(facts[3] for facts in snapshot(root).values() if facts[3])


def state(manager):
    """Return what matters of a head: what is there, what is active, what can be gone back to, what is pinned."""
    state = manager.store.item(*HEAD).pointer()
    return manager.store.item(*HEAD).numbers(), state.active, state.earlier, state.pinned


# Every kind of damage


@pytest.mark.parametrize("name", DAMAGES)
def test_repair(rich, name):
    """After a repair the store is sound as far as can be, with what was active or the last sound version before."""
    damage = DAMAGES[name]
    damage.do(rich)
    report = rich.repair()
    assert {finding.what for finding in report.findings} == set(damage.left)
    assert report.is_sound == (set(damage.left) <= HARMLESS)
    assert len(report.mended) >= len({what for what, _path in damage.found} - set(damage.left))
    assert rich.store.item(*HEAD).numbers() == list(damage.versions)
    assert rich.store.item(*HEAD).pointer().active == damage.active
    for number in damage.versions:
        heads.load(rich.store, f"owl@{number}")
    if damage.active is None and damage.versions:
        with pytest.raises(NotFoundError, match="is active"):
            rich.active("owl")
    assert heads.load(rich.store, "fox")[0].number == 1


@pytest.mark.parametrize("name", DAMAGES)
def test_nothing_is_deleted(rich, name):
    """Whatever was in the store is in it after a repair, byte for byte, but for what is derived or was never named."""
    damage = DAMAGES[name]
    damage.do(rich)
    before = holdings(rich.store.root)
    rich.repair()
    lost = before - holdings(rich.store.root)
    if not {what for what, _path in damage.found} & set(DELETED):
        assert not lost


@pytest.mark.parametrize("name", DAMAGES)
def test_a_second_repair_does_nothing(rich, name):
    """What was mended is mended: a second repair finds nothing to do, and changes no file."""
    DAMAGES[name].do(rich)
    first = rich.repair()
    before = {name: facts[3] for name, facts in snapshot(rich.store.root).items()}
    second = rich.repair()
    assert (second.findings, second.mended) == (first.findings, ())
    assert {name: facts[3] for name, facts in snapshot(rich.store.root).items()} == before


@pytest.mark.parametrize("name", DAMAGES)
def test_work_goes_on(rich, name):
    """After a repair versions are created, promoted, rolled back and pruned as ever, under numbers of their own."""
    DAMAGES[name].do(rich)
    rich.repair()
    new = create(rich, seed=50)
    assert new.number == 6 if "settings" in name else new.number == 5
    create(rich, seed=51)
    rich.promote("owl", new.number)
    rich.promote("owl", new.number + 1)
    assert rich.rollback("owl").number == new.number
    rich.prune("owl", keep=1)
    assert {finding.what for finding in rich.verify().findings} <= {check.BACKBONE, check.FOREIGN}


@pytest.mark.parametrize("name", STOPPED_AT_EACH_STEP)
def test_a_repair_that_is_stopped_at_any_step(rich, name):
    """Wherever a repair dies, no evidence is lost, and the next one ends as if it had been the first."""
    damage = DAMAGES[name]
    damage.do(rich)
    kept = set(holdings(rich.store.root)) - (_deleted(rich) if set(dict(damage.found)) & set(DELETED) else set())
    at_step, stopped = 0, True
    while stopped:
        at_step += 1
        stopped = False
        disk, _wanted = stopping(at_step)
        try:
            VersionManager(on_disk(rich.store, disk)).repair()
        except Stopped:
            stopped = True
        assert kept <= set(holdings(rich.store.root))
    assert at_step > 3
    rich.repair()
    assert (rich.store.item(*HEAD).numbers(), rich.store.item(*HEAD).pointer().active) == (list(damage.versions), damage.active)
    assert {finding.what for finding in rich.verify().findings} == set(damage.left)


def _deleted(manager):
    """Return the contents of what a repair deletes: versions that were taken away, and what is staged."""
    numbers = set(manager.store.layout.item(*HEAD).version_numbers()) - set(manager.store.item(*HEAD).numbers())
    folders = [manager.store.layout.item(*HEAD).version(number) for number in numbers]
    return {content for folder in [*folders, *manager.store.root.glob("**/tmp")] for content in holdings(folder)}


# What becomes of damage


@pytest.mark.parametrize("name", [name for name in VERSIONS if "listed" not in name and "lost" not in name])
def test_quarantine_holds_what_was_damaged(rich, name):
    """A damaged version is moved to its head's quarantine as it is, one entry for each, and is no version any more."""
    damage = VERSIONS[name]
    damage.do(rich)
    item = rich.store.layout.item(*HEAD)
    bad = {finding.number for finding in rich.verify().findings if finding.what == check.VERSION}
    before = {f"{number:06}": holdings(item.version(number)) for number in bad}
    rich.repair()
    after = {path.name.partition(".")[0]: holdings(path) for path in item.quarantine.iterdir()} if bad else {}
    assert after == before
    for number in bad:
        with pytest.raises(NotFoundError, match=f"has no version {number}"):
            heads.find(rich.store, f"owl@{number}")
        assert item.claim(number).exists()


@pytest.mark.parametrize("name", [name for name in POINTERS if "damage" in name or "newest" in name])
def test_quarantine_holds_damaged_generations(rich, name):
    """A damaged generation is moved to quarantine as it is; a new one says in its place what holds now, and why."""
    POINTERS[name].do(rich)
    item = rich.store.layout.item(*HEAD)
    bad = [finding.number for finding in rich.verify().findings if finding.what == check.POINTER]
    before = sorted(item.pointer(number).read_bytes() for number in bad)
    VersionManager(rich.store, actor="ada").repair()
    quarantined = [path for path in item.quarantine.iterdir() if ".json." in path.name]
    assert sorted(path.read_bytes() for path in quarantined) == before
    newest = rich.store.item(*HEAD).pointer()
    assert (newest.generation, newest.event, newest.actor) == (5, pointers.REPAIRED, "ada")
    assert "generations of the pointer damaged or missing" in newest.reason


def test_history_tells_of_a_repair(rich):
    """The history says what was repaired, by whom, and what is active since; everything before it stays."""
    before = rich.history("owl")
    flip(at(rich, version(2, layout.TENSORS)))
    VersionManager(rich.store, actor="ada").repair()
    damaged = "set aside as damaged: version 2"
    assert rich.history("owl")[-1].reason == f"{damaged}; version 2 is damaged or missing; version 3 is active again"
    told = [(event.what, event.actor, event.active, event.versions) for event in rich.history("owl")]
    assert told[-1] == ("repaired", "ada", 3, (2,))
    assert rich.history("owl")[:-1] == before


def test_what_was_before_can_still_be_gone_back_to(rich):
    """After falling back a rollback leads further back, as if the damaged version had never been active."""
    flip(at(rich, version(2, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 3, 4], 3, (1,), (4,))
    assert rich.rollback("owl").number == 1


def test_falling_back_goes_by_the_history(rich):
    """A repair goes back to what was active before, not to the highest number that ever was."""
    rich.promote("owl", 4)
    flip(at(rich, version(4, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 2, 3], 2, (1, 3), ())


def test_pins_of_damaged_versions_go_with_them(rich):
    """A pinned version that was damaged is no longer pinned: its head is not held fast by what is not there."""
    flip(at(rich, version(4, layout.TENSORS)))
    rich.repair()
    assert state(rich) == ([1, 2, 3], 2, (1, 3), ())


def test_numbers_are_never_used_again(rich):
    """The number of a version in quarantine is not given out again, even where claims and newest pointer are lost."""
    create(rich, seed=20)
    rich.unpin("owl", 4)
    flipped(version(4, layout.TENSORS), version(5, layout.TENSORS))(rich)
    rich.repair()
    for number in (1, 2):
        rich.pin("owl", number)  # two generations that remember it
    gone(f"{OWL}/claims")(rich)
    flip(at(rich, pointer(rich.store.item(*HEAD).pointer().generation)), 30)
    assert create(rich, seed=21).number == 6  # before a repair, and after one
    gone(f"{OWL}/claims", version(6))(rich)
    rich.repair()
    assert create(rich, seed=22).number == 6


def test_a_linked_folder_is_taken_out_and_what_it_leads_to_is_not_touched(rich, tmp_path):
    """Only the link goes to quarantine; what lies behind it belongs to somebody else, and stays as it is."""
    linked(f"{OWL}/versions")(rich)
    outside = tmp_path / f"{OWL}/versions".replace("/", ".")
    before = snapshot(outside)
    rich.repair()
    assert snapshot(outside) == before
    (aside,) = rich.store.layout.quarantine.iterdir()
    assert aside.is_symlink()
    assert aside.readlink() == outside
    assert rich.store.item(*HEAD).numbers() == []


# What is not mended


def test_a_missing_backbone_is_reported_and_nothing_is_made_up(rich):
    """Heads whose backbone is gone are left as they are and reported each time; with it back all is sound."""
    aside = rich.store.root.parent / "aside"
    at(rich, "backbones").rename(aside)
    before = state(rich)
    for _ in range(2):
        report = rich.repair()
        assert (report.mended, report.is_sound) == ((), False)
        assert {(finding.what, finding.name) for finding in report.findings} == {
            ("backbone", "fox"),
            ("backbone", "owl"),
        }
    assert state(rich) == before
    aside.rename(at(rich, "backbones"))
    assert rich.repair().findings == ()


def test_a_damaged_backbone_can_be_published_again(rich):
    """After a repair the name of a damaged backbone is free for the same weights, and the heads have theirs again."""
    stored = backbones.find(rich.store, "demo")
    weights = backbones.tensors(rich.store, stored)
    flip(at(rich, f"backbones/demo/versions/000001/{layout.TENSORS}"))
    assert not rich.repair().is_sound
    with pytest.raises(NotFoundError, match="no such backbone"):
        backbones.find(rich.store, "demo")
    again = backbones.publish(rich.store, "demo", stored.record, weights)
    assert (again.is_new, again.manifest.version) == (True, 2)
    assert rich.verify().findings == ()


def test_what_is_not_ours_is_left_alone(rich):
    """Files of others are named and left where they are, beside something that is mended."""
    at(rich, "README").write_bytes(b"theirs")
    at(rich, f"{OWL}/notes").write_bytes(b"theirs")
    flip(at(rich, version(2, layout.TENSORS)))
    report = rich.repair()
    assert {finding.path for finding in report.findings} == {"README", f"{OWL}/notes"}
    assert (at(rich, "README").read_bytes(), at(rich, f"{OWL}/notes").read_bytes()) == (b"theirs", b"theirs")


def test_a_sound_store_is_not_written_to(rich):
    """A repair of a sound store changes no file, and says that it did nothing."""
    before = snapshot(rich.store.root)
    report = rich.repair()
    assert (report.findings, report.mended) == ((), ())
    assert snapshot(rich.store.root) == before


def test_a_shallow_repair_trusts_what_it_did_not_read(rich):
    """A quick repair mends what a quick check finds; what only a full one finds is left for that one."""
    flip(at(rich, version(2, layout.TENSORS)))
    assert rich.repair(depth="quick").mended == ()
    assert rich.active("owl").number == 2
    assert rich.repair().mended != ()


def test_progress_of_a_repair(rich):
    """A repair tells the progress of its check."""
    calls = []
    rich.repair(progress=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] > 0


# Beside others


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


def test_a_version_that_was_pruned_since_it_was_found(rich):
    """What is gone by the time it would be set aside is passed over, and the rest is mended."""
    damaged = [version(3, layout.TENSORS), version(2, layout.TENSORS)]
    flipped(*damaged)(rich)
    found = rich.verify()
    gone(version(3))(rich)
    report = repair.repair(rich.store, found, actor="ada")
    assert report.is_sound
    assert "heads/owl/versions/000003 was gone already" in report.mended
    assert state(rich)[1] == 1


@pytest.mark.parametrize("step", ["make_folder", "rename", "create", "link", "sync_folder"])
def test_a_repair_on_a_full_disk(rich, step):
    """A repair that runs out of space says that it can be run again, and that is so."""
    flipped(version(2, layout.TENSORS), pointer(1), place=30)(rich)
    at_call, reached = 0, True
    before = set(holdings(rich.store.root))
    while reached:
        at_call += 1
        disk, calls = failing(step, at_call, errno.ENOSPC)
        with contextlib.suppress(StoreError):
            VersionManager(on_disk(rich.store, disk)).repair()
        reached = len(calls) >= at_call
        assert before <= set(holdings(rich.store.root))
    assert at_call > 1
    assert rich.repair().is_sound
    assert rich.active("owl").number == 3


def test_a_store_of_a_newer_writer(rich):
    """A store that only newer versions may write is checked, and not repaired."""
    flip(at(rich, version(2, layout.TENSORS)))
    rich.store.layout.index.write_bytes(b"{")
    identity = {"format": 2, "min_reader": 1, "min_writer": 2, "store_id": "x"}
    rewrite(rich.store.layout.identity, codec.dumps(identity))
    again = VersionManager(rich.store.root)
    before = snapshot(rich.store.root)
    assert not again.verify().is_sound
    with pytest.raises(StoreError, match="it needs a writer of format 2"):
        again.repair()
    assert snapshot(rich.store.root) == before


def test_the_index_is_made_anew(rich):
    """A damaged index is deleted, since it is derived, and the next listing makes it anew."""
    registry = HeadRegistry(rich.store)
    expected = registry.infos()
    flip(rich.store.layout.index, 30)
    assert rich.repair().mended == ("registry.json was removed",)
    assert registry.infos() == expected
    assert rich.verify().findings == ()
