"""Many at once on the test Hub: publishers, pullers, and one that must not be fooled by a lost reply."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hub_faults import Drop, Hook, Lose, Status
from hub_fixtures import transport_error
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub.errors import HfHubHTTPError

WRITERS = 8
TRIES = 40
CALLS = 7  # of one push: ids, head, preupload, batch, upload, verify, commit


def publish(hub, name):
    """Publish one head, once: look whether it is there, commit onto what was looked at, and look again if not."""
    api = hub.api()
    for _try in range(TRIES):
        try:
            commits = api.list_repo_commits("org/pack")
            if any(commit.title == name for commit in commits):
                return
            files = [Add(f"heads/{name}/{path}", f"{name} {path}".encode()) for path in ("a.json", "m.safetensors")]
            api.create_commit("org/pack", files, commit_message=name, parent_commit=commits[0].commit_id)
        except HfHubHTTPError as error:
            if error.response.status_code not in {412, 503}:
                raise
        except transport_error():
            pass
        else:
            return
    raise AssertionError(f"{name} was not published in {TRIES} tries")


def together(count, call):
    """Call something at once from several threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


def test_all_publishers_succeed(hub):
    """8 writers into one pack all succeed, each with one commit onto the one before."""
    repo = hub.repo("org/pack")
    together(WRITERS, lambda number: publish(hub, f"head-{number}"))
    titles = [commit.title for commit in repo.history("main")]
    assert sorted(titles) == sorted(["initial commit", *(f"head-{number}" for number in range(WRITERS))])
    assert len(repo.head.files) == 1 + 2 * WRITERS
    assert repo.content("heads/head-3/m.safetensors") == b"head-3 m.safetensors"


def test_one_of_many_takes_a_version(hub):
    """What is written in the same commit with a parent check is taken by exactly one."""
    repo = hub.repo("org/pack")
    parent = repo.head.id

    def take(number):
        taken = Add("releases.json", json.dumps({"v1": number}).encode())
        try:
            return hub.api().create_commit("org/pack", [taken], commit_message=f"{number}", parent_commit=parent).oid
        except HfHubHTTPError as error:
            return error.response.status_code

    won = together(WRITERS, take)
    assert sorted(map(str, won)) == sorted(["412"] * (WRITERS - 1) + [repo.head.id])
    assert json.loads(repo.content("releases.json")) == {"v1": won.index(repo.head.id)}


def test_tags_alone_do_not_decide(hub):
    """Without the parent check both writers commit, and the tag that is refused comes too late."""
    repo, api = hub.repo("org/pack"), hub.api()
    for number in range(2):
        api.create_commit("org/pack", [Add("a", b"%d" % number)], commit_message=f"{number}")
        if number == 0:
            api.create_tag("org/pack", tag="v1")
    with pytest.raises(HfHubHTTPError) as caught:
        api.create_tag("org/pack", tag="v1")
    assert caught.value.response.status_code == 409
    assert repo.content("a") == b"1" != repo.content("a", "v1")


@pytest.mark.parametrize("fault", [Drop, Lose, lambda: Status(503), lambda: Status(503, handled=True)])
@pytest.mark.parametrize("call", range(1, CALLS + 1))
def test_one_commit_whatever_goes_wrong(hub, call, fault):
    """A publisher who looks before it tries again makes one commit, whichever request went wrong and how."""
    repo = hub.repo("org/pack")
    plan = hub.faults.at(call, fault())
    publish(hub, "owl")
    publish(hub, "owl")
    assert plan.fired == 1
    assert [commit.title for commit in repo.history("main")] == ["owl", "initial commit"]
    assert hub.leaks(hub.token) == []


def test_somebody_else_is_always_first(hub):
    """A publisher who is overtaken again and again gets there in the end."""
    repo = hub.repo("org/pack")
    overtake = Hook(lambda request: hub.add(repo, {"x": b"%d" % request.number}, "other"))
    plan = hub.faults.on(overtake, "POST", "/commit/", times=3)
    publish(hub, "owl")
    assert (plan.fired, len(hub.seen("POST", "/commit/"))) == (3, 4)
    assert repo.head.title == "owl"


def test_pullers_share_a_cold_cache(hub):
    """4 who pull the same at once all have it whole, and leave nothing behind."""
    hub.repo(
        "org/pack", {f"heads/{n}/{name}": b"%d" % n for n in range(5) for name in ("config.json", "m.safetensors")}
    )
    folders = together(4, lambda _number: hub.api().snapshot_download("org/pack", revision="main", max_workers=2))
    assert len(set(folders)) == 1
    assert (Path(folders[0]) / "heads/4/m.safetensors").read_bytes() == b"4"
    assert not list(hub.cache.rglob("*.incomplete"))


def test_a_tag_that_moves_while_it_is_pulled(hub):
    """A snapshot is of the commit that the tag named first; file by file, the two are mixed."""
    repo, api = hub.repo("org/pack", {"a.json": b"1", "b.json": b"1"}), hub.api()
    repo.add_ref("tag", "v1", "main")
    second = hub.add(repo, {"a.json": b"2", "b.json": b"2"})

    def move(_request):
        repo.tags["v1"] = second.id

    hub.faults.on(Hook(move), "GET", "/tree/")
    found = Path(api.snapshot_download("org/pack", revision="v1"))
    assert [(found / name).read_bytes() for name in ("a.json", "b.json")] == [b"1", b"1"]
    assert Path(api.snapshot_download("org/pack", revision="v1")).name == second.id
    repo.tags["v1"] = second.parents[0]
    hub.faults.on(Hook(move), "HEAD", "/b.json")
    files = [Path(api.hf_hub_download("org/pack", name, revision="v1")) for name in ("a.json", "b.json")]
    assert [file.read_bytes() for file in files] == [b"1", b"2"]


def test_a_repository_that_goes_away(hub):
    """A repository that is made private between two requests is refused from then on."""
    repo = hub.repo("org/pack", {"a.json": b"1", "b.json": b"1"})

    def hide(_request):
        repo.private = True

    hub.faults.on(Hook(hide, late=True), "GET", "/tree/")
    with pytest.raises(HfHubHTTPError) as caught:
        hub.api(hub.other_token).snapshot_download("org/pack", revision="main", max_workers=1)
    assert caught.value.response.status_code == 404
