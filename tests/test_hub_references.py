"""What a reference means: the same for as long as it is pinned, and nobody is led back to what is older or another."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import lifecycle_fixtures
import publishing_fixtures
import pytest
import test_hub_signing
from hub_faults import Alter
from publishing_fixtures import BACKBONE, BAT, OWL
from test_hub_push import again
from test_hub_signing import signed

from hydra_detect import HeadRegistry, HydraDetector
from hydra_detect.errors import ConflictError, HubError, InputError, NotFoundError
from hydra_detect.hub import pull as pulling
from hydra_detect.hub.channels import promote_release, rollback_release
from hydra_detect.hub.origins import origin_of
from hydra_detect.hub.pull import pull_backbone
from hydra_detect.hub.push import push_backbone
from hydra_detect.storage import files

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
private = test_hub_signing.private

WHOLE = "org/whole"


def asked_for(hub, act):
    """Return what an act gives, and how many requests it takes."""
    before = len(hub.seen())
    return act(), len(hub.seen()) - before


def whole(publisher):
    """Publish a detector of one head as a whole."""
    HydraDetector.from_store(publisher.store, ["fox"], device="cpu").push_to_hub(WHOLE, endpoint=publisher.hub.endpoint)


def next_release(publisher):
    """Put a second release of that head into production."""
    again(publisher, "fox")
    publisher.push("fox", f"{WHOLE}/fox")
    promote_release(f"{WHOLE}/fox@v2", endpoint=publisher.hub.endpoint)


def taken(puller, source=WHOLE):
    """Take a detector as a whole, and return the release of each of its heads."""
    made = HydraDetector.from_pretrained(source, store=puller.store, endpoint=puller.hub.endpoint, device="cpu")
    return {name: origin_of(puller.store, version).release for name, version in made.heads.items()}


@pytest.mark.parametrize("first", [f"{OWL}@main", BAT], ids=["by its branch", "as what another leans on"])
def test_a_release_is_asked_for_once(puller, hub, first):
    """A release that came as something else is looked at once, and from then on asks nobody; nothing comes twice."""
    puller.pull(first)
    ref, count = asked_for(hub, lambda: puller.pull(f"{OWL}@v1"))
    assert (str(ref), count) == ("owl@1", 4)
    assert asked_for(hub, lambda: puller.pull(f"{OWL}@v1")) == (ref, 0)
    assert HeadRegistry(puller.store).info("owl").versions == (1,)


def test_the_same_release_at_a_later_commit(publisher, puller, hub):
    """A branch that has moved on, and holds the same release, brings no second version, and no weights."""
    puller.pull(f"{OWL}@v1")
    hub.add(hub.repos[OWL], {"notes.txt": b"others write, too"})
    plain = len([one for one in hub.seen() if one.host == "cdn"])
    assert str(puller.pull(f"{OWL}@main")) == "owl@1"
    assert len([one for one in hub.seen() if one.host == "cdn"]) == plain
    assert publisher


def test_a_branch_that_is_led_back(publisher, puller, hub):
    """A branch that stands at an older release again is an error, be that still in the store; on purpose it is none."""
    old = hub.repos[OWL].head.id
    assert str(puller.pull(f"{OWL}@main")) == "owl@1"
    again(publisher)
    publisher.push()
    assert str(puller.pull(f"{OWL}@main")) == "owl@2"
    hub.repos[OWL].branches["main"] = old
    with pytest.raises(ConflictError, match="that is release 1 now, and 2 was pulled before"):
        puller.pull(f"{OWL}@main")
    assert str(puller.pull(f"{OWL}@main", allow_older=True)) == "owl@1"
    assert str(puller.pull(f"{OWL}@v1")) == "owl@1"


def test_another_branch_that_is_older(publisher, puller, hub):
    """A release that was pulled by its branch first, and then by its tag, counts for every other branch, too."""
    old = hub.repos[OWL].tags["v1"]
    again(publisher)
    publisher.push()
    puller.pull(f"{OWL}@main")
    puller.pull(f"{OWL}@v2")
    hub.repos[OWL].branches["stable"] = old
    with pytest.raises(ConflictError, match="that is release 1 now, and 2 was pulled before"):
        puller.pull(f"{OWL}@stable")


def test_what_was_in_production_counts(publisher, puller, hub):
    """A release that came by its branch, and was then seen in production, counts and is pinned as by its tag."""
    old = hub.repos[OWL].tags["v1"]
    again(publisher)
    publisher.push()
    promote_release(f"{OWL}@v2", endpoint=hub.endpoint)
    puller.pull(f"{OWL}@main")
    puller.pull(OWL)
    assert asked_for(hub, lambda: str(puller.pull(f"{OWL}@v2"))) == ("owl@1", 0)
    hub.repos[OWL].branches["stable"] = old
    with pytest.raises(ConflictError, match="that is release 1 now, and 2 was pulled before"):
        puller.pull(f"{OWL}@stable")


def test_a_commit_is_the_one_that_was_asked_for(publisher, puller, hub):
    """A Hub that answers another commit than the one that was named is not believed."""
    old = hub.repos[OWL].tags["v1"]
    again(publisher)
    publisher.push()
    new = hub.repos[OWL].tags["v2"]

    def other(reply):
        return replace(reply, body=reply.body.replace(old.encode(), new.encode()))

    hub.faults.on(Alter(other), "GET", f"/revision/{old}", times=None)
    with pytest.raises(HubError, match="which is another commit"):
        puller.pull(f"{OWL}@{old}")


@pytest.mark.parametrize("first", ["org/signed@main", "org/signed@v2"])
def test_where_a_key_is_pinned(publisher, puller, private, hub, first):
    """A namespace that is held to a key leads nobody back, however the newer one came, nor to what is there still."""
    signed(publisher, private)
    puller.pull("org/signed@v1")
    again(publisher)
    publisher.push("owl", "org/signed", sign_with=private, needs=["org/signed-backbone"])
    puller.pull(first)
    with pytest.raises(ConflictError, match="that is release 1 now, and 2 was pulled before"):
        puller.pull("org/signed")
    assert hub.repos["org/signed"].tags


def test_an_older_one_that_was_never_there(publisher, puller, private):
    """Where a key is pinned an older release is refused by its tag, too, and taken where that is said."""
    signed(publisher, private)
    again(publisher)
    publisher.push("owl", "org/signed", sign_with=private, needs=["org/signed-backbone"])
    puller.pull("org/signed@main")
    with pytest.raises(ConflictError, match="that is release 1 now"):
        puller.pull("org/signed@v1")
    assert str(puller.pull("org/signed@v1", allow_older=True)) == "owl@2"


@pytest.fixture
def other(publisher, hub, tmp_path):
    """Return a commit of the backbone's repository that holds another one, and is no release."""
    lifecycle_fixtures.with_backbone(tmp_path, name="other", store=publisher.store)
    push_backbone(publisher.store, "other", "org/other", endpoint=hub.endpoint)
    repo, first = hub.repos[BACKBONE], hub.repos[BACKBONE].head.id
    contents = {name: hub.repos["org/other"].content(name) for name in ("config.json", "model.safetensors")}
    made = hub.add(repo, contents).id
    repo.branches["main"], repo.branches["dev"] = first, made
    return made


def test_a_backbone_of_a_branch_is_no_release(other, puller, hub):
    """What a branch holds is not what its repository means, and a branch is asked for anew."""
    options = {"endpoint": hub.endpoint}
    assert pull_backbone(f"{BACKBONE}@dev", puller.store, **options) == "other"
    assert pull_backbone(f"{BACKBONE}@{other}", puller.store, **options) == "other"
    assert pull_backbone(f"{BACKBONE}@v1", puller.store, **options) == "default"
    hub.repos[BACKBONE].branches["dev"] = hub.repos[BACKBONE].head.id
    assert pull_backbone(f"{BACKBONE}@dev", puller.store, **options) == "default"
    for revision in ("", "@v1", f"@{other}"):
        assert asked_for(hub, lambda at=revision: pull_backbone(f"{BACKBONE}{at}", puller.store, **options))[1] == 0


def test_a_tag_of_a_backbone_that_was_moved(other, puller, hub):
    """A tag that stands at another backbone than the release is an error."""
    repo = hub.repos[BACKBONE]
    repo.drop_ref("tag", "v1")
    repo.add_ref("tag", "v1", other)
    with pytest.raises(ConflictError, match=r"what the tag v1 stands at is not what releases\.json lists"):
        pull_backbone(f"{BACKBONE}@v1", puller.store, endpoint=hub.endpoint)


@pytest.mark.usefixtures("other")
def test_a_commit_says_nothing_of_itself(publisher, puller, hub):
    """A commit that lists itself as the release is none: a stranger's head that names it changes no backbone's name."""
    repo, config = hub.repos[BACKBONE], hub.repos["org/other"].content("config.json")
    listed = hub.repos["org/other"].content("releases.json")
    proposed = hub.add(repo, {"config.json": config, "releases.json": listed}, branch="dev").id
    lifecycle_fixtures.give(publisher.store, "nice", seed=3, classes=("owl",), backbone="other")
    publisher.push("nice", "lab/nice", needs=[f"{BACKBONE}@{proposed}"])
    puller.pull("lab/nice@v1")
    assert HeadRegistry(puller.store).backbones() == ["other"]
    for ref in (BACKBONE, f"{BACKBONE}@v1"):
        assert pull_backbone(ref, puller.store, endpoint=hub.endpoint) == "default"


def test_a_backbone_has_one_release(other, puller, hub):
    """Whoever calls another backbone release 2 of a repository changes nothing of what its name means."""
    repo = hub.repos[BACKBONE]
    config = json.loads(repo.content("config.json", "dev")) | {"release": 2}
    text = json.dumps(config).encode()
    listed = json.loads(repo.content("releases.json", "main"))
    listed["releases"]["2"] = listed["releases"]["1"] | {"config": str(files.sha256(text))}
    hub.add(repo, {"config.json": text, "releases.json": json.dumps(listed).encode()}, branch="dev")
    repo.add_ref("tag", "v2", repo.branches["dev"])
    assert pull_backbone(f"{BACKBONE}@v2", puller.store, endpoint=hub.endpoint) == "other"
    for ref in (BACKBONE, f"{BACKBONE}@v1"):
        assert pull_backbone(ref, puller.store, endpoint=hub.endpoint) == "default"
    assert repo.tags["v2"] != other


def test_a_backbone_by_two_names(puller, hub):
    """A backbone may have two names here, and is asked for once by each."""
    options = {"endpoint": hub.endpoint}
    for name in "ab":
        assert pull_backbone(BACKBONE, puller.store, name=name, **options) == name
    for name in "ab":
        act = lambda name=name: pull_backbone(BACKBONE, puller.store, name=name, **options)  # noqa: E731  as above
        assert asked_for(hub, act) == (name, 0)


def test_a_backbone_without_its_tag(puller, hub):
    """A backbone whose tag is not there yet is what lies on the main branch, and is asked for again."""
    hub.repos[BACKBONE].drop_ref("tag", "v1")
    assert pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint) == "default"
    assert asked_for(hub, lambda: pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint))[1] > 0


def test_a_backbone_that_came_along(puller, hub):
    """A backbone that came with a head is what its repository means: nobody is asked for it again."""
    puller.pull()
    for ref in (BACKBONE, f"{BACKBONE}@v1"):
        name, count = asked_for(hub, lambda ref=ref: pull_backbone(ref, puller.store, endpoint=hub.endpoint))
        assert (name, count) == ("default", 0)


def test_a_backbone_that_was_pushed(publisher, hub):
    """Whoever published a backbone has it: nobody is asked for it."""
    act = lambda: pull_backbone(BACKBONE, publisher.store, endpoint=hub.endpoint)  # noqa: E731  for its requests
    assert asked_for(hub, act) == ("default", 0)


def test_a_whole_that_is_pinned(publisher, puller, hub):
    """A whole at a commit has the heads that lie there, for ever; by its name, or its backbone's release, today's."""
    whole(publisher)
    commit = hub.repos[WHOLE].head.id
    next_release(publisher)
    assert taken(puller, f"{WHOLE}@{commit}") == {"fox": 1}
    assert taken(puller) == {"fox": 2}
    assert taken(puller, f"{WHOLE}@v1") == {"fox": 2}
    assert taken(puller, f"{WHOLE}@main") == {"fox": 2}
    assert taken(puller, f"{WHOLE}@{commit}") == {"fox": 1}


def test_a_whole_offline(publisher, puller, hub, monkeypatch):
    """Offline a whole has the heads that were in production when it was last asked for, or those of its commit."""
    from huggingface_hub import constants

    whole(publisher)
    commit = hub.repos[WHOLE].head.id
    assert taken(puller) == taken(puller, f"{WHOLE}@{commit}") == {"fox": 1}
    next_release(publisher)
    assert taken(puller) == {"fox": 2}
    rollback_release(f"{WHOLE}/fox", endpoint=hub.endpoint)
    assert taken(puller) == {"fox": 1}
    promote_release(f"{WHOLE}/fox@v2", endpoint=hub.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(hub.seen())
    assert taken(puller) == taken(puller, f"{WHOLE}@{commit}") == {"fox": 1}
    assert len(hub.seen()) == before
    elsewhere = {"store": puller.store, "endpoint": "http://127.0.0.1:9", "device": "cpu"}
    with pytest.raises(HubError, match="it was not pulled yet"):
        HydraDetector.from_pretrained(WHOLE, **elsewhere)


def test_a_whole_that_is_led_back(publisher, puller, hub):
    """A whole of a branch leads nobody back to older heads."""
    whole(publisher)
    old = hub.repos[WHOLE].head.id
    next_release(publisher)
    assert taken(puller, f"{WHOLE}@main") == {"fox": 2}
    hub.repos[WHOLE].branches["main"] = old
    with pytest.raises(ConflictError, match="that is release 1 now"):
        taken(puller, f"{WHOLE}@main")


def test_a_whole_that_nobody_may_see_any_more(publisher, puller, hub, monkeypatch):
    """A whole whose repository is gone is an error, not a detector without heads."""
    whole(publisher)
    assert taken(puller) == {"fox": 1}
    hub.repos[WHOLE].private = True
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    with pytest.raises(NotFoundError, match="there is no such repository, or none that this login may see"):
        taken(puller)


def test_a_whole_offline_by_another_reference(publisher, puller, monkeypatch):
    """Offline a whole whose heads came by another reference is an error, not a detector without heads."""
    from huggingface_hub import constants

    whole(publisher)
    puller.pull(f"{WHOLE}/fox@v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="of its heads fox were pulled, and by another reference"):
        taken(puller)


def test_two_heads_of_one_name_at_once(publisher, puller, hub, monkeypatch):
    """Two heads of one name that come at the same moment become two heads, each with its own history."""
    publisher.push("owl", "lab/hydra-owl")
    pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint)
    both, tried, named = threading.Barrier(2, timeout=20), pulling._try_out, pulling._named

    def together(*given):
        both.wait()
        return tried(*given)

    def slowly(*given):
        chosen = named(*given)
        time.sleep(0.3)  # in which the other would choose, too
        return chosen

    monkeypatch.setattr(pulling, "_try_out", together)
    monkeypatch.setattr(pulling, "_named", slowly)
    with ThreadPoolExecutor(2) as pool:
        refs = [str(ref) for ref in pool.map(puller.pull, [f"{OWL}@v1", "lab/hydra-owl@v1"])]
    assert refs in (["owl@1", "owl-lab@1"], ["owl-org@1", "owl@1"])


def test_a_folder_is_a_store_of_its_own(publisher, puller, tmp_path):
    """A detector that was saved to a folder is taken from there: another store beside it is a mistake."""
    folder = HydraDetector.from_store(publisher.store, ["fox"], device="cpu").save_pretrained(tmp_path / "saved")
    with pytest.raises(InputError, match="is a folder, and a store of its own"):
        HydraDetector.from_pretrained(str(folder), store=puller.store)


def test_the_registrys_doors(publisher, puller, hub):
    """A registry publishes and pulls heads and backbones, with all that the functions take."""
    ours, theirs, options = HeadRegistry(publisher.store), HeadRegistry(puller.store), {"endpoint": hub.endpoint}
    ours.push_backbone("default", "org/second", message="a second place", **options)
    made = ours.push("fox", "org/foxes", needs=["org/second"], **options)
    assert theirs.pull_backbone("org/second", name="second", **options) == "second"
    assert str(theirs.pull(str(made.ref), allow_older=True, **options)) == "fox@1"
    assert publisher.text("org/foxes", "config.json")["backbone"]["repo"] == "org/second"
