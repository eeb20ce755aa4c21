"""What tests of versions share: moments at which others get in between, and versions that are damaged or exchanged."""

import shutil

from store_damage import at, version
from store_fixtures import WatchedDisk, a_record, create, flip, rewrite, some_tensors

from hydra_detect.storage import heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

OWL = (layout.HEADS, "owl")
ORIGINAL = f"{layout.ORIGINAL}.pth"
FILES = (layout.TENSORS, layout.RECORD, layout.PARITY, ORIGINAL, layout.MANIFEST)


def at_link(act):
    """Return a disk that lets something happen each time just before a new state is put in place."""
    return WatchedDisk(lambda step, *_: act() if step == "link" else None)


def with_attachments(manager, seed):
    """Publish a version of `owl` with all that a split may put beside a head."""
    tensors = some_tensors(seed)
    beside = {layout.PARITY: b'{"equal": true}', ORIGINAL: b"weights" * 100}
    return manager.create("owl", tensors, a_record(tensors), attachments=beside)


def damage(path, kind):
    """Flip a bit of a file, cut its last byte off, or take it away."""
    if kind == "flip":
        flip(path, place=len(path.read_bytes()) // 2)
    elif kind == "cut":
        rewrite(path, path.read_bytes()[:-1])
    else:
        path.unlink()


def exchange(manager, number, seed):
    """Put another version, whole and of the same number, in the place of one of `owl`."""
    donor = VersionManager(Store.create(manager.store.root.parent / f"donor-{seed}", durability="fast"))
    for turn in range(number):
        create(donor, seed=seed + turn)
    place = at(manager, version(number))
    shutil.rmtree(place)
    shutil.copytree(at(donor, version(number)), place)
    return seed + number - 1


def look_between(monkeypatch, name, act):
    """Let something happen once, after a function of `storage.heads` looked; return a list for what came of it."""
    look, begun, done = getattr(heads, name), [], []

    def looked(*arguments):
        found = look(*arguments)
        if not begun:  # `act` may look, too
            begun.append(True)
            done.append(act())
        return found

    monkeypatch.setattr(heads, name, looked)
    return done
