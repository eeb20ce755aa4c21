"""The lock of a head: who changes it waits for who is at it, who reads does not, and a dead holder holds up nobody.

Safety does not rest on it (`test_processes` runs without), order and progress do: these tests fail without the lock.
"""

import contextlib
import itertools
import os
import shutil
import threading
import time
from functools import partial

import pytest
import worlds
from children import Child, result_of
from store_fixtures import snapshot

from hydra_detect.errors import ConflictError, HydraDetectError, NotFoundError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import layout, references
from hydra_detect.storage.disk import Disk
from hydra_detect.storage.store import Store

OTHER, DEMO = (layout.BACKBONES, "other"), (layout.BACKBONES, "demo")
# Operation, prior state, and whose lock it takes.
LOCKED = (
    ("create", "six, promoted", worlds.OWL),
    ("promote newest", "six, promoted", worlds.OWL),
    ("roll back", "six, promoted", worlds.OWL),
    ("pin", "six, promoted", worlds.OWL),
    ("unpin", "six, pinned", worlds.OWL),
    ("prune", "six, promoted", worlds.OWL),
    ("rename", "two, rolled back", worlds.OWL),
    ("remove", "two, rolled back", worlds.OWL),
    ("repair", "damaged version", worlds.OWL),
    ("publish a backbone", "empty", OTHER),
    ("promote the active", "six, promoted", worlds.OWL),
    ("publish the backbone again", "empty", DEMO),
)
NOTHING_TO_DO = frozenset(["promote the active", "publish the backbone again"])
WHILE = 0.4  # seconds; each of these takes a few milliseconds when nobody is in the way
ENOUGH = 60.0
each_operation = pytest.mark.parametrize(
    ("operation", "state", "whose"), LOCKED, ids=[operation.replace(" ", "-") for operation, _state, _whose in LOCKED]
)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """A store in each prior state."""
    return worlds.build_states(tmp_path_factory.mktemp("states"))


@pytest.fixture
def copy(states, tmp_path):
    """Return a function that gives a fresh copy of a state."""
    return lambda state: shutil.copytree(states[state], tmp_path / "store")


@pytest.fixture
def impatient(monkeypatch):
    """Let nobody wait for a lock."""
    monkeypatch.setattr("hydra_detect.storage.locks.SECONDS", 0.0)


@contextlib.contextmanager
def held(root, whose, before_it_goes=lambda: None):
    """Let another process hold a lock; give the function that makes it let go, and the process."""
    (ready, say), (waiting, begin) = os.pipe(), os.pipe()

    def hold():
        with Store.open(root).item(*whose).changing():
            os.write(say, b"!")
            os.read(waiting, 1)
            before_it_goes()

    try:
        with Child(hold) as holder:
            os.close(say)
            assert os.read(ready, 1) == b"!", holder.result(ENOUGH)
            try:
                yield partial(os.write, begin, b"!"), holder
            finally:
                os.write(begin, b"!")  # or a test that fails would wait for a holder that waits
    finally:
        for descriptor in (ready, waiting, begin):
            os.close(descriptor)


def perform(operation, root):
    """Run an operation."""
    worlds.OPERATIONS[operation](worlds.manager_of(root, Disk("fast")))


def contents(root):
    """Return everything in a store but the lock files."""
    return {path: facts for path, facts in snapshot(root).items() if not path.startswith("locks")}


@each_operation
def test_waits(operation, state, whose, copy):
    """An operation waits while another process holds the lock, changes nothing meanwhile, and then succeeds."""
    root = copy(state)
    with held(root, whose) as (let_go, _holder), Child(partial(perform, operation, root)) as child:
        before = contents(root)
        assert child.result(WHILE) is None, f"{operation} did not wait: {child.result(0)}"
        assert contents(root) == before
        let_go()
        assert child.result(ENOUGH) == {"end": "done", "returned": None}
    assert (contents(root) == before) is (operation in NOTHING_TO_DO)


def test_what_was_written_waits_for_its_number(copy):
    """A version is written while nobody holds the lock; before it takes its number it waits for who does by then."""
    root = copy("six, promoted")
    (written, say), (waiting, begin) = os.pipe(), os.pipe()

    class Announcing(Disk):
        def write(self, descriptor, data):
            os.write(say, b"!")
            os.read(waiting, 1)
            super().write(descriptor, data)

    with Child(lambda: worlds.create(worlds.manager_of(root, Announcing("fast")), 7).number) as child:
        assert os.read(written, 1) == b"!"
        with Store.open(root).item(*worlds.OWL).changing():
            os.write(begin, b"!" * 100)
            assert child.result(WHILE) is None, f"it did not wait: {child.result(0)}"
            assert Store.open(root).item(*worlds.OWL).place.claimed_numbers()[-1] == 6
        assert child.result(ENOUGH) == {"end": "done", "returned": 7}
    for descriptor in (written, say, waiting, begin):
        os.close(descriptor)


def test_what_a_compact_head_leans_on_is_waited_for(copy):
    """Publishing what leans on a head waits for whoever is at that head, whose history says so then."""
    root = copy("six, promoted")
    with (
        held(root, worlds.OWL) as (let_go, _holder),
        Child(lambda: worlds.lean(worlds.manager_of(root, Disk("fast"))).number) as child,
    ):
        owl = Store.open(root).item(*worlds.OWL)
        before = owl.pointer()
        assert child.result(WHILE) is None, f"it did not wait: {child.result(0)}"
        assert owl.pointer() == before
        let_go()
        assert child.result(ENOUGH) == {"end": "done", "returned": 1}
        assert owl.pointer().change.other == "fox@1"


def test_what_is_taken_away_again_waits(copy):
    """A compact version whose reference went meanwhile is taken away again once nobody else is at its head."""
    root = copy("six, promoted")
    (published, say), (waiting, begin) = os.pipe(), os.pipe()

    def lean():
        calls, find = itertools.count(1), references.find

        def gone(*arguments):
            if next(calls) == 1:
                return find(*arguments)
            os.write(say, b"!")
            os.read(waiting, 1)
            raise NotFoundError("find it", "it was pruned", "Choose another.")

        references.find = gone
        worlds.lean(worlds.manager_of(root, Disk("fast")))

    fox = Store.open(root).head("fox")
    with Child(lean) as child:
        assert os.read(published, 1) == b"!"
        with fox.changing():
            os.write(begin, b"!")
            assert child.result(WHILE) is None, f"it did not wait: {child.result(0)}"
            assert fox.numbers() == [1]
        result = child.result(ENOUGH)
    assert result["kinds"][0] == "ConflictError", result
    assert fox.numbers() == []
    for descriptor in (published, say, waiting, begin):
        os.close(descriptor)


@each_operation
def test_gives_up(operation, state, whose, copy, monkeypatch):
    """Beyond the limit an operation fails with a ConflictError that names the lock file; nothing was changed."""
    monkeypatch.setattr("hydra_detect.storage.locks.SECONDS", 0.2)
    root = copy(state)
    with held(root, whose):
        before, began = contents(root), time.monotonic()
        with pytest.raises(ConflictError, match="another process has held") as caught:
            perform(operation, root)
        assert time.monotonic() - began >= 0.2
        assert str(root / "locks" / f"{'.'.join(whose)}.lock") in str(caught.value)
        assert contents(root) == before


@each_operation
@pytest.mark.usefixtures("impatient")
def test_dead_holder(operation, state, whose, copy):
    """The lock of a process that was killed -9 is free at once."""
    root = copy(state)
    with held(root, whose) as (_let_go, holder):
        before = contents(root)
        holder.kill()
        perform(operation, root)
        assert (contents(root) == before) is (operation in NOTHING_TO_DO)


@each_operation
@pytest.mark.usefixtures("impatient")
def test_lets_go(operation, state, whose, copy):
    """After an operation, one that failed too, another process can have the lock at once."""
    root = copy(state)
    perform(operation, root)
    with pytest.raises(HydraDetectError), Store.open(root).item(*whose).changing():
        raise NotFoundError("look", "it is not there", "Look elsewhere.")
    with held(root, whose):
        pass


@pytest.mark.usefixtures("impatient")
def test_holds_up_no_reader(copy):
    """Reading a head, listing and checking it need no lock, nor does seeing what a pruning would take away."""
    root = copy("six, promoted")
    with held(root, worlds.OWL):
        manager = worlds.manager_of(root, Disk("fast"))
        assert manager.active("owl").number == 3
        assert [version.number for version in manager.versions("owl")] == [1, 2, 3, 4, 5, 6]
        assert len(manager.history("owl")) == 10
        assert manager.compare("owl", 1, 2).b == 2
        assert manager.prune("owl", keep=1, dry_run=True).removed
        assert manager.verify().is_sound
        assert [info.head for info in HeadRegistry(root).infos()] == ["owl"]
        assert worlds.facts(root)["owl"][0] == 3


@pytest.mark.usefixtures("impatient")
def test_holds_up_no_other_head(copy):
    """While one head is changed, others are published, promoted and pruned, and so are backbones of another name."""
    root = copy("six, promoted")
    with held(root, worlds.OWL):
        manager = worlds.manager_of(root, Disk("fast"))
        for seed in range(2):
            worlds.create(manager, seed, "fox")
            manager.promote("fox", seed + 1)
        manager.rollback("fox")
        manager.pin("fox", 2)
        manager.unpin("fox", 2)
        manager.prune("fox", keep=1)
        perform("publish a backbone", root)
        HeadRegistry(root).rename("fox", "vixen")
        HeadRegistry(root).remove("vixen")
        assert manager.history("vixen")[-1].what == "removed"
        assert list(HeadRegistry(root)) == ["owl"]


@pytest.mark.usefixtures("impatient")
def test_threads_wait_too(copy):
    """The lock keeps the threads of one process apart like processes; one thread may take it again."""
    root = copy("six, promoted")
    store, found = Store.open(root), []

    def other():
        try:
            perform("create", root)
        except ConflictError as error:
            found.append(error)

    with store.item(*worlds.OWL).changing(), store.item(*worlds.OWL).changing():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        perform("pin", root)
    assert len(found) == 1
    assert store.item(*worlds.OWL).numbers() == [1, 2, 3, 4, 5, 6]
    assert result_of(partial(perform, "create", root))["end"] == "done"


def test_rolling_back_means_what_was_seen(copy):
    """A rollback that waited while another process moved the head does not go back further, nor call it lost."""
    root = copy("six, promoted")
    manager = worlds.manager_of(root, Disk("fast"))

    def move_on():
        worlds.create(manager, 7)
        manager.promote("owl", 4)
        manager.promote("owl", 5)
        manager.prune("owl", keep=1)

    before = manager.store.item(*worlds.OWL).pointer().previous
    with held(root, worlds.OWL, move_on) as (let_go, _holder), Child(partial(perform, "roll back", root)) as child:
        assert child.result(WHILE) is None
        let_go()
        result = child.result(ENOUGH)
    assert before not in manager.store.item(*worlds.OWL).numbers()
    assert result["kinds"][0] == "ConflictError", result
    assert "Look again" in result["text"]
    assert manager.active("owl").number == 5


def test_many_that_wait_all_come_through(copy):
    """Nobody who waits is forgotten: eight that wait for the same lock have all succeeded once it is free."""
    root = copy("six, promoted")
    with held(root, worlds.OWL) as (let_go, _holder), contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(Child(partial(perform, "create", root))) for _ in range(8)]
        assert [child.result(0.05) for child in waiting] == [None] * 8
        let_go()
        assert [child.result(ENOUGH)["end"] for child in waiting] == ["done"] * 8
    assert Store.open(root).item(*worlds.OWL).numbers() == list(range(1, 15))
