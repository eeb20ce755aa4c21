"""Hot swap under load: threads predict while heads are swapped, and each answer is that of the version it names."""

import collections
import gc
import os
import threading
import time
import weakref
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from small_networks import FULL, TINY, head, publish_backbone
from store_fixtures import flip, open_descriptors, rewrite

from hydra_detect import HydraDetector
from hydra_detect.errors import CheckpointError, CorruptError, HydraDetectError, IncompatibleError, NotFoundError
from hydra_detect.storage import layout, pointers
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

OWL = (layout.HEADS, "owl")
GOOD = 4  # versions 1 to 4 of `owl` are sound, the others damaged
THREADS = 4
ONE_IN = 10  # so many swaps, one of them to a damaged version
PROC = Path("/proc/self")


# The store


def _truncate(path):
    rewrite(path, path.read_bytes()[:-100])


def _take_away(path):
    path.unlink()


DAMAGES = {
    "weights": (layout.TENSORS, flip, CorruptError),
    "record": (layout.RECORD, flip, CorruptError),
    "manifest": (layout.MANIFEST, flip, CorruptError),
    "truncated weights": (layout.TENSORS, _truncate, CorruptError),
    "missing weights": (layout.TENSORS, _take_away, NotFoundError),
}
"""What is done to which file of a version, and the error that a reader of it gets."""


def _misfits(size):
    """Return heads that are whole, and belong to another backbone or are none: the store takes them all the same."""
    raw, record = head(size, 90)
    other = attrs.evolve(record, backbone=attrs.evolve(record.backbone, digest=record.tensors))
    broad = attrs.evolve(record, settings=attrs.evolve(record.settings, box_widths=(16, 16)))
    return {"another backbone": (raw, other, IncompatibleError), "another network": (raw, broad, CheckpointError)}


def make_store(folder, size):
    """Make a store with sound versions 1 to 4 of `owl`, version 1 active, and one of `fox`; return its manager."""
    manager = VersionManager(Store.create(folder / "store", durability="fast"), actor="test")
    publish_backbone(manager.store, size)
    for seed in range(1, GOOD + 1):
        manager.create("owl", *head(size, seed))
    manager.create("fox", *head(TINY if size == TINY else size, 50))
    manager.promote("owl", 1)
    manager.promote("fox", 1)
    return manager


def add_damaged(manager, size, damages):
    """Publish versions of `owl` and damage each in its way; return the manifest they had and their error by number."""
    bad = {}
    for place, (file, damage, error) in enumerate(damages.values()):
        version = manager.create("owl", *head(size, 60 + place))
        damage(manager.store.layout.item(*OWL).version(version.number) / file)
        bad[version.number] = (version.manifest, error)
    return bad


def add_misfits(manager, size):
    """Publish versions of `owl` that do not run on its backbone; return what `add_damaged` does."""
    versions = [(manager.create("owl", raw, record), error) for raw, record, error in _misfits(size).values()]
    return {version.number: (version.manifest, error) for version, error in versions}


def make_active(store, number, manifest):
    """Make a version active without a look at it, as if it had been damaged a moment after its promotion."""
    before = store.pointer(*OWL)
    after = {"event": pointers.PROMOTED, "version": number, "active": number, "manifest": manifest}
    store.swap(*OWL, before, after)


# The load


PICTURE = (np.random.default_rng(0).random((32, 32)) * 255).astype(np.uint8)


def answers_of(store):
    """Return what each sound version of `owl` finds beside `fox`, by its number; all differ."""
    found = {
        number: HydraDetector.from_store(store, ["fox", f"owl@{number}"], device="cpu").predict(PICTURE)
        for number in range(1, GOOD + 1)
    }
    assert all(set(answer.heads) == {"fox", "owl"} for answer in found.values())
    assert len({answer.by_head()["owl"].boxes.tobytes() for answer in found.values()}) == GOOD
    return found


class Load:
    """Threads that predict without a pause, and look at each answer.

    `order` lists the versions of `owl` in the order in which they serve: before a swap begins its version is put
    here, and once it has ended `served` is its place. An answer that began at one and ended at another may come from
    any version between them, and from no other.
    """

    def __init__(self, detector, expected):
        self.detector, self.expected = detector, expected
        self.order, self.served = [1], 0
        self.wrong, self.counts = [], collections.Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(THREADS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        while not self._stop.is_set():
            first = self.served
            try:
                problem = self._problem(self.detector.predict(PICTURE), first)
            except Exception as error:  # noqa: BLE001  whatever it is, a request failed
                problem = repr(error)
            if problem:
                self.wrong.append(problem)

    def _problem(self, found, first):
        """Return what is wrong with an answer, or nothing."""
        allowed = self.order[first:]
        versions = set(found.by_head()["owl"].head_versions.tolist())
        if len(versions) != 1:
            return f"torn between versions {sorted(versions)}"
        (version,) = versions
        if version not in allowed:
            return f"version {version} answered while {allowed} served"
        self.counts[version] += 1
        return "" if found == self.expected[version] else f"not what version {version} finds"


class Swaps:
    """The swapping side: promotions in the store, each followed by the detector, one in ten to a damaged version."""

    def __init__(self, manager, load, bad):
        self.manager, self.load, self.detector = manager, load, load.detector
        self.bad, self.refused = list(bad.items()), collections.Counter()
        self.networks, self.most_alive = weakref.WeakSet(), 0
        self.good = 0

    def swap(self, turn):
        """Do one swap."""
        if turn % ONE_IN == ONE_IN - 1:
            self._to_bad(turn // ONE_IN)
        else:
            self._to_good(turn)
        self.networks.add(self.detector._heads["owl"].network)
        self.most_alive = max(self.most_alive, len(self.networks))

    def _to_good(self, turn):
        self.good += 1
        number = 1 + self.good % GOOD
        self.load.order.append(number)
        self.manager.promote("owl", number)
        if turn % ONE_IN == 0:  # by hand, where refresh is the usual way
            assert self.detector.load_head("owl").number == number
        else:
            refreshed = self.detector.refresh()
            assert {name: version.number for name, version in refreshed.swapped.items()} == {"owl": number}
            assert not refreshed.refused
        self.load.served = len(self.load.order) - 1

    def _to_bad(self, turn):
        serving = self.detector._heads["owl"]
        place = turn % (len(self.bad) + 1)
        if place == len(self.bad):
            self._damage_pointer()
        else:
            number, (manifest, error) = self.bad[place]
            make_active(self.manager.store, number, manifest)
            self._is_refused(error)
            with pytest.raises(error):
                self.detector.swap("owl")
        assert self.detector._heads["owl"] is serving

    def _damage_pointer(self):
        item = self.manager.store.layout.item(*OWL)
        path = item.pointer(item.pointer_generations()[-1])
        sound = path.read_bytes()
        flip(path, place=len(sound) // 2)
        self._is_refused(CorruptError)
        rewrite(path, sound)

    def _is_refused(self, error):
        refreshed = self.detector.refresh()
        assert not refreshed.swapped
        assert {name: type(why) for name, why in refreshed.refused.items()} == {"owl": error}
        self.refused[error.__name__] += 1

    def settle(self):
        """Wait until no thread uses a head that was replaced: a moment, since each takes the new one next."""
        end = time.monotonic() + 30
        while len(self.networks) > 1:
            assert time.monotonic() < end, f"{len(self.networks)} heads are still alive"
            time.sleep(0.001)


@attrs.frozen
class Held:
    """What this process holds."""

    nbytes: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls):
        """Look at it; where there is no /proc, only threads are counted."""
        if not PROC.is_dir():
            return cls(0, 0, threading.active_count())
        pages = int((PROC / "statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), open_descriptors(), len(list((PROC / "task").iterdir())))


@pytest.fixture
def one_thread():
    """Let torch compute each request in the thread that makes it, as a service with several workers would."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("size", "swaps", "warm"), [(TINY, 300, 300), (FULL, 100, 30)], ids=["tiny heads", "58 MB heads"]
)
@pytest.mark.usefixtures("one_thread")
def test_hot_swap_under_load(tmp_path, size, swaps, warm, tally):
    """No answer is torn, stale or missing, damaged versions are refused, and nothing grows."""
    swapped, requests = tally(f"swaps under load, heads of {size}"), tally("answers compared bit for bit meanwhile")
    manager = make_store(tmp_path, size)
    expected = answers_of(manager.store)
    damages = DAMAGES if size == TINY else {"weights": DAMAGES["weights"]}
    bad = add_damaged(manager, size, damages)
    for number, (_manifest, error) in bad.items():
        with pytest.raises(error):
            manager.promote("owl", number)
    if size == TINY:
        bad |= add_misfits(manager, size)
    detector = HydraDetector.from_store(manager.store, device="cpu")
    held = []
    with Load(detector, expected) as load:
        work = Swaps(manager, load, bad)
        for turn in range(swaps):
            work.swap(turn)
            swapped.case(turn)
            if turn % warm == warm - 1:
                work.settle()
                held.append(Held.now())
    print(load.counts, work.refused, work.most_alive, held)
    assert not load.wrong, f"{len(load.wrong)} requests: {load.wrong[:5]}"
