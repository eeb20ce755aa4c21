"""Publishing on a Hub: one commit with a tag, or an error and nothing; once, by one of two; nothing that is private."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import attrs
import publishing_fixtures
import pytest
from engine_fixtures import compact, copied, mixed, photographs
from hub_faults import Drop, Hook, Lose, Status
from publishing_fixtures import BACKBONE, BAT, OWL, Publisher, commits

from hydra_detect import About, HeadRegistry, HydraDetector
from hydra_detect.errors import (
    ConflictError,
    CorruptError,
    HubError,
    HydraDetectError,
    InputError,
    NameInvalidError,
    NotFoundError,
    StoreError,
)
from hydra_detect.hub.channels import promote_release, rollback_release
from hydra_detect.hub.push import push, push_backbone
from hydra_detect.storage import backbones, heads
from hydra_detect.versions import VersionManager

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller


def again(publisher, head="owl"):
    """Make the active version of a head once more, as a new one, and return its number."""
    manager = VersionManager(publisher.store)
    active = manager.active(head)
    record = attrs.evolve(active.record, notes=f"again after {active.number}")
    number = manager.create(head, heads.tensors(publisher.store, active), record).number
    return manager.promote(head, number).number


def test_one_commit_and_a_tag(publisher, hub):
    """A release is one commit with all of it, and a tag of its version's number; the branch tells of it."""
    made = publisher.push(about=About(license="mit", data="Cells.", description="Finds owls."))
    assert made.is_new
    assert str(made.ref) == f"{OWL}@v1"
    repo = hub.repos[OWL]
    assert commits(hub, OWL) == ["owl: release v1"]
    assert repo.tags == {"v1": made.commit}
    assert sorted(repo.head.files) == [
        ".gitattributes", "README.md", "beside.json", "channels.json", "config.json", "model.safetensors",
        "releases.json",
    ]  # fmt: skip
    assert publisher.text(OWL, "channels.json")["production"] == 1
    config = publisher.text(OWL, "config.json")
    assert (config["name"], config["release"], config["kind"]) == ("owl", 1, "hydra-head")
    assert config["backbone"]["repo"] == BACKBONE
    version = HeadRegistry(publisher.store)["owl"]
    assert hub.repos[OWL].content("model.safetensors") == publisher.store.head("owl").read(version, "model.safetensors")


def test_the_same_again(publisher, hub):
    """What is there already is found to be there: no commit, no other tag, and nothing is uploaded."""
    made = publisher.push()
    before = len(hub.seen())
    same = publisher.push()
    assert (same.commit, same.is_new) == (made.commit, False)
    assert commits(hub, OWL) == ["owl: release v1"]
    assert not [one for one in hub.seen()[before:] if one.method == "PUT" or "/commit/" in one.path]


def test_a_lost_tag_is_given_again(publisher, hub):
    """A push that ended before its tag goes on there; so does one whose tag somebody deleted."""
    hub.faults.on(Status(403), "POST", "/tag/")
    with pytest.raises(HubError, match="403"):
        publisher.push()
    assert hub.repos[OWL].tags == {}
    made = publisher.push()
    assert not made.is_new
    assert hub.repos[OWL].tags == {"v1": made.commit}
    assert commits(hub, OWL) == ["owl: release v1"]


def test_a_tag_that_stands_elsewhere(publisher, hub):
    """A tag that somebody gave to another commit is not moved: that is said before anything is changed."""
    hub.repo(OWL)
    hub.repos[OWL].add_ref("tag", "v1", "main")
    for _ in range(2):
        with pytest.raises(ConflictError, match=r"the tag v1 stands at \w+ already, and no release of that number"):
            publisher.push()
    assert commits(hub, OWL) == []


def test_another_release_of_the_number(publisher, hub, tmp_path):
    """Another head that is released under a number that is taken is refused, and so is a lower number."""
    publisher.push()
    other = Publisher(hub, tmp_path / "other")
    version = VersionManager(other.store).active("fox")
    record = attrs.evolve(version.record, notes="another")
    folder = other.store.head("owl").place.version(1)
    folder.rename(tmp_path / "away")
    (other.store.head("owl").place.claims / "000001").unlink()
    for generation in other.store.head("owl").place.pointer_generations():
        other.store.head("owl").place.pointer(generation).unlink()
    manager = VersionManager(other.store)
    manager.promote("owl", manager.create("owl", heads.tensors(other.store, version), record).number)
    with pytest.raises(ConflictError, match=r"it has one already, made .*, which is another"):
        other.push(needs=[BACKBONE])
    for _ in range(3):
        again(publisher)
    publisher.push(version=3)
    with pytest.raises(ConflictError, match="release 3 is there already"):
        publisher.push(version=2)
    assert publisher.push(version=1).is_new is False
    assert commits(hub, OWL) == ["owl: release v1", "owl: release v3"]


REQUESTS = 13  # of one push
FAULTS = {
    "503": Status(503),
    "503 after it was done": Status(503, handled=True),
    "429": Status(429),
    "412": Status(412),
    "dropped": Drop(),
    "answer lost": Lose(),
    "403": Status(403),
}


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_goes_wrong(publisher, hub, name):
    """Whichever request fails, in whichever way: there is one commit with its tag, or none; and a second push heals."""
    for nth in range(1, REQUESTS + 1):
        target, made = f"{OWL}-{nth}", None
        plan = hub.faults.at(nth, FAULTS[name])
        with contextlib.suppress(HydraDetectError):
            made = publisher.push("owl", target)
        assert plan.fired, nth
        assert made or name in {"403", "412"}, nth  # what passes is tried again
        hub.faults.clear()
        there = commits(hub, target) if target in hub.repos else []
        assert there in ([], ["owl: release v1"]), nth
        if made:
            assert there == ["owl: release v1"]
            assert hub.repos[target].tags == {"v1": made.commit}
        healed = publisher.push("owl", target)
        assert commits(hub, target) == ["owl: release v1"], nth
        assert hub.repos[target].tags == {"v1": healed.commit}


def test_all_requests_were_tried(publisher, hub):
    """The faults above reach every request of a push."""
    before = len(hub.seen())
    publisher.push()
    assert len(hub.seen()) - before == REQUESTS


def test_a_lost_answer_is_no_failure(publisher, hub):
    """If the answer to the commit is lost, it is looked up: the push succeeds, with one commit."""
    plan = hub.faults.on(Lose(), "POST", "/commit/")
    made = publisher.push()
    assert plan.fired
    assert made.is_new
    assert commits(hub, OWL) == ["owl: release v1"]


def test_somebody_was_faster(publisher, hub):
    """A commit that comes in between is built upon: both are there."""
    hub.repo(OWL)

    def in_between(_request):
        hub.faults.clear()
        hub.add(hub.repos[OWL], {"notes.txt": b"hello"}, "notes")

    hub.faults.on(Hook(in_between), "POST", "/commit/")
    publisher.push()
    assert commits(hub, OWL) == ["notes", "owl: release v1"]
    assert hub.repos[OWL].content("notes.txt") == b"hello"


def test_of_two_one_publishes(publisher, hub, tmp_path):
    """Of two who publish another head under one number at the same moment, exactly one does."""
    other = Publisher(hub, tmp_path / "other")
    manager = VersionManager(other.store)
    fox = manager.active("fox")
    results = together(
        lambda: publisher.push("owl", "org/shared", needs=[BACKBONE]),
        lambda: push(other.store, "fox", "org/shared", needs=[BACKBONE], endpoint=hub.endpoint),
    )
    assert fox.number == 1
    assert sorted(type(one).__name__ for one in results) == ["ConflictError", "Pushed"]
    assert len(commits(hub, "org/shared")) == 1
    assert list(hub.repos["org/shared"].tags) == ["v1"]


def together(*calls):
    """Run calls at the same moment; return what each returned or raised."""
    start = threading.Barrier(len(calls))

    def run(call):
        start.wait()
        try:
            return call()
        except HydraDetectError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_eight_publish_into_one_pack(publisher, hub):
    """Eight who publish at once into one pack all do, each with one commit and a tag, and the index has all of them."""
    names = [f"owl-{number}" for number in range(8)]
    results = together(*(lambda name=name: publisher.push("owl", f"org/pack/{name}") for name in names))
    assert [type(one).__name__ for one in results] == ["Pushed"] * 8, results
    assert sorted(publisher.text("org/pack", "index.json")["heads"]) == names
    assert sorted(hub.repos["org/pack"].tags) == [f"{name}-v1" for name in names]
    assert len(commits(hub, "org/pack")) == 8


def test_packs_and_repositories_of_one(publisher):
    """A pack stays a pack, a repository of one head one, and one of a backbone takes heads below it."""
    publisher.push("owl", "org/pack/owl")
    with pytest.raises(ConflictError, match="it is a pack of many heads"):
        publisher.push("owl", "org/pack")
    publisher.push()
    with pytest.raises(ConflictError, match="it is a repository of one head"):
        publisher.push("owl", f"{OWL}/owl")
    with pytest.raises(ConflictError, match="it is the repository of a hydra-backbone"):
        publisher.push("owl", BACKBONE)
    assert str(publisher.push("owl", f"{BACKBONE}/owl").ref) == f"{BACKBONE}/owl@v1"
    assert not publisher.push_backbone().is_new


def test_what_somebody_else_made_stays(publisher, hub):
    """A repository that holds something else is refused; a README that somebody wrote is not written over."""
    hub.repo("org/other", {"config.json": b'{"model_type": "bert"}'})
    with pytest.raises(ConflictError, match=r"it holds config\.json, and no releases\.json"):
        publisher.push("owl", "org/other")
    assert commits(hub, "org/other") == ["files"]
    publisher.push()
    hub.add(hub.repos[OWL], {"README.md": b"---\nlicense: mit\n---\nMine."})
    again(publisher)
    publisher.push()
    assert hub.repos[OWL].content("README.md").endswith(b"Mine.")


def test_a_release_whose_tag_was_moved(publisher, hub):
    """A tag is looked at before it is believed: the release is where its commit is."""
    made = publisher.push()
    repo = hub.repos[OWL]
    repo.drop_ref("tag", "v1")
    repo.add_ref("tag", "v1", repo.history("main")[-1].id)
    with pytest.raises(HubError, match="that tag stands at"):
        publisher.push()
    repo.drop_ref("tag", "v1")
    assert publisher.push().commit == made.commit


def test_of_two_backbones_with_the_same_weights(publisher, hub):
    """Which backbone a head was made on is told by its settings, too, not by its weights alone."""
    own = backbones.find(publisher.store, "default")
    sizes = attrs.evolve(own.record.contract.preprocessing, min_size=80)
    other = attrs.evolve(own.record, contract=attrs.evolve(own.record.contract, preprocessing=sizes))
    backbones.publish(publisher.store, "other", other, backbones.tensors(publisher.store, own))
    push_backbone(publisher.store, "other", "org/other-backbone", endpoint=hub.endpoint)
    publisher.push()
    assert publisher.text(OWL, "config.json")["backbone"]["repo"] == BACKBONE
    publisher.push("fox", "org/fox", needs=["org/other-backbone"])
    assert publisher.text("org/fox", "config.json")["backbone"]["repo"] == BACKBONE


def test_needs_is_a_list(publisher):
    """One text is no list of what is needed."""
    with pytest.raises(InputError, match="needs is the text"):
        publisher.push(needs=BACKBONE)


def test_a_card_follows_its_release(publisher, hub):
    """A card that nobody has edited is that of the newest release."""
    publisher.push()
    again(publisher)
    publisher.push(about=About(description="Better."))
    card = hub.repos[OWL].content("README.md").decode()
    assert "Better." in card
    assert f'heads=["{OWL}@v2"]' in card


def test_a_compact_head(publisher, hub):
    """A compact head names where its reference lies, which has to be there first."""
    with pytest.raises(NotFoundError, match="publish what needs the reference owl@1: it is not known where"):
        publisher.push("bat", BAT)
    publisher.push("owl", OWL)
    publisher.push("bat", BAT)
    assert publisher.text(BAT, "config.json")["reference"]["repo"] == OWL
    assert "compact: differences of rank 4" in hub.repos[BAT].content("README.md").decode()


@pytest.mark.usefixtures("publisher")
def test_what_is_needed_can_be_said(hub, tmp_path):
    """Who did not push the backbone says where it lies; one that is another is not taken for it."""
    stranger = Publisher(hub, tmp_path / "stranger")
    with pytest.raises(NotFoundError, match="publish what needs backbone 'default': it is not known where"):
        stranger.push("owl", OWL)
    stranger.push("owl", OWL, needs=[BACKBONE])
    other = Publisher(hub, tmp_path / "other")
    with pytest.raises(NotFoundError, match="the reference owl@1"):
        other.push("bat", BAT, needs=[BACKBONE])
    assert str(other.push("bat", BAT, needs=[BACKBONE, f"{OWL}@v1"]).ref) == f"{BAT}@v1"


def test_what_is_remembered_and_gone(publisher, hub):
    """A backbone that was pushed, and is on the Hub no more, has to be pushed again."""
    del hub.repos[BACKBONE]
    with pytest.raises(NotFoundError, match="it is not known where"):
        publisher.push()


def test_who_may_not(publisher, hub, monkeypatch):
    """Without a token, with one that may only read, and with one for another namespace, nothing is changed."""
    for token in (None, hub.read_token, hub.other_token, hub.lab_token):
        monkeypatch.setenv("HF_TOKEN", token or "")
        with pytest.raises((HubError, NotFoundError)) as caught:
            publisher.push()
        assert "Log in" in caught.value.remedy
    assert OWL not in hub.repos


@pytest.mark.parametrize("repo", ["owl", "org/", "../x/y", "https://hub/x", "org/a--b/c/d", 7])
def test_names_that_cannot_be(publisher, repo):
    """A repository that can have no such name is refused before anything is asked."""
    before = len(publisher.hub.seen())
    with pytest.raises(NameInvalidError):
        publisher.push("owl", repo)
    assert len(publisher.hub.seen()) == before


def test_a_name_that_the_client_refuses(publisher):
    """What the client alone knows of names is told in our words."""
    with pytest.raises(InputError, match=r"cannot end by '\.git': 'org/owl\.git'\. Write names as on the Hub"):
        publisher.push("owl", "org/owl.git")


@pytest.mark.parametrize("repo", ["org/owl__2", "org/_owl", "org/owl_", "org/a.b-c_d"])
def test_names_that_the_hub_takes(publisher, puller, repo):
    """Underscores anywhere, and single dots and dashes between letters, go there and back."""
    assert str(publisher.push("fox", repo).ref) == f"{repo}@v1"
    assert str(puller.pull(f"{repo}@v1")) == "fox@1"


def test_a_release_is_numbered_as_its_version(publisher):
    """Where to is a repository, and no release in it."""
    with pytest.raises(InputError, match="a release has the number of its version"):
        publisher.push("owl", f"{OWL}@v3")


@pytest.mark.parametrize("endpoint", ["http://example.org", "ftp://127.0.0.1", "example.org"])
def test_an_endpoint_that_is_not_safe(publisher, endpoint):
    """A Hub that is neither encrypted nor on this machine is never sent a token."""
    with pytest.raises(InputError, match="neither https nor on this machine"):
        push(publisher.store, "owl", OWL, endpoint=endpoint)


def test_a_damaged_version(publisher, hub):
    """A version of which a byte is another is not published."""
    path = publisher.store.head("owl").place.version(1) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(CorruptError):
        publisher.push()
    assert OWL not in hub.repos


def test_a_picture_for_the_card(publisher, hub):
    """A PNG lies beside the card, which shows it; anything else is refused."""
    png = b"\x89PNG\r\n\x1a\n" + b"0" * 100
    publisher.push(about=About(picture=png))
    assert hub.repos[OWL].content("picture.png") == png
    assert "](picture.png)" in hub.repos[OWL].content("README.md").decode()
    for wrong in (b"GIF89a", png + b"0" * (6 << 20), "picture.png"):
        with pytest.raises(InputError, match="it is no PNG file"):
            About(picture=wrong)


def test_promoted_and_rolled_back_on_the_hub(publisher, hub):
    """What is in production is a file: changed by a commit, back by another, and no tag moves."""
    publisher.push()
    again(publisher)
    publisher.push()
    tags = dict(hub.repos[OWL].tags)
    options = {"endpoint": hub.endpoint}
    assert publisher.text(OWL, "channels.json")["production"] == 1
    assert promote_release(f"{OWL}@v2", **options).previous == (1,)
    assert promote_release(f"{OWL}@v2", **options).production == 2
    assert publisher.text(OWL, "channels.json")["production"] == 2
    assert rollback_release(OWL, **options).production == 1
    with pytest.raises(NotFoundError, match="nothing was in production before"):
        rollback_release(OWL, **options)
    with pytest.raises(NotFoundError, match=r"there is no release 7\. There are: 1, 2"):
        promote_release(f"{OWL}@v7", **options)
    with pytest.raises(NameInvalidError, match="it names no release"):
        promote_release(OWL, **options)
    with pytest.raises(NameInvalidError, match="a rollback goes to what was in production before"):
        rollback_release(f"{OWL}@v1", **options)
    hub.repos[OWL].drop_ref("tag", "v2")
    with pytest.raises(NotFoundError, match="the release has lost its tag v2"):
        promote_release(f"{OWL}@v2", **options)
    del tags["v2"]
    assert hub.repos[OWL].tags == tags
    assert commits(hub, OWL)[-2:] == ["v2 in production", "v1 in production"]


TRANSIENT = {"lost": Lose(), "503": Status(503), "409": Status(409), "412": Status(412), "dropped": Drop()}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
def test_a_promotion_that_goes_wrong(publisher, hub, fault):
    """A promotion whose answer is lost or refused for now is made once."""
    publisher.push()
    again(publisher)
    publisher.push()
    hub.faults.on(fault, "POST", "/commit/")
    assert promote_release(f"{OWL}@v2", endpoint=hub.endpoint).previous == (1,)
    assert commits(hub, OWL).count("v2 in production") == 1


def test_somebody_else_changes_it(publisher, hub):
    """A rollback whose answer is lost, and a change that comes in between, are not made into two rollbacks."""
    for _ in range(2):
        publisher.push()
        again(publisher)
    publisher.push()
    options = {"endpoint": hub.endpoint}
    promote_release(f"{OWL}@v2", **options)

    def in_between(_request):
        hub.faults.clear()
        promote_release(f"{OWL}@v3", **options)

    hub.faults.on(Lose(), "POST", "/commit/")
    hub.faults.on(Hook(in_between), "GET", "/api/models/org/hydra-owl$", nth=2)
    with pytest.raises(ConflictError, match="somebody else changed what is in production meanwhile"):
        rollback_release(OWL, **options)
    assert publisher.text(OWL, "channels.json")["production"] == 3


def test_a_whole_detector(publisher, hub, tmp_path):
    """A detector is published as one repository, and comes back with the same heads, which find the same."""
    detector = HydraDetector.from_store(publisher.store, ["bat", "fox"], device="cpu")
    made = detector.push_to_hub("org/whole", endpoint=hub.endpoint)
    refs = ["org/whole@v1", "org/whole/fox@v1", "org/whole/owl@v1", "org/whole/bat@v1"]
    assert [str(one.ref) for one in made] == refs
    options = {"store": tmp_path / "there", "endpoint": hub.endpoint, "device": "cpu"}
    there = HydraDetector.from_pretrained("org/whole", **options)
    assert sorted(there.heads) == ["bat", "fox"]
    assert there.predict(photographs(1)[0], score_threshold=0.0) == detector.predict(
        photographs(1)[0], score_threshold=0.0
    )
    number = again(publisher, "fox")
    detector.load_head("fox")
    detector.push_to_hub("org/whole", endpoint=hub.endpoint)
    assert HydraDetector.from_pretrained("org/whole", **options).heads["fox"].number == number
    some = HydraDetector.from_pretrained("org/whole", ["org/whole/fox@v1"], **options)
    assert list(some.heads) == ["fox"]


@pytest.mark.parametrize("fault", [None, Lose(), Status(412)], ids=["none", "lost", "412"])
def test_what_others_leant_on_becomes_a_head_of_its_own(publisher, hub, tmp_path, fault):
    """A head that was published because another leans on it is one of the pack once it is published itself."""
    options = {"store": tmp_path / "there", "endpoint": hub.endpoint, "device": "cpu"}
    HydraDetector.from_store(publisher.store, ["bat"], device="cpu").push_to_hub("org/whole", endpoint=hub.endpoint)
    assert sorted(HydraDetector.from_pretrained("org/whole", **options).heads) == ["bat"]
    before = dict(hub.repos["org/whole"].tags)
    if fault:
        hub.faults.on(fault, "POST", "/commit/")
    made = publisher.push("owl", "org/whole/owl")
    assert (str(made.ref), made.is_new) == ("org/whole/owl@v1", False)
    assert hub.repos["org/whole"].tags == before
    assert made.commit == before["owl-v1"]
    assert sorted(HydraDetector.from_pretrained("org/whole", **options).heads) == ["bat", "owl"]
    hub.repos["org/whole"].drop_ref("tag", "owl-v1")
    assert publisher.push("owl", "org/whole/owl").commit == before["owl-v1"]  # not the one that changed the index


def test_cards_of_a_whole_detector(publisher, hub):
    """What a card is to say is on each card of a detector that is published as a whole."""
    detector = HydraDetector.from_store(publisher.store, ["fox"], device="cpu")
    detector.push_to_hub("org/whole", about=About(license="mit", data="Ours."), endpoint=hub.endpoint)
    for path in ("README.md", "heads/fox/README.md"):
        card = hub.repos["org/whole"].content(path).decode()
        assert 'license: "mit"' in card
        assert "Ours." in card


def test_saved_in_a_folder(tmp_path):
    """A detector that was saved comes back from its folder; what stands there already is left alone."""
    store = copied(mixed(), tmp_path)
    compact(store, "elk", seed=5)
    detector = HydraDetector.from_store(store, ["bat", "elk"], device="cpu")
    folder = detector.save_pretrained(tmp_path / "saved")
    there = HydraDetector.from_pretrained(str(folder), device="cpu")
    assert sorted(there.heads) == ["bat", "elk"]
    assert VersionManager(folder).verify(depth="deep").is_sound
    with pytest.raises(ConflictError, match="there is a store already"):
        detector.save_pretrained(folder)
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "new" / "folder"):
        assert detector.save_pretrained(place) == place
        assert sorted(HydraDetector.from_pretrained(str(place), device="cpu").heads) == ["bat", "elk"]
    detector.unload_head("bat")
    detector.unload_head("elk")
    alone = HydraDetector.from_pretrained(str(detector.save_pretrained(tmp_path / "alone")), device="cpu")
    assert alone.heads == {}
    assert alone.backbone.contract == detector.backbone.contract


def test_saving_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """Of a detector that cannot be saved to its end, nothing is left at its place or beside it."""
    store = copied(mixed(), tmp_path)
    detector = HydraDetector.from_store(store, ["owl", "fox"], device="cpu")
    monkeypatch.setattr(VersionManager, "promote", lambda *_of, **_options: (_ for _ in ()).throw(OSError(28, "full")))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StoreError, match="full"):
        detector.save_pretrained(tmp_path / "saved")
    assert sorted(tmp_path.iterdir()) == before
