"""The pointer: generations that are written once, hold the whole state, and prove themselves."""

import itertools

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, names, texts, unknowns, versions
from store_fixtures import AT, flip, point, publish, rewrite, snapshot

from hydra_detect import codec
from hydra_detect.errors import CorruptError, NotFoundError, RecordError, StaleError
from hydra_detect.storage import layout, pointers, sealed
from hydra_detect.storage.pointers import NOTHING, Pin, Pointer, Taken

store = store_fixtures.store

OWL = (layout.HEADS, "owl")
several = st.lists(versions, max_size=4, unique=True).map(tuple)
pins = st.lists(st.builds(Pin, version=versions, reason=texts, unknown=unknowns), max_size=3)
taken = st.lists(st.builds(Taken, version=versions, created_at=texts, actor=texts, manifest=digests), max_size=3)
states = st.builds(
    Pointer,
    generation=st.integers(1, 99_999_999),
    event=st.sampled_from(pointers.EVENTS),
    version=st.none() | versions,
    active=st.none() | versions,
    earlier=several,
    manifest=st.none() | digests,
    pins=pins,
    gone=several,
    taken=taken,
    high=st.integers(0, 10**9),
    other=st.just("") | names,
    at=texts,
    actor=texts,
    reason=texts,
    unknown=unknowns.map(lambda later: {f"later {key}": value for key, value in later.items()}),
)


def swap(store, before, **after):
    """Note an event at `owl`."""
    return store.item(*OWL).swap(before, {"event": pointers.PINNED, "at": AT, **after})


# One generation


@given(states, names)
def test_round_trip(state, name):
    """A generation reads back as itself, what later versions added to it included, and has one text."""
    text = pointers.text(state, of=f"heads/{name}")
    again = pointers.parse(text, state.generation, "it", of=f"heads/{name}")
    assert again == state
    assert pointers.text(again, of=f"heads/{name}") == text


@given(states, st.integers(-1, 3))
def test_a_generation_of_another_number(state, other):
    """A file that was put in the place of another generation is found."""
    if other != state.generation:
        with pytest.raises(CorruptError, match="it is another generation"):
            pointers.parse(pointers.text(state), other, "it")


def test_a_generation_of_another_head(store):
    """A generation that was copied from another head, or from a backbone of that name, is found, and whose it is."""
    for name in ("owl", "fox"):
        publish(store, name)
        point(store, 1, 0, name)
    item = store.layout.item(*OWL)
    assert pointers.owner_of(item) == "heads/owl"
    data = store.layout.item(layout.HEADS, "fox").pointer(1).read_bytes()
    rewrite(item.pointer(1), data)
    with pytest.raises(CorruptError, match="it is one of 'heads/fox'"):
        store.item(*OWL).pointer()
    with pytest.raises(CorruptError, match="it is one of 'heads/fox'"):
        pointers.parse(data, 1, "it", of="backbones/fox")


def test_a_generation_of_a_newer_format():
    """A generation that only later versions understand is told as such, and not as damage."""
    document = sealed.unseal(pointers.text(attrs.evolve(NOTHING, generation=1)), "it")
    with pytest.raises(RecordError, match="format"):
        pointers.parse(sealed.seal({**document, "format": 2}), 1, "it")


def test_nothing():
    """Before anything happened nothing is active, pinned or gone, and there is nothing to go back to."""
    assert (NOTHING.generation, NOTHING.active, NOTHING.previous, NOTHING.pinned) == (0, None, None, ())
    assert (NOTHING.gone, NOTHING.high) == ((), 0)
    sealed_nothing = sealed.seal({"format": 1, "of": "", **codec.to_dict(NOTHING)})
    with pytest.raises(CorruptError, match="it is another generation"):
        pointers.parse(sealed_nothing, 0, "it")  # and no file ever says so


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": -1}, {"event": "created"}, {"event": ""}, {"active": 0}, {"active": -1}, {"version": 0},
        {"earlier": (1, 0)}, {"gone": (0,)}, {"high": -1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_states(changes):
    """A state that there cannot be is refused at birth, by the field."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        attrs.evolve(NOTHING, **changes)


def test_pins_and_taken_versions_have_numbers():
    """A pin or a memory of version 0 is refused."""
    with pytest.raises(ValueError, match="version"):
        Pin(version=0)
    with pytest.raises(ValueError, match="version"):
        Taken(version=0, created_at=AT, actor="", manifest=None)


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
    ("field", "value"), [("reason", 5), ("reason", b"x"), ("actor", None), ("reason", "x" * (1 << 20))]
)
def test_what_could_not_be_read_again_is_not_written(store, field, value):
    """A reason or actor that is no text, or too long, is refused before anything is written."""
    publish(store)
    point(store, 1, 0)
    before = snapshot(store.root)
    with pytest.raises(RecordError, match=r"cannot write (generation 2 of a pointer|a record): "):
        swap(store, store.item(*OWL).pointer(), **{field: value})
    assert {name: facts[3] for name, facts in snapshot(store.root).items()} == {
        name: facts[3] for name, facts in before.items()
    }


# The sequence


def test_newest(store):
    """The highest generation counts, beyond 9 and 99 too, and each of the others can still be read."""
    item = store.layout.item(*OWL)
    assert pointers.newest(item, "owl") == NOTHING
    publish(store)
    state = NOTHING
    for generation in range(1, 103):
        state = swap(store, state, reason=str(generation))
    assert pointers.newest(item, "owl") == state
    assert (state.generation, state.reason) == (102, "102")
    assert [pointer.reason for pointer in pointers.intact(item, "owl")] == [str(number) for number in range(1, 103)]
    with pytest.raises(NotFoundError, match=r"cannot read generation 103 of the pointer of 'owl': .* does not exist"):
        pointers.read(item, "owl", 103)


def test_the_one_before_a_damaged_generation_is_no_answer(store):
    """With the newest generation damaged the state is unknown; the generations before it are history all the same."""
    publish(store)
    point(store, 1, 0)
    point(store, 1, 1)
    item = store.layout.item(*OWL)
    flip(item.pointer(2), 30)
    with pytest.raises(CorruptError, match="cannot read generation 2 of the pointer of 'owl'"):
        pointers.newest(item, "owl")
    assert [pointer.generation for pointer in pointers.intact(item, "owl")] == [1]


def test_generations_are_written_once(store):
    """A later change leaves the earlier generations as they are, to the byte and the time."""
    publish(store)
    point(store, 1, 0)
    path = store.layout.item(*OWL).pointer(1)
    before = snapshot(path.parent)
    swap(store, store.item(*OWL).pointer())
    after = snapshot(path.parent)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2


def test_a_swap_keeps_what_it_does_not_change(store):
    """An event changes the fields that it names; state stays, and what belonged to the last event alone does not."""
    publish(store)
    publish(store)
    point(store, 1, 0)
    memory = Taken(version=9, created_at=AT, actor="ada", manifest=store.item(*OWL).manifest(1).digest)
    pin = Pin(version=1, reason="paper")
    first = swap(
        store, store.item(*OWL).pointer(), pins=(pin,), version=1, taken=(memory,), other="fox", reason="a", actor="b"
    )
    second = swap(store, first, event=pointers.PRUNED)
    assert (second.active, second.manifest, second.pins) == (1, first.manifest, (pin,))
    assert (second.version, second.taken, second.other) == (None, (), "")
    assert second.generation == first.generation + 1 == 3


def test_what_a_later_version_wrote_is_kept(store):
    """A field that a later version of this library added to the state is carried on by this one."""
    publish(store)
    point(store, 1, 0)
    item = store.layout.item(*OWL)
    document = sealed.unseal(item.pointer(1).read_bytes(), "it")
    rewrite(item.pointer(1), sealed.seal({**document, "colour": "red"}))
    assert swap(store, store.item(*OWL).pointer()).unknown == {"colour": "red"}
    assert store.item(*OWL).pointer().unknown == {"colour": "red"}


def test_who_looked_before_another_changed_it(store):
    """A change that is built on an older state is refused, and can be tried again."""
    publish(store)
    first = point(store, 1, 0)
    swap(store, first, reason="theirs")
    with pytest.raises(StaleError, match="another process changed it first") as caught:
        swap(store, first, reason="mine")
    assert caught.value.remedy == "Look again, then repeat it."
    assert store.item(*OWL).pointer().reason == "theirs"


def test_what_is_gone_is_remembered_while_its_files_are_there(store):
    """A version that was taken away stays gone for as long as its folder is there, and no longer."""
    for _ in range(3):
        publish(store)
    state = swap(store, NOTHING, gone=(1, 2))
    assert state.gone == (1, 2)
    assert store.item(*OWL).numbers() == [3]
    item = store.layout.item(*OWL)
    item.version(1).rename(store.root / "elsewhere")
    state = swap(store, state)
    assert (state.gone, store.item(*OWL).numbers()) == ((2,), [3])
    item.version(2).rename(store.root / "elsewhere-2")
    assert swap(store, state).gone == ()


def test_the_highest_number_is_remembered(store):
    """The highest number ever given out stands in the pointer, so that it outlives claims and versions."""
    for _ in range(3):
        publish(store)
    assert point(store, 1, 0).high == 3
    item = store.layout.item(*OWL)
    item.claim(11).touch()
    state = swap(store, store.item(*OWL).pointer())
    assert state.high == 11
    item.claims.rename(store.root / "elsewhere")
    assert swap(store, state).high == 11
    assert publish(store).version == 12
