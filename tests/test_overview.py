"""Overviews: heads and versions at a glance, for people and for programs."""

import json

import attrs
import pytest
import store_fixtures
from hypothesis import given
from hypothesis import strategies as st
from record_strategies import digests, labels, names, texts, versions
from store_fixtures import AT, create

from hydra_detect import codec
from hydra_detect.errors import RecordError
from hydra_detect.names import Digest
from hydra_detect.overview import HeadInfo, HeadStatus, VersionStatus
from hydra_detect.storage import heads

store, manager = store_fixtures.store, store_fixtures.manager

infos = st.builds(
    HeadInfo,
    head=names,
    active=st.none() | versions,
    versions=st.lists(versions, max_size=3).map(tuple),
    class_names=st.lists(labels, max_size=3).map(tuple),
    backbone=names,
    backbone_digest=st.none() | digests,
    nbytes=st.integers(0, 1 << 40),
    created_at=st.just(AT),
    problem=texts,
)
INFO = HeadInfo(
    head="owl", active=1, versions=(1,), class_names=("owl",), backbone="demo", backbone_digest=Digest("0" * 64),
    nbytes=1, created_at="",
)  # fmt: skip


# Heads


@given(infos)
def test_info_round_trip(info):
    """A summary reads back as itself from plain JSON values."""
    assert HeadInfo.from_dict(json.loads(codec.dumps(info.to_dict()))) == info


def test_info_for_programs():
    """The keys of a summary are a promise to programs, whatever is known of the head."""
    plain = {
        "head": "owl", "active": 1, "versions": [1], "class_names": ["owl"], "backbone": "demo",
        "backbone_digest": f"sha256:{'0' * 64}", "nbytes": 1, "created_at": "", "leans_on": "", "problem": "",
    }  # fmt: skip
    assert json.loads(json.dumps(INFO.to_dict())) == plain
    unread = HeadInfo(head="owl", active=None, versions=(), problem="gone")
    assert list(unread.to_dict()) == list(plain)
    assert (unread.to_dict()["backbone_digest"], unread.to_dict()["problem"]) == (None, "gone")


@pytest.mark.parametrize(
    "changes",
    [
        {"head": 5}, {"active": "1"}, {"active": True}, {"versions": "12"}, {"versions": ["1"]}, {"versions": {"1": 1}},
        {"class_names": "owl"}, {"class_names": [None]}, {"backbone_digest": "x"}, {"nbytes": 1.5}, {"created_at": 5},
        {"backbone": None}, {"problem": None}, {"head": ...}, {"active": ...}, {"versions": ...},
    ],
    ids=str,
)  # fmt: skip
def test_malformed_summaries(changes):
    """A summary with a field that is missing or of the wrong kind is refused by the field's name."""
    value = {key: item for key, item in (INFO.to_dict() | changes).items() if item is not ...}
    with pytest.raises(RecordError, match="cannot read the summary of a head: ") as caught:
        HeadInfo.from_dict(value)
    assert next(iter(changes)) in caught.value.found or "as a digest" in caught.value.found


# Versions


def test_a_version_for_programs(manager):
    """A version is told with what it is to its head and what is known of it, the digest of its manifest in full."""
    made = create(manager, sample_count=40, claimed_metrics={"f1": 0.9}, notes="first")
    status = VersionStatus(number=1, is_active=True, is_previous=False, pinned_for=("paper", ""), record=made)
    assert json.loads(json.dumps(status.to_dict())) == {
        "version": 1, "active": True, "previous": False, "pinned_for": ["paper", ""], "created_at": made.created_at,
        "actor": made.actor, "parent": None, "nbytes": made.nbytes, "class_names": ["owl", "red fox"],
        "sample_count": 40, "claimed_metrics": {"f1": 0.9}, "notes": "first", "leans_on": "",
        "digest": str(made.manifest), "problem": "",
    }  # fmt: skip


def test_a_version_that_cannot_be_read_for_programs(manager):
    """The keys are the same whatever is known: what is not is null, which zero and the empty text are not."""
    unread = VersionStatus(number=2, is_active=None, is_previous=None, problem="gone").to_dict()
    create(manager, sample_count=0)
    manager.promote("owl", 1)
    made = create(manager, sample_count=0)
    known = VersionStatus(number=2, is_active=False, is_previous=False, record=made).to_dict()
    assert list(unread) == list(known)
    told = {"version": 2, "problem": "gone", "pinned_for": []}
    assert unread == {**dict.fromkeys(known), **told}
    assert (known["sample_count"], known["notes"], known["claimed_metrics"], known["parent"]) == (0, "", {}, 1)


def test_a_head_and_its_versions_for_programs(manager):
    """A head is told with its versions; it is whole if its state and every version could be read."""
    create(manager)
    known = VersionStatus(number=1, is_active=True, is_previous=False, record=heads.find(manager.store, "owl@1"))
    unread = VersionStatus(number=2, is_active=False, is_previous=True, problem="gone")
    status = HeadStatus(head="owl", active=1, previous=2, versions=(known, unread))
    versions = [known.to_dict(), unread.to_dict()]
    assert status.to_dict() == {"head": "owl", "active": 1, "previous": 2, "versions": versions, "problem": ""}
    assert not status.is_whole
    assert attrs.evolve(status, versions=(known,)).is_whole
    assert not attrs.evolve(status, versions=(known,), problem="lost").is_whole
    assert attrs.evolve(status, versions=()).is_whole
