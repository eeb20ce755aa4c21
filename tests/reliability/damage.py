"""A small store in every state to damage, what reads each of its files, and what damage can be done to one."""

import contextlib
import itertools
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
import worlds
from store_fixtures import a_backbone, a_record, some_tensors

from hydra_detect.errors import HydraDetectError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads, layout, pointers, usage
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

ACTIVE = "heads/owl/versions/000002"
NEWEST, OLDER = "heads/owl/pointer/00000006.json", "heads/owl/pointer/00000003.json"
IDENTITY, INDEX = "STORE.json", "registry.json"
NEVER_PROMOTED = "heads/owl/versions/000006"
ONE_OF_EACH = (
    *(f"{ACTIVE}/{name}" for name in (layout.RECORD, layout.MANIFEST, layout.TENSORS, layout.PARITY)),
    f"{NEVER_PROMOTED}/{layout.RECORD}", NEWEST, OLDER, "heads/owl/claims/000002", INDEX, "locks/heads.owl.lock",
    "backbones/demo/pointer/00000001.json", "backbones/demo/versions/000001/record.json",
)  # fmt: skip
FOLDERS = (
    "heads", "heads/owl", "heads/owl/versions", ACTIVE, NEVER_PROMOTED, "heads/owl/pointer", "heads/owl/claims",
    "heads/owl/tmp", "backbones", "backbones/demo", "backbones/demo/versions", "backbones/demo/versions/000001",
    "backbones/demo/pointer", "backbones/demo/claims", "backbones/demo/tmp", "locks", "tmp",
)  # fmt: skip


@contextlib.contextmanager
def quick_folder():
    """Give a folder in memory, where there is one: these tests write a hundred thousand times."""
    with tempfile.TemporaryDirectory(dir=worlds.MEMORY) as folder:
        yield Path(folder)


def build(root):
    """Make a store with a backbone and `owl`: versions 1, 2, 5, 6; 2 is active, 1 before it, 5 pinned, 3, 4 pruned."""
    store = Store.create(root, durability="fast")
    weights, record = a_backbone()
    backbones.publish(store, "demo", record, weights)
    manager = VersionManager(store, actor="tester")
    for take in range(1, 7):
        tensors = some_tensors(take)
        facts = a_record(tensors, backbone=record.contract, notes=f"take {take}")
        manager.create("owl", tensors, facts, attachments={layout.PARITY: b'{"equal": true, "take": %d}\n' % take})
    manager.promote("owl", 1, reason="first")
    manager.promote("owl", 2)
    manager.pin("owl", 5, reason="a paper cites it")
    manager.promote("owl", 3)
    manager.rollback("owl", reason="worse")
    manager.prune("owl", keep=1)
    HeadRegistry(store).infos()  # writes the index
    return manager


@pytest.fixture(scope="module")
def built():
    """Give the manager of such a store, and how its heads look while it is whole."""
    with quick_folder() as folder:
        manager = build(folder / "store")
        yield manager, HeadRegistry(manager.store).infos()


@pytest.fixture
def copy(built):
    """Give a function that returns the root of a fresh copy of it, alone in its folder; the one before is gone then."""
    numbers = itertools.count()
    with quick_folder() as folder:

        def fresh():
            number = next(numbers)
            shutil.rmtree(folder / f"{number - 1}", ignore_errors=True)
            shutil.copytree(built[0].store.root, folder / f"{number}" / "store")
            return folder / f"{number}" / "store"

        yield fresh


def files_of(root):
    """Return the paths of all files of a store, from its root."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def read(store, path):
    """Read one file of a store as the library reads it where it needs it, or raise its error."""
    if path == IDENTITY:
        Store.open(store.root).check_writable("write")
        return
    kind, name, place, number, *rest = path.split("/")
    number = int(number.partition(".")[0])
    if place == "pointer":
        pointers.read(store.item(kind, name).place, number)
    elif rest == [layout.TENSORS] and kind == layout.HEADS:
        heads.load(store, f"{name}@{number}")
    elif rest == [layout.TENSORS]:
        backbones.tensors(store, backbones.find(store, name))
    elif rest == [layout.MANIFEST]:
        store.item(kind, name).manifest(number)
    else:
        store.item(kind, name).read(store.item(kind, name).manifest(number), rest[0])


def is_found(store, path):
    """Whether reading a file raises an error of ours; another error is a failure of the test."""
    try:
        read(store, path)
    except HydraDetectError:
        return True
    except Exception as error:
        error.add_note(f"while {path} was damaged")
        raise
    return False


def is_reported(root):
    """Whether a whole check finds anything; opening the store is part of it."""
    try:
        return bool(VersionManager(root).verify().findings)
    except HydraDetectError:
        return True


def broken_by_a_bit(data):
    """Yield what is left of some bytes when one bit flips, with the number of the bit."""
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(broken)


def is_proven(path):
    """Whether damage to a file has to be found: all but what is derived, and what only holds a number or a lock."""
    return path.split("/")[0] not in {"locks", INDEX} and "claims" not in path.split("/")


class Damage:
    """One way to damage what stands at a path of a store: `do` does it, `name` says which it is."""

    def __init__(self, name, do):
        self.name, self.do = name, do

    def __repr__(self):
        return self.name

    def __call__(self, root, path):
        """Do it to `path`; `root.parent` is outside the store."""
        self.do(root, root / path)


def gone(path):
    """Delete a file, a link or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _replaced(make):
    def do(root, path):
        gone(path)
        make(root, path)

    return do


def _moved_out(root, path):
    outside = root.parent / f"outside-{root.name}"
    outside.mkdir(exist_ok=True)
    kept = outside / path.name
    path.rename(kept)
    path.symlink_to(kept)


def _socket(_root, path):
    here = os.open(path.parent, os.O_RDONLY)  # a socket's whole path may have only 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _other(root, path):
    """Return a file of the same kind with other content, or any other where there is none."""
    same = [root / other for other in files_of(root) if Path(other).suffix == path.suffix and root / other != path]
    nearest = [*(other for other in same if other.name == path.name), *same, root / IDENTITY]
    return next(other for other in nearest if other.read_bytes() != path.read_bytes())


def _linked(root, path):
    other = _other(root, path)
    path.unlink()
    os.link(other, path)


def _into_folder(_root, path):
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.name).write_bytes(data)


LINKS = (
    Damage("link to itself outside", _moved_out),
    Damage("dangling link", _replaced(lambda root, path: path.symlink_to(root.parent / "nothing"))),
    Damage("link in a circle", _replaced(lambda _root, path: path.symlink_to(path))),
)
STRANGE = (
    Damage("FIFO", _replaced(lambda _root, path: os.mkfifo(path))),
    Damage("socket", _replaced(_socket)),
)
FILE_DAMAGES = (
    *LINKS,
    *STRANGE,
    Damage("deleted", lambda _root, path: gone(path)),
    Damage("empty folder", _replaced(lambda _root, path: path.mkdir())),
    Damage("folder with itself in it", _into_folder),
    Damage("hard link to another", _linked),
    Damage("emptied", _replaced(lambda _root, path: path.touch())),
    Damage("zeroed", lambda _root, path: path.write_bytes(bytes(path.stat().st_size or 1))),
    Damage("of 2 MiB", lambda _root, path: os.truncate(path, 2 << 20)),
)
FOLDER_DAMAGES = (
    *LINKS,
    *STRANGE,
    Damage("deleted", lambda _root, path: gone(path)),
    Damage("file", _replaced(lambda _root, path: path.write_bytes(b"owl"))),
    Damage("emptied", _replaced(lambda _root, path: path.mkdir())),
)


def contents_of(root):
    """Return what no repair may lose: the bytes of all files but the index, where links lead, and special files."""
    found = set()
    for path in root.rglob("*"):
        if root / INDEX in (path, *path.parents):  # it is derived
            continue
        if path.is_symlink():
            found.add(f"link to {path.readlink()}".encode())
        elif path.is_file():
            found.add(path.read_bytes())
        elif not path.is_dir():
            found.add(f"special file {path.lstat().st_mode}".encode())
    return found


def attempts(manager):
    """Return everything that can be asked of `owl` and of its store, the writing last."""
    registry = HeadRegistry(manager.store)
    return {
        "names": lambda: list(registry), "infos": registry.infos, "info": lambda: registry.info("owl"),
        "contains": lambda: "owl" in registry, "get": lambda: registry["owl"], "find": lambda: registry["owl@2"],
        "load": lambda: heads.load(manager.store, "owl"), "versions": lambda: manager.versions("owl"),
        "active": lambda: manager.active("owl"), "history": lambda: manager.history("owl"),
        "compare": lambda: manager.compare("owl", 1, 2), "usage": lambda: usage.usage(manager.store),
        "backbones": registry.backbones, "backbone": lambda: backbones.find(manager.store, "demo"),
        "dry run": lambda: manager.prune("owl", keep=1, dry_run=True), "quick": lambda: manager.verify(depth="quick"),
        "create": lambda: a_version(manager), "promote": lambda: manager.promote("owl", 6),
        "rollback": lambda: manager.rollback("owl"), "pin": lambda: manager.pin("owl", 2),
        "unpin": lambda: manager.unpin("owl", 2), "prune": lambda: manager.prune("owl", keep=1),
        "publish": lambda: backbones.publish(manager.store, "other", *reversed(a_backbone(seed=9))),
        "unpin 5": lambda: manager.unpin("owl", 5), "rename": lambda: registry.rename("owl", "strix"),
        "remove": lambda: registry.remove("strix"),
    }  # fmt: skip


def a_version(manager, head="owl", take=7):
    """Publish one more version; return its number."""
    tensors = some_tensors(take)
    weights, record = a_backbone()
    assert weights
    return manager.create(head, tensors, a_record(tensors, backbone=record.contract, notes=f"take {take}")).number


def exercise(root):
    """Ask everything of a damaged store; return the names of what failed, which it may do by our errors alone.

    Listing the heads may not fail at all: one that cannot be read hides no other.
    """
    failed = []
    try:
        manager = VersionManager(Store.open(root, durability="fast"))
    except HydraDetectError:
        return ["open"]
    for name, attempt in attempts(manager).items():
        try:
            attempt()
        except HydraDetectError:
            failed.append(name)
        except Exception as error:
            error.add_note(f"in {name}")
            raise
    assert not {"names", "infos"} & {*failed}
    return failed
