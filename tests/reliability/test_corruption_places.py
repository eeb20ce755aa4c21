"""Corruption of places: what stands where a file or folder should be, what is missing, and what is there too."""

import itertools
import os

import damage
import pytest
from damage import ACTIVE, FOLDERS, IDENTITY, NEVER_PROMOTED, NEWEST, OLDER, ONE_OF_EACH
from store_fixtures import rewrite

from hydra_detect.errors import HydraDetectError, NotFoundError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import findings, heads
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

UNTOLD = {"heads", "heads/owl", "heads/owl/pointer", NEVER_PROMOTED}
"""Folders whose clean loss no check can tell: see `test_what_no_check_can_tell`."""
NEEDLESS = {"locks", "tmp", "heads/owl/tmp", "backbones/demo/tmp"}
"""Folders that are made again when they are needed."""
LONG, ODD = "x" * 250, "\udcff\x1b[31m"
ADDED = {
    "owl.txt": findings.FOREIGN, "heads/README": findings.FOREIGN, "heads/Zebra": findings.FOREIGN,
    "heads/owl/x": findings.FOREIGN, "heads/owl/versions/x": findings.FOREIGN,
    "heads/owl/versions/000007": findings.VERSION,
    "heads/owl/versions/7": findings.FOREIGN, "heads/owl/versions/0000000001": findings.FOREIGN,
    "heads/owl/versions/999999999999": findings.FOREIGN, f"{ACTIVE}/x": findings.EXTRA,
    f"{ACTIVE}/.hidden": findings.EXTRA,
    f"{ACTIVE}/record.json.bak": findings.EXTRA, f"{ACTIVE}/{LONG}": findings.EXTRA, f"{ACTIVE}/{ODD}": findings.EXTRA,
    f"{ACTIVE}/model.pth": findings.EXTRA, "heads/owl/pointer/x": findings.FOREIGN,
    "heads/owl/pointer/00000007.json": findings.POINTER, "heads/owl/pointer/99999999.json": findings.POINTER,
    "heads/owl/pointer/999999999.json": findings.POINTER, "heads/owl/pointer/9999999999.json": findings.FOREIGN,
    "heads/owl/pointer/00000003.json.tmp": findings.FOREIGN, "heads/owl/pointer/7.json": findings.FOREIGN,
    "backbones/demo/versions/000001/x": findings.EXTRA, "heads/owl/claims/x": None, "heads/owl/claims/000099": None,
    "heads/owl/claims/999999999": None, "tmp/x": None, "heads/owl/tmp/x": None,
}  # fmt: skip
"""Where something was put that the store never wrote, and what a check calls it; None where it harms no one."""
WAYS_TO_ADD = {
    "file": lambda path: path.write_bytes(b"owl"),
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "circle": lambda path: path.symlink_to(path),
}


def test_every_file(copy, built, tally):
    """Whatever stands in the place of a file is found by reading and by a check, or harms nothing."""
    cases = tally("files of a store lost, emptied, linked or replaced by what is no file, each found or harmless")
    for kind, path in itertools.product(damage.FILE_DAMAGES, damage.files_of(built[0].store.root)):
        root = copy()
        kind(root, path)
        if path == IDENTITY:
            with pytest.raises(HydraDetectError, match=r"cannot (open the store|read) "):
                Store.open(root)
        elif damage.is_proven(path):
            assert damage.is_found(Store.open(root), path), f"{kind}: {path} went unseen"
            is_untold = kind.name == "deleted" and path == NEWEST
            assert damage.is_reported(root) is not is_untold, f"{kind}: {path} passed the check"
        else:
            assert HeadRegistry(root).infos() == built[1]
        if path in ONE_OF_EACH:
            damage.exercise(root)
        cases.case(kind, path)
    cases.require(12 * 35)


def test_every_folder(copy, built, tally):
    """Whatever stands in the place of a folder is reported, or is made good when the folder is needed."""
    cases = tally("folders of a store lost, emptied, linked or replaced by what is no folder, each found or harmless")
    for kind, path in itertools.product(damage.FOLDER_DAMAGES, FOLDERS):
        root = copy()
        kind(root, path)
        is_lost = kind.name == "deleted" or (kind.name == "emptied" and path != NEVER_PROMOTED)
        assert damage.is_reported(root) is not (is_lost and path in UNTOLD | NEEDLESS), f"{kind}: {path} passed"
        assert path not in NEEDLESS or HeadRegistry(root).infos() == built[1]
        damage.exercise(root)
        cases.case(kind, path)
    cases.require(8 * 17)


def test_added(copy, tally):
    """What someone put into a store is reported or harms nothing, and never stops or floods a check."""
    cases = tally("files, folders, FIFOs and links added to a store, each reported or harmless")
    for kind, (added, what) in itertools.product(WAYS_TO_ADD, ADDED.items()):
        root = copy()
        WAYS_TO_ADD[kind](root / added)
        report = VersionManager(root).verify()
        told = {finding.what for finding in report.findings} - {findings.GAP, findings.CLAIM}  # which follow from it
        assert told == {what} - {None}, f"{kind}: {added!a}"
        assert len(report.findings) <= 101
        assert str(report).encode().isascii()
        damage.exercise(root)
        cases.case(kind, added)
    cases.require(5 * 25)


def test_what_is_added_is_never_read(copy, tally):
    """A file beside those of a version changes nothing in what is loaded, and no reader takes it for one of them."""
    cases = tally("files added to a version: none is read")
    root = copy()
    before = heads.load(Store.open(root), "owl")
    for name in ("model.pth", "model.bin", "x.safetensors", "record.json.bak", ".hidden", LONG, ODD):
        (root / ACTIVE / name).write_bytes(b"owl")
        assert heads.load(Store.open(root), "owl") == before
        cases.case(name)
    cases.require(7)


def test_a_gap_in_the_history(copy, built, tally):
    """A generation of the pointer that is missing in the middle is found, whichever it is."""
    cases = tally("generations of the pointer taken from the middle, each found")
    for generation in range(1, 6):
        root = copy()
        (root / NEWEST).with_name(f"{generation:08}.json").unlink()
        found = VersionManager(root).verify().findings
        assert [(finding.what, finding.number) for finding in found] == [(findings.GAP, generation)]
        assert HeadRegistry(root).infos() == built[1]
        cases.case(generation)
    cases.require(5)


def test_generations_of_another_head(copy, tally):
    """A generation that was written for another head or backbone is damage, the seal of which is right."""
    cases = tally("generations of the pointer from elsewhere, each found")
    other = "backbones/demo/pointer/00000001.json"
    for path, source in ((NEWEST.replace("6.json", "1.json"), other), (other, NEWEST.replace("6.json", "1.json"))):
        root = copy()
        text = (root / source).read_bytes()
        (root / path).unlink()
        (root / path).write_bytes(text)
        assert damage.is_found(Store.open(root), path)
        problems = [finding.problem for finding in VersionManager(root).verify().findings if finding.path == path]
        assert problems == [f"it is one of '{'/'.join(source.split('/')[:2])}'"]
        cases.case(path)
    root = copy()
    rewrite(root / NEWEST, (root / NEWEST.replace("6.json", "5.json")).read_bytes())
    assert damage.is_found(Store.open(root), NEWEST)
    assert [finding.problem for finding in VersionManager(root).verify().findings] == ["it is another generation"]
    cases.case("another generation")
    cases.require(3)


def test_what_no_check_can_tell(copy):
    """What the documentation names as not covered: a clean loss that looks like a state that the store was in."""
    root = copy()
    (root / NEWEST).unlink()  # the pruning is undone; what it took away is gone all the same
    manager = VersionManager(root)
    assert manager.verify().is_sound
    assert (manager.active("owl").number, manager.history("owl")[-1].what) == (2, "rolled back")
    damage.gone(root / NEVER_PROMOTED)
    assert manager.verify().findings == ()
    assert [version.number for version in manager.versions("owl")] == [1, 2, 5]
    damage.gone(root / OLDER.rpartition("/")[0])
    assert manager.verify().findings == ()
    with pytest.raises(NotFoundError, match="is active"):
        manager.active("owl")
    assert damage.a_version(manager) == 7  # even so, no number comes back
