"""Checking a store: every kind of damage is found where it is, sound stores are called sound, nothing is changed."""

import json
import os
import re
import shutil

import attrs
import pytest
import store_damage
import store_fixtures
from store_damage import DAMAGES, HARMLESS, OWL, at, flipped, other_weights, version
from store_fixtures import WatchedDisk, create, flip, on_disk, snapshot

from hydra_detect.errors import InputError, StoreError
from hydra_detect.storage import check, layout
from hydra_detect.storage.check import CheckReport, Finding
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

NO_INDEX = tuple(name for name in DAMAGES if "index" not in name)


def told(report):
    """Return what a report found, and where; of what has a random name, the folder."""
    return sorted(
        (finding.what, f"{finding.path.rpartition('/')[0]}/*" if finding.what == check.LEFTOVER else finding.path)
        for finding in report.findings
    )


# Sound stores


@pytest.mark.parametrize("depth", ["quick", "full", "deep"])
def test_sound_stores(store, rich, depth):
    """An empty store, one without heads, and one with some history are sound at every depth."""
    for manager in (VersionManager(Store.create(store.root.parent / "empty")), rich):
        report = manager.verify(depth="full" if depth == "deep" else depth)
        assert (report.findings, report.mended, report.is_sound) == ((), (), True)
    assert check.check(store, depth=depth).findings == ()


def test_counts(rich):
    """The report counts versions, of heads and backbones, and the bytes that were hashed; a quick one hashes none."""
    report = rich.verify(depth="full")
    everything = [path for path in rich.store.root.glob("*/*/versions/*/*") if path.name != layout.MANIFEST]
    assert report.versions == 1 + 4 + 1
    assert report.nbytes == sum(path.stat().st_size for path in everything) > 0
    quick = rich.verify(depth="quick")
    assert (quick.versions, quick.nbytes) == (6, 0)


def test_progress(rich):
    """Progress is told in bytes, rises from call to call, and ends at all of them."""
    calls = []
    report = rich.verify(depth="full", progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _total in calls] == sorted(done for done, _total in calls)
    assert {total for _done, total in calls} == {report.nbytes}
    assert calls[-1] == (report.nbytes, report.nbytes)
    assert len(calls) == 6 * 2
    calls.clear()
    rich.verify(depth="quick", progress=lambda *call: calls.append(call))
    assert calls == []


@pytest.mark.parametrize("depth", ["", "FULL", "deeper", None, 1])
def test_unknown_depth(store, depth):
    """A depth that there is not is refused with those that there are, rather than taken for a shallow one."""
    with pytest.raises(InputError, match=r"depth is .*Choose from quick, full, deep\."):
        VersionManager(store).verify(depth=depth)


# Damage


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(rich, name):
    """Each kind of damage is found where it is and nothing else is, by both depths that can see it; nothing changes."""
    damage = DAMAGES[name]
    damage.do(rich)
    before = snapshot(rich.store.root)
    full, quick = rich.verify(depth="full"), rich.verify(depth="quick")
    assert told(full) == sorted(damage.found)
    # A quick check reads records without hashing them, and so blames the version rather than the file.
    seen = sorted((what, version_of(path)) for what, path in damage.found if what not in damage.hidden)
    assert sorted((what, version_of(path)) for what, path in told(quick)) == seen
    assert snapshot(rich.store.root) == before
    for report in (full, quick):
        assert report.is_sound == ({finding.what for finding in report.findings} <= HARMLESS)
        for finding in report.findings:
            assert finding.problem
            assert (finding.kind, finding.name) == owner(finding)


def version_of(path):
    """Return the version that a file lies in, or the path itself."""
    return re.sub(r"(/versions/[0-9]{6})/.*", r"\1", path)


def owner(finding):
    """Return kind and name of what a finding belongs to, by its path."""
    parts = finding.path.split("/")
    return (
        tuple(parts[:2]) if len(parts) > 1 and parts[0] in {"heads", "backbones"} and " " not in parts[1] else ("", "")
    )


def test_a_deep_check_looks_inside(rich):
    """Weights that are not those of the record are found by a deep check alone: every file proves itself."""
    other_weights(rich)
    assert rich.verify(depth="full").is_sound
    report = check.check(rich.store, depth="deep")
    assert told(report) == [(check.VERSION, version(5))]
    assert report.findings[0].problem == "their digest is not the one in the record"


def test_a_deep_check_builds_networks(rich):
    """Each sound version is given to whoever builds networks; what cannot be built is found, with the reason."""
    built = []

    def build(record, tensors):
        built.append(type(record).__name__)
        if tensors["box.count"].data[0] == 3:
            raise InputError("build it", "it has three legs", "Take one off.")

    report = check.check(rich.store, depth="deep", build=build)
    assert sorted(built) == ["BackboneRecord", *["HeadRecord"] * 5]
    assert [(finding.path, finding.problem) for finding in report.findings] == [(version(4), "it has three legs")]
    built.clear()
    check.check(rich.store, depth="full", build=build)
    assert built == []


def test_one_damaged_version_hides_no_other(rich):
    """Everything that is damaged is told at once, in the order of the store."""
    paths = [f"{OWL}/versions/{number:06}/{layout.TENSORS}" for number in (1, 3)]
    flipped(*paths)(rich)
    flip(at(rich, f"{OWL}/pointer/00000002.json"), 30)
    at(rich, "README").touch()
    assert [finding.path for finding in rich.verify().findings] == ["README", *paths, f"{OWL}/pointer/00000002.json"]


def test_a_repaired_gap_is_no_finding(rich):
    """A gap that a repair has looked at and written down is not told again; a new one is."""
    at(rich, f"{OWL}/pointer/00000002.json").unlink()
    rich.repair()
    assert rich.verify().findings == ()
    rich.promote("owl", 1)
    rich.promote("owl", 4)
    at(rich, f"{OWL}/pointer/00000006.json").unlink()
    assert told(rich.verify()) == [(check.GAP, f"{OWL}/pointer/00000006.json")]


def test_a_stray_generation_is_not_a_thousand_findings(rich):
    """A file with a high number is damage; the numbers below it that never were are not told one by one."""
    shutil.copy(at(rich, f"{OWL}/pointer/00000004.json"), at(rich, f"{OWL}/pointer/99999999.json"))
    report = rich.verify(depth="quick")
    assert {finding.what for finding in report.findings} == {check.POINTER, check.GAP}
    assert len(report.findings) < 1000


def test_what_the_system_refuses_is_not_called_damaged(rich, monkeypatch):
    """A file that may not be read is told as such: it may be sound, so it is neither damage to mend nor passed over."""
    refused, opened = str(at(rich, version(2, layout.TENSORS))), os.open

    def guarded(path, *arguments, **options):
        if str(path) == refused:
            raise PermissionError(13, "Permission denied", refused)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", guarded)
    report = rich.verify()
    assert [(finding.what, finding.number) for finding in report.findings] == [(check.REFUSED, 2)]
    assert "Permission denied" in report.findings[0].problem
    assert not report.is_sound


# Beside others


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_versions_that_are_pruned_meanwhile_are_no_damage(rich, monkeypatch, depth):
    """A check beside a pruning finds nothing wrong with versions that were there when it began and are gone now."""
    contract = rich.active("owl").record.backbone
    create(rich, seed=4, backbone=contract)
    other, pruned, manifest = VersionManager(rich.store.root), [], Store.manifest

    def prune_meanwhile(store, kind, name, number):
        found = manifest(store, kind, name, number)
        if (name, number) == ("owl", 1) and store is rich.store and not pruned:
            pruned.append(None)
            other.promote("owl", 4)
            other.promote("owl", 2)
            other.unpin("owl", 4)
            pruned.append(other.prune("owl", keep=1).removed)
        return found

    monkeypatch.setattr(Store, "manifest", prune_meanwhile)
    report = rich.verify(depth=depth)
    assert set(pruned[1]) == {1, 3}
    assert report.findings == ()


def test_versions_that_appear_meanwhile_are_no_damage(rich):
    """A check beside somebody who publishes finds nothing wrong with what is being written."""
    contract, reports = rich.active("owl").record.backbone, []

    def look(_step, *_arguments):
        reports.append(VersionManager(rich.store.root).verify(depth="quick"))

    other = VersionManager(on_disk(rich.store, WatchedDisk(look)))
    create(other, "owl", 8, backbone=contract)
    create(other, "wolf", 9, backbone=contract)
    other.promote("wolf", 1)
    assert len(reports) > 30
    assert {report.findings for report in reports} == {()}


# Reports

FINDING = Finding(
    what=check.VERSION, path="heads/owl/versions/000001", problem="it is damaged", kind="heads", name="owl"
)


def test_a_report_for_people():
    """For people a report is a line for each finding and each mending, and the verdict last."""
    harmless = attrs.evolve(FINDING, what=check.LEFTOVER, problem="a process left it behind")
    report = CheckReport(
        depth="full", findings=(FINDING, harmless), versions=3, nbytes=1_500_000, mended=("it was moved",)
    )
    assert str(report).splitlines() == [
        "damage: heads/owl/versions/000001: it is damaged",
        "note: heads/owl/versions/000001: a process left it behind",
        "mended: it was moved",
        "damaged: 3 versions, full check, 1.5 MB hashed",
    ]
    sound = CheckReport(depth="quick", findings=(harmless,), versions=0, nbytes=0)
    assert str(sound).splitlines()[-1] == "sound: 0 versions, quick check"


def test_a_report_for_programs():
    """For programs a report is plain JSON values with the verdict."""
    report = CheckReport(depth="full", findings=(FINDING,), versions=3, nbytes=5)
    assert json.loads(json.dumps(report.to_dict())) == {
        "depth": "full", "versions": 3, "nbytes": 5, "mended": [], "sound": False,
        "findings": [{
            "what": "version", "path": "heads/owl/versions/000001", "problem": "it is damaged", "kind": "heads",
            "name": "owl", "number": None,
        }],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a\nsound: 9 versions", "\x1b[2J", "\u202e"])
def test_file_names_cannot_forge_a_report(rich, name):
    """Whatever a stranger's file is called, it is told on one printable line."""
    at(rich, name).touch()
    lines = str(rich.verify(depth="quick")).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_a_store_that_is_gone(rich):
    """A store that vanished is an error, and no sound store."""
    rich.store.root.rename(rich.store.root.parent / "elsewhere")
    with pytest.raises(StoreError, match="cannot check the store"):
        rich.verify()
