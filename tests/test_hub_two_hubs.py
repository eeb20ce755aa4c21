"""Two Hubs: what was pulled from one, or published on it, is not taken for what the other has under the same name."""

import json
from dataclasses import replace

import attrs
import publishing_fixtures
import pytest
from engine_fixtures import copied
from hub_fixtures import Hub
from publishing_fixtures import BACKBONE, BAT, OWL, by_default
from test_hub_push import again
from test_hub_sweep import copy_of

from hydra_detect import HeadRegistry, HydraDetector
from hydra_detect.errors import HubError, NotFoundError
from hydra_detect.hub.origins import origin_of
from hydra_detect.hub.pull import pull, pull_backbone
from hydra_detect.hub.push import push, push_backbone
from hydra_detect.storage import backbones

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
WHOLE = "org/whole"


@pytest.fixture
def other(hub, tmp_path):
    """Return a second Hub, to which the same token belongs."""
    with Hub(tmp_path / "hf-other") as server:
        yield server
    server.check()
    assert server.leaks(hub.token) == []


@pytest.fixture
def mirror(puller, other):
    """Return a second Hub that has what the first one has, to the last bit: the same repositories and commits."""
    other.blobs.update(puller.hub.blobs)
    other.repos.update({name: replace(copy_of(repo), blobs=other.blobs) for name, repo in puller.hub.repos.items()})
    return other


def from_hub(puller, ref):
    """Return the endpoint that a version came from, as its origin says."""
    return origin_of(puller.store, HeadRegistry(puller.store)[str(ref)]).endpoint


def offline(monkeypatch, is_so=True):  # noqa: FBT002  a switch
    """Tell the client to ask nobody."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_so)


@pytest.mark.parametrize("revision", ["@v1", "", "@main", "@COMMIT"])
def test_what_was_pulled_from_one_is_not_the_others(puller, hub, mirror, revision):
    """The same name, and even the same commit, is asked for at each Hub, and is a head of its own here."""
    ref = OWL + revision.replace("COMMIT", hub.repos[OWL].head.id)
    assert str(puller.pull(ref)) == "owl@1"
    assert str(pull(ref, puller.store, endpoint=mirror.endpoint)) == "owl-org@1"
    assert mirror.seen(host="cdn")
    assert from_hub(puller, "owl@1") == hub.endpoint
    assert from_hub(puller, "owl-org@1") == mirror.endpoint
    assert HeadRegistry(puller.store).info("owl").versions == (1,)
    assert str(pull(ref, puller.store, endpoint=mirror.endpoint)) == "owl-org@1"
    assert str(puller.pull(ref)) == "owl@1"
    assert HeadRegistry(puller.store).backbones() == ["default"]  # which is known by what it is, wherever it came from


def test_by_a_name_that_is_said(puller, mirror):
    """Under a name that is said, what another Hub has is one more version of that head, and not taken for the first."""
    assert str(puller.pull(name="uhu")) == "uhu@1"
    for _ in range(2):
        assert str(pull(f"{OWL}@v1", puller.store, name="uhu", endpoint=mirror.endpoint)) == "uhu@2"
    assert str(puller.pull(name="uhu")) == "uhu@1"


def test_names_follow_their_hub(publisher, puller, mirror):
    """Later releases of each Hub are later versions of the head that came from there."""
    assert str(puller.pull()) == "owl@1"
    assert str(pull(f"{OWL}@v1", puller.store, endpoint=mirror.endpoint)) == "owl-org@1"
    again(publisher)
    publisher.push()
    push(publisher.store, "owl", OWL, needs=[BACKBONE], endpoint=mirror.endpoint)
    assert str(pull(f"{OWL}@v2", puller.store, endpoint=mirror.endpoint)) == "owl-org@2"
    assert str(puller.pull(f"{OWL}@v2")) == "owl@2"


def test_a_compact_head_of_each(puller, hub, mirror):
    """A compact head of each Hub leans on the one reference that is here: that is known by its weights."""
    assert str(puller.pull(f"{BAT}@v1")) == "bat@1"
    assert str(pull(f"{BAT}@v1", puller.store, endpoint=mirror.endpoint)) == "bat-org@1"
    assert sorted(HeadRegistry(puller.store)) == ["bat", "bat-org", "owl"]
    assert [from_hub(puller, ref) for ref in ("bat@1", "bat-org@1")] == [hub.endpoint, mirror.endpoint]


def test_nobody_is_led_back_by_the_other(publisher, puller, mirror):
    """That one Hub is at a later release keeps nobody from what the other has on its main branch."""
    again(publisher)
    publisher.push()
    assert str(puller.pull(f"{OWL}@main")) == "owl@1"
    ref = pull(f"{OWL}@main", puller.store, endpoint=mirror.endpoint)
    assert str(ref) == "owl-org@1"
    assert origin_of(puller.store, HeadRegistry(puller.store)[ref]).release == 1


def test_a_backbone_of_each(publisher, puller, hub, other):
    """Another backbone that lies under the same name on another Hub is asked for there, and is another one here."""
    own = backbones.find(publisher.store, "default")
    sizes = attrs.evolve(own.record.contract.preprocessing, min_size=80)
    record = attrs.evolve(own.record, contract=attrs.evolve(own.record.contract, preprocessing=sizes))
    backbones.publish(publisher.store, "wide", record, backbones.tensors(publisher.store, own))
    push_backbone(publisher.store, "wide", BACKBONE, endpoint=other.endpoint)
    for revision in ("", "@v1", f"@{other.repos[BACKBONE].head.id}"):
        assert pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint) == "default"
        assert pull_backbone(BACKBONE + revision, puller.store, endpoint=other.endpoint) == "wide"
        assert pull_backbone(f"{BACKBONE}@v1", puller.store, endpoint=hub.endpoint) == "default"


def test_a_mirrored_backbone_is_asked_for(puller, hub, mirror):
    """That a backbone is here does not say that it lies on another Hub: who names that is told by asking it."""
    pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint)
    assert pull_backbone(f"{BACKBONE}@v1", puller.store, endpoint=mirror.endpoint) == "default"
    assert mirror.seen()
    del mirror.repos[BACKBONE]
    for revision in ("@main", "@v2"):
        with pytest.raises(NotFoundError, match="no such repository"):
            pull_backbone(BACKBONE + revision, puller.store, endpoint=mirror.endpoint)


def test_where_things_lie_is_of_one_hub(publisher, hub, mirror):
    """Where a backbone lies on one Hub says nothing of another, be it a mirror: it has to be said, or pushed there."""
    with pytest.raises(NotFoundError, match=f"it is not known where on {mirror.endpoint} that lies"):
        push(publisher.store, "fox", "org/hydra-fox", endpoint=mirror.endpoint)
    assert "org/hydra-fox" not in mirror.repos
    assert push(publisher.store, "fox", "org/hydra-fox", needs=[BACKBONE], endpoint=mirror.endpoint).is_new
    assert push(publisher.store, "fox", "org/hydra-fox", endpoint=hub.endpoint).is_new


def test_each_release_names_what_lies_beside_it(publisher, hub, other):
    """A head that is published on two Hubs names the backbone and the reference of each, where they lie there."""
    push_backbone(publisher.store, "default", "lab/backbone", endpoint=other.endpoint)
    push(publisher.store, "owl", "lab/owl", endpoint=other.endpoint)
    publisher.push()
    for there in (other, hub, other, hub):
        push(publisher.store, "bat", BAT, endpoint=there.endpoint)
    for there, needed in ((other, ("lab/backbone", "lab/owl")), (hub, (BACKBONE, OWL))):
        config = json.loads(there.repos[BAT].content("config.json"))
        assert (config["backbone"]["repo"], config["reference"]["repo"]) == needed


@pytest.mark.parametrize("revision", ["@v1", "", "@main"])
def test_offline_each_hub_has_its_own(puller, hub, mirror, monkeypatch, revision):
    """Offline, what was pulled from one Hub does not answer for the other, by whatever reference."""
    ref = OWL + revision
    puller.pull(ref)
    offline(monkeypatch)
    told = "it was not pulled yet, and the client was told to ask nobody"
    with pytest.raises(HubError, match=told):
        pull(ref, puller.store, endpoint=mirror.endpoint)
    with pytest.raises(HubError, match=told):
        pull_backbone(BACKBONE, puller.store, endpoint=mirror.endpoint)
    offline(monkeypatch, is_so=False)
    assert str(pull(ref, puller.store, endpoint=mirror.endpoint)) == "owl-org@1"
    offline(monkeypatch)
    before = len(hub.seen()), len(mirror.seen())
    assert str(pull(ref, puller.store, endpoint=mirror.endpoint)) == "owl-org@1"
    assert str(puller.pull(ref)) == "owl@1"
    assert (len(hub.seen()), len(mirror.seen())) == before


def test_a_whole_of_each(publisher, hub, other, tmp_path, monkeypatch):
    """Of two detectors that were published under one name on two Hubs each comes back as it was, offline, too."""
    for there, head in ((hub, "owl"), (other, "fox")):
        HydraDetector.from_store(publisher.store, [head], device="cpu").push_to_hub(WHOLE, endpoint=there.endpoint)
    options = {"store": tmp_path / "there", "device": "cpu"}
    for is_offline in (False, True):
        offline(monkeypatch, is_so=is_offline)
        for there, head in ((hub, "owl"), (other, "fox")):
            found = HydraDetector.from_pretrained(WHOLE, endpoint=there.endpoint, **options)
            assert list(found.heads) == [head]


def test_the_hub_of_the_environment(puller, hub, mirror, monkeypatch):
    """Where none is named the Hub of the environment is asked, and is another one than that which was."""
    puller.pull()
    by_default(mirror, monkeypatch)
    assert str(pull(f"{OWL}@v1", puller.store)) == "owl-org@1"
    assert str(pull(f"{OWL}@v1", puller.store, endpoint=f"{mirror.endpoint}/")) == "owl-org@1"  # the same address
    assert str(pull(f"{OWL}@v1", puller.store, endpoint=hub.endpoint)) == "owl@1"


def test_what_is_published_from_what_was_pulled(puller, hub, mirror, tmp_path):
    """Who pulled a head from one Hub may publish it on the other, once he says where its backbone lies there."""
    puller.pull()
    registry = HeadRegistry(copied(puller.store, tmp_path))
    with pytest.raises(NotFoundError, match="it is not known where on"):
        registry.push("owl", "org/owl-again", version=1, endpoint=mirror.endpoint)
    made = registry.push("owl", "org/owl-again", version=1, needs=[BACKBONE], endpoint=mirror.endpoint)
    assert mirror.repos["org/owl-again"].tags == {"v1": made.commit}
    assert "org/owl-again" not in hub.repos
