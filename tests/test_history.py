"""History: what happened to a head, each event once, in an order that no clock can turn around."""

import json
import re

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, texts
from store_fixtures import create, flip, some_tensors

from hydra_detect.errors import NotFoundError
from hydra_detect.history import CREATED, Event, history
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import layout, pointers
from hydra_detect.storage.store import Store
from hydra_detect.tensors import tensors_digest
from hydra_detect.versions import VersionManager

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

OWL = (layout.HEADS, "owl")


def at(second):
    """Return the time of a second of one day."""
    return f"2025-01-01T00:00:{second:02}.000+00:00"


def told(events):
    """Return events as (what, versions)."""
    return [(event.what, event.versions) for event in events]


# What happened


def test_nothing_happened(manager):
    """A head that never was has no history, and asking for it makes none."""
    assert history(manager.store, "owl") == []
    with pytest.raises(NotFoundError, match="no such head"):
        manager.history("owl")
    assert list(manager.store.root.glob("heads/*")) == []


def test_every_change_is_an_event(tmp_path):
    """Each change is one event in the past tense, with who, why, what is active after it, and digests."""
    manager = VersionManager(Store.create(tmp_path / "store", durability="fast"), actor="ada")
    first, second = create(manager), create(manager, seed=1)
    manager.promote("owl", 1, reason="first")
    manager.promote("owl", 2, reason="better")
    VersionManager(manager.store, actor="bo").rollback("owl", reason="worse")
    manager.pin("owl", 2, reason="paper")
    manager.unpin("owl", 2, reason="printed")
    manager.prune("owl", keep=1, reason="space")
    assert [
        (event.what, event.versions, event.active, event.actor, event.reason) for event in manager.history("owl")
    ] == [
        ("created", (1,), None, "ada", ""),
        ("created", (2,), None, "ada", ""),
        ("promoted", (1,), 1, "ada", "first"),
        ("promoted", (2,), 2, "ada", "better"),
        ("rolled back", (1,), 1, "bo", "worse"),
        ("pinned", (2,), 1, "ada", "paper"),
        ("unpinned", (2,), 1, "ada", "printed"),
    ]  # a pruning that takes nothing away is no event
    digests = [event.digest for event in manager.history("owl")]
    assert digests == [*[first.manifest, second.manifest] * 2, first.manifest, None, None]
    assert [event.generation for event in manager.history("owl")] == [0, 0, 1, 2, 3, 4, 5]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+\+00:00", event.at) for event in manager.history("owl"))
    assert {event.head for event in manager.history("owl")} == {"owl"}


def test_pruned_versions_keep_their_creation(manager):
    """A version that was pruned was still created, by whom and when it was, and with the digest that it had."""
    versions = [create(manager, seed=seed) for seed in range(4)]
    before = manager.history("owl")
    manager.promote("owl", 3)
    manager.prune("owl", keep=1, reason="space")
    after = manager.history("owl")
    assert after[:4] == before
    assert [event.digest for event in after[:4]] == [version.manifest for version in versions]
    assert told(after[4:]) == [("promoted", (3,)), ("pruned", (1, 2))]
    assert (after[-1].active, after[-1].reason) == (3, "space")


def test_removed_heads_keep_their_history(manager):
    """A head that was removed, and one made anew under its name, has all of its history, each version once."""
    create(manager)
    create(manager, seed=1)
    manager.promote("owl", 2)
    HeadRegistry(manager.store).remove("owl", reason="obsolete")
    expected = [("created", (1,)), ("created", (2,)), ("promoted", (2,)), ("removed", (1, 2))]
    assert told(manager.history("owl")) == expected
    assert manager.history("owl")[-1].active is None
    create(manager, seed=2)
    manager.promote("owl", 3)
    assert told(manager.history("owl")) == [*expected, ("created", (3,)), ("promoted", (3,))]


def test_renamed(manager):
    """Each of the two names knows the other: one what went, the other where from; the versions' creations go along."""
    create(manager)
    manager.promote("owl", 1)
    HeadRegistry(manager.store).rename("owl", "strix", reason="taxonomy")
    old, new = manager.history("owl"), manager.history("strix")
    assert told(old) == [("created", (1,)), ("promoted", (1,)), ("renamed", (1,))]
    assert told(new) == [("created", (1,)), ("renamed", ())]
    assert (old[-1].other, new[-1].other) == ("strix", "owl")
    assert (old[-1].active, new[-1].active) == (None, 1)
    assert (new[0].at, new[0].actor) == (old[0].at, old[0].actor)
    assert re.search(r"  renamed owl@1 to strix by .*: taxonomy$", str(old[-1]))
    assert re.search(r"  renamed strix from owl by .*: taxonomy$", str(new[-1]))


def test_a_second_pruning_forgets_nothing(manager):
    """Creations are remembered in the generation that took the version away, however many prunings came after."""
    for seed in range(6):
        create(manager, seed=seed)
        manager.promote("owl", seed + 1)
        manager.prune("owl", keep=1)
    created = [event for event in manager.history("owl") if event.what == CREATED]
    assert [event.versions for event in created] == [(number,) for number in range(1, 7)]
    assert manager.store.item(*OWL).numbers() == [5, 6]


def test_what_is_damaged_hides_nothing_else(filled):
    """A damaged version is missing from the history, a damaged generation has its place, and all else is told."""
    filled.promote("owl", 2)
    filled.promote("owl", 1)
    item = filled.store.layout.item(*OWL)
    flip(item.version(2) / layout.MANIFEST, 30)
    flip(item.pointer(2), 30)
    before = [("created", (1,)), ("promoted", (1,)), ("unreadable", ())]
    assert told(filled.history("owl")) == [*before, ("promoted", (1,))]
    flip(item.pointer(3), 30)
    assert told(filled.history("owl")) == [*before, ("unreadable", ())]
    assert filled.history("owl")[-1].reason == "its digest does not match its content"
    flip(item.pointer(1), 30)
    assert [event.generation for event in filled.history("owl") if event.what == "unreadable"] == [1, 2, 3]


# The order


@given(st.lists(st.integers(0, 59), max_size=6), st.lists(st.integers(0, 59), max_size=6))
def test_clocks_that_differ_turn_nothing_around(creations, changes):
    """Whatever the clocks say, versions are created in the order of numbers and changed in that of generations."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(f"{folder}/store", durability="fast")
        for second in creations:
            store.item(*OWL).publish({"a": b""}, created_at=at(second))
        for second in changes:
            store.item(*OWL).swap(store.item(*OWL).pointer(), {"event": pointers.PINNED, "at": at(second)})
        events = history(store, "owl")
    assert len(events) == len(creations) + len(changes)
    assert [event.versions[0] for event in events if event.what == CREATED] == list(range(1, len(creations) + 1))
    assert [event.generation for event in events if event.what != CREATED] == list(range(1, len(changes) + 1))
    if creations == sorted(creations) and changes == sorted(changes):
        times = [event.at for event in events]
        assert times == sorted(times)


def test_a_creation_comes_before_a_change_of_the_same_moment(store):
    """Of two events of one moment the creation came first: nothing is promoted before it is there."""
    store.item(*OWL).publish({"a": b""}, created_at=at(5))
    store.item(*OWL).swap(pointers.NOTHING, {"event": pointers.PROMOTED, "version": 1, "at": at(5)})
    assert told(history(store, "owl")) == [("created", (1,)), ("promoted", (1,))]


# One event


EVENT = Event(at=at(1), what="promoted", head="owl", versions=(3,), active=3, actor="ada", reason="better")


def test_one_line():
    """An event is one line for people: when, what, who and why."""
    digest = tensors_digest(some_tensors())
    assert str(EVENT) == f"{at(1)}  promoted owl@3 by ada: better"
    assert str(attrs.evolve(EVENT, digest=digest)) == f"{at(1)}  promoted owl@3 {digest.short} by ada: better"
    pruned = Event(at=at(2), what="pruned", head="owl", versions=(1, 2), actor="ada")
    assert str(pruned) == f"{at(2)}  pruned owl@1, owl@2 by ada"
    assert str(attrs.evolve(EVENT, what="rolled back")).startswith(f"{at(1)}  rolled back to owl@3 by ada")
    assert str(Event(at=at(3), what="repaired", head="owl")) == f"{at(3)}  repaired owl"


@given(texts, texts, st.sampled_from(["created", *pointers.EVENTS]), st.none() | digests)
def test_an_event_is_one_printable_line_whatever_people_wrote(actor, reason, what, digest):
    """No reason and no name can break the line, forge another one, or speak to the terminal."""
    line = str(attrs.evolve(EVENT, what=what, actor=actor, reason=reason, digest=digest))
    assert line.isprintable()
    assert line.startswith(f"{at(1)}  {what}")


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\x1b[2Jgone", "a\u2028b", "\x00", "\u202eevil", "a\tb"])
def test_what_would_break_the_line(text):
    """Line breaks and control characters in a reason are not printed as such; as data they stay what they are."""
    event = attrs.evolve(EVENT, reason=text, actor=text)
    assert str(event).isprintable()
    assert event.to_dict()["reason"] == text


def test_unknown_events():
    """An event of a kind that there is not is a mistake of the caller."""
    with pytest.raises(ValueError, match="'what' must be in"):
        attrs.evolve(EVENT, what="lost")


def test_to_dict():
    """For programs an event is plain JSON values, the digest in full."""
    digest = tensors_digest(some_tensors())
    plain = json.loads(json.dumps(attrs.evolve(EVENT, digest=digest).to_dict()))
    assert plain == {
        "at": at(1), "what": "promoted", "head": "owl", "versions": [3], "other": "", "active": 3, "actor": "ada",
        "reason": "better", "digest": str(digest), "generation": 0,
    }  # fmt: skip
