"""What histories and states tell of heads that were renamed."""

import store_damage
import store_fixtures
import test_renaming
from store_damage import reworded
from store_fixtures import create
from test_renaming import rename

from hydra_detect.registry import HeadRegistry

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich, owls = store_damage.rich, test_renaming.owls


def test_state_of_a_renamed_head_is_its_own(owls):
    """The pointers of both names say what happened, each of its own name, and can be read by themselves."""
    rename(owls, "owl", "strix")
    old, new = (owls.store.head(name).pointer() for name in ("owl", "strix"))
    for state, other in ((old, "strix"), (new, "owl")):
        change = state.change
        assert (change.what, change.other, change.actor, change.reason) == ("renamed", other, "ada", "taxonomy")
    assert (old.active, old.earlier, old.manifest) == (None, (), None)
    assert (new.active, new.earlier, new.generation) == (2, (1, 3), 1)
    assert new.manifest == owls.active("strix").manifest
    assert [taken.version for taken in old.change.taken] == [1, 2, 3, 4]
    assert (new.gone, new.high, new.change.taken) == ((), 4, ())


def told(manager, head):
    """Return what the history of a head tells."""
    return [(event.head, event.what, event.versions, event.active) for event in manager.history(head)]


def test_the_history_of_both_names(owls):
    """Under the new name the history begins with what happened under the old one; each goes its own way from there."""
    before, events = told(owls, "owl"), owls.history("owl")
    rename(owls, "owl", "strix")
    went = ("owl", "renamed", (1, 2, 3, 4), None)
    came = ("strix", "renamed", (), 2)
    assert told(owls, "owl") == [*before, went]
    assert told(owls, "strix") == [*before, went, came]
    assert owls.history("strix")[: len(events)] == events
    create(owls, "owl", 7)
    create(owls, "strix", 8)
    owls.promote("strix", 5)
    assert told(owls, "owl") == [*before, went, ("owl", "created", (5,), None)]
    after = [("strix", "created", (5,), None), ("strix", "promoted", (5,), 5)]
    assert told(owls, "strix") == [*before, went, came, *after]


def test_the_history_of_many_names(owls):
    """A head that was renamed again and again has all of its history, each version's creation once."""
    before = told(owls, "owl")
    rename(owls, "owl", "strix")
    create(owls, "strix", 8)
    rename(owls, "strix", "bubo")
    HeadRegistry(owls.store).remove("bubo")
    assert told(owls, "bubo") == [
        *before,
        ("owl", "renamed", (1, 2, 3, 4), None),
        ("strix", "renamed", (), 2),
        ("strix", "created", (5,), None),
        ("strix", "renamed", (1, 2, 3, 4, 5), None),
        ("bubo", "renamed", (), 2),
        ("bubo", "removed", (1, 2, 3, 4, 5), None),
    ]


def test_the_history_of_a_head_that_was_never_promoted(filled):
    """A head whose first change is its renaming has the same history: where it went is not where it came from."""
    create(filled, "wolf")
    rename(filled, "wolf", "lupus")
    filled.promote("lupus", 1)
    went = [("wolf", "created", (1,), None), ("wolf", "renamed", (1,), None)]
    assert told(filled, "wolf") == went
    assert told(filled, "lupus") == [*went, ("lupus", "renamed", (), None), ("lupus", "promoted", (1,), 1)]


def test_names_that_lead_in_a_circle(owls):
    """Two heads that each say to have been the other, as no renaming leaves them, have what history they have."""
    rename(owls, "owl", "strix")
    for head, other in (("fox", "strix"), ("strix", "fox")):
        reworded(f"heads/{head}/pointer/00000001.json", {"what": "renamed", "other": other})(owls)
    assert {event.head for event in owls.history("fox")} == {"fox", "strix"}
