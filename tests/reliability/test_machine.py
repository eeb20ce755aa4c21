"""Random operations and crashes against a model of a head: done in `machine`, counted here."""

from collections import Counter

import apart
import machine
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from hydra_detect.errors import NotFoundError
from hydra_detect.versions import VersionManager

COMMITS = {
    ("create", "rename"), ("promote", "link"), ("rollback", "link"), ("prune", "link"), ("pin", "link"),
    ("unpin", "link"),
}  # fmt: skip
"""The step of each operation by which it has happened: each has to be crashed at."""


def test_random_operations_and_crashes(tally, exhaustive):
    """After any sequence of operations and crashes the store is what the model is; every version reads back whole."""
    operations, crashes = (
        tally("random operations, each in another state"),
        tally("crashes among them, each at another step"),
    )
    least = (100_000, 20_000) if exhaustive else (20_000, 4_000)
    found = apart.run("machine", "run_machines", operations=least[0], crashes=least[1])
    kinds = Counter()
    for share in found:
        operations.cases.update(share["operations"])
        crashes.cases.update(share["crashes"])
        kinds.update({(what, step): count for what, step, count in share["kinds"]})
    assert {commit for commit in COMMITS if kinds[commit] < 5} == set(), kinds
    operations.require(least[0])
    crashes.require(least[1])


def wrong_rollback(self, head, **_options):
    """Go to the number below, as the first Hydra did."""
    state = self.store.head(head).pointer()
    if state.previous is None:
        raise NotFoundError("roll back", "nothing", "")
    below = [number for number in self.store.head(head).numbers() if number < state.active]
    return self.promote(head, below[-1] if below else state.previous)


def wrong_pruning(self, head, **options):
    """Forget the pins."""
    for number in self.store.head(head).pointer().pinned:
        self.unpin(head, number)
    return right_pruning(self, head, **options)


right_pruning = VersionManager.prune


@pytest.mark.parametrize(("name", "wrong"), [("rollback", wrong_rollback), ("prune", wrong_pruning)])
def test_the_machine_fails_when_it_should(monkeypatch, name, wrong):
    """A rollback by number and a pruning that takes what is pinned are found by the machine."""
    monkeypatch.setattr(VersionManager, name, wrong)
    quick = settings(max_examples=300, deadline=None, database=None, phases=[Phase.generate], derandomize=True)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine.HeadMachine, settings=quick)
