"""A repair that dies at any step, or meets others at any step: the next one ends as if it had been the first."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import store_damage
import store_fixtures
from damage_table import DAMAGES, aside
from store_damage import at, version
from store_fixtures import Stopped, WatchedDisk, a_backbone, create, flip, on_disk, refuse_opening, stopping
from test_repair import DELETED, holdings, state

from hydra_detect.errors import ConflictError, StoreError
from hydra_detect.history import history
from hydra_detect.storage import backbones, files, findings, layout, pointers
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

pytestmark = pytest.mark.usefixtures("untraced")  # the same lines again at each step

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

AT_EACH_STEP = [
    "a flipped bit in the active version", "a damaged newest generation", "a damaged older generation",
    "lost generations", "a file that nobody listed", "a lost claim", "versions that are a link",
    "a damaged generation and a damaged version", "an unfinished pruning",
]  # fmt: skip
AGAIN_AND_AGAIN = [
    *AT_EACH_STEP, "the active version and the one before", "a flipped bit in the pinned version", "every generation",
    "a lost and a damaged generation", "a version in the place of another", "a lost version", "lost claims",
    "claims that are a link", "a head's quarantine that is a file", "a leftover of a head", "a damaged backbone",
    "a backbone whose state is damaged",
]  # fmt: skip


def copied(manager, root):
    """Return the manager of a copy of a store, links and all."""
    return VersionManager(Store(shutil.copytree(manager.store.root, root, symlinks=True)))


def events(manager):
    """Return what the history tells, but for when and by whom: those differ from run to run."""
    told = history(manager.store, "owl")
    return [(event.what, event.versions, event.digests, event.active, event.reason, event.generation) for event in told]


def outcome(manager):
    """Return what a repair leads to: state, history, what is still found, and what lies in the quarantines."""
    aside = [holdings(path) for path in sorted(manager.store.root.glob("**/quarantine"))]
    left = sorted((finding.what, finding.path) for finding in manager.verify().findings)
    return state(manager), events(manager), left, aside, manager.store.head("owl").place.claimed_numbers()


def deleted(manager):
    """Return the contents of what a repair deletes: versions that were taken away, and what is staged."""
    item = manager.store.head("owl")
    folders = [item.place.version(number) for number in set(item.place.version_numbers()) - set(item.numbers())]
    return {content for folder in [*folders, *manager.store.root.glob("**/tmp")] for content in holdings(folder)}


@pytest.mark.parametrize("name", AT_EACH_STEP)
def test_stopped_at_any_step(rich, tmp_path, name):
    """Wherever a repair dies, no evidence is lost, and the next one ends as the first would have, history and all."""
    damage = DAMAGES[name]
    damage.do(rich)
    kept = set(holdings(rich.store.root)) - (deleted(rich) if set(dict(damage.found)) & DELETED else set())
    undisturbed = copied(rich, tmp_path / "undisturbed")
    undisturbed.repair()
    expected, at_step, stopped = outcome(undisturbed), 0, True
    while stopped:
        at_step += 1
        other, stopped = copied(rich, tmp_path / str(at_step)), False
        disk, _wanted = stopping(at_step)
        try:
            VersionManager(on_disk(other.store, disk)).repair()
        except Stopped:
            stopped = True
        assert kept <= set(holdings(other.store.root))
        other.repair()
        assert outcome(other) == expected
        assert kept <= set(holdings(other.store.root))
        shutil.rmtree(other.store.root)
    assert at_step > 3


@pytest.mark.parametrize("name", AGAIN_AND_AGAIN)
def test_stopped_again_and_again(rich, name):
    """A repair that dies at its first step, then at its second, and so on, gets to the end all the same, once."""
    damage = DAMAGES[name]
    damage.do(rich)
    at_step, stopped = 0, True
    while stopped:
        at_step += 1
        stopped = False
        disk, _wanted = stopping(at_step)
        try:
            VersionManager(on_disk(rich.store, disk)).repair()
        except Stopped:
            stopped = True
    assert rich.repair().mended == ()
    assert state(rich)[:2] == (list(damage.versions), damage.active)
    told = [reason for what, *_others, reason, _generation in events(rich) if what == pointers.REPAIRED]
    assert told == [damage.reason] * bool(damage.reason)
    assert {finding.what for finding in rich.verify().findings} == set(damage.left)


@pytest.mark.parametrize("name", ["the active version and the one before", "a lost and a damaged generation"])
def test_another_repairer_at_any_step(rich, tmp_path, name):
    """Where locks do nothing and two repair at once, one may have to run again; nothing is lost, or told twice."""
    damage = DAMAGES[name]
    damage.do(rich)
    kept = set(holdings(rich.store.root))
    undisturbed = copied(rich, tmp_path / "undisturbed")
    undisturbed.repair()
    expected, at_step, is_reached = outcome(undisturbed), 0, True
    while is_reached:
        at_step += 1
        other, steps = copied(rich, tmp_path / str(at_step)), []

        def look(step, *_arguments, other=other, steps=steps, last=at_step):
            steps.append(step)
            if len(steps) == last:
                other.repair()

        try:
            VersionManager(on_disk(other.store, WatchedDisk(look))).repair()
        except StoreError as error:
            assert isinstance(error, ConflictError) or "stays mended" in error.remedy  # noqa: PT017  not at each step
        is_reached = len(steps) >= at_step
        other.repair()
        assert outcome(other) == expected
        assert kept <= set(holdings(other.store.root))
        shutil.rmtree(other.store.root)
    assert at_step > 10


@pytest.mark.parametrize("is_stopped", [True, False], ids=["of a dead repair", "of a live one"])
def test_a_pruning_at_any_step(rich, tmp_path, is_stopped):
    """A version that is pruned in the middle of its repair was created once, set aside at most once, and is gone."""
    flip(at(rich, version(1, layout.TENSORS)))
    created = [event for event in history(rich.store, "owl") if event.what == "created"]
    at_step, is_reached = 0, True
    while is_reached:
        at_step += 1
        other, steps = copied(rich, tmp_path / str(at_step)), []

        def look(step, *_arguments, other=other, steps=steps, last=at_step):
            steps.append(step)
            if len(steps) == last and not is_stopped:
                other.prune("owl", keep=1)
            if len(steps) >= last and is_stopped:
                raise Stopped

        try:
            VersionManager(on_disk(other.store, WatchedDisk(look))).repair()
        except (Stopped, StoreError):
            other.prune("owl", keep=1)
        is_reached = len(steps) >= at_step
        assert other.repair().is_sound
        assert state(other) == ([2, 3, 4], 2, (3,), (4,))
        told = history(other.store, "owl")
        assert [event for event in told if event.what == "created"] == created
        whats = [(event.what, event.reason) for event in told if 1 in event.versions and event.generation > 4]
        assert whats in ([("pruned", "")], [("repaired", aside(1))], [("repaired", aside(1)), ("pruned", "")])
        shutil.rmtree(other.store.root)
    assert at_step > 5


def test_a_repair_beside_a_writer_at_any_step(rich, tmp_path):
    """A version that is published and promoted at any step of a repair is there in the end, and active."""
    flip(at(rich, version(2, layout.RECORD)))
    at_step, is_reached = 0, True
    while is_reached:
        at_step += 1
        other, steps = copied(rich, tmp_path / str(at_step)), []

        def look(step, *_arguments, other=other, steps=steps, last=at_step):
            steps.append(step)
            if len(steps) == last:
                other.promote("owl", create(other, seed=60).number)

        try:
            VersionManager(on_disk(other.store, WatchedDisk(look))).repair()
        except ConflictError as error:
            assert error.remedy == "Run the repair again."  # noqa: PT017  not at each step
        is_reached = len(steps) >= at_step
        assert other.repair().is_sound
        assert state(other)[:2] == (([1, 3, 4, 5], 5) if is_reached else ([1, 3, 4], 3))
        shutil.rmtree(other.store.root)
    assert at_step > 10


def repair_once(manager):
    """Repair a store; what the system refuses is the one error that it may end with."""
    try:
        manager.repair()
    except StoreError as error:
        assert files.is_refusal(error)  # noqa: PT017  not each time


def check_each_refusal(manager, refuse, path, monkeypatch, folder):
    """Let a repair meet a refusal, each time that it asks for a path; the next has to end as if it had been the first.

    Returns:
        The version that is active in the end.

    """
    undisturbed = copied(manager, folder / "undisturbed")
    undisturbed.repair()
    expected, number, is_reached = outcome(undisturbed), 0, True
    while is_reached:
        number += 1
        other = copied(manager, folder / str(number))
        with monkeypatch.context() as patched:
            asked = refuse(patched, other.store.root / path, number)
            repair_once(other)
        is_reached = len(asked) >= number
        other.repair()
        assert outcome(other) == expected
        shutil.rmtree(other.store.root)
    assert number > 3
    return undisturbed.active("owl").number


@pytest.mark.parametrize("path", [version(2, layout.MANIFEST), "heads/owl/pointer/00000001.json"])
def test_a_disk_that_refuses_any_reading(rich, tmp_path, monkeypatch, path):
    """What cannot be read once is not forgotten: the next repair ends as if it had been the first."""
    DAMAGES["a flipped bit in the active version"].do(rich)
    check_each_refusal(rich, refuse_opening, path, monkeypatch, tmp_path)


def refuse_looks(monkeypatch, path, at):
    """Let the system refuse to say what stands at a path, the how manyth time; return the list of those looks."""
    looked, looks = Path.lstat, []

    def look(asked):
        if asked == path:
            looks.append(asked)
            if len(looks) == at:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(asked))
        return looked(asked)

    monkeypatch.setattr(Path, "lstat", look)
    return looks


@pytest.mark.parametrize("path", ["heads/owl", "heads/owl/versions", "heads/owl/pointer", "heads/owl/quarantine"])
def test_a_folder_that_may_not_be_looked_at(rich, tmp_path, monkeypatch, path):
    """A folder is not set aside because the system once refused to say that it is one, at whatever look."""
    DAMAGES["a flipped bit in the active version"].do(rich)
    check_each_refusal(rich, refuse_looks, path, monkeypatch, tmp_path)


def on_two_backbones(manager):
    """Publish a second backbone and a version of `owl` on it, which is active between others; return its name."""
    tensors, record = a_backbone(seed=7)
    backbones.publish(manager.store, "other", record, tensors)
    manager.promote("owl", create(manager, seed=70, backbone=record.contract, backbone_name="other").number)
    return "other"


@pytest.mark.parametrize("opening", [0, 1, 2, 3])
def test_a_backbone_that_may_not_be_read(rich, tmp_path, monkeypatch, opening):
    """A head whose backbone may not be read just now is not of no use: none of its versions is passed over for that."""
    other = on_two_backbones(rich)  # version 5, before it 2
    rich.promote("owl", 4)
    flip(at(rich, version(4, layout.TENSORS)))
    undisturbed = copied(rich, tmp_path / "undisturbed")
    undisturbed.repair()
    assert undisturbed.active("owl").number == 5
    with monkeypatch.context() as patched:
        refuse_opening(patched, rich.store.backbone(other).place.version(1) / layout.TENSORS, opening)
        assert findings.BACKBONE not in {finding.what for finding in rich.verify().findings}
    with monkeypatch.context() as patched:
        refuse_opening(patched, rich.store.backbone(other).place.version(1) / layout.TENSORS, opening)
        repair_once(rich)
    rich.repair()
    assert outcome(rich) == outcome(undisturbed)


def test_what_may_not_be_read_at_the_second_look(rich, tmp_path, monkeypatch):
    """A repair that looks again, after it moved something away, decides nothing either by what it cannot read then."""
    flip(at(rich, version(2, layout.TENSORS)))
    flip(at(rich, version(3, layout.TENSORS)))
    shutil.rmtree(at(rich, "heads/owl/quarantine"), ignore_errors=True)
    at(rich, "heads/owl/quarantine").write_bytes(b"in the place of a folder")
    active = check_each_refusal(rich, refuse_opening, version(3, layout.TENSORS), monkeypatch, tmp_path)
    assert active == 1
