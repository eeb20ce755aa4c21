"""Hot swap under load: threads predict while heads are swapped, and each answer is that of the version it names."""

import collections
import os
import sys
import threading
import time
import weakref
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from small_networks import FULL, TINY, backbone, head, publish_backbone
from store_fixtures import flip, open_descriptors, rewrite

from hydra_detect import HydraDetector, codec
from hydra_detect.errors import CheckpointError, CorruptError, IncompatibleError, NotFoundError
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.records import utc_now
from hydra_detect.storage import artifacts, layout, pointers
from hydra_detect.storage.pointers import Change
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

GOOD = 4  # versions 1 to 4 of `owl` are sound, the others damaged
THREADS = 4
PAUSE = 0.04  # seconds between two requests of a thread: without it the swapping one would get a fifth of a core
ONE_IN = 10  # so many swaps, one of them to a version that has to be refused
MOST_GROWTH = 16 << 20
PROC = Path("/proc/self")


# The store


def _truncate(path):
    rewrite(path, path.read_bytes()[:-100])


def _rename_a_class(path):
    rewrite(path, path.read_bytes().replace(b"red fox", b"red cat"))


def _take_away(path):
    path.unlink()


DAMAGES = {
    "weights": (layout.TENSORS, flip, CorruptError),
    "record": (layout.RECORD, flip, CorruptError),
    "record that is still one": (layout.RECORD, _rename_a_class, CorruptError),
    "manifest": (layout.MANIFEST, flip, CorruptError),
    "truncated weights": (layout.TENSORS, _truncate, CorruptError),
    "missing weights": (layout.TENSORS, _take_away, NotFoundError),
}
"""What is done to which file of a version, and the error that a reader of it gets."""

FEW_DAMAGES = {"weights": DAMAGES["weights"]}


def _misfits(size):
    """Return heads that are whole, and belong to another backbone or are none."""
    raw, record = head(size, 90)
    other = attrs.evolve(record, backbone=attrs.evolve(record.backbone, digest=record.tensors))
    broad = attrs.evolve(record, settings=attrs.evolve(record.settings, box_widths=(16, 16)))
    return [(raw, other, IncompatibleError), (raw, broad, CheckpointError)]


def make_store(folder, size, damages):
    """Make a store with `fox` and `owl`: versions 1 to 4 sound, 1 active, one for each damage; small ones that misfit.

    Returns:
        Its path; and for each bad version by its number the manifest it had, and the error that it gives.

    """
    manager = VersionManager(Store.create(folder / "store", durability="fast"), actor="test")
    publish_backbone(manager.store, size)
    for seed in range(1, GOOD + 1):
        manager.create("owl", *head(size, seed))
    manager.create("fox", *head((size[0], TINY[1]), 50))
    manager.promote("owl", 1)
    manager.promote("fox", 1)
    bad = {}
    for place, (file, damage, error) in enumerate(damages.values()):
        version = manager.create("owl", *head(size, 60 + place))
        damage(manager.store.head("owl").place.version(version.number) / file)
        with pytest.raises(error):
            manager.promote("owl", version.number)
        bad[version.number] = (version.manifest, error)
    for raw, record, error in _misfits((size[0], TINY[1])):  # past what checks them on the way in
        files = {layout.TENSORS: artifacts.encode_tensors(raw), layout.RECORD: codec.encode(record)}
        manifest = manager.store.head("owl").publish(files, created_at=utc_now())
        bad[manifest.number] = (manifest.digest, error)
    return manager.store, bad


def make_active(store, number, manifest):
    """Make a version active without a look at it, as if it had been damaged a moment after its promotion."""
    before = store.head("owl").pointer()
    after = {"active": number, "manifest": manifest, "earlier": (*before.earlier, before.active)}
    store.head("owl").swap(before, after, Change(what=pointers.PROMOTED, version=number, at=utc_now()))


# The load


PICTURE = (np.random.default_rng(0).random((32, 32)) * 255).astype(np.uint8)


def answers_of(size):
    """Return what `fox` finds, and each sound version of `owl` by its number: boxes, scores and labels; all differ.

    Computed from the weights alone: neither store nor detector had a hand in it.
    """
    weights, record = backbone(size[0])
    network = Backbone(record.contract, weights)
    pixels = torch.from_numpy(PICTURE.astype(np.float32) / 255)[None]

    def answer(size, seed):
        raw, record = head(size, seed)
        with torch.inference_mode():
            features = network([network.prepare(pixels)])
            (found,) = RCNNHead.load(record.settings, record.backbone.levels, raw)(features)
        return tuple(part.numpy() for part in (found.boxes, found.scores, found.labels))

    found = {number: answer(size, number) for number in range(1, GOOD + 1)}
    assert len({boxes.tobytes() for boxes, _scores, _labels in found.values()}) == GOOD
    return {0: answer((size[0], TINY[1]), 50), **found}


def is_equal(found, expected):
    """Whether detections of one head are, bit for bit, the expected ones."""
    arrays = (found.boxes, found.scores, found.labels)
    return all(map(np.array_equal, arrays, expected)) and len(found) == len(expected[0]) > 0


class Load:
    """Threads that predict again and again, and look at each answer.

    `order` lists the versions of `owl` in the order in which they serve: before a swap begins its version is put
    here, and once it has ended `served` is its place. An answer that began at one and ended at another may come from
    any version between them, and from no other.
    """

    def __init__(self, detector, expected):
        self.detector, self.expected = detector, expected
        self.order, self.served = [1], 0
        self.wrong, self.answers, self.during = [], collections.Counter(), 0
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
        while not self._stop.wait(PAUSE):
            first = self.served
            try:
                problem = self._problem(self.detector.predict(PICTURE), first)
            except Exception as error:  # noqa: BLE001  whatever it is, a request failed
                problem = repr(error)
            if problem:
                self.wrong.append(problem)

    def _problem(self, found, first):
        """Return what is wrong with an answer, or nothing."""
        allowed, parts = self.order[first:], found.by_head()
        versions = set(parts["owl"].head_versions.tolist())
        if len(versions) != 1:
            return f"torn between versions {sorted(versions)}"
        (version,) = versions
        if version not in allowed:
            return f"version {version} answered while {allowed} served"
        self.answers[version] += 1
        self.during += len(allowed) > 1
        if not is_equal(parts["fox"], self.expected[0]):
            return "not what the head beside it finds"
        return "" if is_equal(parts["owl"], self.expected[version]) else f"not what version {version} finds"


class Swaps:
    """The swapping side: promotions and rollbacks in the store, each followed by the detector; one in ten is bad."""

    def __init__(self, store, load, bad):
        self.manager, self.load, self.detector = VersionManager(store, actor="test"), load, load.detector
        self.bad, self.refused = list(bad.items()), collections.Counter()
        self.networks, self.most_alive = weakref.WeakSet(), 0
        self.good = 0

    def swap(self, turn):
        """Do one swap."""
        if turn % ONE_IN == ONE_IN - 1:
            self._to_bad(turn // ONE_IN)
        else:
            self._to_good(by_hand=turn % ONE_IN == 0)
        self.networks.add(self.detector._heads["owl"].network)
        self.most_alive = max(self.most_alive, len(self.networks))

    def _to_good(self, *, by_hand):
        """Promote version 2, 3 or 4, and the next time roll back to 1."""
        turn, is_back = divmod(self.good, 2)
        number = 1 if is_back else 2 + turn % (GOOD - 1)
        self.good += 1
        self.load.order.append(number)
        assert (self.manager.rollback("owl") if is_back else self.manager.promote("owl", number)).number == number
        if by_hand:
            assert self.detector.load_head("owl").number == number
        else:
            refreshed = self.detector.refresh()
            assert {name: version.number for name, version in refreshed.swapped.items()} == {"owl": number}
            assert not refreshed.refused
        self.load.served = len(self.load.order) - 1

    def _to_bad(self, turn):
        """Let the detector meet a bad version, or a damaged pointer; then put the store in order again."""
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
            assert self.manager.rollback("owl") == serving.version
        refreshed = self.detector.refresh()
        assert (dict(refreshed.swapped), dict(refreshed.refused)) == ({}, {})
        assert self.detector._heads["owl"] is serving

    def _damage_pointer(self):
        place = self.manager.store.head("owl").place
        path = place.pointer(place.pointer_generations()[-1])
        sound = path.read_bytes()
        flip(path, place=len(sound) // 2)
        self._is_refused(CorruptError)
        rewrite(path, sound)

    def _is_refused(self, error):
        refreshed = self.detector.refresh()
        assert not refreshed.swapped
        assert {name: type(why) for name, why in refreshed.refused.items()} == {"owl": error}
        self.refused[error.__name__] += 1

    def forget(self):
        """Take all generations of the pointer away but the newest: 5,000 of them would cost more than a swap."""
        place = self.manager.store.head("owl").place
        for generation in place.pointer_generations()[:-1]:
            place.pointer(generation).unlink()

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
        """Look at it; where there is no /proc, only threads are counted.

        Of several looks at the memory the least counts: a head that a thread is just dropping has no name any more, and
        still its memory.
        """
        if not PROC.is_dir():
            return cls(0, 0, threading.active_count())
        pages = []
        for _ in range(20):
            pages.append(int((PROC / "statm").read_text().split()[1]))
            time.sleep(0.002)
        return cls(min(pages) * os.sysconf("SC_PAGE_SIZE"), open_descriptors(), len(list((PROC / "task").iterdir())))


@pytest.fixture
def one_thread():
    """Let torch compute each request in the thread that makes it, and let threads change often."""
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(interval)
    torch.set_num_threads(threads)


CASES = {"tiny heads": (TINY, DAMAGES, 5_000, 100), "58 MB heads": (FULL, FEW_DAMAGES, 100, 20)}
"""Size, damages, swaps, and after how many of them what the process holds is looked at."""


@pytest.mark.parametrize(("size", "damages", "swaps", "every"), CASES.values(), ids=CASES)
@pytest.mark.usefixtures("one_thread")
def test_hot_swap_under_load(tmp_path, request, tally, size, damages, swaps, every):
    """No answer is torn, stale or missing, bad versions are refused while the old one serves, and nothing grows."""
    what = request.node.callspec.id
    store, bad = make_store(tmp_path, size, damages)
    held = []
    detector = HydraDetector.from_store(store, ["fox", "owl"], device="cpu", engine="exact")  # as the answers are
    with Load(detector, answers_of(size)) as load:
        work = Swaps(store, load, bad)
        for turn in range(swaps):
            work.swap(turn)
            if turn % every == every - 1:
                work.forget()
                work.settle()
                held.append(Held.now())
    assert not load.wrong, f"{len(load.wrong)} requests: {load.wrong[:5]}"
    assert set(load.answers) == set(range(1, GOOD + 1))
    assert work.most_alive <= THREADS + 2  # one in each thread, the new one, and the one before it
    assert work.refused.total() == swaps // ONE_IN
    assert set(work.refused) == {error.__name__ for _manifest, error in bad.values()} | {"CorruptError"}
    check_nothing_grew(held[2:] if size == TINY else held)
    count(tally, f"swaps under load of {what}, one in ten refused", swaps, swaps)
    count(
        tally, f"answers compared bit for bit meanwhile, {what}", load.answers.total(), 2_000 if size == TINY else 200
    )
    count(tally, f"answers during which a swap was made, {what}", load.during, 500 if size == TINY else 50)


def count(tally, what, number, least):
    """Count so many of something."""
    counted = tally(what)
    for place in range(number):
        counted.case(place)
    counted.require(least)


def check_nothing_grew(held):
    """See that memory, descriptors and threads are what they were after the first swaps."""
    first = held[0]
    growth = max(one.nbytes for one in held) - first.nbytes
    assert growth < MOST_GROWTH, f"memory grew by {growth} bytes: {[one.nbytes for one in held]}"
    assert {(one.descriptors, one.threads) for one in held} == {(first.descriptors, first.threads)}
