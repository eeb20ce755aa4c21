"""The pointer's generations as a sequence: the highest counts, each stays as it was, and gaps are known."""

import errno
import itertools

import pytest
import store_fixtures
from hypothesis import example, given
from hypothesis import strategies as st
from store_fixtures import AT, flip, point, publish, refuse_opening, rewrite, snapshot

from hydra_detect import codec
from hydra_detect.errors import CorruptError, NotFoundError, RecordError, StaleError, StoreError
from hydra_detect.names import Digest
from hydra_detect.storage import pointers, sealed
from hydra_detect.storage.pointers import NOTHING, Change, Pin, Pointer, Taken

store = store_fixtures.store

spans = st.lists(st.tuples(st.integers(1, 14), st.integers(0, 5)).map(lambda span: (span[0], sum(span))), max_size=2)


def swap(store, before, what=pointers.PINNED, facts=None, **after):
    """Let something happen to `owl`, with facts of it; the rest is what changes in the state."""
    return store.head("owl").swap(before, after, Change(what=what, at=AT, **facts or {}))


def document(store, generation=1):
    """Return what stands in a generation of `owl`."""
    path = store.head("owl").place.pointer(generation)
    return sealed.unseal(path.read_bytes(), "it", limit=pointers.MAX_BYTES)


def test_newest(store):
    """The highest generation counts, beyond 9 and 99 too, and each of the others can still be read."""
    place = store.head("owl").place
    assert pointers.newest(place) == NOTHING
    publish(store)
    state = NOTHING
    for generation in range(1, 103):
        state = swap(store, state, facts={"reason": str(generation)})
    assert pointers.newest(place) == state
    assert (state.generation, state.change.reason) == (102, "102")
    reasons = [pointer.change.reason for pointer in pointers.intact(place)]
    assert reasons == [str(number) for number in range(1, 103)]
    with pytest.raises(NotFoundError, match=r"cannot read generation 103 of the pointer of 'owl': .* does not exist"):
        pointers.read(place, 103)


def test_the_one_before_a_damaged_generation_is_no_answer(store):
    """With the newest generation damaged the state is unknown; the generations before it are history all the same."""
    publish(store)
    point(store, 1, 0)
    point(store, 1, 1)
    place = store.head("owl").place
    flip(place.pointer(2), 30)
    with pytest.raises(CorruptError, match="cannot read generation 2 of the pointer of 'owl'"):
        pointers.newest(place)
    assert [pointer.generation for pointer in pointers.intact(place)] == [1]


def test_the_one_before_a_generation_that_is_not_understood_is_no_answer(store):
    """What a later version wrote is neither damage nor passed over: who does not know it knows no state."""
    publish(store)
    point(store, 1, 0)
    point(store, 1, 1)
    place = store.head("owl").place
    later = document(store, 2)
    later["change"]["what"] = "archived"
    rewrite(place.pointer(2), sealed.seal(later))
    with pytest.raises(RecordError, match=r"cannot read generation 2 of the pointer of 'owl': .*got 'archived'"):
        pointers.newest(place)
    assert [pointer.generation for pointer in pointers.intact(place)] == [1]


def test_a_generation_that_the_system_refuses_to_read(store, monkeypatch):
    """What may not be read is neither damaged nor passed over: the history would lack it without a word."""
    publish(store)
    point(store, 1, 0)
    point(store, 1, 1)
    place = store.head("owl").place
    refuse_opening(monkeypatch, place.pointer(1))
    with pytest.raises(StoreError, match=r"cannot read generation 1 of .*: Input/output error") as caught:
        pointers.intact(place)
    assert caught.value.facts == {"errno": errno.EIO}
    assert pointers.newest(place).generation == 2
    refuse_opening(monkeypatch, place.pointer(2))
    with pytest.raises(StoreError, match=r"cannot read generation 2 of .*: Input/output error"):
        pointers.last_digest(place, 1)


def test_generations_are_written_once(store):
    """A later change leaves the earlier generations as they are, to the byte and the time."""
    publish(store)
    point(store, 1, 0)
    folder = store.head("owl").place.pointers
    before = snapshot(folder)
    swap(store, store.head("owl").pointer())
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before
    assert len(after) == 2


def test_a_swap_keeps_what_it_does_not_change(store):
    """A change touches the fields of the state that it names; of the last change nothing is carried on."""
    publish(store)
    publish(store)
    point(store, 1, 0)
    memory = Taken(version=9, created_at=AT, actor="ada", manifest=store.head("owl").manifest(1).digest)
    pin = Pin(version=1, reason="paper")
    facts = {"version": 1, "taken": (memory,), "lost": ((7, 9),), "other": "fox", "reason": "a", "actor": "b"}
    first = swap(store, store.head("owl").pointer(), facts=facts, pins=(pin,))
    assert first.change == Change(what=pointers.PINNED, at=AT, **facts)
    second = swap(store, first, pointers.PRUNED)
    assert (second.active, second.manifest, second.pins) == (1, first.manifest, (pin,))
    assert second.change == Change(what=pointers.PRUNED, at=AT)
    assert second.generation == first.generation + 1 == 3


def test_what_a_later_version_wrote_is_kept_with_the_state(store):
    """A field that a later version added to the state is carried on; one that it added to a change is that change's."""
    publish(store)
    point(store, 1, 0)
    place, later = store.head("owl").place, document(store)
    later |= {"colour": "red", "change": later["change"] | {"shape": "round"}}
    rewrite(place.pointer(1), sealed.seal(later))
    first = store.head("owl").pointer()
    assert (first.unknown, first.change.unknown) == ({"colour": "red"}, {"shape": "round"})
    second = swap(store, first)
    assert second == store.head("owl").pointer()
    assert (second.unknown, second.change.unknown) == ({"colour": "red"}, {})
    assert (document(store, 2)["colour"], "shape" in document(store, 2)["change"]) == ("red", False)


def test_what_a_later_version_wrote_of_a_pin_is_kept_with_the_pin(store):
    """A field that a later version added to a pin stays with it, whatever happens to the others."""
    publish(store)
    kept, other = Pin(version=1, reason="paper", unknown={"until": "2027"}), Pin(version=1, reason="demo")
    first = swap(store, NOTHING, pins=(kept, other))
    second = swap(store, first, pins=(kept,))
    assert store.head("owl").pointer() == second
    assert store.head("owl").pointer().pins == (kept,)
    assert document(store, 2)["pins"][0]["until"] == "2027"


def test_who_looked_before_another_changed_it(store):
    """A change that is built on an older state is refused, and can be tried again."""
    publish(store)
    first = point(store, 1, 0)
    swap(store, first, facts={"reason": "theirs"})
    with pytest.raises(StaleError, match="another process changed it first") as caught:
        swap(store, first, facts={"reason": "mine"})
    assert caught.value.remedy == "Look again, then repeat it."
    assert store.head("owl").pointer().change.reason == "theirs"


def test_what_is_gone_is_remembered_while_its_files_are_there(store):
    """A version that was taken away stays gone for as long as its folder is there, and no longer."""
    for _ in range(3):
        publish(store)
    state = swap(store, NOTHING, gone=(1, 2))
    assert state.gone == (1, 2)
    assert store.head("owl").numbers() == [3]
    place = store.head("owl").place
    place.version(1).rename(store.root / "elsewhere")
    state = swap(store, state)
    assert (state.gone, store.head("owl").numbers()) == ((2,), [3])
    place.version(2).rename(store.root / "elsewhere-2")
    assert swap(store, state).gone == ()


def test_the_highest_number_is_remembered(store):
    """The highest number ever given out stands in the pointer, so that it outlives claims and versions."""
    for _ in range(3):
        publish(store)
    assert point(store, 1, 0).high == 3
    place = store.head("owl").place
    place.claim(11).touch()
    state = swap(store, store.head("owl").pointer())
    assert state.high == 11
    place.claims.rename(store.root / "elsewhere")
    assert swap(store, state).high == 11
    assert publish(store).number == 12


def test_a_generation_may_be_larger_than_a_record(store):
    """A pruning that remembers 3,000 versions is written in one generation, and read again with all of them."""
    publish(store)
    digest = Digest("a" * 64)
    memory = tuple(
        Taken(version=number, created_at=AT, actor="somebody@a-host-with-a-long-name " * 8, manifest=digest)
        for number in range(2, 3002)
    )
    state = swap(store, NOTHING, pointers.PRUNED, facts={"taken": memory})
    assert store.head("owl").place.pointer(1).stat().st_size > codec.MAX_JSON_BYTES
    assert store.head("owl").pointer() == state
    assert pointers.intact(store.head("owl").place) == [state]
    assert [taken.version for taken in state.change.taken] == list(range(2, 3002))
    assert swap(store, state).generation == 2  # and what comes after it can be written


def lost(*written_off):
    """Return a state that a repair left, which wrote these spans off."""
    return Pointer(generation=1, change=Change(what=pointers.REPAIRED, at=AT, lost=written_off))


@given(st.sets(st.integers(1, 60)), st.lists(spans, max_size=20), st.integers(0, 70))
@example({1, 3}, [], 0)
@example({1, 10}, [[(2, 4)], [(6, 7)]], 0)
@example(set(), [[(1, 3)]], 3)
@example({5}, [[(1, 2)]], 9)
@example(set(range(1, 202, 2)), [[(number, number)] for number in range(2, 201, 2)], 0)
def test_missing(there, repairs, until):
    """Missing are the generations below the highest one that are not there and that no repair has written off."""
    found = pointers.missing(sorted(there), [NOTHING, *(lost(*written_off) for written_off in repairs)], until=until)
    written_off = {number for repair in repairs for first, last in repair for number in range(first, last + 1)}
    expected = set(range(1, max([until, *there, 0]) + 1)) - there - written_off
    assert [number for first, last in found for number in range(first, last + 1)] == sorted(expected)
    assert all(low[1] + 1 < high[0] or (low[1] + 1) in written_off | there for low, high in itertools.pairwise(found))


def test_missing_says_spans_and_not_each():
    """A gap of a thousand million generations is one span, found at once."""
    assert pointers.missing([1, 999_999_999], []) == [(2, 999_999_998)]
    assert pointers.missing([1, 2, 3], []) == pointers.missing([], []) == []


@pytest.mark.parametrize(("span", "said"), [((3, 3), "generation 3"), ((3, 7), "generations 3 to 7")])
def test_spanned(span, said):
    """One generation and several are told in words."""
    assert pointers.spanned(*span) == said
