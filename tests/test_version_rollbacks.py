"""Rolling back: to what was active before, by the history, whatever others do meanwhile."""

import tempfile

import pytest
import store_damage
import store_fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from store_damage import at, version
from store_fixtures import create, flip, on_disk, snapshot
from version_fixtures import FILES, OWL, at_link, exchange, look_between, with_attachments

from hydra_detect import VersionManager
from hydra_detect.errors import ConflictError, CorruptError, NotFoundError
from hydra_detect.storage import pointers
from hydra_detect.storage.store import Store

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


def test_rollback_leads_to_what_was_active_before(rich):
    """A rollback makes active what was active before, by the history and not by the number, again and again."""
    assert [rich.rollback("owl", reason="worse").number for _ in range(2)] == [3, 1]
    with pytest.raises(NotFoundError, match="no version is known that was active before version 1") as caught:
        rich.rollback("owl")
    assert caught.value.remedy == "'hydra-detect versions owl' shows what there is to promote."
    assert rich.active("owl").number == 1
    change = rich.store.item(*OWL).pointer().change
    assert (change.what, change.version, change.reason) == ("rolled back", 1, "worse")
    assert change.manifest == rich.active("owl").manifest


def test_what_was_rolled_back_from_is_forgotten(rich):
    """After a rollback and a promotion a rollback leads to what was active last, not to what was rolled back from."""
    rich.rollback("owl")
    rich.promote("owl", 4)
    assert rich.rollback("owl").number == 3
    assert rich.rollback("owl").number == 1


def test_rollback_without_anything_active(filled):
    """A head of which nothing was ever active cannot be rolled back."""
    with pytest.raises(NotFoundError, match="cannot roll back 'fox': none of its versions is active"):
        filled.rollback("fox")


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_rollback_is_the_way_back(promotions):
    """Whatever was promoted in whatever order, rollbacks lead back through it, repetitions of the active one aside."""
    with tempfile.TemporaryDirectory() as folder:
        manager = VersionManager(Store.create(f"{folder}/store", durability="fast"))
        for seed in range(4):
            create(manager, seed=seed)
        taken = []
        for number in promotions:
            manager.promote("owl", number)
            if taken[-1:] != [number]:
                taken.append(number)
        for expected in taken[-2::-1]:
            assert manager.rollback("owl").number == expected
        with pytest.raises(NotFoundError, match="no version is known that was active before"):
            manager.rollback("owl")


def test_the_way_back_has_an_end(manager, monkeypatch):
    """So many promotions back can be rolled back, and no more: the state of a head does not grow without end."""
    assert pointers.MOST_EARLIER == 1000
    monkeypatch.setattr(pointers, "MOST_EARLIER", 5)
    for seed in range(2):
        create(manager, seed=seed)
    for turn in range(9):
        manager.promote("owl", turn % 2 + 1)
    assert manager.store.item(*OWL).pointer().earlier == (2, 1, 2, 1, 2)


@pytest.mark.parametrize("path", FILES)
def test_rollback_to_a_damaged_version(filled, path):
    """What was active before is checked whole; if it is damaged, the active one stays and the ways out are told."""
    number = with_attachments(filled, seed=3).number
    for promoted in (2, number, 1):
        filled.promote("owl", promoted)
    flip(at(filled, version(number, path)), -3)
    before = snapshot(filled.store.root / "heads")
    with pytest.raises(CorruptError, match=r"cannot roll back 'owl': read .* of owl@3: ") as caught:
        filled.rollback("owl")
    further, repair = "'hydra-detect promote owl 2' goes further back", "'hydra-detect store verify --repair'"
    assert caught.value.remedy == f"{further}; {repair} sets the damaged one aside."
    assert snapshot(filled.store.root / "heads") == before
    assert filled.active("owl").number == 1


def test_rollback_to_a_version_that_was_exchanged(rich):
    """What was active before is what comes back: another version in its place does not, however whole it is."""
    exchange(rich, 3, seed=70)
    with pytest.raises(CorruptError, match="cannot roll back 'owl': read owl@3: it is not the one that the history"):
        rich.rollback("owl")
    assert rich.active("owl").number == 2
    report = rich.verify()
    assert [finding.problem for finding in report.findings] == [pointers.EXCHANGED]
    assert rich.repair().is_sound
    assert rich.rollback("owl").number == 1
    assert 3 not in rich.store.head("owl").numbers()  # it is evidence now


def test_rollback_where_the_history_says_nothing(rich):
    """Where the generations that speak of a version are damaged, it is what its own manifest says."""
    for generation in (1, 2, 3):
        flip(at(rich, f"heads/owl/pointer/{generation:08}.json"), 30)
    assert rich.rollback("owl").number == 3


def test_rollback_passes_over_what_was_pruned(rich):
    """Versions that were pruned since are no longer on the way back."""
    rich.promote("owl", 4)
    rich.prune("owl", keep=1)  # 2 is the one before, 1 and 3 go
    rich.promote("owl", 2)
    assert [rich.rollback("owl").number for _ in range(2)] == [4, 2]
    with pytest.raises(NotFoundError, match="no version is known that was active before version 2"):
        rich.rollback("owl")


# Beside others

UNRELATED = {
    "pin": lambda other: other.pin("owl", 1, reason="shipped"),
    "unpin": lambda other: other.unpin("owl", 4),
    "prune": lambda other: other.prune("owl", keep=1),
    "create": lambda other: create(other, seed=9),
}
RELATED = {
    "rollback": (lambda other: other.rollback("owl"), 3),
    "promote": (lambda other: other.promote("owl", 4), 4),
    "promote the previous": (lambda other: other.promote("owl", 3), 3),
    "another, with the same before it": (lambda other: (other.rollback("owl"), other.promote("owl", 4)), 4),
    "the same, with another before it": (
        lambda other: (other.rollback("owl"), other.rollback("owl"), other.promote("owl", 2)),
        2,
    ),
}


@pytest.mark.parametrize("moment", ["before the lock", "at the last moment"])
@pytest.mark.parametrize("change", UNRELATED)
def test_rollback_beside_what_does_not_concern_it(rich, monkeypatch, change, moment):
    """A pin, a pruning or a new version in between is no matter: the rollback leads where it would have."""
    other, done = VersionManager(rich.store.root), []
    late = rich
    if moment == "before the lock":
        done = look_between(monkeypatch, "whole", lambda: UNRELATED[change](other))
    else:
        disk = at_link(lambda: done or done.append(UNRELATED[change](other)))
        late = VersionManager(on_disk(rich.store, disk))
    assert late.rollback("owl").number == 3
    state = rich.store.item(*OWL).pointer()
    assert len(done) == 1
    assert (state.active, state.earlier) == (3, () if change == "prune" else (1,))
    assert state.pinned == {"pin": (4, 1), "unpin": ()}.get(change, (4,))


@pytest.mark.parametrize("moment", ["before the lock", "at the last moment"])
@pytest.mark.parametrize("change", RELATED)
def test_rollback_beside_another_change(rich, monkeypatch, change, moment):
    """A rollback of what is no longer active is refused, and goes no further back by itself."""
    other, done, (act, active) = VersionManager(rich.store.root), [], RELATED[change]
    late = rich
    if moment == "before the lock":
        done = look_between(monkeypatch, "whole", lambda: act(other))
    else:
        late = VersionManager(on_disk(rich.store, at_link(lambda: done or done.append(act(other)))))
    with pytest.raises(ConflictError, match="cannot roll back 'owl': another process changed the active") as caught:
        late.rollback("owl")
    assert type(caught.value) is ConflictError  # a StaleError would be tried again, and go back once more
    assert caught.value.remedy == "Look again, then repeat it."
    assert rich.active("owl").number == active


def test_what_is_exchanged_while_it_is_rolled_back_to(rich, monkeypatch):
    """A version in whose place another was put since it was checked is not made active."""
    done = look_between(monkeypatch, "whole", lambda: exchange(rich, 3, seed=50))
    with pytest.raises(CorruptError, match="cannot read owl@3: its manifest was exchanged while it was checked"):
        rich.rollback("owl")
    assert done == [52]
    assert rich.active("owl").number == 2
