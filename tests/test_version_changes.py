"""Rolling back, pinning, pruning, and changing a head while others do."""

import shutil

import pytest
import store_damage
import store_fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from store_damage import at, version
from store_fixtures import WatchedDisk, create, flip, leftovers, on_disk, rewrite, snapshot

from hydra_detect import VersionManager
from hydra_detect.errors import ConflictError, CorruptError, InputError, NotFoundError
from hydra_detect.storage import changes, heads, layout, owners, pointers
from hydra_detect.storage.store import Store

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich

OWL = (layout.HEADS, "owl")


def at_link(act):
    """Return a disk that lets something happen each time just before a new state is put in place."""
    return WatchedDisk(lambda step, *_: act() if step == "link" else None)


# Rolling back


def test_rollback_leads_to_what_was_active_before(rich):
    """A rollback makes active what was active before, by the history and not by the number, again and again."""
    assert [rich.rollback("owl", reason="worse").number for _ in range(2)] == [3, 1]
    with pytest.raises(NotFoundError, match="no version is known that was active before version 1") as caught:
        rich.rollback("owl")
    assert caught.value.remedy == "'hydra-detect versions owl' shows what there is to promote."
    assert rich.active("owl").number == 1
    pointer = rich.store.item(*OWL).pointer()
    assert (pointer.event, pointer.version, pointer.reason) == ("rolled back", 1, "worse")


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
    import tempfile

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


def test_the_way_back_has_an_end(manager):
    """So many promotions back can be rolled back, and no more: the state of a head does not grow without end."""
    for seed in range(2):
        create(manager, seed=seed)
    for turn in range(pointers.MOST_EARLIER + 5):
        manager.promote("owl", turn % 2 + 1)
    assert len(manager.store.item(*OWL).pointer().earlier) == pointers.MOST_EARLIER


@pytest.mark.parametrize("path", [layout.TENSORS, layout.RECORD, layout.MANIFEST])
def test_rollback_to_a_damaged_version(rich, path):
    """What was active before is read first; if it is damaged, the active version stays and the ways out are told."""
    flip(at(rich, version(3, path)), 30)
    with pytest.raises(CorruptError, match=r"cannot roll back 'owl': read .* of owl@3: ") as caught:
        rich.rollback("owl")
    assert caught.value.remedy.startswith("'hydra-detect promote owl 1' goes further back; 'hydra-detect store verify")
    assert rich.active("owl").number == 2


def test_rollback_passes_over_what_was_pruned(rich):
    """Versions that were pruned since are no longer on the way back."""
    rich.promote("owl", 4)
    rich.prune("owl", keep=1)  # 2 is the one before, 1 and 3 go
    rich.promote("owl", 2)
    assert [rich.rollback("owl").number for _ in range(2)] == [4, 2]
    with pytest.raises(NotFoundError, match="no version is known that was active before version 2"):
        rich.rollback("owl")


def test_rollback_beside_another_change(rich):
    """Where locks do nothing: a rollback of what is no longer active is refused, and goes no further back by itself."""
    other, done = VersionManager(rich.store.root), []
    late = VersionManager(on_disk(rich.store, at_link(lambda: done or done.append(other.rollback("owl")))))
    with pytest.raises(ConflictError, match="another process changed it first"):
        late.rollback("owl")
    assert rich.active("owl").number == 3


# Pinning


def test_pin_and_unpin(rich):
    """A pin has its reason, is told once, and is taken away again; what is active stays."""
    assert rich.pin("owl", 1, reason="shipped").number == 1
    assert [(pin.version, pin.reason) for pin in rich.store.item(*OWL).pointer().pins] == [(4, "paper"), (1, "shipped")]
    generation = rich.store.item(*OWL).pointer().generation
    rich.pin("owl", 1, reason="again")
    assert rich.store.item(*OWL).pointer().generation == generation
    rich.unpin("owl", 4, reason="printed")
    rich.unpin("owl", 4)
    state = rich.store.item(*OWL).pointer()
    assert (state.generation, state.pinned, state.active, state.earlier) == (generation + 1, (1,), 2, (1, 3))
    assert (state.event, state.version, state.reason) == ("unpinned", 4, "printed")


def test_pins_stay_through_other_changes(rich):
    """Promotions, rollbacks and prunings leave pins where they are."""
    rich.pin("owl", 1)
    rich.promote("owl", 4)
    rich.rollback("owl")
    rich.prune("owl", keep=1)
    assert rich.store.item(*OWL).pointer().pinned == (4, 1)
    assert [item.number for item in rich.versions("owl")] == [1, 2, 3, 4]


# Pruning


def test_prune(rich):
    """What retention does not keep is gone from the disk, what stays has its reason, and a second time nothing goes."""
    rich.unpin("owl", 4)
    create(rich, seed=4)
    report = rich.prune("owl", keep=1, reason="space")
    assert list(report.removed) == [1, 4]
    assert report.kept == {2: "it is active", 3: "a rollback would make it active", 5: "it is one of the last 1"}
    assert rich.store.layout.item(*OWL).version_numbers() == [2, 3, 5]
    assert leftovers(rich.store) == []
    state = rich.store.item(*OWL).pointer()
    assert (state.event, state.reason, state.active, state.earlier, state.gone) == ("pruned", "space", 2, (3,), (1, 4))
    assert rich.prune("owl", keep=1).removed == {}
    assert rich.store.item(*OWL).pointer().generation == state.generation


def test_prune_by_default(manager):
    """Left to itself a pruning keeps the last five, the active one and the one before."""
    for seed in range(12):
        create(manager, seed=seed)
    manager.promote("owl", 1)
    manager.promote("owl", 3)
    assert list(manager.prune("owl").removed) == [2, 4, 5, 6, 7]
    assert [item.number for item in manager.versions("owl")] == [1, 3, 8, 9, 10, 11, 12]


def test_a_dry_run_tells_the_same_and_does_nothing(rich):
    """A dry run says exactly what a pruning would remove, and changes no file."""
    rich.unpin("owl", 4)
    before = snapshot(rich.store.root)
    planned = rich.prune("owl", keep=1, dry_run=True)
    assert snapshot(rich.store.root) == before
    done = rich.prune("owl", keep=1)
    assert (planned.is_dry_run, done.is_dry_run) == (True, False)
    assert (planned.removed, planned.kept) == (done.removed, done.kept)


@pytest.mark.parametrize("keep", [0, -1, True, "5", None])
def test_prune_of_everything_is_a_mistake(rich, keep):
    """A number that cannot be meant is refused, and nothing is removed."""
    before = snapshot(rich.store.root / "heads" / "owl" / "versions")
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"cannot prune: keep is "):
            rich.prune("owl", keep=keep, dry_run=dry_run)
    assert snapshot(rich.store.root / "heads" / "owl" / "versions") == before


def test_damaged_versions_are_not_pruned(rich):
    """A version whose manifest is damaged is evidence: the pruning that would take it is refused, and takes nothing."""
    flip(at(rich, version(1, layout.MANIFEST)), 40)
    before = snapshot(rich.store.root / "heads")
    with pytest.raises(CorruptError, match="the manifest of owl@1"):
        rich.prune("owl", keep=1)
    assert snapshot(rich.store.root / "heads") == before


def test_a_reader_that_is_overtaken_by_a_pruning(rich, monkeypatch):
    """Who reads the active version while it is replaced and pruned gets the one that is active by then."""
    other, tensors, overtaken = VersionManager(rich.store.root), heads.tensors, []

    def overtake(store, found):
        if not overtaken:
            overtaken.append(found.number)
            for number in (3, 4):
                other.promote("owl", number)
            other.prune("owl", keep=1)
        return tensors(store, found)

    monkeypatch.setattr(heads, "tensors", overtake)
    found, weights = heads.load(rich.store, "owl")
    assert (overtaken, found.number) == ([2], 4)
    assert weights == tensors(rich.store, rich.active("owl"))
    with pytest.raises(NotFoundError, match=r"'owl' has no version 1\. There are versions 3, 4"):
        heads.load(rich.store, "owl@1")


# Beside others


def test_promote_in_a_race(filled):
    """Who promotes while another does comes after it: both happened, in an order that the history tells."""
    create(filled)
    other, done = VersionManager(filled.store.root), []
    late = VersionManager(on_disk(filled.store, at_link(lambda: done or done.append(other.promote("owl", 2)))))
    assert late.promote("owl", 3).number == 3
    pointer = filled.store.item(*OWL).pointer()
    assert (pointer.active, pointer.earlier) == (3, (1, 2))
    assert leftovers(filled.store) == []


def test_promote_what_is_pruned_meanwhile(rich):
    """Where locks do nothing: a version that is pruned while it is promoted is not made active."""
    other, done = VersionManager(rich.store.root), []

    def prune():
        if not done:
            done.append(other.prune("owl", keep=1))

    with pytest.raises(NotFoundError, match="'owl' has no version 1"):
        VersionManager(on_disk(rich.store, at_link(prune))).promote("owl", 1)
    assert list(done[0].removed) == [1]
    assert rich.active("owl").number == 2


def test_prune_what_is_promoted_meanwhile(rich):
    """Where locks do nothing: a version that is made active while it is pruned stays."""
    other, done = VersionManager(rich.store.root), []
    late = VersionManager(on_disk(rich.store, at_link(lambda: done or done.append(other.promote("owl", 1)))))
    report = late.prune("owl", keep=1)
    assert (report.removed, rich.active("owl").number) == ({3: report.removed[3]}, 1)
    assert heads.load(rich.store, "owl")[0].number == 1


def test_a_race_that_is_lost_again_and_again(filled):
    """Who loses a hundred races in a row is told so, and the others' choice stands."""
    other, turns = VersionManager(filled.store.root), []

    def overtake():
        turns.append(other.promote("owl", len(turns) % 2 + 1))

    create(filled)
    other.promote("owl", 2)
    with pytest.raises(ConflictError, match="another process changed it first") as caught:
        VersionManager(on_disk(filled.store, at_link(overtake))).promote("owl", 3)
    assert caught.value.remedy == "Look again, then repeat it."
    assert len(turns) == changes._MOST_TRIES == 100
    assert filled.active("owl").number == 2


def test_who_did_it(store, monkeypatch):
    """Every change has its actor: as the manager was told, else as the environment says."""
    monkeypatch.setenv(owners.ACTOR_VARIABLE, "nightly")
    first = create(VersionManager(store))
    VersionManager(store, actor="ada").promote("owl", 1)
    assert (first.actor, store.item(*OWL).pointer().actor) == ("nightly", "ada")


@pytest.mark.parametrize("text", ["x" * 1001, "\ud800", b"x", 5, None, ["x"]], ids=lambda text: repr(text)[:12])
def test_reasons_are_texts(rich, text):
    """A reason that is no text, cannot be written, or would fill the history is refused, and nothing is changed."""
    before = snapshot(rich.store.root / "heads")
    acts = (
        lambda: rich.promote("owl", 4, reason=text), lambda: rich.rollback("owl", reason=text),
        lambda: rich.pin("owl", 1, reason=text), lambda: rich.unpin("owl", 4, reason=text),
    )  # fmt: skip
    for act in acts:
        with pytest.raises(InputError, match="cannot write to the history: the reason is "):
            act()
    assert snapshot(rich.store.root / "heads") == before


def test_managers_that_were_made_before_see_what_others_did(rich):
    """A manager holds no state of its own: what others do to the store is what it sees."""
    early = VersionManager(rich.store.root)
    rich.promote("owl", 4)
    assert early.active("owl").number == 4
    shutil.rmtree(at(rich, version(4)))
    with pytest.raises(NotFoundError, match="'owl' has no version 4"):
        early.active("owl")
    rewrite(at(rich, "heads/owl/pointer/00000005.json"), b"{}")
    with pytest.raises(CorruptError, match="generation 5 of the pointer"):
        early.active("owl")
