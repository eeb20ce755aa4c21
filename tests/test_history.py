"""History: what happened to a head, each event once, in an order that no clock can turn around."""

import json
import re

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, texts
from store_fixtures import create, flip, refuse_opening, rewrite, some_tensors

from hydra_detect.errors import CorruptError, NotFoundError, StoreError
from hydra_detect.history import CREATED, DAMAGED, Event, history
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import layout, pointers, sealed
from hydra_detect.storage.pointers import Change
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


def by_generation(event):
    """Sort events by what no clock says."""
    return event.generation, event.versions


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
    events = manager.history("owl")
    assert [(event.what, event.versions, event.active, event.actor, event.reason) for event in events] == [
        ("created", (1,), None, "ada", ""),
        ("created", (2,), None, "ada", ""),
        ("promoted", (1,), 1, "ada", "first"),
        ("promoted", (2,), 2, "ada", "better"),
        ("rolled back", (1,), 1, "bo", "worse"),
        ("pinned", (2,), 1, "ada", "paper"),
        ("unpinned", (2,), 1, "ada", "printed"),
    ]  # a pruning that takes nothing away is no event
    one, two = first.manifest, second.manifest
    assert [event.digest for event in events] == [one, two, one, two, one, two, None]
    assert [event.digests for event in events] == [(event.digest,) for event in events]
    assert [event.active_digest for event in events] == [None, None, one, two, one, one, one]
    assert [event.other for event in events] == [""] * 6 + ["paper"]  # what it was pinned for
    assert [event.generation for event in events] == [0, 0, 1, 2, 3, 4, 5]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+\+00:00", event.at) for event in events)
    assert {event.head for event in events} == {"owl"}


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
    assert (after[-1].digests, after[-1].digest) == ((versions[0].manifest, versions[1].manifest), None)


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


# Under several names


def story(events):
    """Return events as (head, what, versions, other name)."""
    return [(event.head, event.what, event.versions, event.other) for event in events]


def test_renamed(manager):
    """Each of the two names knows the other; the new one's history begins with what happened under the old one."""
    create(manager)
    manager.promote("owl", 1)
    HeadRegistry(manager.store).rename("owl", "strix", reason="taxonomy")
    old, new = manager.history("owl"), manager.history("strix")
    before = [("owl", "created", (1,), ""), ("owl", "promoted", (1,), ""), ("owl", "renamed", (1,), "strix")]
    assert story(old) == before
    assert new[:3] == old
    assert story(new[3:]) == [("strix", "renamed", (), "owl")]
    assert (old[-1].active, new[-1].active) == (None, 1)
    assert new[-1].active_digest == manager.active("strix").manifest != old[-1].digest == old[0].digest
    assert re.search(r"  renamed owl@1 to strix \w{12} by .*: taxonomy  \[active: none\]$", str(old[-1]))
    assert re.search(r"  renamed strix from owl by .*: taxonomy  \[active: 1\]$", str(new[-1]))


def test_renamed_twice_and_the_old_names_used_again(manager):
    """A head's history is its own over any number of names, in order; what a name was used for since is another's."""
    registry = HeadRegistry(manager.store)
    for seed in range(2):
        create(manager, "owl", seed)
    manager.promote("owl", 1)
    registry.rename("owl", "strix")
    create(manager, "owl", 5)  # another head now
    manager.promote("owl", 3)
    create(manager, "strix", 2)
    manager.promote("strix", 3)
    registry.rename("strix", "tyto")
    create(manager, "strix", 6)
    registry.remove("owl")
    manager.pin("tyto", 1)
    under_owl = [
        ("owl", "created", (1,), ""), ("owl", "created", (2,), ""), ("owl", "promoted", (1,), ""),
        ("owl", "renamed", (1, 2), "strix"),
    ]  # fmt: skip
    under_strix = [
        ("strix", "renamed", (), "owl"), ("strix", "created", (3,), ""), ("strix", "promoted", (3,), ""),
        ("strix", "renamed", (1, 2, 3), "tyto"),
    ]  # fmt: skip
    under_tyto = [("tyto", "renamed", (), "strix"), ("tyto", "pinned", (1,), "")]
    assert story(manager.history("tyto")) == [*under_owl, *under_strix, *under_tyto]
    assert story(manager.history("strix")) == [*under_owl, *under_strix, ("strix", "created", (4,), "")]
    since = [("owl", "created", (3,), ""), ("owl", "promoted", (3,), ""), ("owl", "removed", (3,), "")]
    assert story(manager.history("owl")) == [*under_owl, *since]


def test_renamed_with_its_first_change(manager):
    """A head of which nothing was ever promoted, or was made since the last change, has each creation once."""
    create(manager)
    HeadRegistry(manager.store).rename("owl", "strix")
    before = [("owl", "created", (1,), ""), ("owl", "renamed", (1,), "strix")]
    assert story(manager.history("owl")) == before
    assert story(manager.history("strix")) == [*before, ("strix", "renamed", (), "owl")]
    create(manager, "strix", 1)
    HeadRegistry(manager.store).rename("strix", "tyto")
    before += [("strix", "renamed", (), "owl"), ("strix", "created", (2,), ""), ("strix", "renamed", (1, 2), "tyto")]
    assert story(manager.history("tyto")) == [*before, ("tyto", "renamed", (), "strix")]


@pytest.mark.parametrize(("other", "theirs"), [("owl", "owl"), ("fox", "owl"), ("fox", "fox")])
def test_a_circle_of_names(filled, other, theirs):
    """A state that a stranger sealed cannot make history go round in circles."""
    filled.promote("fox", 1)
    for head, came in (("owl", other), ("fox", theirs)):
        path = filled.store.layout.item(layout.HEADS, head).pointer(1)
        document = sealed.unseal(path.read_bytes(), "it")
        document["change"] |= {"what": "renamed", "other": came, "version": None, "manifest": None}
        rewrite(path, sealed.seal(document))
    assert [event.head for event in filled.history("owl") if event.generation].count("owl") == 1
    assert len(filled.history("owl")) <= 4


def test_renamed_after_a_pruning(manager):
    """What was pruned under the old name, or is pruned under the new one, has its creation once."""
    for seed in range(4):
        create(manager, seed=seed)
    manager.promote("owl", 4)
    manager.prune("owl", keep=2)
    HeadRegistry(manager.store).rename("owl", "strix")
    manager.prune("strix", keep=1)
    assert [(event.head, event.what, event.versions) for event in manager.history("strix")] == [
        *[("owl", "created", (number,)) for number in range(1, 5)], ("owl", "promoted", (4,)),
        ("owl", "pruned", (1, 2)), ("owl", "renamed", (3, 4)), ("strix", "renamed", ()), ("strix", "pruned", (3,)),
    ]  # fmt: skip


def test_a_second_pruning_forgets_nothing(manager):
    """Creations are remembered in the generation that took the version away, however many prunings came after."""
    for seed in range(6):
        create(manager, seed=seed)
        manager.promote("owl", seed + 1)
        manager.prune("owl", keep=1)
    created = [event for event in manager.history("owl") if event.what == CREATED]
    assert [event.versions for event in created] == [(number,) for number in range(1, 7)]
    assert manager.store.item(*OWL).numbers() == [5, 6]


# Damage


def test_what_is_damaged_hides_nothing_else(filled):
    """A damaged version is missing from the history, a damaged generation has its place, and all else is told."""
    filled.promote("owl", 2)
    filled.promote("owl", 1)
    item = filled.store.layout.item(*OWL)
    flip(item.version(2) / layout.MANIFEST, 30)
    flip(item.pointer(2), 20)
    before = [("created", (1,)), ("promoted", (1,)), ("damaged", ())]
    assert told(filled.history("owl")) == [*before, ("promoted", (1,))]
    flip(item.pointer(3), 20)
    assert told(filled.history("owl")) == [*before, ("damaged", ())]
    flip(item.pointer(1), 20)
    assert [event.generation for event in filled.history("owl") if event.what == DAMAGED] == [1, 2, 3]


@pytest.mark.parametrize("path", ["pointer/00000001.json", f"versions/000002/{layout.MANIFEST}"])
def test_what_the_system_refuses_to_read_is_an_error(filled, monkeypatch, path):
    """A history without what may be whole would be wrong, and to call it damaged would be wrong too."""
    filled.promote("owl", 2)
    before = filled.history("owl")
    refuse_opening(monkeypatch, filled.store.layout.item(*OWL).root / path)
    with pytest.raises(StoreError, match="Input/output error"):
        filled.history("owl")
    monkeypatch.undo()
    assert filled.history("owl") == before


@pytest.mark.parametrize("generation", [1, 2, 3])
def test_a_damaged_generation_keeps_its_place(filled, generation):
    """A generation that cannot be read has no time, no actor and no state; it stands where it stood, and says why."""
    filled.promote("owl", 2)
    filled.promote("owl", 1)
    before = filled.history("owl")
    flip(filled.store.layout.item(*OWL).pointer(generation), 20)
    with pytest.raises(CorruptError, match=f"cannot read generation {generation} of the pointer of 'owl'") as caught:
        pointers.read(filled.store.layout.item(*OWL), generation)
    damaged = Event(at=None, what=DAMAGED, head="owl", reason=caught.value.found, generation=generation)
    expected = [damaged if event.generation == generation else event for event in before]
    assert sorted(filled.history("owl"), key=by_generation) == sorted(expected, key=by_generation)
    assert [event.generation for event in filled.history("owl") if event.generation] == [1, 2, 3]
    assert str(damaged) == f"(time unknown)  damaged owl: {caught.value.found}"
    assert json.loads(json.dumps(damaged.to_dict()))["at"] is None


def test_a_creation_after_a_damaged_generation_comes_after_it(manager):
    """What was created after a damaged generation is told where it belongs among those that have a time."""
    create(manager)
    for _ in range(2):
        manager.pin("owl", 1)
        manager.unpin("owl", 1)
    create(manager, seed=1)
    manager.promote("owl", 2)
    flip(manager.store.layout.item(*OWL).pointer(2), 20)
    whats = [event.what for event in manager.history("owl")]
    assert whats == ["created", "pinned", "damaged", "pinned", "unpinned", "created", "promoted"]


def test_versions_that_a_repair_set_aside(filled):
    """A damaged version that a repair set aside is an event with its number, and with its digest if that was left."""
    filled.promote("owl", 2)
    digests = [version.manifest for version in filled.versions("owl")]
    item = filled.store.layout.item(*OWL)
    flip(item.version(1) / layout.TENSORS)
    flip(item.version(2) / layout.MANIFEST, 30)
    filled.repair()
    events = filled.history("owl")
    assert (events[-1].what, events[-1].versions, events[-1].digests) == ("repaired", (1, 2), (digests[0], None))
    assert (events[-1].active, events[-1].active_digest) == (None, None)
    assert [event.versions for event in events if event.what == CREATED] == [(1,)]


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
            store.item(*OWL).swap(store.item(*OWL).pointer(), {}, Change(what=pointers.PINNED, at=at(second)))
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
    store.item(*OWL).swap(pointers.NOTHING, {}, Change(what=pointers.PROMOTED, version=1, at=at(5)))
    assert told(history(store, "owl")) == [("created", (1,)), ("promoted", (1,))]


# One event


EVENT = Event(at=at(1), what="promoted", head="owl", versions=(3,), active=3, actor="ada", reason="better")


def test_one_line():
    """An event is one line for people: when, what, who and why, and what was active from then on."""
    digest = tensors_digest(some_tensors())
    assert str(EVENT) == f"{at(1)}  promoted owl@3 by ada: better  [active: 3]"
    known = attrs.evolve(EVENT, digests=(digest,))
    assert str(known) == f"{at(1)}  promoted owl@3 {digest.short} by ada: better  [active: 3]"
    pruned = Event(at=at(2), what="pruned", head="owl", versions=(1, 2), digests=(digest, None), actor="ada", active=3)
    assert str(pruned) == f"{at(2)}  pruned owl@1, owl@2 by ada  [active: 3]"
    assert str(attrs.evolve(EVENT, what="rolled back")).startswith(f"{at(1)}  rolled back to owl@3 by ada")
    assert str(Event(at=at(3), what="repaired", head="owl")) == f"{at(3)}  repaired owl  [active: none]"
    unpinned = attrs.evolve(EVENT, what="unpinned", other="paper", reason="printed")
    assert str(unpinned) == f"{at(1)}  unpinned owl@3 for paper by ada: printed  [active: 3]"
    created = Event(at=at(4), what="created", head="owl", versions=(1,), digests=(digest,), actor="ada")
    assert str(created) == f"{at(4)}  created owl@1 {digest.short} by ada"


def test_one_digest_or_several():
    """An event of one version has its digest at hand; of several, or of none, there is no such one."""
    digest = tensors_digest(some_tensors())
    assert attrs.evolve(EVENT, digests=(digest,)).digest == digest
    assert attrs.evolve(EVENT, digests=(None,)).digest is None
    assert attrs.evolve(EVENT, versions=(1, 2), digests=(digest, digest)).digest is None
    assert attrs.evolve(EVENT, versions=()).digest is None


@given(texts, texts, st.sampled_from(["created", "damaged", *pointers.EVENTS]), st.none() | digests)
def test_an_event_is_one_printable_line_whatever_people_wrote(actor, reason, what, digest):
    """No reason and no name can break the line, forge another one, or speak to the terminal."""
    line = str(attrs.evolve(EVENT, what=what, actor=actor, reason=reason, digests=(digest,)))
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
    """For programs an event is plain JSON values under these keys, the digests in full."""
    digest = tensors_digest(some_tensors())
    plain = json.loads(json.dumps(attrs.evolve(EVENT, digests=(digest,), active_digest=digest).to_dict()))
    assert plain == {
        "at": at(1), "what": "promoted", "head": "owl", "versions": [3], "digests": [str(digest)], "other": "",
        "active": 3, "active_digest": str(digest), "actor": "ada", "reason": "better", "generation": 0,
    }  # fmt: skip
