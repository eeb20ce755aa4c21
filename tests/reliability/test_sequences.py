"""Every short sequence of create, promote, rollback and prune against a model; numbers in their numeric order."""

import functools
import os
import shutil

import attrs
import pytest
from damage import quick_folder
from store_fixtures import a_backbone, a_record, snapshot, some_tensors, with_backbone

from hydra_detect.errors import NotFoundError
from hydra_detect.registry import HeadRegistry
from hydra_detect.storage import files, heads, layout
from hydra_detect.storage.store import Store
from hydra_detect.versions import VersionManager

OWL = (layout.HEADS, "owl")


@functools.cache
def weights(seed):
    """Return tensors of a head, and its record on the backbone of these tests."""
    tensors = some_tensors(seed)
    return tensors, a_record(tensors, backbone=a_backbone()[1].contract)


# The model


@attrs.frozen
class Model:
    """What a head is after some operations, in plain Python: nothing here comes from the library.

    `numbers` are the versions there are; `promotions` is a stack of what was active before; `changes` tells what
    happened to the pointer, as (what, versions, active after it).
    """

    numbers: tuple = ()
    high: int = 0
    active: int | None = None
    promotions: tuple = ()
    pinned: tuple = ()
    changes: tuple = ()

    def told(self, what, versions, **fields):
        """Return what follows from a change of the pointer."""
        after = attrs.evolve(self, **fields)
        return attrs.evolve(after, changes=(*self.changes, (what, versions, after.active)))

    def create(self):
        """Return the model with one version more: its number was never given out before."""
        return attrs.evolve(self, numbers=(*self.numbers, self.high + 1), high=self.high + 1)

    def promote(self, number):
        """Return the model with another active version; None if that is refused or changes nothing."""
        if number not in self.numbers or number == self.active:
            return None
        before = (self.active,) if self.active else ()
        return self.told("promoted", (number,), active=number, promotions=self.promotions + before)

    def rollback(self):
        """Return the model with the version active that was before; None if none was."""
        if not self.promotions:
            return None
        to = self.promotions[-1]
        return self.told("rolled back", (to,), active=to, promotions=self.promotions[:-1])

    def prune(self, keep):
        """Return the model without old versions; None if none would go."""
        stay = {*self.numbers[-keep:], self.active, *self.promotions[-1:], *self.pinned}
        gone = tuple(number for number in self.numbers if number not in stay)
        if not gone:
            return None
        numbers = tuple(number for number in self.numbers if number in stay)
        steps = [number for number in self.promotions if number in stay]
        steps = [number for place, number in enumerate(steps) if steps[place - 1 : place] != [number]]
        return self.told("pruned", gone, numbers=numbers, promotions=tuple(steps))

    def pin(self, number):
        """Return the model with a version pinned; None if it is, or is not there."""
        if number not in self.numbers or number in self.pinned:
            return None
        return self.told("pinned", (number,), pinned=(*self.pinned, number))

    def unpin(self, number):
        """Return the model with a version no longer pinned; None if it was not."""
        if number not in self.pinned:
            return None
        return self.told("unpinned", (number,), pinned=tuple(other for other in self.pinned if other != number))

    def is_refused(self, what, number=None):
        """Whether an operation that changes nothing is an error, and not merely done already."""
        if what == "prune":
            return not self.numbers
        return what == "rollback" or number not in self.numbers


def plain(model):
    """Return each operation that there is: promote takes every number ever given out, those taken away too."""
    return [
        ("create",),
        *(("promote", number) for number in range(1, model.high + 1)),
        ("rollback",),
        ("prune", 1),
        ("prune", 2),
    ]


def with_pins(model):
    """Return the operations of `plain` with pin and unpin of the first and the last number, and keep=1 alone."""
    ends = sorted({1, model.high} - {0})
    pins = [(what, number) for what in ("pin", "unpin") for number in ends]
    return [operation for operation in plain(model) if operation != ("prune", 2)] + pins


# The store beside it


def run(manager, operation, model):
    """Run one operation through the public interface."""
    what, *rest = operation
    if what == "create":
        number = manager.create("owl", *weights(model.high + 1)).number
        assert number == model.high + 1, f"number {number} instead of {model.high + 1}"
    elif what == "prune":
        manager.prune("owl", keep=rest[0])
    else:
        getattr(manager, what)("owl", *rest)


def check_nothing_changes(manager, operation, model):
    """See that an operation is refused, or has nothing to do, and leaves every byte of the head as it was."""
    head = manager.store.head("owl").place.root
    before = snapshot(head)
    if model.is_refused(*operation):
        with pytest.raises(NotFoundError, match=r"cannot (find|read|roll back)"):
            run(manager, operation, model)
    else:
        run(manager, operation, model)
    assert snapshot(head) == before


def check_agrees(manager, model):
    """See that the store says of the head, in each way it can be asked, what the model says."""
    store = manager.store
    state = store.head("owl").pointer()
    previous = model.promotions[-1] if model.promotions else None
    assert (state.active, state.earlier, state.previous) == (model.active, model.promotions, previous)
    assert state.pinned == model.pinned
    versions = {version.number: version for version in manager.versions("owl")}
    assert {number: version.record for number, version in versions.items()} == {
        number: weights(number)[1] for number in model.numbers
    }
    assert list(versions) == list(model.numbers)
    for number in set(range(1, model.high + 2)) - set(model.numbers):
        with pytest.raises(NotFoundError, match=f"'owl' has no version {number}"):
            heads.find(store, f"owl@{number}")
    check_active(store, model.active, versions)
    events = [(event.what, event.versions, event.active) for event in manager.history("owl")]
    assert tuple(event for event in events if event[0] != "created") == model.changes
    # Of two events in one millisecond the creation stands first, so only their own order is sure.
    assert [event for event in events if event[0] == "created"] == [
        ("created", (number,), None) for number in range(1, model.high + 1)
    ]


def check_active(store, active, versions):
    """See that the head by its bare name is the active version, weights included."""
    if active is None:
        with pytest.raises(NotFoundError, match=r"none of its versions .* is active"):
            heads.find(store, "owl")
        return
    version, tensors = heads.load(store, "owl")
    assert version == versions[active]
    assert tensors["box.weight"].data == weights(active)[0]["box.weight"].data


@pytest.fixture
def folder():
    """Give a folder in memory where there is one: tens of thousands of files are made and removed."""
    with quick_folder() as path:
        yield path


def open_store(root):
    """Return the manager of a store that waits for no disk."""
    return VersionManager(Store.open(root, durability="fast"), actor="test")


class Walk:
    """A walk through the tree of all sequences: each beginning is run once, for all that follow it."""

    def __init__(self, folder, operations, cases, *, is_literal):
        self.folder, self.operations, self.cases, self.is_literal = folder, operations, cases, is_literal
        self.sequences = 0  # those that were run, and those that they stand for

    def below(self, root, model, length, path=()):
        """Run every operation after `path`, and every sequence of up to `length` operations after that.

        Returns:
            How many sequences begin with `path` and are longer, those with an operation that changes nothing included.

        """
        covered = 0
        for operation in self.operations(model):
            after = getattr(model, operation[0])(*operation[1:])
            here = (*path, operation)
            self.cases.case(here)
            copy = self.folder / str(len(here))
            # What lies in a head is never written to again, so that another name for it is as good as a copy.
            shutil.copytree(root, copy, copy_function=os.link, ignore=shutil.ignore_patterns("locks"))
            manager = open_store(copy)
            if after is None:
                check_nothing_changes(manager, operation, model)
            else:
                run(manager, operation, model)
                check_agrees(manager, after)
            covered += 1
            if length > 1 and (after is not None or self.is_literal):
                covered += self.below(copy, after or model, length - 1, here)
            elif length > 1:
                covered += self.count(model, length - 1)
            shutil.rmtree(copy)
        return covered

    @functools.cache  # noqa: B019  a walk lives as long as its test
    def count(self, model, length):
        """Return the number of sequences of up to `length` operations from a state on, by the model alone."""
        nexts = [(getattr(model, what)(*rest) or model) for what, *rest in self.operations(model)]
        return len(nexts) + (sum(self.count(after, length - 1) for after in nexts) if length > 1 else 0)


@pytest.mark.parametrize(("operations", "length", "covered"), [(plain, 7, 73_680), (with_pins, 6, 46_510)])
def test_every_sequence_up_to_a_length(folder, operations, length, covered, tally, exhaustive):
    """After each sequence active, previous, versions, weights and history are the model's.

    An operation that is refused or has nothing to do leaves the head as it was, byte for byte, so what follows it has
    been seen without it: such sequences are counted by the model, and run in the exhaustive form alone.
    """
    cases = tally("")
    root = with_backbone(Store.create(folder / "0", durability="fast")).root
    walk = Walk(folder, operations, cases, is_literal=exhaustive)
    assert walk.below(root, Model(), length) == covered
    cases.what = f"sequences run ({operations.__name__}, up to length {length}): they stand for all {covered:,}"
    cases.require(covered if exhaustive else 2_000)


def test_a_rollback_always_changes_what_is_active(folder):
    """Where pruning takes away what lay between two promotions of one version, going back passes over the second."""
    manager, model = (
        VersionManager(with_backbone(Store.create(folder / "store", durability="fast")), actor="test"),
        Model(),
    )
    promotions = [("promote", number) for number in (1, 2, 1, 3)]
    for operation in [*[("create",)] * 4, *promotions, ("prune", 1), ("rollback",), ("rollback",)]:
        after = getattr(model, operation[0])(*operation[1:])
        if after is None:
            check_nothing_changes(manager, operation, model)
            continue
        assert operation[0] != "rollback" or after.active != model.active
        run(manager, operation, model)
        check_agrees(manager, after)
        model = after
    assert (model.active, model.promotions) == (1, ())


# Numbers


def make_versions(manager, *numbers):
    """Publish versions whose weights say their number; each takes the next one there is."""
    for number in numbers:
        assert manager.create("owl", *weights(number)).number == number


@pytest.fixture
def manager(folder):
    """Give the manager of a new store."""
    return VersionManager(with_backbone(Store.create(folder / "store", durability="fast")), actor="test")


def take_number(manager, number):
    """Claim a number, as a process does that dies before it can publish."""
    item = manager.store.head("owl").place
    files.make_branch(manager.store.disk, manager.store.root, item.claims)
    files.claim(manager.store.disk, item.claim(number))


def test_ten_follows_nine(manager):
    """Versions 9 and 10 are in numeric order everywhere: in lists, in what pruning keeps, in what is the newest."""
    make_versions(manager, *range(1, 12))
    assert [version.number for version in manager.versions("owl")] == list(range(1, 12))
    assert HeadRegistry(manager.store).info("owl").versions == tuple(range(1, 12))
    assert sorted(manager.prune("owl", keep=2).kept) == [10, 11]
    assert manager.store.head("owl").numbers() == [10, 11]


def test_a_million_follows_999_999(manager):
    """Numbers outgrow six digits: 1,000,000 is published, listed, promoted, left by rollback and kept as newer."""
    make_versions(manager, 1)
    manager.promote("owl", 1)
    take_number(manager, 999_998)
    make_versions(manager, 999_999, 1_000_000, 1_000_001)
    assert manager.store.head("owl").numbers() == [1, 999_999, 1_000_000, 1_000_001]
    for number in (999_999, 1_000_000, 1_000_001):
        manager.promote("owl", number)
        assert heads.find(manager.store, f"owl@{number}") == manager.active("owl")
    assert [manager.rollback("owl").number for _ in range(2)] == [1_000_000, 999_999]
    assert list(manager.prune("owl", keep=1).removed) == [1_000_000]
    assert manager.store.head("owl").numbers() == [1, 999_999, 1_000_001]
    assert [event.versions for event in manager.history("owl") if event.what == "created"] == [
        (1,), (999_999,), (1_000_000,), (1_000_001,),
    ]  # fmt: skip
    make_versions(manager, 1_000_002)


def test_a_number_taken_by_the_dead_is_not_given_out(manager):
    """A claim without a version, at 999,999 itself, is passed over for ever."""
    take_number(manager, 999_999)
    make_versions(manager, 1_000_000)
    assert manager.store.head("owl").numbers() == [1_000_000]
    with pytest.raises(NotFoundError, match="no version 999999"):
        manager.promote("owl", 999_999)


def test_numbers_outlive_their_versions(manager):
    """After pruning with keep=1, and after removing the whole head, the next version still has a number of its own."""
    make_versions(manager, 1, 2, 3)
    manager.promote("owl", 1)
    assert list(manager.prune("owl", keep=1).removed) == [2]
    make_versions(manager, 4)
    HeadRegistry(manager.store).remove("owl")
    for claim in manager.store.head("owl").place.claims.iterdir():  # as a power loss may take them
        claim.unlink()
    make_versions(manager, 5)


def test_pinned_versions_stay_whatever_their_number(manager):
    """Pruning with keep=1 leaves the newest, the active, the previous and the pinned, and says why of each."""
    make_versions(manager, *range(1, 13))
    for number in (3, 10):
        manager.promote("owl", number)
    manager.pin("owl", 2, reason="paper")
    manager.pin("owl", 9)
    assert manager.prune("owl", keep=1).kept == {
        2: "it is pinned (paper)",
        3: "a rollback would make it active",
        9: "it is pinned",
        10: "it is active",
        12: "it is the last",
    }
    manager.unpin("owl", 9)
    assert list(manager.prune("owl", keep=1).removed) == [9]
    assert manager.store.head("owl").numbers() == [2, 3, 10, 12]
