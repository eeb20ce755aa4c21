"""Whichever door is taken to the Hub, what was said at it counts: private, message, revision, actor, endpoint."""

import json

import publishing_fixtures
import pytest
from publishing_fixtures import BACKBONE, BAT, OWL, by_default, commits
from test_hub_push import again

import hydra_detect
from hydra_detect import HeadRegistry, HydraDetector
from hydra_detect.cli.commands import run
from hydra_detect.errors import InputError, NotFoundError
from hydra_detect.hub import client
from hydra_detect.hub.channels import promote_release, rollback_release
from hydra_detect.hub.originals import fetched
from hydra_detect.hub.origins import origin_of
from hydra_detect.hub.pull import pull, pull_backbone
from hydra_detect.hub.searching import list_pack, search
from hydra_detect.versions import VersionManager

publisher, puller = publishing_fixtures.publisher, publishing_fixtures.puller
PACK, NEW = "org/pack", "org/new"


def registry(publisher):
    """Return the heads of a publisher by name."""
    return HeadRegistry(publisher.store)


def at(publisher, **options):
    """Return options with the address of the Hub."""
    return {"endpoint": publisher.hub.endpoint, **options}


def whole(publisher, **options):
    """Publish a detector as a whole."""
    detector = HydraDetector.from_store(publisher.store, ["bat"], device="cpu")
    return detector.push_to_hub(NEW, **at(publisher, **options))


def command(publisher, *words, **options):
    """Publish by the command line."""
    said = [word for name, value in options.items() for word in (f"--{name}", value) if word is not True]
    words = ["push", *words, *said, "--store", str(publisher.store.root), "--endpoint", publisher.hub.endpoint]
    assert run(words) == 0


DOORS = {
    "push": lambda own, **said: own.push("owl", NEW, **said),
    "push into a pack": lambda own, **said: own.push("owl", f"{NEW}/owl", **said),
    "push_backbone": lambda own, **said: own.push_backbone(NEW, **said),
    "push_to_hub": whole,
    "HeadRegistry.push": lambda own, **said: registry(own).push("owl", NEW, **at(own, **said)),
    "HeadRegistry.push_backbone": lambda own, **said: registry(own).push_backbone("default", NEW, **at(own, **said)),
    "the command": lambda own, **said: command(own, "owl", NEW, **said),
    "the command with --backbone": lambda own, **said: command(own, "default", NEW, "--backbone", **said),
}


@pytest.mark.parametrize("door", DOORS)
def test_private_by_every_door(publisher, hub, monkeypatch, door):
    """What is published as private is in a repository that was made private, and nobody else sees it."""
    DOORS[door](publisher, private=True)
    assert hub.repos[NEW].private
    assert commits(hub, NEW)
    (made, *_more) = hub.seen("POST", "/api/repos/create")[1:]  # the first made the backbone's
    assert json.loads(made.body)["visibility"] == "private"
    monkeypatch.setenv("HF_TOKEN", hub.other_token)
    with pytest.raises(NotFoundError, match="no such repository, or none that this login may see"):
        client.Hub(hub.endpoint).commit_of(NEW)


@pytest.mark.parametrize("door", DOORS)
def test_a_message_by_every_door(publisher, hub, door):
    """The message is the title of each commit that makes a release; without one that says which release it is."""
    DOORS[door](publisher, message="For the night")
    titles = [title for title in commits(hub, NEW) if not title.endswith("in production")]
    assert set(titles) == {"For the night"}
    assert not hub.repos[NEW].private


def test_titles_of_changes_in_production(publisher, hub):
    """What a promotion or a rollback did is the title of its commit, with the tag of the release."""
    for repo in (OWL, f"{PACK}/owl"):
        for _ in range(2):
            publisher.push("owl", repo)
            again(publisher)
    promote_release(f"{OWL}@v2", endpoint=hub.endpoint)
    rollback_release(OWL, endpoint=hub.endpoint)
    assert commits(hub, OWL)[2:] == ["v2 in production", "v1 in production"]
    promote_release(f"{PACK}/owl@v4", endpoint=hub.endpoint)
    assert commits(hub, PACK)[2:] == ["owl-v4 in production"]


def test_each_head_of_a_pack_has_its_own_in_production(publisher, puller, hub):
    """Without a revision a head of a pack is the release in production of that head, whatever is newest there."""
    for _ in range(2):
        publisher.push("owl", f"{PACK}/owl")
        again(publisher)
    publisher.push("fox", f"{PACK}/fox")
    promote_release(f"{PACK}/fox@v1", endpoint=hub.endpoint)
    glances = list_pack(PACK, endpoint=hub.endpoint)
    assert {name: one.release for name, one in glances.items()} == {"fox": 1, "owl": 2}
    for release in (1, 2):
        ref = puller.pull(f"{PACK}/owl", name="uhu")
        assert origin_of(puller.store, HeadRegistry(puller.store)[ref]).release == release
        promote_release(f"{PACK}/owl@v2", endpoint=hub.endpoint)


def test_whoever_pulls_is_in_the_history(puller, hub, monkeypatch):
    """The actor of a pull stands in the history of the head, by every door; and the environment's, if none is said."""
    pull(f"{OWL}@v1", puller.store, name="one", actor="ada", endpoint=hub.endpoint)
    HeadRegistry(puller.store, actor="bo").pull(f"{OWL}@v1", name="two", endpoint=hub.endpoint)
    monkeypatch.setenv("HYDRA_DETECT_ACTOR", "night shift")
    puller.pull(name="three")
    history = VersionManager(puller.store).history
    assert {name: [event.actor for event in history(name)] for name in ("one", "two", "three")} == {
        "one": ["ada"],
        "two": ["bo"],
        "three": ["night shift"],
    }


def test_requests_say_who_asks(publisher, puller, hub):
    """Every request to read names this library and its version, those of small files too, wherever they lead."""
    hub.resolve_cache = True
    publisher.push("fox", f"{PACK}/fox")
    before = len(hub.seen())
    list_pack(PACK, endpoint=hub.endpoint)
    puller.pull(f"{BAT}@v1")
    wanted = f"hydra-detect/{hydra_detect.__version__};"
    odd = [str(one) for one in hub.seen()[before:] if not one.headers["user-agent"].startswith(wanted)]
    assert hub.seen("GET", "/resolve-cache/")
    assert odd == []


def test_an_original_at_a_revision(hub, tmp_path, monkeypatch):
    """An original is the one of the commit, tag or branch that is named, and its address has the commit."""
    monkeypatch.setenv("HOME", str(tmp_path))
    repo = hub.repo("org/original", {"weights/model.safetensors": b"first"})
    first = repo.head.id
    repo.add_ref("tag", "v0.9", first)
    repo.add_ref("branch", "older", first)
    second = hub.add(repo, {"weights/model.safetensors": b"second"}).id
    address = "hf://org/original/weights/model.safetensors"
    wanted = {f"@{first}": first, "@v0.9": first, "@older": first, "@main": second, "": second, f"@{second}": second}
    for revision, commit in wanted.items():
        path, told = fetched(address + revision, endpoint=hub.endpoint)
        assert path.read_bytes() == (b"first" if commit == first else b"second"), revision
        assert told == f"{address}@{commit}", revision
        assert path.is_relative_to(tmp_path)
    for gone in ("@v7", f"@{'0' * 40}"):
        with pytest.raises(NotFoundError, match="no such tag, branch or commit"):
            fetched(address + gone, endpoint=hub.endpoint)


def test_a_pack_at_a_revision(publisher, hub, capsys):
    """A pack is listed as it was at the commit, tag or branch that is named."""
    first = publisher.push("owl", f"{PACK}/owl").commit
    publisher.push("fox", f"{PACK}/fox")
    hub.repos[PACK].add_ref("branch", "older", first)
    wanted = {f"@{first}": ["owl"], "@owl-v1": ["owl"], "@older": ["owl"], "@main": ["fox", "owl"], "": ["fox", "owl"]}
    for revision, heads in wanted.items():
        assert list(list_pack(PACK + revision, endpoint=hub.endpoint)) == heads, revision
        assert run(["hub", "heads", PACK + revision, "--json", "--endpoint", hub.endpoint]) == 0
        assert list(json.loads(capsys.readouterr().out)) == heads, revision
    with pytest.raises(NotFoundError, match="no such tag, branch or commit"):
        list_pack(f"{PACK}@v7", endpoint=hub.endpoint)


def test_a_backbone_at_a_revision(puller, hub):
    """A backbone that is held is not taken for one at a revision that there is not, or that it never was."""
    assert pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint) == "default"
    before = len(hub.seen())
    commit = hub.repos[BACKBONE].tags["v1"]
    for revision in ("", "@v1", f"@{commit}"):
        assert pull_backbone(f"{BACKBONE}{revision}", puller.store, endpoint=hub.endpoint) == "default"
    assert len(hub.seen()) == before
    for gone in ("@v2", "@anything", f"@{'0' * 40}"):
        with pytest.raises(NotFoundError, match="no such tag, branch or commit"):
            pull_backbone(BACKBONE + gone, puller.store, endpoint=hub.endpoint)


@pytest.mark.usefixtures("puller")
def test_the_most_and_in_which_order(publisher, hub, capsys):
    """A search returns so many at most, the most downloaded first, whichever was made first."""
    publisher.push("fox", "org/hydra-fox")
    for order in ([OWL, BAT, "org/hydra-fox"], ["org/hydra-fox", BAT, OWL]):
        for place, repo in enumerate(order):
            hub.repos[repo].downloads = 90 - place
        for most in (1, 2, 3, 50):
            assert [one.repo for one in search(most=most, endpoint=hub.endpoint)] == order[:most]
        assert run(["search", "--most", "2", "--json", "--endpoint", hub.endpoint]) == 0
        assert [one["repo"] for one in json.loads(capsys.readouterr().out)] == order[:2]
    assert hub.seen("GET", "/api/models$")[0].one("limit") == "1"


ADDRESSES = [
    "https://ada@hub.example.org",
    "https://ada:hunter2@hub.example.org",
    "https://:hunter2@hub.example.org",
    "https://hub.example.org/?token=hunter2",
    "https://hub.example.org#hunter2",
    "http://ada:hunter2@127.0.0.1:9",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_hold_more(puller, hub, monkeypatch, capsys, address):
    """An address with a user, a password, a query or a fragment is refused by every door, and is told nowhere."""
    before, files = len(hub.seen()), puller.contents()
    doors = [
        lambda: client.Hub(address),
        lambda: pull(f"{OWL}@v1", puller.store, endpoint=address),
        lambda: pull_backbone(BACKBONE, puller.store, endpoint=address),
        lambda: search(endpoint=address),
        lambda: list_pack(PACK, endpoint=address),
        lambda: promote_release(f"{OWL}@v1", endpoint=address),
        lambda: fetched("hf://org/original/model.safetensors", endpoint=address),
        lambda: HydraDetector.from_pretrained(BACKBONE, [], store=puller.store, endpoint=address),
    ]
    for door in doors:
        with pytest.raises(InputError, match="has a user, a password, a query or a fragment") as caught:
            door()
        assert "hunter2" not in f"{caught.value} {vars(caught.value)}"
    assert run(["pull", f"{OWL}@v1", "--store", str(puller.store.root), "--endpoint", address]) == 2
    assert "hunter2" not in "".join(capsys.readouterr())
    monkeypatch.setattr(hub, "endpoint", address)
    by_default(hub, monkeypatch)
    with pytest.raises(InputError, match="has a user, a password, a query or a fragment"):
        pull(f"{OWL}@v1", puller.store)
    assert puller.contents() == files
    assert len(hub.seen()) == before


@pytest.mark.parametrize("address", ["http://hub.example.org", "ftp://127.0.0.1", "hub.example.org", "https://"])
def test_addresses_that_a_token_may_not_go_to(address):
    """An address that is neither encrypted nor on this machine is refused."""
    with pytest.raises(InputError, match="is neither https nor on this machine"):
        client.Hub(address)


def test_requests_where_the_hub_redirects(publisher, puller, hub):
    """Listing a pack and pulling one of its heads takes twelve requests on a Hub that redirects its small files.

    That is more than the eight of one that does not: each small file (index.json, config.json, releases.json,
    beside.json) costs one request more, and how often a Hub sends a reader on is its own choice.
    """
    publisher.push("owl", f"{PACK}/owl")
    publisher.push("fox", f"{PACK}/fox")
    pull_backbone(BACKBONE, puller.store, endpoint=hub.endpoint)
    counted = []
    for hub.resolve_cache, name in ((False, "owl"), (True, "fox")):
        before = len(hub.seen())
        assert sorted(list_pack(PACK, endpoint=hub.endpoint)) == ["fox", "owl"]
        assert str(puller.pull(f"{PACK}/{name}@v1")) == f"{name}@1"
        counted.append(len(hub.seen()) - before)
    assert counted == [8, 12]
    assert len(hub.seen("GET", "/resolve-cache/")) == 4
    assert hub.leaks(hub.token) == []
