"""Changes of a head's state: what is written of them, and versions that go out of the state before their files do."""

import datetime as dt
import errno
import os

import attrs
import pytest
import store_damage
import store_fixtures
from store_damage import at, version
from store_fixtures import Stopped, WatchedDisk, flip, on_disk, snapshot

from hydra_detect.errors import ConflictError, CorruptError, InputError, NotFoundError, StaleError
from hydra_detect.names import HeadRef
from hydra_detect.storage import changes, layout, owners, pointers
from hydra_detect.storage.pointers import NOTHING, Change, Pin, Taken

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

PRUNED = Change(what=pointers.PRUNED, at="now", actor="ada", reason="old")
PINS = tuple(
    Pin(version=number, reason=reason) for number, reason in ((3, "paper"), (3, "demo"), (4, ""), (5, "paper"))
)
PINNED = attrs.evolve(NOTHING, pins=PINS)
NO_TEXT = (None, 5, b"x", ["x"], "x" * 1001, "\ud800")


# What is written


def test_change(monkeypatch):
    """A change says when it happens, who is at work and why, and further facts of it."""
    monkeypatch.setenv(owners.ACTOR_VARIABLE, "nightly")
    change = changes.change(pointers.PROMOTED, version=3, reason="better")
    assert (change.what, change.version, change.actor, change.reason) == ("promoted", 3, "nightly", "better")
    assert abs(dt.datetime.fromisoformat(change.at) - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=5)
    assert changes.change(pointers.PINNED, actor="ada").actor == changes.by("ada") == "ada"
    assert (changes.by(""), changes.change(pointers.PINNED).reason) == ("nightly", "")


@pytest.mark.parametrize("text", ["", "x" * changes.MOST_CHARACTERS, "日本", "a\nb"])
def test_texts_that_can_stand_in_a_history(text):
    """A text of up to a thousand characters, in any writing, is returned as it is."""
    assert changes.checked(text, "reason") is text


@pytest.mark.parametrize("text", NO_TEXT, ids=lambda text: ascii(text)[:12])
def test_texts_that_cannot_stand_in_a_history(text):
    """What is no text, too long, or cannot be written is refused before anything happens, and is shown short."""
    with pytest.raises(InputError, match=r"write to the history: the actor is .* at most 1000 characters") as caught:
        changes.checked(text, "actor")
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError, match="the reason is "):
        changes.change(pointers.PINNED, reason=text)


def test_an_actor_of_the_environment_that_is_too_long(monkeypatch):
    """What the environment says of who is at work has to be fit for a history, too."""
    monkeypatch.setenv(owners.ACTOR_VARIABLE, "x" * 1001)
    with pytest.raises(InputError, match="the actor is "):
        changes.by("")
    assert changes.by("ada") == "ada"


# Taking versions away


def take(manager, numbers, disk=None, **after):
    """Take versions of `owl` away."""
    store = on_disk(manager.store, disk) if disk else manager.store
    item = store.head("owl")
    return changes.take_away(item, item.pointer(), numbers, after=after, change=PRUNED)


def test_take_away(rich):
    """Versions that are taken away are remembered, leave the way back and the pins, and then the disk."""
    item = rich.store.head("owl")
    memory = tuple(changes.remember(item, number) for number in (3, 4))
    assert take(rich, [4, 3]) == []
    state = item.pointer()
    assert (state.active, state.earlier, state.pins, state.gone) == (2, (1,), (), (3, 4))
    assert state.change == attrs.evolve(PRUNED, taken=memory)
    assert item.numbers() == item.place.version_numbers() == [1, 2]
    assert list(item.place.staging.iterdir()) == []


def test_take_away_changes_what_it_is_told(rich):
    """What else changes with it stands in the same state: there is no moment in between."""
    take(rich, [1, 2, 3, 4], active=None, manifest=None)
    state = rich.store.head("owl").pointer()
    assert (state.generation, state.active, state.manifest, state.earlier) == (5, None, None, ())
    assert [taken.version for taken in state.change.taken] == [1, 2, 3, 4]


def test_the_state_comes_first(rich):
    """Whoever dies while he takes versions away leaves them gone for everybody, and their files for the next writer."""

    def die(step, *_arguments):
        if step == "rename":
            raise Stopped

    with pytest.raises(Stopped):
        take(rich, [3, 4], WatchedDisk(die))
    item = rich.store.head("owl")
    assert (item.numbers(), item.place.version_numbers()) == ([1, 2], [1, 2, 3, 4])
    assert item.pointer().gone == (3, 4)


def test_versions_whose_files_cannot_be_moved(rich):
    """Versions whose files are held by somebody are gone all the same, and are told."""

    def hold(step, path, *_arguments):
        if step == "rename" and path.name == "000003":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    assert take(rich, [3, 4], WatchedDisk(hold)) == [3]
    item = rich.store.head("owl")
    assert (item.numbers(), item.place.version_numbers()) == ([1, 2], [1, 2, 3])


def test_a_version_of_which_nothing_can_be_remembered(rich):
    """A version whose manifest is damaged is evidence: nothing is taken away, not even the others."""
    flip(at(rich, version(3, layout.MANIFEST)), 40)
    before = snapshot(rich.store.root)
    with pytest.raises(CorruptError, match="the manifest of owl@3"):
        take(rich, [3, 4])
    assert snapshot(rich.store.root) == before


def test_a_state_that_another_changed_meanwhile(rich):
    """On an old state nothing is taken away: what was to go may be active by now."""
    item = rich.store.head("owl")
    before = item.pointer()
    rich.promote("owl", 3)
    with pytest.raises(StaleError, match="another process changed it first"):
        changes.take_away(item, before, [3], after={}, change=PRUNED)
    assert item.numbers() == item.place.version_numbers() == [1, 2, 3, 4]


def test_remember(rich):
    """Of a version is remembered when and by whom it was made, and the digest of its manifest."""
    found = rich.store.head("owl").manifest(1)
    assert changes.remember(rich.store.head("owl"), 1) == Taken(
        version=1, created_at=found.created_at, actor=found.actor, manifest=found.digest
    )


# Pins


def test_check_unpinned():
    """A head on which somebody relies says which versions are pinned, and why, each pin for itself."""
    changes.check_unpinned("remove it", NOTHING)
    with pytest.raises(ConflictError, match=r"^cannot remove it: something relies on it: ") as caught:
        changes.check_unpinned("remove it", PINNED)
    assert caught.value.found.endswith("versions are pinned: 3 (demo), 3 (paper), 4, 5 (paper)")


@pytest.mark.parametrize(
    ("number", "pinned_for", "place"),
    [(3, "paper", 0), (3, "demo", 1), (4, None, 2), (4, "", 2), (5, None, 3), (5, "paper", 3), (6, None, None)],
)
def test_pin_of(number, pinned_for, place):
    """The pin that is meant is the one for that reason, or the only one; a version that is not pinned has none."""
    found = changes.pin_of(PINNED, HeadRef("owl", number), pinned_for)
    assert found is (None if place is None else PINS[place])


def test_pin_of_several():
    """Where a version is pinned for several reasons one has to be named: each may be somebody else's."""
    with pytest.raises(
        ConflictError, match=r"unpin owl@3: it is pinned for several reasons: 'demo', 'paper'"
    ) as caught:
        changes.pin_of(PINNED, HeadRef("owl", 3), None)
    assert caught.value.remedy == "Say which with pinned_for (--pinned-for)."


@pytest.mark.parametrize(("number", "reasons"), [(3, "'demo', 'paper'"), (4, "''"), (5, "'paper'")])
def test_pin_of_another_reason(number, reasons):
    """Who names a reason that a version is not pinned for hears those that it is pinned for."""
    with pytest.raises(NotFoundError, match=f"unpin owl@{number}: it is not pinned for 'book', but for: {reasons}"):
        changes.pin_of(PINNED, HeadRef("owl", number), "book")
    assert changes.pin_of(PINNED, HeadRef("owl", 6), "book") is None
