"""Repair: the store is sound again, what was acknowledged and is whole is still there, and no evidence is deleted."""

import collections
import shutil

import pytest
import store_damage
import store_fixtures
from damage_table import DAMAGES, NEWER, POINTERS, VERSIONS
from store_damage import (
    OWL,
    at,
    flipped,
    gone,
    left_behind,
    linked,
    made,
    other_weights,
    pointer,
    unfinished,
    unknown_value,
    version,
)
from store_fixtures import create, flip, point, rewrite, snapshot

from hydra_detect import codec
from hydra_detect.errors import InputError, NotFoundError, StoreError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, findings, heads, layout, pointers
from hydra_detect.storage.check import Checker
from hydra_detect.storage.repair import repair
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

DELETED = {findings.INDEX, findings.LEFTOVER, findings.UNFINISHED}  # what is derived, or was never named


def holdings(root):
    """Return what is held below a folder, wherever it lies: how often each content of a file is there."""
    return collections.Counter(facts[3] for facts in snapshot(root).values() if facts[3])


def state(manager):
    """Return what matters of `owl`: what is there, what is active, what can be gone back to, what is pinned."""
    item = manager.store.head("owl")
    now = item.pointer()
    return item.numbers(), now.active, now.earlier, now.pinned


# Every kind of damage


@pytest.mark.parametrize("name", DAMAGES)
def test_repair(rich, name):
    """After a repair the store is sound as far as can be, with what was active or the last sound version before."""
    damage = DAMAGES[name]
    damage.do(rich)
    report = rich.repair()
    assert {finding.what for finding in report.findings} == set(damage.left)
    assert report.is_sound == (set(damage.left) <= findings.HARMLESS)
    consequences = {findings.BACKBONE, findings.GAP}  # of what is mended: gone without a word of their own
    assert len(report.mended) >= len({what for what, _path in damage.found} - set(damage.left) - consequences)
    assert rich.store.head("owl").numbers() == list(damage.versions)
    assert rich.store.head("owl").pointer().active == damage.active
    readable = [number for number in damage.versions if findings.CONTENT not in damage.left or number < 5]
    for number in readable:
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
    if not {what for what, _path in damage.found} & DELETED:
        assert not lost


@pytest.mark.parametrize("name", DAMAGES)
def test_a_second_repair_does_nothing(rich, name):
    """What was mended is mended: a second repair finds nothing to do, and changes no file."""
    DAMAGES[name].do(rich)
    first = rich.repair()
    before = {path: facts[3] for path, facts in snapshot(rich.store.root).items()}
    second = rich.repair()
    assert (second.findings, second.mended) == (first.findings, ())
    assert {path: facts[3] for path, facts in snapshot(rich.store.root).items()} == before


@pytest.mark.parametrize("name", DAMAGES)
def test_work_goes_on(rich, name):
    """After a repair versions are created, promoted, rolled back and pruned as ever, under numbers of their own."""
    DAMAGES[name].do(rich)
    rich.repair()
    new = create(rich, seed=50)
    numbers_went_along = name == "a head that was moved"
    assert new.number == (1 if numbers_went_along else 6 if 5 in DAMAGES[name].versions else 5)
    create(rich, seed=51)
    rich.promote("owl", new.number)
    rich.promote("owl", new.number + 1)
    assert rich.rollback("owl").number == new.number
    rich.unpin("owl", new.number)
    rich.prune("owl", keep=1)
    left = {finding.what for finding in rich.verify().findings}
    assert left <= {findings.BACKBONE, findings.FOREIGN, findings.UNUSED}


# What becomes of damage


@pytest.mark.parametrize("name", [name for name in VERSIONS if not name.startswith(("a lost ver", "all versions"))])
def test_quarantine_holds_what_was_damaged(rich, name):
    """A damaged version is moved to its head's quarantine as it is, one entry for each, and is no version any more."""
    VERSIONS[name].do(rich)
    place = rich.store.head("owl").place
    bad = {finding.number for finding in rich.verify().findings if finding.what == findings.VERSION}
    before = {f"{number:06}": holdings(place.version(number)) for number in bad}
    rich.repair()
    after = {path.name.partition(".")[0]: holdings(path) for path in place.quarantine.iterdir()} if bad else {}
    assert after == before
    for number in bad:
        with pytest.raises(NotFoundError, match=f"has no version {number}"):
            heads.find(rich.store, f"owl@{number}")
        assert place.claim(number).exists()


@pytest.mark.parametrize(
    "name", [name for name, damage in POINTERS.items() if (findings.POINTER, pointer(4)) in damage.found]
)
def test_quarantine_holds_damaged_generations(rich, name):
    """Damaged generations are moved to quarantine as they are; a new one says in their place what holds now."""
    POINTERS[name].do(rich)
    place = rich.store.head("owl").place
    bad = [place.pointer(one.number) for one in rich.verify().findings if one.what == findings.POINTER]
    before = sorted((path.is_symlink(), path.is_dir() or path.read_bytes()) for path in bad)
    VersionManager(rich.store, actor="ada").repair()
    aside = [path for path in place.quarantine.iterdir() if ".json." in path.name]
    assert sorted((path.is_symlink(), path.is_dir() or path.read_bytes()) for path in aside) == before
    newest = rich.store.head("owl").pointer()
    assert (newest.generation, newest.change.what, newest.change.actor) == (5, pointers.REPAIRED, "ada")


def test_long_names_can_be_set_aside(rich):
    """A file whose name has all the letters that a file system allows is set aside too, under the first of them."""
    made(version(2, "n" * 255))(rich)
    (mended,) = rich.repair().mended
    assert mended.startswith(f"{version(2, 'n' * 255)} was moved to {OWL}/quarantine/{'n' * 40}.")
    assert rich.verify().findings == ()


@pytest.mark.parametrize(
    ("do", "path"),
    [
        (left_behind("tmp"), "tmp/"),
        (left_behind(store_damage.STAGING), f"{store_damage.STAGING}/"),
        (unfinished, version(1)),
    ],
    ids=["a leftover", "a leftover of a head", "an unfinished deletion"],
)
def test_what_is_cleared_away_is_told(rich, do, path):
    """What dead processes left is deleted, and each piece is reported as removed."""
    do(rich)
    (finding,) = rich.verify().findings
    assert finding.path.startswith(path)
    assert rich.repair().mended == (f"{finding.path} was removed",)
    assert not at(rich, finding.path).exists()


def test_the_index_is_made_anew(rich):
    """A damaged index is deleted, since it is derived, and the next listing makes it anew."""
    registry = HeadRegistry(rich.store)
    expected = registry.infos()
    flip(rich.store.layout.index, 30)
    assert rich.repair().mended == ("registry.json was removed",)
    assert registry.infos() == expected
    assert rich.verify().findings == ()


def test_numbers_are_never_used_again(rich):
    """The number of a version in quarantine is not given out again, even where claims and newest pointer are lost."""
    create(rich, seed=20)
    rich.unpin("owl", 4)
    flipped(version(4, layout.TENSORS), version(5, layout.TENSORS))(rich)
    rich.repair()
    for number in (1, 2):
        rich.pin("owl", number)  # two generations that remember it
    gone(f"{OWL}/claims")(rich)
    flip(at(rich, pointer(rich.store.head("owl").pointer().generation)), 30)
    assert create(rich, seed=21).number == 6  # before a repair, and after one
    gone(f"{OWL}/claims", version(6))(rich)
    rich.repair()
    assert create(rich, seed=22).number == 6


@pytest.mark.parametrize("folder", ["versions", "pointer", "claims"])
def test_a_linked_folder_is_taken_out_and_what_it_leads_to_is_not_touched(rich, tmp_path, folder):
    """Only the link goes to quarantine; what lies behind it belongs to somebody else, and stays as it is."""
    linked(f"{OWL}/{folder}")(rich)
    outside = tmp_path / f"{OWL}/{folder}".replace("/", ".")
    before = snapshot(outside)
    rich.repair()
    assert snapshot(outside) == before
    (aside,) = rich.store.layout.quarantine.iterdir()
    assert aside.is_symlink()
    assert aside.readlink() == outside
    rich.repair()
    assert snapshot(outside) == before


def test_a_damaged_backbone_can_be_published_again(rich):
    """After a repair the name of a damaged backbone is free for the same weights, and the heads have theirs again."""
    stored = backbones.find(rich.store, "demo")
    weights = backbones.tensors(rich.store, stored)
    flip(at(rich, f"backbones/demo/versions/000001/{layout.TENSORS}"))
    assert not rich.repair().is_sound
    with pytest.raises(NotFoundError, match="no such backbone"):
        backbones.find(rich.store, "demo")
    again = backbones.publish(rich.store, "demo", stored.record, weights)
    assert (again.is_new, again.manifest.number) == (True, 2)
    assert rich.verify().findings == ()


@pytest.mark.parametrize("depth", ["quick", "full", "deep"])
def test_no_other_version_of_a_backbone_takes_its_place(rich, depth):
    """A name is not given to what may be other weights: whoever has the right ones publishes them, and all is sound."""
    item = rich.store.backbone("demo")
    manifest = item.manifest(1)
    item.publish({path: item.read(manifest, path) for path in manifest.files}, created_at=store_fixtures.AT)
    flip(at(rich, f"backbones/demo/versions/000001/{layout.RECORD}"))
    report = repair(rich.store, Checker(rich.store, depth=depth))
    assert ({finding.what for finding in report.findings}, report.verdict) == ({findings.BACKBONE}, "damaged")
    assert (item.pointer().active, item.numbers()) == (None, [2])
    tensors, record = store_fixtures.a_backbone()
    assert backbones.publish(rich.store, "demo", record, tensors).manifest.number == 2
    assert rich.verify(depth="full").verdict == "sound"
    assert heads.load(rich.store, "owl")[0].number == 2


# What is left alone


@pytest.mark.parametrize("name", NEWER)
def test_a_head_that_a_newer_version_wrote_to_is_left_alone(rich, name):
    """Where something may be of a later version nothing of that head is moved; other heads are mended all the same."""
    NEWER[name].do(rich)
    flip(at(rich, version(3, layout.TENSORS)))
    at(rich, "heads/fox/claims/000001").unlink()
    before = snapshot(at(rich, OWL))
    report = rich.repair()
    assert snapshot(at(rich, OWL)) == before
    assert report.mended == ("number 1 of fox was claimed again",)
    assert {finding.what for finding in report.findings} == {findings.REFUSED, findings.VERSION}


@pytest.mark.parametrize("depth", ["quick", "full", "deep"])
@pytest.mark.parametrize("do", [unknown_value, other_weights])
def test_what_is_whole_is_never_moved(rich, do, depth):
    """A version that is what was published stays, and active, though nothing here can use it; what is damaged goes."""
    do(rich)
    point(rich.store, 5, 4)
    flip(at(rich, version(3, layout.RECORD)))
    report = repair(rich.store, Checker(rich.store, depth=depth))
    is_seen = do is unknown_value or depth == "deep"
    assert [finding.what for finding in report.findings] == [findings.CONTENT] * is_seen
    assert state(rich) == ([1, 2, 4, 5], 5, (1, 2), (4,))


def test_what_cannot_be_built_is_never_moved(rich):
    """Networks that cannot be built, of heads and backbones, are unusable here, and a repair leaves them alone."""

    def build(_record, _tensors):
        raise InputError("build it", "it has three legs", "Take one off.")

    before = snapshot(at(rich, "heads")), snapshot(at(rich, "backbones"))
    report = repair(rich.store, Checker(rich.store, depth="deep", build=build))
    assert {(finding.severity, finding.problem) for finding in report.findings} == {("unusable", "it has three legs")}
    assert (len(report.findings), report.mended) == (6, ())
    assert (snapshot(at(rich, "heads")), snapshot(at(rich, "backbones"))) == before


def test_what_is_of_no_use_is_not_gone_back_to(rich):
    """A repair goes back to the last version that was active and can be used, past one that is whole and cannot."""
    unknown_value(rich)
    point(rich.store, 5, 4)
    rich.promote("owl", 4)
    flip(at(rich, version(4, layout.RECORD)))
    rich.repair()
    assert state(rich) == ([1, 2, 3, 5], 2, (1, 3), ())


def test_a_missing_backbone_is_reported_and_nothing_is_made_up(rich):
    """Heads whose backbone is gone are left as they are and reported each time; with it back all is sound."""
    aside = rich.store.root.parent / "aside"
    at(rich, "backbones").rename(aside)
    before = state(rich)
    for _ in range(2):
        report = rich.repair()
        assert (report.mended, report.is_sound) == ((), False)
        assert {(finding.what, finding.severity, finding.name) for finding in report.findings} == {
            ("backbone", "unusable", "fox"),
            ("backbone", "unusable", "owl"),
        }
    assert state(rich) == before
    aside.rename(at(rich, "backbones"))
    assert rich.repair().findings == ()


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


def test_a_place_that_was_put_right_meanwhile(rich):
    """Where a file stood in the place of a folder and a person has put that right since, nothing is set aside."""
    folder, checker = rich.store.layout.staging, Checker(rich.store)
    shutil.rmtree(folder)
    folder.write_bytes(b"a file")
    look = checker.run

    def looked():
        report = look()
        if folder.is_file():
            folder.unlink()
            folder.mkdir()
        return report

    checker.run = looked
    report = repair(rich.store, checker)
    assert (report.is_sound, report.mended) == (True, ())
    assert folder.is_dir()
    assert not rich.store.layout.quarantine.exists()
