"""What comes from elsewhere: one way in, alone, and nothing twice."""

import threading

import lifecycle_fixtures
import pytest

from hydra_detect.arriving import Arrival, ArrivingHead, held_as, name_in, sound
from hydra_detect.storage import heads
from hydra_detect.versions import VersionManager

bare = lifecycle_fixtures.bare


def arrival(store, name="owl"):
    """Return a head of the store as one that comes from elsewhere."""
    version = VersionManager(store).active("moth")
    head = ArrivingHead(name=name, record=version.record, tensors=heads.tensors(store, version), files={})
    return Arrival(head=head)


def is_same(version, record):
    """Whether a version has this record."""
    return version.record == record


def test_nothing_twice(bare):
    """What is there already is found to be there."""
    first, second = (arrival(bare).add_to(VersionManager(bare), is_same=is_same) for _ in range(2))
    assert first == second
    assert [version.number for version in sound(bare, "owl")] == [1]
    assert bare.head("owl").pointer().active is None


def test_two_who_bring_the_same(bare, monkeypatch):
    """Who comes while another is writing waits for him, and then finds what he wrote."""
    writing, go_on, create, found = threading.Event(), threading.Event(), VersionManager.create, []

    def slow(manager, *given, **named):
        if not writing.is_set():
            writing.set()
            go_on.wait(30)
        return create(manager, *given, **named)

    monkeypatch.setattr(VersionManager, "create", slow)
    both = [
        threading.Thread(target=lambda: found.append(arrival(bare).add_to(VersionManager(bare), is_same=is_same)))
        for _ in range(2)
    ]
    both[0].start()
    assert writing.wait(30)
    both[1].start()
    both[1].join(0.5)
    assert both[1].is_alive()
    go_on.set()
    for thread in both:
        thread.join(30)
    assert [version.number for version in found] == [1, 1]


@pytest.mark.parametrize("likely", ["default", "another"])
def test_what_a_backbone_is_called_here(bare, likely):
    """A backbone has the name that the store has it under; one that it has not, the likely one."""
    contract = VersionManager(bare).active("moth").record.backbone
    assert held_as(bare, contract, likely=likely) == name_in(bare, contract, likely=likely) == "default"
    other = lifecycle_fixtures.with_backbone(bare.root.parent, name="wide", store=lifecycle_fixtures.Store.create(
        bare.root.parent / "other", durability="fast"
    ))  # fmt: skip
    assert held_as(other, contract, likely=likely) is None
    assert name_in(other, contract, likely=likely) == likely
