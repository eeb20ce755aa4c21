"""Retention: what stays whatever happens, by number, and what a pruning says of itself."""

import json
import math

import attrs
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from record_strategies import texts

from hydra_detect.errors import InputError
from hydra_detect.retention import DEFAULT_KEEP, PruneReport, kept
from hydra_detect.storage.pointers import NOTHING, Pin

# Numbers around every change of width, where an order of names would go wrong.
numbers = st.sampled_from([*range(1, 13), *range(97, 103), *range(999_990, 1_000_010)])


@st.composite
def heads(draw):
    """Draw the versions of a head and a state that names some of them, or some that are gone."""
    there = draw(st.lists(numbers, max_size=12, unique=True))
    named = st.sampled_from(there) | numbers if there else numbers
    pins = draw(st.lists(named, max_size=3, unique=True))
    state = attrs.evolve(
        NOTHING,
        active=draw(st.none() | named),
        earlier=draw(st.lists(named, max_size=3)),
        pins=[Pin(version=number, reason=draw(texts)) for number in pins],
    )
    return there, state


@given(heads(), st.integers(1, 15))
@example(([1, 2, 3], attrs.evolve(NOTHING, active=1)), 1)
@example(([1, 2, 3], attrs.evolve(NOTHING, active=3, earlier=[1])), 1)
@example(([1, 2, 3], attrs.evolve(NOTHING, pins=[Pin(version=1, reason="")])), 1)
def test_what_is_never_dropped(head, keep):
    """The active, the previous and the pinned versions stay, and the last `keep` by number; nothing else does."""
    there, state = head
    stay = {state.active, state.previous, *state.pinned, *sorted(there)[-keep:]}
    assert set(kept(there, state, keep=keep)) == stay & set(there)


@given(heads(), st.integers(1, 15))
def test_order_does_not_matter(head, keep):
    """What stays depends on the numbers and not on the order they come in, and is told in the order of numbers."""
    there, state = head
    stay = kept(there, state, keep=keep)
    assert kept(there[::-1], state, keep=keep) == stay
    assert list(stay) == sorted(stay)


@given(heads(), st.integers(1, 14))
def test_keeping_more_drops_nothing_else(head, keep):
    """Whoever keeps one more loses none of those kept before; a second pruning finds nothing more to take."""
    there, state = head
    stay = kept(there, state, keep=keep)
    assert set(stay) <= set(kept(there, state, keep=keep + 1))
    assert kept(list(stay), state, keep=keep) == stay


@pytest.mark.parametrize(
    ("there", "keep", "stay"),
    [
        (range(1, 12), 2, [10, 11]), ([9, 10], 1, [10]), ([999_998, 999_999, 1_000_000], 1, [1_000_000]),
        ([99, 100, 101], 2, [100, 101]), ([], 5, []), ([7], 5, [7]), (range(1, 8), DEFAULT_KEEP, [3, 4, 5, 6, 7]),
    ],
    ids=str,
)  # fmt: skip
def test_the_last_are_those_of_the_highest_numbers(there, keep, stay):
    """Past 9, 99 and 999,999 the last versions are those of the highest numbers, not of the last names."""
    assert list(kept(there, NOTHING, keep=keep)) == stay


def test_reasons():
    """Each version that stays has its reason, the strongest first, and a pin says for what it was pinned."""
    pins = (Pin(version=2, reason="paper"), Pin(version=3), Pin(version=8, reason="also active"))
    state = attrs.evolve(NOTHING, active=8, earlier=(1, 5), pins=pins)
    assert kept(range(1, 11), state, keep=3) == {
        2: "it is pinned (paper)", 3: "it is pinned", 5: "a rollback would make it active", 8: "it is active",
        9: "it is one of the last 3", 10: "it is one of the last 3",
    }  # fmt: skip
    assert kept([1, 2], NOTHING, keep=1) == {2: "it is the last"}


def test_several_pins_of_one_version():
    """A version with several pins is told with the reasons of all, and stays while one of them is left."""
    pins = (Pin(version=1, reason="paper"), Pin(version=1, reason="audit"))
    for left, reason in ((pins, "it is pinned (audit, paper)"), (pins[1:], "it is pinned (audit)")):
        assert kept([1, 2], attrs.evolve(NOTHING, pins=left), keep=1) == {1: reason, 2: "it is the last"}
    assert kept([1, 2], NOTHING, keep=1) == {2: "it is the last"}


@pytest.mark.parametrize("keep", [np.int64(2), np.uint8(2), np.array(2)], ids=lambda keep: type(keep).__name__)
def test_whole_numbers_of_any_kind(keep):
    """A whole number of numpy says how many stay like Python's own."""
    assert kept([1, 2, 3], NOTHING, keep=keep) == dict.fromkeys([2, 3], "it is one of the last 2")


NO_NUMBERS = (0, -1, 1.5, 2.0, True, False, "5", None, math.nan, [5], np.float64(2), np.True_, np.int64(0), np.ones(2))
HUGE = -(10**5000)


@pytest.mark.parametrize("keep", [*NO_NUMBERS, pytest.param(HUGE, id="huge")], ids=repr)
def test_keeping_nothing_is_a_mistake(keep):
    """A number of versions that cannot be meant is refused, before anything is judged by it."""
    with pytest.raises(InputError, match=r"cannot prune: keep is .*\. Give a whole number from 1\."):
        kept([1, 2, 3], NOTHING, keep=keep)


def test_a_report_of_nothing():
    """A report without removals says so, and frees nothing."""
    report = PruneReport(head="owl", removed={}, kept={1: "it is active"})
    assert str(report) == "kept owl@1: it is active\nnothing to remove"
    assert report.nbytes == 0


@pytest.mark.parametrize(
    ("is_dry_run", "verb", "freed"), [(True, "would remove", "would be freed"), (False, "removed", "were freed")]
)
def test_report(is_dry_run, verb, freed):
    """A report names each version with its size or its reason, for people and for programs."""
    report = PruneReport(
        head="owl", removed={1: 1_500_000, 2: 500_000}, kept={3: "it is active"}, is_dry_run=is_dry_run
    )
    assert str(report).splitlines() == [
        f"{verb} owl@1 (1.50 MB)", f"{verb} owl@2 (0.50 MB)", "kept owl@3: it is active", f"2.00 MB {freed}",
    ]  # fmt: skip
    assert json.loads(json.dumps(report.to_dict())) == {
        "head": "owl", "dry_run": is_dry_run, "nbytes": 2_000_000,
        "removed": [{"version": 1, "nbytes": 1_500_000}, {"version": 2, "nbytes": 500_000}],
        "kept": [{"version": 3, "reason": "it is active"}], "waiting": [],
    }  # fmt: skip


def test_what_waits_is_not_freed_yet():
    """A version whose files could not be deleted yet is told as removed and as waiting, and frees nothing so far."""
    report = PruneReport(head="owl", removed={1: 1_500_000, 2: 500_000}, kept={3: "it is active"}, waiting=(1,))
    assert report.nbytes == 500_000
    assert str(report).splitlines() == [
        "removed owl@1 (1.50 MB)", "removed owl@2 (0.50 MB)",
        "owl@1 could not be deleted yet; whoever writes next does it",
        "kept owl@3: it is active", "0.50 MB were freed",
    ]  # fmt: skip
    assert (report.to_dict()["waiting"], report.to_dict()["nbytes"]) == ([1], 500_000)


@given(texts)
def test_a_reason_breaks_no_line(reason):
    """Whatever people wrote as the reason of a pin, each version is one printable line."""
    stay = kept([1], attrs.evolve(NOTHING, pins=(Pin(version=1, reason=reason),)))
    lines = str(PruneReport(head="owl", removed={}, kept=stay)).split("\n")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
