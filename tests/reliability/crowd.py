"""Processes at one store: writers that do everything at once, readers that verify, and one that is killed on and on.

Each says in a log of its own what it is about to do and how that ended, so that `hindsight` can judge it afterwards.
"""

import contextlib
import json
import os
import random
import time
from types import SimpleNamespace

import attrs
import filelock
import numpy as np
import worlds
from children import Child
from store_fixtures import a_backbone, a_record

from hydra_detect.errors import ConflictError, HydraDetectError, NotFoundError, StaleError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import backbones, heads, locks
from hydra_detect.storage.items import Item
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor
from hydra_detect.versions import VersionManager

HEADS = ("owl", "fox")
WRITERS, READERS = 8, 4
# What a writer does after each publication, how often, and to which version.
CHANCES = (
    (0.5, "promote", "mine"),
    (0.1, "promote", "any"),
    (0.2, "rollback", "none"),
    (0.2, "prune", "none"),
    (0.08, "pin", "any"),
    (0.08, "unpin", "pinned"),
)


class NoLock:
    """A lock that does nothing, as on some network file systems."""

    def __init__(self, *_arguments, **_options):
        pass

    def acquire(self, **_options):
        """Let everybody in."""

    def release(self):
        """Nothing was held."""


def without_locks():
    """Take the lock away in this process."""
    locks.filelock = SimpleNamespace(FileLock=NoLock, Timeout=filelock.Timeout)


def count_races(path):
    """Write a byte to a file for each race for the next state that this process loses."""
    swap, descriptor = Item.swap, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted(*arguments, **options):
        try:
            return swap(*arguments, **options)
        except StaleError:
            os.write(descriptor, b"!")
            raise

    Item.swap = counted


class Log:
    """Lines that survive the process: each is one write to the end of a file."""

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, **facts):
        """Write a line."""
        os.write(self._descriptor, json.dumps(facts).encode() + b"\n")


def head_that_says(number):
    """Return tensors and record of a head which both say a number."""
    tensors = {
        "box.count": RawTensor.of(np.array(number, dtype=np.int64)),
        "box.weight": RawTensor.of(np.full(256, number % 4096, dtype=np.float32)),
    }
    return tensors, a_record(tensors, backbone=worlds.BACKBONE_RECORD.contract, class_names=("owl", f"number {number}"))


def said_by(version, tensors):
    """Return the number that a version says.

    Raises:
        AssertionError: If its weights and its record do not say the same.

    """
    number = int.from_bytes(tensors["box.count"].data, "little")
    assert set(np.frombuffer(tensors["box.weight"].data, dtype=np.float32)) == {number % 4096}, (
        "weights of two versions"
    )
    assert version.record.class_names[1] == f"number {number}", "the record of one version and the weights of another"
    return number


def said(store, ref):
    """Read a version; return its number and the one that it says."""
    version, tensors = heads.load(store, ref)
    return version.number, said_by(version, tensors)


class Writer:
    """One process that publishes, promotes, rolls back, prunes and pins; `name` is unlike any other's."""

    def __init__(self, root, log, name):
        self.manager = VersionManager(Store.open(root), actor=f"writer {name}")
        self.log, self.name, self.count = log, name, 0
        self.random = random.Random(name)  # noqa: S311  the same choices in each run

    def begin(self):
        """Give each head a version that is active."""
        for head in HEADS:
            self._do("promote", head, self._publish(head))

    def run(self, publishes):
        """Publish this many versions, and after each do a few other things, too."""
        for turn in range(publishes):
            if turn % 8 == 0 and self.name <= WRITERS:  # not of one that is killed, and could not say that it was first
                self._publish_backbone(self.name % 3)
            head = HEADS[self.random.random() < 0.25]
            mine = self._publish(head)
            for chance, what, number in CHANCES:
                if self.random.random() >= chance:
                    continue
                if what == "unpin":
                    self._unpin(head)
                else:
                    self._do(what, head, {"mine": mine, "any": self._any(head), "none": None}[number])

    def _publish_backbone(self, number):
        """Put one of three backbones under a name that only the first of them can have."""
        tensors, record = a_backbone(50 + number)
        try:
            stored = backbones.publish(self.manager.store, "shared", record, tensors)
        except ConflictError:
            self.log.say(backbone=number, end="refused")
        else:
            self.log.say(backbone=number, end="new" if stored.is_new else "there")

    def _any(self, head):
        return self.random.choice(self.manager.store.head(head).numbers())

    def _publish(self, head):
        says = self.name * 1_000_000 + self.count + 1
        return self._attempt("publish", head, lambda _reason: self.manager.create(head, *head_that_says(says)), says)

    def _unpin(self, head):
        """Let go of any pin, whosever it is."""
        pins = self.manager.store.head(head).pointer().pins
        if pins:
            pin = self.random.choice(pins)
            work = lambda reason: self.manager.unpin(head, pin.version, pinned_for=pin.reason, reason=reason)  # noqa: E731
            self._attempt("unpin", head, work, pin.version)

    def _do(self, what, head, number):
        numbers = () if number is None else (number,)
        method = getattr(self.manager, what)
        self._attempt(what, head, lambda reason: method(head, *numbers, reason=reason), number)

    def _attempt(self, what, head, work, number):
        """Do something, with a reason of its own, and log when it began, when it ended, and how."""
        self.count += 1
        reason = f"{self.name}-{self.count}"
        self.log.say(reason=reason, what=what, head=head, number=number, began=time.monotonic_ns())
        try:
            result = work(reason)
        except HydraDetectError as error:
            facts = {"end": type(error).__name__, "text": str(error)}
            result = None
        else:
            count = len(result.removed) if what == "prune" else getattr(result, "number", None)
            facts = {"end": "done", "result": count}
        self.log.say(reason=reason, ended=time.monotonic_ns(), **facts)
        return facts.get("result")


def write(root, folder, name, publishes, *, locks):
    """Be a writer."""
    if not locks:
        without_locks()
    count_races(folder / f"races-{name}")
    Writer(root, Log(folder / f"writer-{name}"), name).run(publishes)


def read(root, folder, name, reads):
    """Be a reader: at least so many reads, and on, less often, until nobody writes any more."""
    manager, log, seen = VersionManager(Store.open(root)), Log(folder / f"reader-{name}"), []
    generations = dict.fromkeys(HEADS, 0)
    choice = random.Random(name)  # noqa: S311  the same choices in each run
    while len(seen) < reads or not (folder / "over").exists():
        head = choice.choice(HEADS)
        before = _look(manager.store, head, generations)
        number, says = said(manager.store, head)
        seen.append([head, before, _look(manager.store, head, generations), number, says])
        if choice.random() < 0.2:
            number = choice.choice(manager.store.head(head).numbers())
            try:
                seen.append([head, 0, 0, *said(manager.store, f"{head}@{number}")])
            except NotFoundError:
                log.say(head=head, gone=number, at=time.monotonic_ns())
        if choice.random() < 0.01:
            _look_around(manager, head)
        time.sleep(0.001 if len(seen) < reads else 0.02)
    log.say(reads=seen)


def _look(store, head, generations):
    """Return the generation of a head's pointer; it never goes back."""
    generation = store.head(head).pointer().generation
    assert generation >= generations[head], f"the pointer of {head} went from {generations[head]} to {generation}"
    generations[head] = generation
    return generation


def _look_around(manager, head):
    """Ask for what takes more than one look: whatever the others do meanwhile, none of it fails."""
    manager.versions(head)
    manager.prune(head, dry_run=True)
    infos = HeadRegistry(manager.store).infos()
    assert [info.problem for info in infos] == ["", ""], infos
    report = manager.verify()
    assert report.is_sound, str(report)


@attrs.frozen(kw_only=True)
class Crowd:
    """All of them at one store, for as long as the writers need."""

    root: os.PathLike
    folder: os.PathLike
    locks: bool
    publishes: int
    reads: int

    def races_lost(self):
        """Return how often somebody else was faster, after one had looked at the state: without locks alone."""
        return sum(path.stat().st_size for path in self.folder.glob("races-*"))

    def run(self):
        """Start them, kill the ninth writer again and again, and return how often."""
        kills, luck = 0, random.Random(20)  # noqa: S311  the same times in each run
        with contextlib.ExitStack() as stack:
            start = lambda work, *facts, **options: stack.enter_context(  # noqa: E731
                Child(lambda: work(self.root, self.folder, *facts, **options))
            )
            readers = [start(read, name, self.reads) for name in range(READERS)]
            writers = [start(write, name, self.publishes, locks=self.locks) for name in range(1, WRITERS + 1)]
            while any(writer.result(0) is None for writer in writers):
                ninth = start(write, 1000 + kills, 1_000_000, locks=self.locks)
                time.sleep(luck.uniform(0.05, 0.4))
                ninth.kill()
                kills += 1
            (self.folder / "over").touch()
            for child in (*readers, *writers):
                result = child.result(None)
                assert result["end"] == "done", result["text"]
        return kills
