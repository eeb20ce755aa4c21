"""Pulling from a Hub: a commit from the first answer on, every byte checked, whole or not at all, asked for once."""

import contextlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import lifecycle_fixtures
import publishing_fixtures
import pytest
from engine_fixtures import photographs
from hub_faults import Corrupt, Drop, Hook, Lose, Status, Truncate
from publishing_fixtures import BACKBONE, BAT, OWL, Puller, by_default, commits
from test_hub_push import again

from hydra_detect import HeadRegistry, HydraDetector, to_torchvision
from hydra_detect.errors import (
    ConflictError,
    HubError,
    HydraDetectError,
    IncompatibleError,
    NotFoundError,
)
from hydra_detect.hub.channels import promote_release, rollback_release
from hydra_detect.hub.origins import origin_of
from hydra_detect.hub.pull import pull, pull_backbone
from hydra_detect.hub.searching import list_pack, search
from hydra_detect.storage import backbones, heads
from hydra_detect.tensors import tensors_digest
from hydra_detect.versions import VersionManager

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller


def found(store, ref):
    """Return all that a version finds in a photograph."""
    detector = HydraDetector.from_store(store, [ref], device="cpu", engine="exact")
    return detector.predict(photographs(1)[0], score_threshold=0.0)


def test_there_and_back(publisher, puller):
    """What was pulled has the same weights, finds the same, is active nowhere, and says where it came from."""
    ref = puller.pull(f"{BAT}@v1")
    assert str(ref) == "bat@1"
    registry = HeadRegistry(puller.store)
    assert list(registry) == ["bat", "owl"]
    assert {name: registry.info(name).active for name in registry} == {"bat": None, "owl": None}
    version, original = registry["bat@1"], HeadRegistry(publisher.store)["bat"]
    assert version.record.tensors == original.record.tensors == tensors_digest(heads.tensors(puller.store, version))
    assert len(found(publisher.store, "bat@1"))
    assert found(puller.store, "bat@1") == found(publisher.store, "bat@1")
    origin = origin_of(puller.store, version)
    assert (origin.place.repo, origin.release, origin.revision) == (BAT, 1, "v1")
    assert origin.place.commit == puller.hub.repos[BAT].tags["v1"]
    assert VersionManager(puller.store).verify(depth="deep").is_sound


def test_few_requests(puller):
    """A head alone takes seven requests, and the same again takes none."""
    pull_backbone(BACKBONE, puller.store, endpoint=puller.hub.endpoint)
    before = len(puller.hub.seen())
    puller.pull()
    assert len(puller.hub.seen()) - before == 7
    before = len(puller.hub.seen())
    assert str(puller.pull()) == "owl@1"
    assert len(puller.hub.seen()) == before


def test_one_of_three_hundred(publisher, puller, hub):
    """Listing a pack of 300 heads and pulling one takes at most eight requests, and downloads that head alone."""
    publisher.push("owl", "org/pack/owl")
    pack = hub.repos["org/pack"]
    own = {path: pack.content(path) for path in pack.head.files if path.startswith("heads/owl/")}
    others = {path.replace("/owl/", f"/n{number}/"): data for number in range(300) for path, data in own.items()}
    index = json.loads(pack.content("index.json"))
    index["heads"] |= {f"n{number}": index["heads"]["owl"] for number in range(300)}
    hub.add(pack, {**others, "index.json": json.dumps(index).encode()})
    pack.add_ref("tag", "n7-v1", "main")
    pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint)
    before = len(hub.seen())
    assert len(list_pack("org/pack", endpoint=hub.endpoint)) == 301
    ref = puller.pull("org/pack/n7@v1", name="seven")
    assert len(hub.seen()) - before <= 8, [one.path for one in hub.seen()[before:]]
    assert str(ref) == "seven@1"
    loaded = [one.path for one in hub.seen()[before:] if "/resolve/" in one.path]
    assert all("heads/n7/" in path or path.endswith("index.json") for path in loaded)


def test_revisions(publisher, puller, hub):
    """After the @ stands a release, a branch or a commit; without it, what is in production there."""
    commit = hub.repos[OWL].tags["v1"]
    assert puller.pull(f"{OWL}@{commit}") == puller.pull(f"{OWL}@v1") == puller.pull(OWL) == puller.pull(f"{OWL}@main")
    again(publisher)
    publisher.push()
    assert str(puller.pull(OWL)) == "owl@1"
    promote_release(f"{OWL}@v2", endpoint=hub.endpoint)
    assert str(puller.pull(OWL)) == "owl@2"
    assert str(puller.pull(f"{OWL}@v1")) == "owl@1"
    rollback_release(OWL, endpoint=hub.endpoint)
    other = Puller(hub, puller.store.root.parent / "second")
    assert str(other.pull(f"{OWL}@v2")) == "owl@1"
    assert str(other.pull(OWL)) == "owl@2"
    assert origin_of(other.store, HeadRegistry(other.store)["owl@2"]).release == 1


def test_a_branch_that_others_publish_on(publisher, puller):
    """A head of a pack is the same version however often others publish into the pack."""
    publisher.push("owl", "org/pack/owl")
    assert str(puller.pull("org/pack/owl@main")) == "owl@1"
    publisher.push("fox", "org/pack/fox")
    assert str(puller.pull("org/pack/owl@main")) == "owl@1"
    assert str(puller.pull("org/pack/fox")) == "fox@1"


def test_a_whole_pack_offline(publisher, puller, hub, monkeypatch):
    """A pack that was pulled as a whole comes back offline, with the heads that it had."""
    from huggingface_hub import constants

    HydraDetector.from_store(publisher.store, ["bat", "fox"], device="cpu").push_to_hub(
        "org/whole", endpoint=hub.endpoint
    )
    options = {"store": puller.store, "endpoint": hub.endpoint, "device": "cpu"}
    first = HydraDetector.from_pretrained("org/whole", **options)
    before = len(hub.seen())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert HydraDetector.from_pretrained("org/whole", **options).heads == first.heads
    assert HydraDetector.from_pretrained("org/whole", [], **options).heads == {}
    assert len(hub.seen()) == before


def test_nobody_is_led_back(publisher, puller, hub):
    """A branch that goes back to an older release is refused; whoever names it, or says so, gets it."""
    again(publisher)
    publisher.push()
    assert str(puller.pull(f"{OWL}@main")) == "owl@1"
    repo = hub.repos[OWL]
    first = repo.tags["v1"]
    hub.add(repo, {path: repo.content(path, first) for path in ("config.json", "model.safetensors", "beside.json")})
    with pytest.raises(ConflictError, match="that is release 1 now, and 2 was pulled before"):
        puller.pull(f"{OWL}@main")
    assert str(puller.pull(f"{OWL}@v1")) == "owl@2"
    assert str(puller.pull(f"{OWL}@main", allow_older=True)) == "owl@2"


def test_a_tag_that_was_moved(publisher, puller, hub):
    """A tag of one release that stands at another is refused; who has pulled it before keeps what he has."""
    other = Puller(hub, puller.store.root.parent / "second")
    assert str(other.pull()) == "owl@1"
    again(publisher)
    publisher.push()
    repo = hub.repos[OWL]
    repo.drop_ref("tag", "v1")
    repo.add_ref("tag", "v1", "main")
    with pytest.raises(ConflictError, match="the tag v1 stands at release 2"):
        puller.pull()
    assert str(other.pull()) == "owl@1"


def test_what_is_in_production_was_moved(publisher, puller, hub):
    """A tag that was moved is found, too, where what is in production leads to it."""
    again(publisher)
    publisher.push()
    repo = hub.repos[OWL]
    first = repo.tags["v1"]
    promote_release(f"{OWL}@v2", endpoint=hub.endpoint)
    repo.drop_ref("tag", "v2")
    repo.add_ref("tag", "v2", first)
    with pytest.raises(ConflictError, match="the tag v2 stands at release 1"):
        puller.pull(OWL)


def test_what_only_claims_to_be_a_release(publisher, puller, hub):
    """A config that was edited by hand is no release, whatever number it has; its commit may be pulled by that."""
    config = publisher.text(OWL, "config.json")
    config["record"]["notes"] = "by hand"
    config["release"] = 7
    commit = hub.add(hub.repos[OWL], {"config.json": json.dumps(config).encode()}).id
    assert str(puller.pull(f"{OWL}@{commit}")) == "owl@1"
    with pytest.raises(NotFoundError, match="no such tag"):
        puller.pull(f"{OWL}@v7")
    assert str(puller.pull(OWL)) == "owl@2"
    hub.repos[OWL].drop_ref("tag", "v1")
    hub.repos[OWL].add_ref("tag", "v1", commit)
    other = Puller(hub, puller.store.root.parent / "second")
    with pytest.raises(ConflictError, match="the tag v1 stands at release 7"):
        other.pull()
    config["release"] = 1
    edited = hub.add(hub.repos[OWL], {"config.json": json.dumps(config).encode()}).id
    hub.repos[OWL].drop_ref("tag", "v1")
    hub.repos[OWL].add_ref("tag", "v1", edited)
    with pytest.raises(ConflictError, match=r"is not what releases\.json lists as that release"):
        other.pull()


def test_names_that_are_taken_here(publisher, puller, hub):
    """A head or backbone whose name is another here gets one with its namespace, or its digest, behind it."""
    lifecycle_fixtures.with_backbone(puller.store.root.parent, name="other", store=puller.store)
    lifecycle_fixtures.give(puller.store, "owl", backbone="other")
    assert str(puller.pull()) == "owl-org@1"
    assert str(puller.pull(name="uhu")) == "uhu@1"
    assert HeadRegistry(puller.store).info("owl").versions == (1,)
    again(publisher)
    publisher.push()
    assert str(puller.pull(f"{OWL}@v2")) == "owl-org@2"
    second = Puller(hub, puller.store.root.parent / "second")
    lifecycle_fixtures.with_backbone(puller.store.root.parent, name="default-of-another", store=second.store)
    assert pull_backbone(BACKBONE, second.store, endpoint=hub.endpoint) == "default"


def test_a_tag_that_moves_meanwhile(publisher, puller, hub):
    """What was resolved stays: a tag that is moved while it is pulled changes nothing."""
    again(publisher)

    def move(_request):
        hub.faults.clear()
        publisher.push()
        repo = hub.repos[OWL]
        repo.drop_ref("tag", "v1")
        repo.add_ref("tag", "v1", "main")

    hub.faults.on(Hook(move), "GET", "/tree/")
    puller.pull()
    assert origin_of(puller.store, HeadRegistry(puller.store)["owl@1"]).release == 1


FAULTS = {
    "503": Status(503),
    "429": Status(429),
    "404": Status(404),
    "401": Status(401),
    "dropped": Drop(),
    "answer lost": Lose(),
    "truncated": Truncate(),
    "another bit": Corrupt(),
}


REQUESTS = 17  # of one pull of a compact head, with its reference and the backbone


@pytest.mark.parametrize("times", [1, None], ids=["once", "for ever"])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.usefixtures("puller")
def test_whatever_goes_wrong(hub, tmp_path, name, times):
    """Whichever request fails, in whichever way: all is there and sound, or nothing is; and a second pull heals."""
    for nth in range(1, REQUESTS + 1):
        shutil.rmtree(hub.cache, ignore_errors=True)
        other = Puller(hub, tmp_path / f"store-{nth}")
        empty, ref = other.contents(), None
        plan = hub.faults.at(nth, FAULTS[name], times=times)
        with contextlib.suppress(HydraDetectError):
            ref = other.pull(f"{BAT}@v1")
        assert plan.fired, nth
        assert ref or other.contents() == empty, nth
        assert ref or times is None or name in {"404", "401", "another bit"}, nth  # what passes is tried again
        hub.faults.clear()
        if times is None:
            continue
        healed = other.pull(f"{BAT}@v1")
        assert ref in {None, healed}
        version = heads.find(other.store, healed)
        assert tensors_digest(heads.tensors(other.store, version)) == version.record.tensors


def test_all_requests_were_tried(puller, hub):
    """The faults above reach every request of a pull."""
    before = len(hub.seen())
    puller.pull(f"{BAT}@v1")
    assert len(hub.seen()) - before == REQUESTS


def test_four_pull_into_one_cold_store(puller, hub):
    """Four who pull the same into one store at once get the same one version, and the store is sound."""
    start = threading.Barrier(4)

    def run(_number):
        start.wait()
        return pull(f"{BAT}@v1", puller.store.root, endpoint=hub.endpoint)

    with ThreadPoolExecutor(4) as pool:
        refs = list(pool.map(run, range(4)))
    assert {str(ref) for ref in refs} == {"bat@1"}
    assert {name: HeadRegistry(puller.store).info(name).versions for name in ("bat", "owl")} == {
        "bat": (1,),
        "owl": (1,),
    }
    assert VersionManager(puller.store).verify(depth="deep").is_sound
    assert HeadRegistry(puller.store).backbones() == ["default"]


def test_a_backbone_that_is_just_being_put_there(publisher, puller):
    """A backbone that somebody has written and not yet named is finished under its name, not put there twice."""
    own = backbones.find(publisher.store, "default")
    item = publisher.store.backbone("default")
    contents = {name: item.read(own.manifest, name) for name in own.manifest.files}
    puller.store.backbone("default").publish(contents, created_at="2026-11-29T00:00:00+00:00")
    puller.pull()
    assert HeadRegistry(puller.store).backbones() == ["default"]


def test_offline(puller, hub, monkeypatch):
    """Offline, what was pulled is there by every reference it was pulled by, and nobody is asked; the rest is said."""
    from huggingface_hub import constants

    for revision in ("@main", "@v1", ""):
        puller.pull(f"{OWL}{revision}")
    before = len(hub.seen())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision in ("@main", "@v1", f"@{hub.repos[OWL].tags['v1']}", ""):
        assert str(puller.pull(f"{OWL}{revision}")) == "owl@1"
    detector = HydraDetector.from_pretrained(
        BACKBONE, [f"{OWL}@v1"], store=puller.store, endpoint=hub.endpoint, device="cpu"
    )
    assert list(detector.heads) == ["owl"]
    for ref in (f"{OWL}@v2", f"{BAT}@v1"):
        with pytest.raises(HubError, match="it was not pulled yet, and the client was told to ask nobody"):
            puller.pull(ref)
    with pytest.raises(HubError, match="told to ask nobody"):
        pull_backbone("org/other", puller.store, endpoint=hub.endpoint)
    assert len(hub.seen()) == before


def test_pinned_and_running_asks_nobody(puller, hub):
    """A detector whose backbone and heads were pulled is made again without one request."""
    options = {"store": puller.store, "endpoint": hub.endpoint, "device": "cpu"}
    first = HydraDetector.from_pretrained(BACKBONE, [f"{OWL}@v1", f"{BAT}@v1"], **options)
    before = len(hub.seen())
    second = HydraDetector.from_pretrained(BACKBONE, [f"{OWL}@v1", f"{BAT}@v1"], **options)
    assert len(hub.seen()) == before
    assert second.heads == first.heads
    assert {name: HeadRegistry(puller.store).info(name).active for name in ("owl", "bat")} == {"owl": None, "bat": None}


def test_private_and_gated(publisher, puller, hub, monkeypatch):
    """A private repository is as one that is not there; a gated one says that access has to be granted."""
    publisher.push("fox", "org/secret", private=True)
    assert hub.repos["org/secret"].private
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    with pytest.raises(NotFoundError, match="no such repository, or none that this login may see"):
        puller.pull("org/secret@v1")
    hub.repos[OWL].gated = "manual"
    with pytest.raises(HubError, match="has to be let in first"):
        puller.pull()
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    assert str(puller.pull("org/secret@v1")) == "fox@1"


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("org/none@v1", "no such repository"),
        (f"{OWL}@v7", "no such tag, branch or commit"),
        (f"{OWL}/owl@v1", "no such tag"),
        (f"{BACKBONE}@v1", "It is a backbone: use pull_backbone"),
        ("org/pack@main", r"it is a pack of 1 heads\. Say which one, as in 'org/pack/owl'"),
        ("org/pack/ow1@main", r"the pack has no head 'ow1'\. Did you mean 'owl'"),
        ("org/bert@main", "its config.json is none of ours"),
        ("org/empty@main", "it has no config.json"),
    ],
)
def test_what_is_no_head(publisher, puller, hub, ref, told):
    """What is not there, or is something else, is said; the store stays empty."""
    publisher.push("owl", "org/pack/owl")
    hub.repo("org/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"})
    hub.repo("org/empty")
    empty = puller.contents()
    with pytest.raises(HydraDetectError, match=told):
        puller.pull(ref)
    assert puller.contents() == empty
    with pytest.raises(HubError, match="It is a head: use pull"):
        pull_backbone(OWL, puller.store, endpoint=hub.endpoint)


def test_another_backbone(publisher, puller, hub):
    """If where a head says its backbone lies there is another, it is refused, and nothing is kept."""
    repo = hub.repos[BACKBONE]
    config = json.loads(repo.content("config.json"))
    config["record"]["contract"]["preprocessing"]["min_size"] = 99
    hub.add(repo, {"config.json": json.dumps(config).encode()})
    own = publisher.text(OWL, "config.json")
    own["backbone"]["commit"] = repo.head.id
    hub.add(hub.repos[OWL], {"config.json": json.dumps(own).encode()})
    empty = puller.contents()
    with pytest.raises(IncompatibleError, match=r"as its backbone, is another one: preprocessing\.min_size"):
        puller.pull(f"{OWL}@main")
    assert puller.contents() == empty


def test_another_reference(publisher, puller, hub):
    """If where a compact head says its reference lies there is another, it is refused, and nothing is kept."""
    publisher.push("fox", "org/hydra-fox")
    own = publisher.text(BAT, "config.json")
    own["reference"] = {"repo": "org/hydra-fox", "commit": hub.repos["org/hydra-fox"].head.id, "head": ""}
    hub.add(hub.repos[BAT], {"config.json": json.dumps(own).encode()})
    empty = puller.contents()
    with pytest.raises(IncompatibleError, match="which it names as what it leans on, is another head"):
        puller.pull(f"{BAT}@main")
    assert puller.contents() == empty


def test_loaded_into_a_running_detector(puller, hub, monkeypatch):
    """A detector loads a head from the Hub by its reference there, and everything else keeps running."""
    detector = HydraDetector.from_pretrained(BACKBONE, [f"{OWL}@v1"], store=puller.store, endpoint=hub.endpoint)
    by_default(hub, monkeypatch)
    version = detector.load_head(f"{BAT}@v1")
    assert str(version.ref) == "bat@1"
    assert sorted(detector.heads) == ["bat", "owl"]
    with pytest.raises(NotFoundError):
        detector.load_head("org/none@v1")
    assert sorted(detector.heads) == ["bat", "owl"]


def test_published_by_whoever_pulled(puller, hub):
    """What was pulled can be published elsewhere, as what it is."""
    puller.pull(f"{BAT}@v1")
    hub.accounts.add_user("third")
    registry = HeadRegistry(puller.store)
    made = registry.push("bat", "org/mirror", version=1, endpoint=hub.endpoint)
    assert str(made.ref) == "org/mirror@v1"
    assert commits(hub, "org/mirror") == ["bat: release v1"]
    assert str(HeadRegistry(puller.store).pull("org/mirror@v1", name="bat-2", endpoint=hub.endpoint)) == "bat-2@1"


@pytest.mark.usefixtures("puller")
def test_search(publisher, hub):
    """The heads of a backbone are found by it, with what they find."""
    other = f"---\nlibrary_name: peft\nbase_model: {BACKBONE}\nbase_model_relation: adapter\n---\n"
    hub.repo("org/bert", {"README.md": other.encode()})
    there = search(backbone=BACKBONE, endpoint=hub.endpoint)
    assert sorted(one.repo for one in there) == sorted([OWL, BAT])
    assert {one.signals for one in there} == {("owl",)}
    assert [one.repo for one in search("owl", backbone=BACKBONE, endpoint=hub.endpoint)] == [OWL]
    assert search(backbone="org/none", endpoint=hub.endpoint) == []
    publisher.push("fox", "org/pack/fox")
    assert "org/pack" in [one.repo for one in search(backbone=BACKBONE, endpoint=hub.endpoint)]


def test_an_original_from_the_hub(hub, tmp_path):
    """An original is split straight from a repository, by commit; what is pickled is not read."""
    import torch
    from originals import SETTINGS, small
    from safetensors.torch import save_file

    from hydra_detect import split_checkpoint

    model = small()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    repo = hub.repo("org/original", {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    address = "hf://org/original/model.safetensors@main"
    report = split_checkpoint(address, tmp_path / "store", head="owl", settings=SETTINGS, endpoint=hub.endpoint)
    assert report.parity.equal
    source = HeadRegistry(tmp_path / "store")["owl"].record.source
    assert source.file == f"hf://org/original/model.safetensors@{repo.head.id}"
    state = to_torchvision(tmp_path / "store", "owl")
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    model.load_state_dict(state, strict=True)
    for wrong in ("hf://org/original/model.pth", "hf://org/model.safetensors", "hf://org/original/../x.safetensors"):
        with pytest.raises(HydraDetectError):
            split_checkpoint(wrong, tmp_path / "store", head="owl", endpoint=hub.endpoint)
