"""Small heads and stores without torch: valid records over tiny tensors, and what a folder holds."""

import errno
import os
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import attrs
import numpy as np
import pytest

from hydra_detect.contracts import Architecture, BackboneContract, Level, Preprocessing
from hydra_detect.names import Digest
from hydra_detect.records import BackboneRecord, HeadRecord, HeadSettings
from hydra_detect.storage import backbones, owners, pointers
from hydra_detect.storage.disk import FAST, Disk
from hydra_detect.storage.pointers import Change
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, tensors_digest
from hydra_detect.versions import VersionManager

CONTENTS = {"a.bin": b"owl" * 100, "b.json": b"{}", "c": b""}
STEPS = (
    "make_folder", "create", "write", "sync", "sync_folder", "link", "rename", "replace", "unlink", "remove_folder",
)  # fmt: skip
AT = "2025-01-01T00:00:00.000+00:00"

HOSTILE_NAMES = (
    "", ".", "..", "...", "../owl", "../../owl", "owl/..", "owl/../fox", "/", "/etc", "/etc/passwd", "a/b", "a//b",
    "a\\b", "..\\owl", "\\", "C:", "C:\\owl", "c:/owl", "D:foo",
    "\\\\server\\share", "//server/share", "\\\\?\\C:\\owl",
    "\\\\.\\pipe\\owl", "owl\0", "\0", "owl\0.txt", "owl\n", "\nowl", "owl\r", "owl\t", "owl ", " owl", " ", "owl.",
    "owl..", ".owl", "owl.txt", "CON", "con", "Con", "con.txt", "prn", "aux", "nul", "NUL", "com0", "com1", "COM9",
    "lpt1", "lpt9", "LPT1", "con ", "con.", "owl:stream", "owl::$DATA", "a" * 65, "a" * 300, "caf\u00e9", "cafe\u0301",
    "Owl", "OWL", "oWl", "-owl", "--help", "-", "_owl", "_", "owl\u202etxt", "\u200bowl", "owl\u2028", "\uff4fwl",
    "\u043ewl", "o\u0307wl", "\ud800", "owl*", "owl?", "owl|fox", "<owl>", 'owl"', "owl'", "~", "~root", "$HOME",
    "%TEMP%", "owl;rm", "owl&fox", "owl@", "owl@0", "owl@-1", "owl@+1", "owl@01", "owl@1.0", "owl@1@2", "owl@\u0663",
    "owl@1\n", "owl@9999999999", "@", "@1", "\ufeffowl", "\U0001f989", "\x7f", "\x1b[31mowl", "owl#1", "owl,fox",
)  # fmt: skip
NO_TEXT = (None, 1, 1.5, True, b"owl", ["owl"], ("owl",), {"owl": 1}, ...)


def a_contract(digit="", **changes):
    """Return the contract of `a_backbone()`; of another one, if a digit is given for the digest of its weights."""
    facts = {
        "digest": Digest(digit * 64) if digit else tensors_digest(some_tensors()),
        "architecture": Architecture(
            body="resnet", in_channels=3, return_layers=("layer1", "layer2"), body_channels=(64, 128),
            pyramid_channels=256, norm="frozen", norm_eps=0.0, block="basic", layers=(2, 2, 2, 2),
        ),
        "preprocessing": Preprocessing(),
        "levels": (Level(name="0", channels=256, stride=4), Level(name="pool", channels=256, stride=8)),
    }  # fmt: skip
    return BackboneContract(**facts | changes)


def a_backbone(seed=0):
    """Return tensors of a backbone and its record."""
    tensors = some_tensors(seed)
    return tensors, BackboneRecord(contract=attrs.evolve(a_contract(), digest=tensors_digest(tensors)))


def some_tensors(seed=0):
    """Return two tiny tensors; each seed has its own."""
    return {
        "box.weight": RawTensor.of(np.full((2, 3), seed + 0.5, dtype=np.float32)),
        "box.count": RawTensor.of(np.array(seed, dtype=np.int64)),
    }


def a_record(tensors, **changes):
    """Return a valid record of a head with these tensors."""
    classes = changes.get("class_names", ("owl", "red fox"))
    facts = {
        "tensors": tensors_digest(tensors),
        "backbone": a_contract(),
        "backbone_name": "demo",
        "settings": HeadSettings(
            label_count=len(classes) + 1, anchor_sizes=((32,), (64,)), aspect_ratios=((0.5, 1.0), (0.5, 1.0))
        ),
        "class_names": classes,
    }
    return HeadRecord(**facts | changes)


def with_backbone(store):
    """Return a store after putting `a_backbone()` into it, which heads need."""
    tensors, record = a_backbone()
    backbones.publish(store, "demo", record, tensors)
    return store


def create(manager, head="owl", seed=0, **changes):
    """Publish a version of a head with the tensors of `seed`, and its backbone before it if there is none."""
    if not backbones.names(manager.store):
        with_backbone(manager.store)
    tensors = some_tensors(seed)
    return manager.create(head, tensors, a_record(tensors, **changes))


def snapshot(folder):
    """Return everything below a folder: kind, mode, size, time of change and content of each entry."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
        found[str(path.relative_to(folder))] = (facts.st_mode, facts.st_mtime_ns, facts.st_nlink, content)
    return found


def leftovers(store):
    """Return what lies in the staging folders of a store."""
    return sorted(str(path) for pattern in ("tmp/*", "*/*/tmp/*") for path in store.root.glob(pattern))


def rewrite(path, data):
    """Replace the bytes of a read-only file, as a bad disk would."""
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path, place=-1, bit=0):
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    rewrite(path, bytes(data))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Give a new, empty store, on a disk that is taken at its word: fsync would only cost time here."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    return Store.create(tmp_path / "store")


@pytest.fixture
def manager(store):
    """Give the manager of a new store with a backbone and no head."""
    return VersionManager(with_backbone(store))


@pytest.fixture
def filled(manager):
    """Give the manager of a store with a backbone, two versions of `owl`, the first active, and `fox` without any."""
    create(manager, "owl", 0)
    create(manager, "owl", 1)
    manager.promote("owl", 1)
    create(manager, "fox", 2)
    return manager


def limit_file_size(size):
    """Make writing beyond `size` bytes of a file fail in this process, as on a full disk."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def open_descriptors():
    """Return how many files this process holds open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def publish(store, name="owl", contents=CONTENTS):
    """Publish a version of a head."""
    return store.head(name).publish(contents, created_at=AT)


def point(store, number, expected, name="owl"):
    """Make a version active, if the newest generation is the expected one."""
    item = store.head(name)
    before, digest = item.pointer(), item.manifest(number).digest
    earlier = (*before.earlier, before.active) if before.active else ()
    after = {"active": number, "earlier": earlier, "manifest": digest}
    change = Change(what=pointers.PROMOTED, version=number, manifest=digest, at=AT, reason="test")
    seen = attrs.evolve(before, generation=expected, change=(before.change or change) if expected else None)
    return item.swap(seen, after, change)


def dead_name():
    """Return a staging name of a process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return f"{owners._here()}.{child.pid}.1.{uuid.uuid4().hex}"


def on_disk(store, disk):
    """Return the same store on another disk."""
    return Store(store.root, disk=disk)


class Stopped(BaseException):
    """The process is dead: no clean-up of the library's may catch it."""


class WatchedDisk(Disk):
    """A disk that shows each step to a test before it is taken; the test may raise."""

    def __init__(self, look):
        super().__init__(FAST)
        object.__setattr__(self, "look", look)


def _watched(step):
    def watched(self, *arguments):
        self.look(step, *arguments)
        return getattr(Disk, step)(self, *arguments)

    return watched


for _step in STEPS:
    setattr(WatchedDisk, _step, _watched(_step))


def stopping(at):
    """Return a disk on which a process dies before step number `at`, and the list of the steps it wanted to take."""
    wanted = []

    def look(step, *_arguments):
        wanted.append(step)
        if len(wanted) >= at:
            raise Stopped(step)

    return WatchedDisk(look), wanted


def failing(step, at, number):
    """Return a disk whose call number `at` of one step fails, a write half-way, and the list of those calls."""
    calls = []

    def look(now, *arguments):
        if now != step:
            return
        calls.append(arguments)
        if len(calls) == at:
            if step == "write":
                os.write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            raise OSError(number, os.strerror(number))

    return WatchedDisk(look), calls


def refuse_opening(monkeypatch, path, at=0):
    """Let the system refuse to open a file, the how manyth time (0: each time); return the list of those openings."""
    opened, openings = os.open, []

    def look(asked, *arguments, **options):
        if str(asked) == str(path):
            openings.append(asked)
            if at in {0, len(openings)}:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(asked))
        return opened(asked, *arguments, **options)

    monkeypatch.setattr(os, "open", look)
    return openings


def failing_with(number):
    """Return a function that the system refuses, whatever it is asked."""

    def fail(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    return fail
