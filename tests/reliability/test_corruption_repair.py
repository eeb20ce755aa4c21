"""Repair after corruption: nothing is lost, what is left is said, and the head can be worked with again."""

import itertools

import damage
import pytest
from damage import FOLDERS, IDENTITY, NEWEST, ONE_OF_EACH
from store_fixtures import a_backbone
from test_corruption import EXTENSIONS, FLIPPED
from test_corruption_places import ADDED, WAYS_TO_ADD

from hydra_detect.errors import StoreError
from hydra_detect.storage import backbones, findings
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

ONE_IN, ONE_IN_EXHAUSTIVE = 160, 40
USED_UP = {"heads/owl/claims/999999999", "heads/owl/pointer/999999999.json"}
"""Names that leave no number to give out: a person has to move them away."""


def mend(root):
    """Repair a store until it says that nothing is left, at most three times; return the last report."""
    manager = VersionManager(Store.open(root, durability="fast"), actor="mender")
    for _ in range(3):
        report = manager.repair()
        if not report.findings:
            break
    return report


def check_mended(root, *, highest=6):
    """Repair a damaged store: no evidence is lost, and its head can be worked with; return what is left."""
    before = damage.contents_of(root)
    report = mend(root)
    left = {finding.what for finding in report.findings if not finding.is_harmless}
    assert left <= {findings.BACKBONE}, str(report)  # a backbone that is lost cannot be made up
    lost = before - damage.contents_of(root)
    assert not lost, f"{len(lost)} contents were lost: {lost!r:.200}"
    manager = VersionManager(Store.open(root, durability="fast"))
    if left:  # publishing the same one again is what makes it good
        weights, record = a_backbone()
        backbones.publish(manager.store, "demo", record, weights)
    first, second = damage.a_version(manager, take=8), damage.a_version(manager, take=9)
    assert highest < first < second
    for number in (first, second):
        assert manager.promote("owl", number).number == number
    assert manager.rollback("owl").number == first
    assert {first, second} <= set(manager.prune("owl", keep=1).kept)
    assert manager.verify().is_sound
    return left


def damaged_contents(data, every):
    """Yield one in so many of the ways to flip a bit of some bytes, and of the lengths to cut them to or to extend."""
    flips = [broken for bit, broken in damage.broken_by_a_bit(data) if bit % every == 0]
    return [*flips, *(data[:size] for size in range(0, len(data), every)), *(data + text for text in EXTENSIONS[:2])]


def test_after_damaged_bytes(copy, built, tally, exhaustive):
    """After a flipped bit or another length of any artifact all is sound again but for what cannot be made up."""
    cases = tally("repaired after damage to the bytes of a file, and worked with again")
    for path in FLIPPED:
        data = (built[0].store.root / path).read_bytes()
        for broken in damaged_contents(data, ONE_IN_EXHAUSTIVE if exhaustive else ONE_IN):
            root = copy()
            (root / path).chmod(0o644)
            (root / path).write_bytes(broken)
            left = check_mended(root)
            assert bool(left) is path.startswith("backbones/demo/versions")
            cases.case(path, broken)
    cases.require(250)


def test_after_what_happened_to_a_file(copy, tally):
    """After anything stood in the place of any kind of file all is sound again but for what cannot be made up."""
    cases = tally("repaired after a file was lost or replaced, and worked with again")
    for kind, path in itertools.product(damage.FILE_DAMAGES, ONE_OF_EACH):
        root = copy()
        kind(root, path)
        left = check_mended(root)
        is_lost = path.startswith("backbones/demo/versions") or (kind.name == "deleted" and "demo/pointer" in path)
        assert bool(left) is is_lost, f"{kind}: {path}"
        cases.case(kind, path)
    cases.require(12 * len(ONE_OF_EACH))


def test_after_what_happened_to_a_folder(copy, tally):
    """After anything stood in the place of any folder all is sound again but for what cannot be made up."""
    cases = tally("repaired after a folder was lost or replaced, and worked with again")
    for kind, path in itertools.product(damage.FOLDER_DAMAGES, FOLDERS):
        root = copy()
        kind(root, path)
        left = check_mended(root, highest=0 if path in {"heads", "heads/owl"} else 6)  # all that knew it is away
        assert not left or path.startswith("backbones"), f"{kind}: {path}"
        cases.case(kind, path)
    cases.require(8 * len(FOLDERS))


def test_after_what_was_added(copy, tally):
    """After something was added anywhere all is sound again, and what was added is kept."""
    cases = tally("repaired after something was added, and worked with again")
    for kind, added in itertools.product(("file", "link"), ADDED.keys() - USED_UP):
        root = copy()
        WAYS_TO_ADD[kind](root / added)
        assert not check_mended(root), f"{kind}: {added!a}"
        cases.case(kind, added)
    cases.require(2 * 25)


@pytest.mark.parametrize("kind", [*damage.LINKS, *damage.STRANGE], ids=repr)
@pytest.mark.parametrize("place", ["quarantine", "heads/owl/quarantine"])
def test_after_what_happened_to_quarantine(copy, kind, place):
    """Where the quarantine itself is no folder any more it is set aside too, and what belongs there finds a place."""
    root = copy()
    (root / place).mkdir()
    (root / place / "evidence").write_bytes(b"evidence")
    kind(root, place)
    (root / NEWEST).chmod(0o644)
    (root / NEWEST).write_bytes(b"damaged")
    assert not check_mended(root)
    assert b"damaged" in damage.contents_of(root)


@pytest.mark.parametrize("added", sorted(USED_UP))
def test_numbers_that_are_used_up(copy, added):
    """A file that takes the last number there is stops the writers until it is moved away: by a repair, or by hand."""
    root = copy()
    (root / added).write_bytes(b"")
    manager = VersionManager(Store.open(root, durability="fast"))
    if "pointer" not in added:  # whose number nobody could have given out; a claimed one is claimed
        with pytest.raises(StoreError, match=r"are used up\. Move away what has no business to be there"):
            damage.a_version(manager)
        (root / added).unlink()
    assert not check_mended(root)


@pytest.mark.parametrize("place", [IDENTITY, NEWEST])
def test_repair_twice(copy, place):
    """A repair of a sound store does nothing, and without STORE.json nothing is touched at all."""
    root = copy()
    if place == IDENTITY:
        manager = VersionManager(root)
        before = damage.contents_of(root)
        assert manager.repair().mended == ()
        (root / place).unlink()
        with pytest.raises(StoreError, match=r"the folder holds no STORE\.json"):
            VersionManager(root)
        assert damage.contents_of(root) <= before
        return
    (root / place).chmod(0o644)
    (root / place).write_bytes(b"{}")
    manager = VersionManager(root)
    assert manager.repair().is_sound
    after = damage.contents_of(root)
    assert manager.repair().mended == ()
    assert damage.contents_of(root) == after
