"""Backbones in a store: published once under a name, never replaced."""

import pytest
import store_fixtures
from store_fixtures import (
    AT,
    a_backbone,
    a_record,
    flip,
    snapshot,
    some_tensors,
)

from hydra_detect import codec
from hydra_detect.errors import ConflictError, CorruptError, NotFoundError
from hydra_detect.storage import artifacts, backbones, layout, pointers

store, manager, filled = store_fixtures.store, store_fixtures.manager, store_fixtures.filled

# Backbones


def test_backbone(store):
    """A backbone is published once, found by name, and an equal one is the one that is there."""
    tensors, record = a_backbone()
    assert backbones.names(store) == []
    first = backbones.publish(store, "demo", record, tensors)
    assert first.is_new
    before = snapshot(store.root / "backbones")
    again = backbones.publish(store, "demo", record, tensors)
    assert not again.is_new
    assert (again.record, again.manifest) == (record, first.manifest)
    assert snapshot(store.root / "backbones") == before
    found = backbones.find(store, "demo")
    assert backbones.tensors(store, found) == dict(sorted(tensors.items()))
    assert found.nbytes == len(artifacts.encode_tensors(tensors))


def test_backbone_name_of_another(store):
    """A name belongs to one backbone for ever: another one is refused with what differs."""
    tensors, record = a_backbone()
    backbones.publish(store, "demo", record, tensors)
    others, other = a_backbone(seed=1)
    before = snapshot(store.root / "backbones")
    with pytest.raises(ConflictError, match=r"that name belongs to another one .*digest is") as caught:
        backbones.publish(store, "demo", other, others)
    assert len(caught.value.facts["differences"]) == 1
    assert snapshot(store.root / "backbones") == before
    assert backbones.publish(store, "demo-2", other, others).is_new


def test_backbone_that_is_not_there(filled):
    """A miss says which names come near, as one sentence."""
    with pytest.raises(NotFoundError, match=r"no such backbone\. Did you mean 'demo'\?$"):
        backbones.find(filled.store, "demos")


def test_backbone_that_is_damaged(filled):
    """A backbone whose record or weights changed on disk is refused."""
    folder = filled.store.layout.item(layout.BACKBONES, "demo").version(1)
    found = backbones.find(filled.store, "demo")
    flip(folder / layout.TENSORS)
    with pytest.raises(CorruptError, match="its SHA-256 is not"):
        backbones.tensors(filled.store, found)
    flip(folder / layout.RECORD)
    with pytest.raises(CorruptError, match="its SHA-256 is not"):
        backbones.find(filled.store, "demo")


def test_record_of_another_kind_in_the_place(store):
    """A backbone whose record is a head's is refused by the codec."""
    tensors = some_tensors()
    contents = {layout.RECORD: codec.encode(a_record(tensors))}
    manifest = store.backbone("demo").publish(contents, created_at=AT)
    active = {"event": pointers.PROMOTED, "active": 1, "manifest": manifest.digest}
    store.backbone("demo").swap(pointers.NOTHING, active)
    with pytest.raises(ValueError, match="cannot read the record of backbone 'demo'"):
        backbones.find(store, "demo")
