"""Errors: one sentence each, with fields that survive a worker process."""

import copy
import inspect
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_detect import errors
from hydra_detect.errors import MOST_LISTED, HydraDetectError, listed, listed_numbers, near_matches

ALL = [kind for _name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HydraDetectError)]
TWINS = {
    errors.NameInvalidError: ValueError,
    errors.RecordError: ValueError,
    errors.InputError: ValueError,
    errors.NotFoundError: LookupError,
    errors.DeviceError: RuntimeError,
    errors.ExtraMissingError: ImportError,
    errors.CorruptError: errors.StoreError,
    errors.ConflictError: errors.StoreError,
    errors.StaleError: errors.ConflictError,
}


def test_there_are_all_of_them():
    """The tree holds the base and at least the twelve kinds that a user can meet."""
    assert len(ALL) >= 13
    assert HydraDetectError in ALL


@pytest.mark.parametrize("kind", ALL)
def test_sentence(kind):
    """An error prints what was asked, what was found and what to do, in this order."""
    error = kind("load head 'owl'", "there is none", "Look again.")
    assert str(error) == "cannot load head 'owl': there is none. Look again."
    assert (error.asked, error.found, error.remedy, error.facts) == (
        "load head 'owl'", "there is none", "Look again.", {},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])  # noqa: S301  our own bytes
def test_fields_survive_pickle_and_copy(kind, again):
    """An error that crosses a process keeps its kind, fields, facts and sentence."""
    error = kind("a", "b", "c", names=["owl"], number=3)
    back = again(error)
    assert type(back) is kind
    assert (back.asked, back.found, back.remedy, back.facts) == ("a", "b", "c", {"names": ["owl"], "number": 3})
    assert str(back) == str(error)


@pytest.mark.parametrize(("kind", "twin"), TWINS.items())
def test_python_kinds(kind, twin):
    """Errors that Python has a word for are caught by that word too."""
    with pytest.raises(twin, match=r"^cannot a: b\. c$"):
        raise kind("a", "b", "c")


@pytest.mark.parametrize("kind", ALL)
def test_for_programs(kind):
    """An error is plain JSON values, its kind and its plain facts among them; what JSON has not is left out."""
    error = kind("a", "b", "c", number=3, share=0.5, name="owl", none=None, yes=True, names=["owl"], error=ValueError())
    plain = error.to_dict()
    assert plain == {
        "error": kind.__name__,
        "asked": "a",
        "found": "b",
        "remedy": "c",
        "facts": {"number": 3, "share": 0.5, "name": "owl", "none": None, "yes": True},
    }
    assert json.loads(json.dumps(plain)) == plain
    assert kind("a", "b", "c").to_dict()["facts"] == {}


@given(st.lists(st.text(max_size=5), unique=True, max_size=30))
def test_listed_is_sorted_and_counts_the_rest(names):
    """A listing shows the first names in sorted order and says how many it leaves out."""
    text = listed(names)
    head, _, rest = text.rpartition(" and ") if len(names) > MOST_LISTED else (text, "", "")
    assert head == ", ".join(sorted(names)[:MOST_LISTED])
    assert rest == (f"{len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else "")


@given(st.lists(st.integers(1, 10**9), unique=True, max_size=30))
def test_listed_numbers(numbers):
    """Numbers are listed ascending, as numbers and not as texts; of a long list both ends are shown and no middle."""
    ordered, shown = sorted(numbers), listed_numbers(numbers).split(", ")
    if len(ordered) <= MOST_LISTED:
        assert listed_numbers(numbers) == ", ".join(map(str, ordered))
    else:
        assert shown == [*map(str, ordered[:3]), "...", *map(str, ordered[-9:])]
        assert len(shown) == MOST_LISTED + 1


def test_near_matches_of_nothing():
    """Where nothing is known, that is what is said."""
    assert near_matches("owl", []) == "There is none yet."


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("owk", ["owl", "insects"], "Did you mean 'owl'?"),
        ("OWL", ["owl", "insects"], "Did you mean 'owl'?"),
        ("fox-3", ["fox-1", "fox-2"], "Did you mean 'fox-2' or 'fox-1'?"),
        ("zebra", ["owl", "fox"], "There are: fox, owl."),
        ("", ["owl", "fox"], "There are: fox, owl."),
        (5, ["owl", "fox"], "There are: fox, owl."),
        (None, ["owl"], "There are: owl."),
    ],
)
def test_near_matches(name, known, said):
    """A near name is proposed in its own case, and where none is near all are listed, as one sentence."""
    assert near_matches(name, known) == said
