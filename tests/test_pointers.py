"""The pointer: generations that are written once, hold the whole state, and prove themselves."""

import itertools
from pathlib import Path

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, names, texts, unknowns, versions
from store_fixtures import AT, point, publish, snapshot

from hydra_detect.errors import CorruptError, RecordError, StoreError
from hydra_detect.storage import layout, pointers, sealed
from hydra_detect.storage.pointers import NOTHING, Change, Pin, Pointer, Taken

store = store_fixtures.store

PLACE = layout.StoreLayout(Path("/store")).item(layout.HEADS, "owl")
several = st.lists(versions, max_size=4, unique=True).map(tuple)
pins = st.lists(st.builds(Pin, version=versions, reason=texts, actor=texts, unknown=unknowns), max_size=3)
taken = st.lists(
    st.builds(Taken, version=versions, created_at=texts, actor=texts, manifest=st.none() | digests), max_size=3
)
changes = st.builds(
    Change,
    what=st.sampled_from(pointers.EVENTS),
    version=st.none() | versions,
    manifest=st.none() | digests,
    taken=taken,
    lost=st.lists(st.tuples(versions, versions), max_size=3),
    other=st.just("") | names,
    at=texts,
    actor=texts,
    reason=texts,
    unknown=unknowns,
)
states = st.builds(
    Pointer,
    generation=st.integers(1, 99_999_999),
    active=st.none() | versions,
    manifest=st.none() | digests,
    earlier=several,
    pins=pins,
    gone=several,
    high=st.integers(0, 10**9),
    change=changes,
    unknown=unknowns,
)
FIRST = Pointer(generation=1, change=Change(what=pointers.PINNED, at=AT))


# One generation


@given(states, names, st.sampled_from([layout.HEADS, layout.BACKBONES]))
def test_round_trip(state, name, kind):
    """A generation reads back as itself, what later versions added to it included, and has one text."""
    place = layout.StoreLayout(Path("/store")).item(kind, name)
    text = pointers.text(place, state)
    again = pointers.parse(place, text, state.generation)
    assert again == state
    assert pointers.text(place, again) == text
    assert sealed.unseal(text, "it")["of"] == f"{kind}/{name}"


@given(states, st.integers(-1, 3))
def test_a_generation_of_another_number(state, other):
    """A file that was put in the place of another generation is found."""
    if other != state.generation:
        with pytest.raises(CorruptError, match="it is another generation"):
            pointers.parse(PLACE, pointers.text(PLACE, state), other)


@pytest.mark.parametrize("of", [(layout.HEADS, "fox"), (layout.BACKBONES, "owl")])
def test_a_generation_of_another_head(of):
    """A generation that was copied from another head, or from a backbone of that name, is found, and whose it is."""
    text = pointers.text(layout.StoreLayout(Path("/elsewhere")).item(*of), FIRST)
    with pytest.raises(CorruptError, match=f"it is one of '{of[0]}/{of[1]}'"):
        pointers.parse(PLACE, text, 1)


def test_a_generation_of_a_newer_format():
    """A generation that only later versions understand is told as such, and not as damage."""
    inside = sealed.unseal(pointers.text(PLACE, FIRST), "it")
    with pytest.raises(RecordError, match="its format is 2 and this version of hydra-detect reads 1") as caught:
        pointers.parse(PLACE, sealed.seal({**inside, "format": 2}), 1)
    assert caught.value.remedy == "Upgrade hydra-detect."


@pytest.mark.parametrize(
    "change",
    [
        {"generation": "1"}, {"generation": -1}, {"generation": ...}, {"active": "1"}, {"active": 0}, {"active": 1.0},
        {"active": True}, {"earlier": "1"}, {"earlier": ["1"]}, {"earlier": [0]}, {"manifest": "x"}, {"manifest": 5},
        {"pins": {}}, {"pins": [1]}, {"pins": [{}]}, {"pins": [{"version": 0}]}, {"gone": [1.5]}, {"high": -1},
        {"high": None}, {"change": None}, {"change": ...}, {"change": []}, {"change": {}},
        *(
            {"change": {"what": "pinned", "at": AT} | inner}
            for inner in (
                {"what": "lost"}, {"what": None}, {"what": "created"}, {"at": 5}, {"reason": None}, {"version": "1"},
                {"version": 0}, {"taken": [{"version": 0}]}, {"taken": [{}]}, {"lost": [[1]]}, {"lost": [[1, 2, 3]]},
                {"lost": [1]}, {"lost": [["1", 2]]}, {"manifest": "x"}, {"other": None},
            )
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_generation_that_is_not_understood(change):
    """A generation whose seal is right and whose content is not was written so: it is no damage, nothing to mend."""
    inside = sealed.unseal(pointers.text(PLACE, FIRST), "it") | change
    text = sealed.seal({key: value for key, value in inside.items() if value is not ...})
    with pytest.raises(RecordError, match="cannot read generation 1 of the pointer of 'owl': ") as caught:
        pointers.parse(PLACE, text, 1)
    assert caught.value.remedy.startswith("It is whole: upgrade hydra-detect;")
    assert "attr" not in str(caught.value).lower()
    assert not isinstance(caught.value, StoreError)


def test_nothing():
    """Before anything happened nothing is active, pinned or gone, there is nothing to go back to, and no file."""
    assert (NOTHING.generation, NOTHING.active, NOTHING.previous, NOTHING.pinned) == (0, None, None, ())
    assert (NOTHING.gone, NOTHING.high, NOTHING.change) == ((), 0, None)
    with pytest.raises(RecordError, match=r"cannot write generation 0 of the pointer of 'owl': it is another"):
        pointers.text(PLACE, NOTHING)


@pytest.mark.parametrize("changes", [{"generation": 1}, {"change": FIRST.change}])
def test_what_happened_is_said(changes):
    """Each generation says what happened, and before the first one nothing did."""
    with pytest.raises(RecordError, match="what happened is missing") as caught:
        attrs.evolve(NOTHING, **changes)
    assert caught.value.asked.startswith(f"make generation {changes.get('generation', 0)} of")


@pytest.mark.parametrize(
    "changes",
    [{"generation": -1}, {"active": 0}, {"active": -1}, {"earlier": (1, 0)}, {"gone": (0,)}, {"high": -1}],
    ids=str,
)
def test_impossible_states(changes):
    """A state that there cannot be is refused at birth, by the field."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        attrs.evolve(FIRST, **changes)


@pytest.mark.parametrize("changes", [{"what": "created"}, {"what": ""}, {"version": 0}], ids=str)
def test_impossible_changes(changes):
    """A change that there cannot be is refused at birth, by the field."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        attrs.evolve(FIRST.change, **changes)


def test_pins_and_taken_versions_have_numbers():
    """A pin or a memory of version 0 is refused."""
    with pytest.raises(ValueError, match="version"):
        Pin(version=0)
    with pytest.raises(ValueError, match="version"):
        Taken(version=0)
    assert str(Pin(version=3)) == "3"
    assert str(Pin(version=3, reason="paper")) == "3 (paper)"


@given(states, several)
def test_without(state, numbers):
    """Without some versions the others can still be gone back to, step by step in their order, and stay pinned."""
    changed = attrs.evolve(state, **state.without(numbers))
    left = [number for number in state.earlier if number not in numbers]
    assert changed.earlier == pointers.steps_back(left, state.active)
    assert changed.pins == tuple(pin for pin in state.pins if pin.version not in numbers)
    assert attrs.evolve(changed, earlier=state.earlier, pins=state.pins) == state


def test_previous_is_the_latest_of_the_earlier_ones():
    """A rollback leads to the version that was active last, not to the one with the number below."""
    state = attrs.evolve(NOTHING, active=2, earlier=(1, 5, 3))
    assert state.previous == 3


def test_a_version_with_several_pins_is_pinned_once():
    """Pinned versions are listed once each, in the order in which they were pinned first."""
    pins = tuple(Pin(version=number, reason=reason) for number, reason in ((3, "a"), (1, "a"), (3, "b"), (2, "")))
    assert attrs.evolve(NOTHING, pins=pins).pinned == (3, 1, 2)


@given(digests, digests)
def test_what_is_active(digest, other):
    """A version is the active one only by its number and its manifest together: another in its place is not."""
    state = attrs.evolve(NOTHING, active=2, manifest=digest)
    assert state.is_active(2, digest)
    assert not state.is_active(1, digest)
    assert state.is_active(2, other) == (digest == other)
    assert not NOTHING.is_active(1, digest)


@given(st.lists(st.integers(1, 4), max_size=12), st.none() | st.integers(1, 4))
def test_steps_back_are_steps(earlier, active):
    """Each step of the way back leads to another version, in the order of before, and to all that were there."""
    steps = pointers.steps_back(earlier, active)
    assert all(one != other for one, other in itertools.pairwise([*steps, active]))
    assert pointers.steps_back(steps, active) == steps
    assert set(steps) - {active} == set(earlier) - {active}
    remaining = iter(earlier)
    assert all(step in remaining for step in steps)


def test_the_way_back_is_bounded():
    """Of a long way back the latest steps are kept."""
    assert pointers.steps_back([1, 2] * pointers.MOST_EARLIER, 3) == (1, 2) * (pointers.MOST_EARLIER // 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("reason", 5), ("reason", b"x"), ("actor", None), ("at", 5), ("other", 7), ("reason", "x" * pointers.MAX_BYTES)],
    ids=["number", "bytes", "none", "time", "other", "long"],
)
def test_what_could_not_be_read_again_is_not_written(store, field, value):
    """A reason or actor that is no text, or too long, is refused before anything is written."""
    publish(store)
    point(store, 1, 0)
    item, before = store.head("owl"), snapshot(store.root)
    with pytest.raises(RecordError, match=r"cannot write (generation 2 of the pointer of 'owl'|a record): "):
        item.swap(item.pointer(), {}, Change(**{"what": pointers.PINNED, "at": AT, field: value}))
    assert snapshot(store.root) == before
