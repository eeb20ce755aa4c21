"""Retention: what stays whatever happens, by number, and what a pruning says of itself."""

import json

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import texts
from store_fixtures import create

from hydra_detect.errors import InputError
from hydra_detect.retention import DEFAULT_KEEP, PruneReport, kept
from hydra_detect.storage.pointers import NOTHING, Pin

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

# Numbers around every change of width, where an order of names would go wrong.
numbers = st.sampled_from([*range(1, 13), *range(97, 103), *range(999_990, 1_000_010)])


@st.composite
def heads(draw):
    """Draw the versions of a head and a state that names some of them, or some that are gone."""
    there = draw(st.lists(numbers, max_size=12, unique=True))
    pins = draw(st.lists(numbers, max_size=3, unique=True))
    state = attrs.evolve(
        NOTHING,
        active=draw(st.none() | numbers),
        earlier=draw(st.lists(numbers, max_size=3)),
        pins=[Pin(version=number, reason=draw(texts)) for number in pins],
    )
    return there, state


@given(heads(), st.integers(1, 15))
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
    """Each version that stays has its reason, the strongest first, and a pin says why it was pinned."""
    pins = (Pin(version=2, reason="paper"), Pin(version=3), Pin(version=8, reason="also active"))
    state = attrs.evolve(NOTHING, active=8, earlier=(1, 5), pins=pins)
    assert kept(range(1, 11), state, keep=3) == {
        2: "it is pinned (paper)", 3: "it is pinned", 5: "a rollback would make it active", 8: "it is active",
        9: "it is one of the last 3", 10: "it is one of the last 3",
    }  # fmt: skip


@pytest.mark.parametrize("keep", [0, -1, 1.5, 2.0, True, False, "5", None, float("nan")])
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
        "kept": [{"version": 3, "reason": "it is active"}],
    }  # fmt: skip


def test_sizes_are_those_of_the_disk(manager):
    """What a pruning says it frees are the bytes of the files that the versions' manifests list."""
    versions = [create(manager, seed=seed) for seed in range(7)]
    report = manager.prune("owl", dry_run=True)
    assert report.removed == {version.number: version.nbytes for version in versions[:2]}
    assert report.nbytes == versions[0].nbytes + versions[1].nbytes > 0
