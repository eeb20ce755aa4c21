"""Pinning, pruning, and changing a head while others do."""

import errno
import shutil

import pytest
import store_damage
import store_fixtures
from store_damage import at, version
from store_fixtures import WatchedDisk, create, failing, flip, leftovers, on_disk, rewrite, snapshot
from version_fixtures import OWL, at_link

from hydra_detect import HeadRegistry, VersionManager
from hydra_detect.errors import ConflictError, CorruptError, InputError, NotFoundError, StoreError
from hydra_detect.storage import files, heads, items, layout, owners

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled
rich = store_damage.rich


def pins(manager):
    """Return the pins of `owl` as (version, reason)."""
    return [(pin.version, pin.reason) for pin in manager.store.item(*OWL).pointer().pins]


# Pinning


def test_pin_and_unpin(rich):
    """A pin has its reason and who set it, is told once, and is taken away again; what is active stays."""
    assert VersionManager(rich.store, actor="ada").pin("owl", 1, reason="shipped").number == 1
    assert pins(rich) == [(4, "paper"), (1, "shipped")]
    before = rich.store.item(*OWL).pointer()
    assert before.pins[-1].actor == "ada"
    assert (before.change.what, before.change.version, before.change.reason) == ("pinned", 1, "shipped")
    assert before.change.manifest == heads.find(rich.store, "owl@1").manifest
    rich.unpin("owl", 4, reason="printed")
    state = rich.store.item(*OWL).pointer()
    assert (state.generation, state.pinned, state.active, state.earlier) == (before.generation + 1, (1,), 2, (1, 3))
    assert (state.change.what, state.change.version, state.change.reason) == ("unpinned", 4, "printed")


def test_a_pin_for_each_reason(rich):
    """A version may be pinned for several reasons, each once, and each is let go of alone."""
    for reason in ("shipped", "", "paper"):
        rich.pin("owl", 4, reason=reason)
    assert pins(rich) == [(4, "paper"), (4, "shipped"), (4, "")]
    with pytest.raises(ConflictError, match=r"^cannot unpin owl@4: it is pinned for several reasons: ") as caught:
        rich.unpin("owl", 4)
    assert caught.value.found.endswith("reasons: '', 'paper', 'shipped'")
    assert caught.value.remedy == "Say which with pinned_for (--pinned-for)."
    with pytest.raises(NotFoundError, match="it is not pinned for 'papers', but for: '', 'paper', 'shipped'") as caught:
        rich.unpin("owl", 4, pinned_for="papers")
    assert caught.value.remedy == "Name one of these."
    rich.unpin("owl", 4, pinned_for="")
    assert pins(rich) == [(4, "paper"), (4, "shipped")]
    rich.unpin("owl", 4, pinned_for="paper")
    rich.unpin("owl", 4)
    assert pins(rich) == []


def test_the_last_pin_keeps_a_version(rich):
    """Retention keeps a version until the last of its pins is gone, and says for which reasons it does."""
    rich.pin("owl", 1, reason="paper")
    rich.pin("owl", 1, reason="audit")
    rich.promote("owl", 3)  # so that only its pins keep version 1
    assert rich.prune("owl", keep=1).kept[1] == "it is pinned (audit, paper)"
    rich.unpin("owl", 1, pinned_for="paper")
    assert rich.prune("owl", keep=1).kept[1] == "it is pinned (audit)"
    with pytest.raises(ConflictError, match=r"versions are pinned: 1 \(audit\), 4 \(paper\)"):
        HeadRegistry(rich.store).remove("owl")
    rich.unpin("owl", 1)
    assert list(rich.prune("owl", keep=1).removed) == [1]


def test_unpinning_what_is_not_pinned(rich):
    """A version that is not pinned can be let go of without a change; one that is not there is a mistake."""
    before = rich.store.item(*OWL).pointer()
    rich.unpin("owl", 1)
    rich.unpin("owl", 1, pinned_for="paper")
    assert rich.store.item(*OWL).pointer() == before
    with pytest.raises(NotFoundError, match=r"'owl' has no version 9\. There are versions 1, 2, 3, 4\."):
        rich.unpin("owl", 9)


@pytest.mark.parametrize("path", [layout.RECORD, layout.MANIFEST])
def test_pins_of_damaged_versions(rich, path):
    """A damaged version cannot be pinned, and a pin that it has can be let go of, so that a repair or pruning may."""
    for number in (1, 4):
        flip(at(rich, version(number, path)), 30)
    with pytest.raises(CorruptError, match=r"cannot read .*owl@1"):
        rich.pin("owl", 1)
    rich.unpin("owl", 4)
    assert pins(rich) == []


def test_pins_stay_through_other_changes(rich):
    """Promotions, rollbacks and prunings leave pins where they are."""
    rich.pin("owl", 1)
    for seed in (5, 6):
        create(rich, seed=seed)
    rich.promote("owl", 4)
    rich.rollback("owl")
    assert list(rich.prune("owl", keep=1).removed) == [5]
    assert pins(rich) == [(4, "paper"), (1, "")]
    assert [item.number for item in rich.versions("owl")] == [1, 2, 3, 4, 6]


# Pruning


def test_prune(rich):
    """What retention does not keep is gone from the disk, what stays has its reason, and a second time nothing goes."""
    rich.unpin("owl", 4)
    create(rich, seed=4)
    report = rich.prune("owl", keep=1, reason="space")
    assert list(report.removed) == [1, 4]
    assert report.kept == {2: "it is active", 3: "a rollback would make it active", 5: "it is the last"}
    assert (report.head, report.waiting, report.is_dry_run) == ("owl", (), False)
    assert rich.store.layout.item(*OWL).version_numbers() == [2, 3, 5]
    assert leftovers(rich.store) == []
    state = rich.store.item(*OWL).pointer()
    assert (state.change.what, state.change.reason) == ("pruned", "space")
    assert [taken.version for taken in state.change.taken] == [1, 4]
    assert (state.active, state.earlier, state.gone) == (2, (3,), (1, 4))
    assert rich.prune("owl", keep=1).removed == {}
    assert rich.store.item(*OWL).pointer().generation == state.generation


def test_sizes_are_those_of_the_folders(rich):
    """What a pruning says it frees are the bytes of the whole folders, with their manifests and what lies in there."""
    (at(rich, version(1)) / "note.txt").write_bytes(b"x" * 1000)
    expected = {1: files.nbytes(at(rich, version(1)))}
    assert expected[1] > heads.find(rich.store, "owl@1").nbytes + 1000
    report = rich.prune("owl", keep=1)
    assert (report.removed, report.nbytes) == (expected, expected[1])


def test_prune_by_default(manager):
    """Left to itself a pruning keeps the last five, the active one and the one before."""
    for seed in range(12):
        create(manager, seed=seed)
    manager.promote("owl", 1)
    manager.promote("owl", 3)
    assert list(manager.prune("owl").removed) == [2, 4, 5, 6, 7]
    assert [item.number for item in manager.versions("owl")] == [1, 3, 8, 9, 10, 11, 12]


def test_a_dry_run_tells_the_same_and_does_nothing(rich, monkeypatch):
    """A dry run says exactly what a pruning would remove, takes no step on the disk, and needs no lock."""
    rich.unpin("owl", 4)
    before, steps = snapshot(rich.store.root), []
    looking = VersionManager(on_disk(rich.store, WatchedDisk(lambda *step: steps.append(step))))
    with monkeypatch.context() as patch:
        patch.setattr(items.Item, "changing", lambda _item: pytest.fail("a dry run took the lock"))
        planned = looking.prune("owl", keep=1, dry_run=True)
    assert (snapshot(rich.store.root), steps) == (before, [])
    done = rich.prune("owl", keep=1)
    assert (planned.is_dry_run, done.is_dry_run) == (True, False)
    assert (planned.removed, planned.kept) == (done.removed, done.kept)


def test_versions_that_somebody_holds_wait(rich):
    """A version whose folder cannot be moved is gone for everybody, counts as waiting, and goes at the next change."""
    place = rich.store.layout.item(*OWL).version(1)

    def hold(step, *arguments):
        if step == "rename" and arguments[0] == place:
            raise OSError(errno.EACCES, "held")

    report = VersionManager(on_disk(rich.store, WatchedDisk(hold))).prune("owl", keep=1)
    assert (list(report.removed), report.waiting, report.nbytes) == ([1], (1,), 0)
    assert str(report).splitlines()[1] == "owl@1 could not be deleted yet; whoever writes next does it"
    assert [item.number for item in rich.versions("owl")] == [2, 3, 4]
    assert place.is_dir()
    rich.pin("owl", 2)
    assert not place.exists()


@pytest.mark.parametrize("keep", [0, -1, True, "5", None, 2.0])
def test_prune_of_everything_is_a_mistake(rich, keep):
    """A number that cannot be meant is refused, and nothing is removed."""
    before = snapshot(rich.store.root / "heads")
    for dry_run in (True, False):
        with pytest.raises(InputError, match=r"cannot prune: keep is .*\. Give a whole number from 1\."):
            rich.prune("owl", keep=keep, dry_run=dry_run)
    assert snapshot(rich.store.root / "heads") == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_damaged_versions_are_not_pruned(rich, dry_run):
    """A version whose manifest is damaged is evidence: the pruning that would take it is refused, and takes nothing."""
    flip(at(rich, version(1, layout.MANIFEST)), 40)
    before = snapshot(rich.store.root / "heads")
    with pytest.raises(CorruptError, match="the manifest of owl@1"):
        rich.prune("owl", keep=1, dry_run=dry_run)
    assert snapshot(rich.store.root / "heads") == before


def test_prune_what_is_promoted_meanwhile(rich):
    """Where locks do nothing: a version that is made active while it is pruned stays."""
    other, done = VersionManager(rich.store.root), []
    late = VersionManager(on_disk(rich.store, at_link(lambda: done or done.append(other.promote("owl", 1)))))
    report = late.prune("owl", keep=1)
    assert (list(report.removed), rich.active("owl").number) == ([3], 1)
    assert heads.load(rich.store, "owl")[0].number == 1


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


def pruning(manager, monkeypatch):
    """Prune versions of `owl` at the moment at which the first of those that were listed is read."""
    find, done = heads.find, []

    def overtaken(store, ref):
        monkeypatch.setattr(heads, "find", find)  # pruning looks, too
        done.append(VersionManager(manager.store.root).prune("owl", keep=1))
        return find(store, ref)

    monkeypatch.setattr(heads, "find", overtaken)
    return done


def test_listing_beside_a_pruning(rich, monkeypatch):
    """Who lists versions while some are pruned gets those that are left; a file that is missing is no pruning."""
    done = pruning(rich, monkeypatch)
    assert [found.number for found in rich.versions("owl")] == [2, 3, 4]
    assert list(done[0].removed) == [1]
    at(rich, version(2, layout.RECORD)).unlink()
    with pytest.raises(NotFoundError, match=r"record\.json of owl@2: .* does not exist"):
        rich.versions("owl")


def test_a_status_beside_a_pruning(rich, monkeypatch):
    """A version that is pruned while a head is looked at is no version that cannot be read."""
    done = pruning(rich, monkeypatch)
    status = HeadRegistry(rich.store).status("owl")
    assert list(done[0].removed) == [1]
    assert [found.number for found in status.versions] == [2, 3, 4]
    assert status.is_whole


# What is so already

SO_ALREADY = {
    "promote": lambda manager: manager.promote("owl", 2).number == 2,
    "pin": lambda manager: manager.pin("owl", 4, reason="paper").number == 4,
    "unpin": lambda manager: manager.unpin("owl", 1) is None,
    "prune": lambda manager: manager.prune("owl", keep=9).removed == {},
}


@pytest.mark.parametrize("change", SO_ALREADY)
def test_what_is_so_already_is_made_durable(rich, change):
    """What another process did, and may have died before it could sync, is synced before it is said to be so."""
    place, steps, before = rich.store.layout.item(*OWL), [], rich.store.item(*OWL).pointer()
    watching = on_disk(rich.store, WatchedDisk(lambda *step: steps.append(step)))
    assert SO_ALREADY[change](VersionManager(watching))
    synced = {step[1] for step in steps if step[0] == "sync_folder"}
    assert {place.versions, place.pointers, place.root, rich.store.root / "heads", rich.store.root} <= synced
    assert rich.store.item(*OWL).pointer() == before
    disk, _calls = failing("sync_folder", 1, errno.EIO)
    with pytest.raises(StoreError, match="cannot confirm the state of 'owl': Input/output error"):
        SO_ALREADY[change](VersionManager(on_disk(rich.store, disk)))


# Beside others


def test_a_race_that_is_lost_again_and_again(filled):
    """Who loses a hundred races in a row is told so, and the others' choice stands."""
    other, turns = VersionManager(filled.store.root), []

    def overtake():
        turns.append(other.promote("owl", len(turns) % 2 + 1))

    create(filled)
    other.promote("owl", 2)
    with pytest.raises(ConflictError, match="look at 'owl': other processes changed it 100 times meanwhile") as caught:
        VersionManager(on_disk(filled.store, at_link(overtake))).promote("owl", 3)
    assert caught.value.remedy == "Try again later."
    assert len(turns) == items._MOST_TRIES == 100
    assert filled.active("owl").number == 2


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


# Who and why

NO_REASONS = ("x" * 1001, "\ud800", b"x", 5, None, ["x"])


def acts(manager, **reason):
    """Return each change of a head, with a reason."""
    registry = HeadRegistry(manager.store, actor=manager.actor)
    return (
        lambda: manager.promote("owl", 4, **reason), lambda: manager.rollback("owl", **reason),
        lambda: manager.pin("owl", 1, **reason), lambda: manager.unpin("owl", 4, **reason),
        lambda: manager.prune("owl", keep=1, **reason), lambda: registry.rename("fox", "lynx", **reason),
        lambda: registry.remove("fox", **reason),
    )  # fmt: skip


def test_who_did_it(store, monkeypatch):
    """Every change has its actor: as the manager was told, else as the environment says when it happens."""
    quiet = VersionManager(store)
    monkeypatch.setenv(owners.ACTOR_VARIABLE, "nightly")
    first = create(quiet)
    VersionManager(store, actor="ada").promote("owl", 1)
    assert (first.actor, store.item(*OWL).pointer().change.actor) == ("nightly", "ada")
    HeadRegistry(store, actor="bo").remove("owl")
    assert store.item(*OWL).pointer().change.actor == "bo"


@pytest.mark.parametrize("text", NO_REASONS, ids=lambda text: repr(text)[:12])
def test_reasons_are_texts(rich, text):
    """A reason that is no text, cannot be written, or would fill the history is refused, and nothing is changed."""
    before = snapshot(rich.store.root / "heads")
    for act in acts(rich, reason=text):
        with pytest.raises(InputError, match="cannot write to the history: the reason is ") as caught:
            act()
        assert caught.value.remedy == "Give a text of at most 1000 characters."
    assert snapshot(rich.store.root / "heads") == before


@pytest.mark.parametrize("text", NO_REASONS, ids=lambda text: repr(text)[:12])
@pytest.mark.parametrize("kind", [VersionManager, HeadRegistry])
def test_actors_are_texts(filled, kind, text):
    """An actor that could not stand in the history is refused as soon as it is named."""
    with pytest.raises(InputError, match="cannot write to the history: the actor is "):
        kind(filled.store, actor=text)


def test_an_actor_of_the_environment_that_is_too_long(rich, monkeypatch):
    """An actor in the environment that cannot stand in the history hinders no reading, and is refused at writing."""
    monkeypatch.setenv(owners.ACTOR_VARIABLE, "x" * 1001)
    manager, registry = VersionManager(rich.store.root), HeadRegistry(rich.store.root)
    assert (manager.active("owl").number, registry["owl"].number, registry.status("owl").active) == (2, 2, 2)
    assert [len(look) > 0 for look in (manager.history("owl"), manager.versions("owl"), registry.infos())] == [True] * 3
    assert manager.verify().is_sound
    before = snapshot(rich.store.root / "heads")
    for act in (*acts(manager), lambda: create(manager)):
        with pytest.raises(InputError, match="cannot write to the history: the actor is 'xxx"):
            act()
    assert snapshot(rich.store.root / "heads") == before
