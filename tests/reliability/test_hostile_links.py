"""Links that lead out of a store: nothing is ever written, moved or deleted behind them."""

import itertools
import os
import shutil
import subprocess
import sys

import damage
import pytest
from damage import ACTIVE, FOLDERS, IDENTITY, INDEX, NEVER_PROMOTED
from store_fixtures import snapshot, with_backbone

from hydra_detect.errors import CorruptError, HydraDetectError, StoreError
from hydra_detect.storage import owners
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

built, copy = damage.built, damage.copy

FILES = (
    IDENTITY, INDEX, "locks/heads.owl.lock", "locks/backbones.other.lock", "heads/owl/claims/000007",
    "heads/owl/versions/000007", "heads/owl/pointer/00000007.json", "heads/owl/claims/000002", f"{ACTIVE}/record.json",
    f"{ACTIVE}/MANIFEST.json", "heads/owl/pointer/00000006.json", "heads/strix", "backbones/other",
)  # fmt: skip
LINKED_FOLDERS = (
    *FOLDERS,
    "quarantine",
    "heads/owl/quarantine",
    "heads/strix",
    "backbones/other",
    "heads/owl/versions/000007",
)


def outside_of(root):
    """Return a folder beside the store, with things of every kind that a writer might be led to."""
    outside = root.parent / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "precious").write_bytes(b"precious")
    (outside / "precious").write_bytes(b"precious")
    return outside


def dead_name():
    """Return a name in a staging folder whose process is gone: recovery would clear it away."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    return owners.staging_name().replace(f".{os.getpid()}.", f".{ended.pid}.")


def work(root):
    """Ask everything of a store, then repair it and ask everything again, by our errors alone."""
    damage.exercise(root)
    for _ in range(2):
        try:
            VersionManager(Store.open(root, durability="fast")).repair()
        except HydraDetectError:
            break
    damage.exercise(root)


def test_links_in_the_place_of_files(copy, tally):
    """Where a file, a lock or a new name should be, a link to anything outside leads no writer there."""
    cases = tally("links out of a store in the place of files: nothing behind them changed")
    for target, path in itertools.product(("file", "folder", "nothing"), FILES):
        root = copy()
        outside = outside_of(root)
        leads_to = {"file": outside / "precious", "folder": outside / "folder", "nothing": outside / "new"}[target]
        if os.path.lexists(root / path):
            damage.gone(root / path)
        (root / path).symlink_to(leads_to)
        before = snapshot(outside)
        work(root)
        assert snapshot(outside) == before, f"{target}: {path}"
        cases.case(target, path)
    cases.require(3 * len(FILES))


def test_links_in_the_place_of_folders(copy, built, tally):
    """Where a folder should be, a link to one outside, even to a sound copy of itself, leads no writer there."""
    cases = tally("links out of a store in the place of folders: nothing behind them changed")
    targets, dead = ("what was there", "an older copy", "another folder", "nothing"), dead_name()
    for target, path in itertools.product(targets, LINKED_FOLDERS):
        root = copy()
        VersionManager(root).unpin("owl", 5)  # or a renaming would not come as far as it could
        outside = outside_of(root)
        leads_to = outside / "folder"
        if target in {"what was there", "an older copy"}:
            leads_to = outside / "copy"
            shutil.copytree(root / path, leads_to) if (root / path).exists() else leads_to.mkdir()
        elif target == "nothing":
            leads_to = outside / "new"
        if target == "an older copy":  # with all that recovery clears away at home
            for inside in ("", "tmp", "owl/tmp"):
                (leads_to / inside).mkdir(parents=True, exist_ok=True)
                (leads_to / inside / dead).write_bytes(b"precious")
            for inside in ("000003", "versions/000003", "owl/versions/000003"):  # which the newest pointer calls gone
                if not (leads_to / inside).exists() and not (leads_to / inside).is_symlink():
                    shutil.copytree(built[0].store.root / NEVER_PROMOTED, leads_to / inside)
        if os.path.lexists(root / path):
            damage.gone(root / path)
        (root / path).symlink_to(leads_to)
        before = snapshot(outside)
        work(root)
        assert snapshot(outside) == before, f"{target}: {path}"
        cases.case(target, path)
    cases.require(4 * len(LINKED_FOLDERS))


def test_hard_links_out_of_the_store(copy, tally):
    """A file with a second name outside is never written to: what is there keeps its bytes."""
    cases = tally("hard links to files outside: no byte behind them changed")
    for path in damage.files_of(copy()):
        root = copy()
        outside = outside_of(root)
        (root / path).unlink()
        os.link(outside / "precious", root / path)
        damage.exercise(root)
        assert (outside / "precious").read_bytes() == b"precious", path
        cases.case(path)
    cases.require(35)


def test_recovery_at_home_clears_what_is_dead(copy):
    """What recovery would do behind a link it does do at home: the tests above could fail."""
    root, dead = copy(), dead_name()
    places = [root / "tmp" / dead, root / "heads" / "owl" / "tmp" / dead]
    for place in places:
        place.write_bytes(b"precious")
    shutil.copytree(root / NEVER_PROMOTED, root / "heads" / "owl" / "versions" / "000003")
    with Store.open(root, durability="fast").head("owl").changing():
        assert not any(place.exists() for place in places)
        assert not (root / "heads" / "owl" / "versions" / "000003").exists()


@pytest.mark.parametrize("path", ["locks/heads.owl.lock", "locks", "heads/owl", "heads", "heads/owl/tmp", "tmp"])
def test_writers_say_what_is_in_the_way(copy, path):
    """A writer that meets a link says which it is, and that a repair moves it away; after one it can write."""
    root = copy()
    outside = outside_of(root)
    damage.gone(root / path)
    (root / path).symlink_to(outside / "folder")
    manager = VersionManager(Store.open(root, durability="fast"))
    if path != "tmp":  # which only a new head, a new store and the index need
        with pytest.raises((CorruptError, StoreError), match=str(root / path)):
            damage.a_version(manager)
    assert manager.repair().mended
    assert damage.a_version(manager) >= 1


def test_a_store_behind_a_link(copy):
    """The store itself may be reached through a link, and made in a folder that is one: its owner says where it is."""
    root = copy()
    (root.parent / "link").symlink_to(root)
    manager = VersionManager(Store.open(root.parent / "link"))
    number = damage.a_version(manager)
    assert manager.promote("owl", number).number == 7
    assert manager.verify().is_sound
    (root.parent / "disk").mkdir()
    (root.parent / "scratch").symlink_to(root.parent / "disk")
    made = with_backbone(Store.create(root.parent / "scratch" / "store"))
    assert damage.a_version(VersionManager(made)) == 1
    assert (root.parent / "disk" / "store" / IDENTITY).is_file()
