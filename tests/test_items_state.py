"""The state of a backbone or head: changed by compare-and-swap, looked at until it is steady, confirmed at will."""

import errno
import os
import threading

import attrs
import pytest
import store_fixtures
from store_fixtures import AT, WatchedDisk, failing, flip, leftovers, on_disk, point, publish, snapshot

from hydra_detect.errors import ConflictError, CorruptError, NotFoundError, StaleError, StoreError
from hydra_detect.storage import files, items, layout, locks, pointers
from hydra_detect.storage.pointers import Change, Pointer
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

store = store_fixtures.store


def pin(store, state, reason=""):
    """Let something happen to `owl` that changes nothing but its generation."""
    return store.head("owl").swap(state, {}, Change(what=pointers.PINNED, at=AT, reason=reason))


def together(act, *arguments):
    """Do something with each of these arguments, each in a thread of its own; return what came of it or its error."""

    def work(argument):
        try:
            found.append(act(argument))
        except StoreError as error:
            found.append(error)

    found = []
    threads = [threading.Thread(target=work, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def steps(store, act):
    """Return the steps that something takes: what each is and the name of the path it is taken on."""
    taken = []
    act(on_disk(store, WatchedDisk(lambda step, path, *_: taken.append((step, getattr(path, "name", ""))))))
    return taken


# Values


def test_items_are_values(store):
    """One backbone or head of one store is one value, whether there is such a one or not; it does not change."""
    owl = store.head("owl")
    assert owl == store.item(layout.HEADS, "owl")
    assert owl not in {store.head("fox"), store.backbone("owl"), Store.open(store.root).head("owl")}
    assert repr(owl) == f"Item(store={store!r}, kind='heads', name='owl')"
    assert (owl.place.root, owl.disk) == (store.root / "heads" / "owl", store.disk)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        owl.name = "fox"


@pytest.mark.parametrize("number", [0, -1, 3, True, 1.0, "1", None, "000001", 10**9])
def test_numbers_that_are_none(store, number):
    """What is no number of a version is not found, whatever it might be taken for; what there is is said."""
    publish(store)
    publish(store)
    with pytest.raises(NotFoundError, match=r"'owl' has no version .*\. There are versions 1, 2\.$"):
        store.head("owl").manifest(number)


def test_versions_of_a_head_that_is_not_there(store):
    """A head that is not there has no state and no versions; whoever asks for one hears which heads come near."""
    assert (store.head("owl").pointer(), store.head("owl").numbers()) == (pointers.NOTHING, [])
    publish(store, "fox")
    with pytest.raises(NotFoundError, match=r"cannot read fxo@1: .* has no such head\. Did you mean 'fox'\?$"):
        store.head("fxo").manifest(1)


@pytest.mark.parametrize("folder", ["heads/owl", "heads/owl/versions", "heads/owl/versions/000001"])
def test_a_version_behind_a_link(store, tmp_path, folder):
    """A version that a link leads to is not one of this store's."""
    publish(store)
    (store.root / folder).rename(tmp_path / "outside")
    (store.root / folder).symlink_to(tmp_path / "outside")
    with pytest.raises(CorruptError, match=f"cannot read owl@1: {store.root / folder} is no folder"):
        store.head("owl").manifest(1)


# Changing the state


def test_swap(store):
    """The pointer says which version is active, which was before, and why; each change is a generation."""
    manifests = [publish(store), publish(store)]
    first = point(store, 2, 0)
    change = Change(what="promoted", version=2, manifest=manifests[1].digest, at=AT, reason="test")
    assert first == Pointer(generation=1, active=2, manifest=manifests[1].digest, high=2, change=change)
    second = point(store, 1, 1)
    assert (second.generation, second.active, second.previous) == (2, 1, 2)
    assert store.head("owl").pointer() == Store.open(store.root).head("owl").pointer() == second
    assert leftovers(store) == []


@pytest.mark.parametrize("expected", [0, 2, 5])
def test_swap_compares(store, expected):
    """Who expects another generation than there is changes nothing."""
    publish(store)
    point(store, 1, 0)
    before = snapshot(store.root)
    with pytest.raises(StaleError, match="another process changed it first"):
        point(store, 1, expected)
    assert snapshot(store.root) == before


def test_swap_beyond_damaged_generations(store):
    """Who builds on an older state because the newer ones are damaged says which is the newest; that is compared."""
    publish(store)
    first = point(store, 1, 0)
    pin(store, first)
    flip(store.head("owl").place.pointer(2), 30)
    change = Change(what=pointers.REPAIRED, at=AT)
    for newest in (None, 1, 3):
        with pytest.raises(StaleError, match="another process changed it first"):
            store.head("owl").swap(first, {}, change, newest=newest)
    state = store.head("owl").swap(first, {"pins": ()}, change, newest=2)
    assert (state.generation, state.active, state.change) == (3, 1, change)
    assert store.head("owl").pointer() == state


def test_two_writers_expect_the_same(store):
    """Of two that swap from the same generation exactly one wins, even if both looked before either wrote."""
    publish(store)
    publish(store)
    inside = threading.Barrier(2)
    both = on_disk(store, WatchedDisk(lambda step, *_: inside.wait(timeout=30) if step == "link" else None))
    outcome = together(lambda number: point(both, number, 0).active, 1, 2)
    (lost,) = [item for item in outcome if not isinstance(item, int)]
    (won,) = [item for item in outcome if isinstance(item, int)]
    assert isinstance(lost, StaleError)
    assert store.head("owl").pointer().active == won
    assert leftovers(store) == []


@pytest.mark.parametrize("step", ["create", "write", "sync", "link"])
def test_swap_on_a_full_disk(store, step):
    """A state that could not be written leaves the old one, and nothing in staging."""
    publish(store)
    publish(store)
    before = point(store, 1, 0)
    disk, calls = failing(step, 1, errno.ENOSPC)
    with pytest.raises(StoreError, match="Free some space and run it again; nothing was changed"):
        point(on_disk(store, disk), 2, 1)
    assert len(calls) == 1
    assert store.head("owl").pointer() == before
    assert leftovers(store) == []
    assert point(store, 2, 1).active == 2


def test_swap_that_the_disk_does_not_confirm(store):
    """Where the last sync fails the change is there, and the error says that a power loss could undo it."""
    publish(store)
    publish(store)
    point(store, 1, 0)

    def look(step, path, *_arguments):
        if step == "sync_folder" and path.name == "pointer":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StoreError, match=r"cannot change the state of 'owl': Input/output error") as caught:
        point(on_disk(store, WatchedDisk(look)), 2, 1)
    assert caught.value.remedy == files.UNCERTAIN
    assert store.head("owl").pointer().active == 2


def test_swap_syncs_the_versions_first(store):
    """What leads to the state, and the versions that it may name, are durable before it can be seen, itself after."""
    publish(store)
    taken = [step for step in steps(store, lambda other: point(other, 1, 0)) if step[0] in {"sync_folder", "link"}]
    aside = taken[4][1]
    assert taken == [
        *(("sync_folder", name) for name in ("store", "heads", "owl", "versions")),
        ("link", aside),
        ("sync_folder", "pointer"),
    ]


def test_the_last_generation(store):
    """After the highest generation that there can be nothing changes any more: it is told, and nothing is written."""
    publish(store)
    point(store, 1, 0)
    place = store.head("owl").place
    state = attrs.evolve(store.head("owl").pointer(), generation=layout.HIGHEST)
    place.pointer(layout.HIGHEST).write_bytes(pointers.text(place, state))
    with pytest.raises(StoreError, match=r"the numbers in .*pointer are used up"):
        pin(store, store.head("owl").pointer())
    assert (place.pointer_generations(), leftovers(store)) == ([1, layout.HIGHEST], [])


def test_point_at_nothing(store):
    """A version that is not there cannot become active; those that are there are named."""
    manager = VersionManager(store)
    with pytest.raises(NotFoundError, match=r"has no such head\. There is none yet\.$"):
        manager.promote("owl", 1)
    publish(store)
    publish(store)
    with pytest.raises(NotFoundError, match=r"'owl' has no version 3\. There are versions 1, 2\."):
        manager.promote("owl", 3)
    assert store.head("owl").pointer() == pointers.NOTHING


# Under the lock


@pytest.mark.parametrize("other", [(layout.HEADS, "fox"), (layout.BACKBONES, "owl")])
def test_changing_locks_one_item(store, monkeypatch, other):
    """Who changes a head keeps others from it, by the lock that the layout names, and from nothing else."""
    monkeypatch.setattr(locks, "SECONDS", 0.05)

    def change(item):
        with item.changing():
            return item

    owl = store.head("owl")
    with owl.changing():
        path = store.layout.lock(layout.HEADS, "owl")
        (refused,) = together(change, Store.open(store.root).head("owl"))
        assert together(change, store.item(*other)) == [store.item(*other)]
    assert type(refused) is ConflictError
    assert str(refused) == f"cannot lock 'owl': another process has held {path} for 0 s. Try again later."
    assert together(change, owl) == [owl]
    assert path.is_file()


def test_changing_makes_no_head(store):
    """To hold the lock of a head that is not there makes none: only writing does."""
    with store.head("owl").changing():
        assert store.names(layout.HEADS) == []
    assert sorted(path.name for path in store.root.iterdir()) == ["STORE.json", "locks", "tmp"]


@pytest.mark.parametrize("kind", ["lock", "folder"])
def test_a_lock_that_is_a_link(store, tmp_path, kind):
    """A lock, or the folder of all locks, that someone replaced by a link is not followed."""
    path = store.layout.lock(layout.HEADS, "owl")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"x")
    before = snapshot(tmp_path / "outside")
    if kind == "lock":
        path.parent.mkdir()
        path.symlink_to(tmp_path / "outside" / "precious")
    else:
        path.parent.symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="cannot lock 'owl'"), store.head("owl").changing():
        pass
    assert snapshot(tmp_path / "outside") == before


# Looking until it is steady


def test_steady_gives_what_was_seen_of_the_present_state(store):
    """A look at a state that nobody changes is taken once, and what it saw is returned."""
    publish(store)
    state, seen = point(store, 1, 0), []
    assert store.head("owl").steady(lambda before: seen.append(before) or "seen") == "seen"
    assert seen == [state]


def test_steady_looks_again(store):
    """Who built on a state that another changed meanwhile looks at the new one, until it is the present one."""
    publish(store)
    point(store, 1, 0)
    seen = []

    def look(before):
        seen.append(before.generation)
        if len(seen) < 4:
            pin(store, store.head("owl").pointer())
        return pin(store, before, "mine").generation

    assert store.head("owl").steady(look) == 5
    assert seen == [1, 2, 3, 4]
    assert store.head("owl").pointer().change.reason == "mine"


def test_steady_of_a_version_that_vanishes(store):
    """What is missing because the state was changed meanwhile is looked for anew by the new state."""
    publish(store)
    publish(store)
    point(store, 1, 0)
    item, seen = store.head("owl"), []

    def look(before):
        seen.append(before.active)
        if len(seen) == 1:
            point(store, 2, 1)
            item.place.version(1).rename(store.root / "elsewhere")
        return item.manifest(before.active).number

    assert (item.steady(look), seen) == (2, [1, 2])


def test_steady_of_a_version_that_is_missing(store):
    """What is missing although nobody changed anything is a plain miss, told at once."""
    publish(store)
    point(store, 1, 0)
    seen = []

    def look(before):
        seen.append(before)
        return store.head("owl").manifest(7)

    with pytest.raises(NotFoundError, match="'owl' has no version 7"):
        store.head("owl").steady(look)
    assert len(seen) == 1


def test_steady_gives_up(store):
    """Who is overtaken again and again is told so in the end, rather than kept for ever."""
    publish(store)
    point(store, 1, 0)
    seen = []

    def look(before):
        seen.append(before.generation)
        pin(store, before)
        return pin(store, before)

    with pytest.raises(StaleError, match="cannot look at 'owl': other processes changed it 100 times meanwhile"):
        store.head("owl").steady(look)
    assert len(seen) == items._MOST_TRIES == 100
    assert seen == list(range(1, 101))


@pytest.mark.parametrize("error", [CorruptError("a", "b", "c"), ConflictError("a", "b", "c"), ValueError("b")])
def test_steady_lets_other_errors_pass(store, error):
    """Damage, a conflict that a look anew would not solve, and mistakes are told at once."""
    seen = []

    def look(before):
        seen.append(before)
        raise error

    with pytest.raises(type(error), match="b"):
        store.head("owl").steady(look)
    assert len(seen) == 1


def test_settled_holds_the_lock(store, monkeypatch):
    """A step that is to settle something is taken under the lock, and again if somebody without one got in between."""
    monkeypatch.setattr(locks, "SECONDS", 0.05)
    publish(store)
    owl, found = store.head("owl"), []

    def change(item):
        with item.changing():
            pass

    def step(before):
        found.extend(together(change, owl))
        if len(found) == 1:
            pin(store, before, "theirs")
        return pin(store, before, "mine").generation

    assert owl.settled(step) == 2
    assert [type(error) for error in found] == [ConflictError, ConflictError]
    assert together(change, owl) == [None]


# Confirming


def test_confirm(store):
    """All that a state is made of is synced, from the store's folder down to versions and pointer, and not changed."""
    publish(store)
    point(store, 1, 0)
    before = snapshot(store.root)
    synced = [name for step, name in steps(store, lambda other: other.head("owl").confirm()) if step == "sync_folder"]
    assert synced == ["store", "heads", "owl", "versions", "pointer"]
    assert snapshot(store.root) == before


@pytest.mark.parametrize("folder", ["store", "heads", "owl", "versions", "pointer"])
def test_confirm_that_fails(store, folder):
    """What the disk does not confirm is not confirmed."""
    publish(store)

    def look(step, path, *_arguments):
        if step == "sync_folder" and path.name == folder:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StoreError, match="cannot confirm the state of 'owl': Input/output error") as caught:
        on_disk(store, WatchedDisk(look)).head("owl").confirm()
    assert caught.value.facts == {"errno": errno.EIO}
