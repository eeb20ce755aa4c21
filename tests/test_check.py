"""Checking a store: every kind of damage is found where it is, sound stores are called sound, nothing is changed."""

import time

import numpy as np
import pytest
import store_damage
import store_fixtures
from damage_table import DAMAGES, NEWER
from store_damage import at, cut, flipped, gone, made, other_weights, pointer, smuggled, version
from store_fixtures import (
    WatchedDisk,
    a_backbone,
    a_record,
    create,
    flip,
    on_disk,
    refuse_opening,
    snapshot,
    some_tensors,
)

from hydra_detect import codec
from hydra_detect.errors import InputError, StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, check, findings, layout
from hydra_detect.storage.check import Checker
from hydra_detect.storage.items import Item
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


def told(found):
    """Return what was found, and where; of what has a random name, the folder."""
    return sorted(
        (finding.what, f"{finding.path.rpartition('/')[0]}/*" if finding.what == findings.LEFTOVER else finding.path)
        for finding in found
    )


def checked(manager, depth="full", build=None):
    """Return what a check without torch finds."""
    return told(Checker(manager.store, depth=depth, build=build).run().findings)


# Sound stores


@pytest.mark.parametrize("depth", ["quick", "full", "deep"])
def test_sound_stores(store, rich, depth):
    """An empty store, one without heads, and one with some history are sound at every depth."""
    for some in (Store.create(store.root.parent / "empty"), rich.store):
        report = Checker(some, depth=depth).run()
        assert (report.findings, report.mended, report.is_sound, report.verdict) == ((), (), True, "sound")


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


def test_a_second_run_begins_anew(rich):
    """A checker that looks again counts and tells what there is now, and nothing twice."""
    checker = Checker(rich.store)
    flip(at(rich, version(2, layout.TENSORS)))
    first = checker.run()
    assert checker.run() == first
    flip(at(rich, version(2, layout.TENSORS)))
    assert checker.run().findings == ()
    gone("backbones")(rich)
    assert len(checker.run().findings) == 5  # no head has its backbone any more


@pytest.mark.parametrize("depth", ["", "FULL", "deeper", None, 1])
def test_unknown_depth(store, depth):
    """A depth that there is not is refused with those that there are, rather than taken for a shallow one."""
    with pytest.raises(InputError, match=r"depth is .*Choose from quick, full, deep\."):
        VersionManager(store).verify(depth=depth)


# Damage


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(rich, name):
    """Each kind of damage, and nothing else, is found in its very file, by each depth that sees it; nothing changes."""
    damage = DAMAGES[name]
    damage.do(rich)
    before = snapshot(rich.store.root)
    full, quick = rich.verify(depth="full"), rich.verify(depth="quick")
    assert told(full.findings) == sorted(damage.found)
    assert told(quick.findings) == sorted((what, path) for what, path in damage.found if what not in damage.hidden)
    assert snapshot(rich.store.root) == before
    for report in (full, quick):
        assert report.is_sound == ({finding.what for finding in report.findings} <= findings.HARMLESS)
        for finding in report.findings:
            assert finding.problem
            assert (finding.kind, finding.name) == owner(finding)


def owner(finding):
    """Return kind and name of what a finding belongs to, by its path."""
    parts = finding.path.split("/")
    return (
        tuple(parts[:2]) if len(parts) > 1 and parts[0] in {"heads", "backbones"} and " " not in parts[1] else ("", "")
    )


@pytest.mark.parametrize("name", DAMAGES)
def test_looking_at_one_alone(rich, name):
    """A look at one backbone or head finds what a check of the whole store found there, and leaves no trace in it."""
    DAMAGES[name].do(rich)
    checker = Checker(rich.store, depth="deep")
    report = checker.run()
    for kind, names in ((layout.BACKBONES, ["demo", "second"]), (layout.HEADS, ["owl", "fox", "wolf", "nobody"])):
        for one in names:
            expected = [finding for finding in report.findings if (finding.kind, finding.name) == (kind, one)]
            for _ in range(2):
                assert checker.look_at(rich.store.item(kind, one)) == expected
    assert checker.run() == report


def not_finite(manager):
    """Publish a version with NaN among its weights, and all digests right."""
    tensors = {**some_tensors(6), "box.bias": RawTensor.of(np.array([np.nan], dtype=np.float32))}
    smuggled(manager, tensors, codec.encode(a_record(tensors)))


SEEN_FROM = {
    "a size": (cut(version(2, layout.TENSORS)), "quick", findings.VERSION, version(2, layout.TENSORS)),
    "a record": (flipped(version(2, layout.RECORD)), "quick", findings.VERSION, version(2, layout.RECORD)),
    "a bit": (flipped(version(2, layout.TENSORS)), "full", findings.VERSION, version(2, layout.TENSORS)),
    "NaN": (not_finite, "deep", findings.CONTENT, version(5)),
    "other weights": (other_weights, "deep", findings.CONTENT, version(5)),
}


@pytest.mark.parametrize("name", SEEN_FROM)
def test_depths(rich, name):
    """Quick sees sizes and records, full each bit, deep also whether weights are finite and those of the record."""
    do, least, *finding = SEEN_FROM[name]
    do(rich)
    depths = ("quick", "full", "deep")
    for depth in depths:
        is_seen = depths.index(depth) >= depths.index(least)
        assert checked(rich, depth) == ([tuple(finding)] if is_seen else [])


def test_a_deep_check_says_what_is_wrong_inside(rich):
    """What proves itself and is of no use is not called damaged: the reason is told in the words of who reads it."""
    other_weights(rich)
    not_finite(rich)
    found = Checker(rich.store, depth="deep").run().findings
    assert [(finding.severity, finding.problem) for finding in found] == [
        ("unusable", "their digest is not the one in the record"),
        ("unusable", "NaN or infinity in 1 of 3 tensors: box.bias"),
    ]


def test_a_deep_check_builds_networks(rich):
    """Each sound version is given to whoever builds networks; what cannot be built is found, with the reason."""
    built = []

    def build(record, tensors):
        built.append(type(record).__name__)
        if tensors["box.count"].data[0] == 3:
            raise InputError("build it", "it has three legs", "Take one off.")

    (finding,) = Checker(rich.store, depth="deep", build=build).run().findings
    assert sorted(built) == ["BackboneRecord", *["HeadRecord"] * 5]
    assert (finding.what, finding.path, finding.problem) == (findings.CONTENT, version(4), "it has three legs")
    built.clear()
    assert checked(rich, "full", build) == []
    assert built == []


def test_one_damaged_version_hides_no_other(rich):
    """Everything that is damaged is told at once, in the order of the store."""
    paths = [version(number, layout.TENSORS) for number in (1, 3)]
    flipped(*paths)(rich)
    flip(at(rich, pointer(2)), 30)
    at(rich, "README").touch()
    assert [finding.path for finding in rich.verify().findings] == ["README", pointer(2), *paths]


@pytest.mark.parametrize("path", ["backbones/demo/pointer/00000001.json", "backbones/demo/pointer"])
def test_a_backbone_that_is_not_the_one_of_its_name_is_no_backbone(rich, path):
    """Heads need a backbone that is published and active; one whose state is lost is a note that says what to do."""
    gone(path)(rich)
    first, *others = rich.verify().findings
    assert (first.what, first.severity, first.path) == (findings.UNUSED, "note", "backbones/demo/versions")
    assert first.problem.endswith("publish it again, which does")
    assert {finding.what for finding in others} == {findings.BACKBONE}
    tensors, record = a_backbone()
    backbones.publish(rich.store, "demo", record, tensors)
    assert rich.verify().findings == ()


# Gaps


def test_a_gap_is_told_once(rich):
    """Generations that are missing in a row are one finding, which names the first and the last."""
    gone(pointer(2), pointer(3))(rich)
    (finding,) = rich.verify().findings
    assert (finding.what, finding.number, finding.path) == (findings.GAP, 2, pointer(2))
    assert finding.problem == "missing from the history: generations 2 to 3"


def test_a_stray_generation_costs_no_time(rich):
    """A file with a number far too high is one damaged file and one gap, which nobody counts out one by one."""
    made(pointer(99_999_999))(rich)
    began = time.monotonic()
    found = rich.verify(depth="quick").findings
    assert time.monotonic() - began < 5
    assert told(found) == [(findings.GAP, pointer(5)), (findings.POINTER, pointer(99_999_999))]
    assert found[-1].problem == "missing from the history: generations 5 to 99999998"


def test_only_what_a_repair_wrote_off_is_accepted(rich):
    """What goes missing after a repair is found, before its generation and beside what that one wrote off."""
    flip(at(rich, version(3, layout.TENSORS)))
    rich.repair()  # generation 5, which writes nothing off
    gone(pointer(2))(rich)
    assert checked(rich) == [(findings.GAP, pointer(2))]
    rich.repair()  # generation 6, which writes 2 off
    assert checked(rich) == []
    gone(pointer(1), pointer(3))(rich)
    assert checked(rich) == [(findings.GAP, pointer(1)), (findings.GAP, pointer(3))]
    rich.promote("owl", 1)
    gone(pointer(6))(rich)
    assert checked(rich) == [(findings.GAP, pointer(1)), (findings.GAP, pointer(6))]


# What cannot be judged here


@pytest.mark.parametrize("name", NEWER)
def test_what_a_newer_version_wrote_is_not_called_damaged(rich, name):
    """What is whole and speaks of what this version does not know is told as not read, in its file, at each depth."""
    damage = NEWER[name]
    damage.do(rich)
    for depth in ("quick", "full", "deep"):
        report = Checker(rich.store, depth=depth).run()
        assert told(report.findings) == list(damage.found)
        assert (report.verdict, report.findings[0].severity) == ("unclear", "not read")


def test_what_the_system_refuses_is_not_called_damaged(rich, monkeypatch):
    """A file that may not be read is told as such: it may be sound, so it is neither damage to mend nor passed over."""
    refuse_opening(monkeypatch, at(rich, version(2, layout.TENSORS)))
    report = rich.verify()
    (finding,) = report.findings
    assert (finding.what, finding.path, finding.number) == (findings.REFUSED, version(2, layout.TENSORS), 2)
    assert "Input/output error" in finding.problem
    assert (report.is_sound, report.verdict) == (False, "unclear")


def test_a_store_that_is_gone(rich):
    """A store that vanished is an error, and no sound store."""
    rich.store.root.rename(rich.store.root.parent / "elsewhere")
    with pytest.raises(StoreError, match="cannot check the store"):
        rich.verify()


@pytest.mark.parametrize("name", ["a\nsound: 9 versions", "\x1b[2J", "\u202e", "\udcff"])
def test_file_names_cannot_forge_a_report(rich, name):
    """Whatever a stranger's file is called, it is told on one printable line."""
    at(rich, name).touch()
    lines = str(rich.verify(depth="quick")).splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


# Beside others


@pytest.mark.parametrize("depth", ["quick", "full"])
def test_versions_that_are_pruned_meanwhile_are_no_damage(rich, monkeypatch, depth):
    """A check beside a pruning finds nothing wrong with versions that were there when it began and are gone now."""
    create(rich, seed=4)
    other, pruned, manifest = VersionManager(rich.store.root), [], Item.manifest

    def prune_meanwhile(item, number):
        found = manifest(item, number)
        if (item.name, number) == ("owl", 1) and item.store is rich.store and not pruned:
            pruned.append(None)
            other.promote("owl", 4)
            other.promote("owl", 2)
            other.unpin("owl", 4)
            pruned.append(other.prune("owl", keep=1).removed)
        return found

    monkeypatch.setattr(Item, "manifest", prune_meanwhile)
    report = rich.verify(depth=depth)
    assert set(pruned[1]) == {1, 3}
    assert report.findings == ()


def test_what_is_being_done_is_no_damage(rich):
    """A check beside each step of a writer finds no damage: at the most, versions that are about to be deleted."""
    reports = []

    def look(_step, *_arguments):
        reports.append(VersionManager(rich.store.root).verify(depth="quick"))

    busy = on_disk(rich.store, WatchedDisk(look))
    other = VersionManager(busy)
    create(other, "owl", 8)
    create(other, "wolf", 9)
    other.promote("wolf", 1)
    other.pin("wolf", 1)
    other.unpin("owl", 4)
    other.unpin("wolf", 1)
    assert set(other.prune("owl", keep=1).removed) == {1, 4}
    HeadRegistry(busy).rename("wolf", "lupus")
    HeadRegistry(busy).remove("owl")
    assert len(reports) > 200
    assert {report.verdict for report in reports} == {"sound"}
    whats = {finding.what for report in reports for finding in report.findings}
    assert whats == {findings.UNFINISHED}


def test_a_backbone_that_appears_meanwhile_is_a_backbone(rich):
    """A version that is published beside a check, after the backbone that it was made on, lacks nothing."""
    other, done = VersionManager(rich.store.root), []

    def split(*_call):
        if not done:
            tensors, record = a_backbone(1)
            backbones.publish(other.store, "second", record, tensors)
            done.append(create(other, "owl", 8, backbone=record.contract))

    report = rich.verify(progress=split)
    assert (report.findings, report.versions) == ((), 1 + 5 + 1)


def test_what_is_damaged_is_found_whatever_else_happens(rich):
    """A head that changes all the while is looked at again, not for ever, and its damage is told in the end, once."""
    flip(at(rich, version(3, layout.TENSORS)))
    other, calls = VersionManager(rich.store.root), []

    def busy(*call):
        calls.append(call)
        other.pin("owl", 1, reason=f"call {len(calls)}")

    report = rich.verify(progress=busy)
    assert told(report.findings) == [(findings.VERSION, version(3, layout.TENSORS))]
    assert report.versions == 1 + 4 + 1
    assert len(calls) == 2 + 2 + check._MOST_LOOKS * 3 * 2  # two files of each version that is whole


def test_damage_that_was_none(rich):
    """What looked damaged only because it was being changed is looked at again, and not told."""
    other, weights, calls = VersionManager(rich.store.root), at(rich, version(1, layout.TENSORS)), []
    flip(weights)

    def restore(*call):
        calls.append(call)
        if len(calls) == 5:  # demo@1, fox@1, and the first file of owl@2
            flip(weights)
            other.pin("owl", 1)

    assert rich.verify(progress=restore).findings == ()
    assert len(calls) == 2 + 2 + (3 + 4) * 2
