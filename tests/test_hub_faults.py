"""The unchanged client under every fault: what it tries again, what it gives up, and what it does not notice."""

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest
from hub_faults import Alter, Corrupt, Drop, Fault, Faults, Hook, Lose, Redirect, Slow, Status, Truncate
from hub_fixtures import transport_error
from hub_http import Reply, Request, encode
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

CARD = b"---\nlicense: mit\n---\n"
WEIGHTS = bytes(range(256)) * 40
FILES = {"README.md": CARD, "config.json": b'{"a": 1}', "model.safetensors": WEIGHTS}
CREATE, CHECK, ASK, BATCH = ("POST", "/create"), ("POST", "/validate-yaml"), ("POST", "/preupload/"), ("POST", "/batch")
SEND, VERIFY, COMMIT, TAG = ("PUT", "/upload/"), ("POST", "/verify"), ("POST", "/commit/"), ("POST", "/tag/")
INFO, TREE, WEIGH = ("GET", "/revision/"), ("GET", "/tree/"), ("HEAD", "/model")
READ, FETCH = ("GET", "/config.json"), ("GET", "/[0-9a-f]{64}$")
RETRIED, NOT_RETRIED = (ASK, BATCH, SEND, VERIFY), (CREATE, CHECK, COMMIT, TAG)
PULLING = (INFO, TREE, WEIGH, ("HEAD", "/config.json"), READ, FETCH)
STATUSES = (429, 500, 502, 503, 504)


def named(call):
    """Return a name for a case."""
    return " ".join(call) if isinstance(call, tuple) else None


def publish(hub):
    """Create the repository if need be, commit and tag: the calls of a push, one after the other."""
    api = hub.api()
    api.create_repo("org/owl", exist_ok=True)
    operations = [Add(path, content) for path, content in FILES.items()]
    api.create_commit("org/owl", operations, commit_message="push", parent_commit=hub.repos["org/owl"].head.id)
    api.create_tag("org/owl", tag="v1")


def pull(hub, **words):
    """Download everything, one file after the other."""
    return Path(hub.api().snapshot_download("org/owl", revision="main", max_workers=1, **words))


def blobs(hub):
    """Return the names and contents of what the client's cache holds."""
    return {path.name: path.read_bytes() for path in hub.cache.rglob("blobs/*") if hub.cache.exists()}


def request(method="GET", path="/", host="hub"):
    """Return a request for the faults to look at."""
    return Request(host, method, path, {}, b"")


def test_no_faults():
    """Nothing goes wrong unless it was planned; a fault that does nothing changes nothing."""
    assert Faults().strike(request()) == []
    reply = Reply(200, {}, b"abc")
    assert Fault().before(request()) is None
    assert Fault().after(request(), reply) is reply


def test_when_a_fault_strikes():
    """At the request of its number among those that fit, and as often as was said."""
    faults = Faults()
    third = faults.at(3, Drop())
    seconds = faults.on(Lose(), "GET", "/b", nth=2, times=2)
    always = faults.on(Corrupt(), host="cdn", times=None)
    asked = [("GET", "/b"), ("PUT", "/b"), ("GET", "/b"), ("GET", "/a"), ("GET", "/b"), ("GET", "/b")]
    struck = [[type(fault) for fault in faults.strike(request(*one))] for one in asked]
    assert struck == [[], [], [Drop, Lose], [], [Lose], []]
    assert (third.fired, seconds.fired, seconds.met, always.fired) == (1, 2, 4, 0)
    assert all(faults.strike(request(host="cdn")) for _ in range(3))
    faults.clear()
    assert faults.strike(request(host="cdn")) == []


@pytest.mark.parametrize("body", [b"", b"a", b"abcd"])
def test_damage(body):
    """A damaged answer has another body of the same size; half of one is half, and nothing is nothing."""
    reply = Reply(200, {}, body)
    damaged = Corrupt().after(request(), reply).body
    assert len(damaged) == len(body)
    assert sum(a != b for a, b in zip(damaged, body, strict=True)) == (1 if body else 0)
    cut = Truncate().after(request(), reply)
    assert (cut.lost, cut.cut) == ((False, len(body) // 2) if body else (True, None))
    assert Truncate(1).after(request(), Reply(200, {}, b"abc")).cut == 1


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("call", RETRIED, ids=named)
def test_uploads_are_tried_again(hub, call, status):
    """After an error of the Hub's, the client waits and asks for the upload again."""
    hub.repo("org/owl")
    plan = hub.faults.on(Status(status, retry_after=7), *call)
    publish(hub)
    assert (plan.fired, hub.naps.seconds) == (1, [8])
    assert hub.repos["org/owl"].tags == {"v1": hub.repos["org/owl"].head.id}


@pytest.mark.parametrize("status", [*STATUSES, 412])
@pytest.mark.parametrize("call", NOT_RETRIED, ids=named)
def test_what_is_not_tried_again(hub, call, status):
    """An error when creating, committing or tagging is raised at once, and nothing was done."""
    repo = hub.repo("org/owl")
    hub.faults.on(Status(status), *call)
    with pytest.raises(HfHubHTTPError, match=f"fault {status}") as caught:
        publish(hub)
    assert caught.value.response.status_code == status
    assert hub.naps.seconds == []
    assert (len(repo.commits), repo.tags) == (2 if call == TAG else 1, {})


@pytest.mark.parametrize("call", [COMMIT, TAG], ids=named)
@pytest.mark.parametrize("status", [500, 504])
def test_an_error_after_it_was_done(hub, call, status):
    """An error may hide that the commit or tag was made."""
    repo = hub.repo("org/owl")
    hub.faults.on(Status(status, handled=True), *call)
    with pytest.raises(HfHubHTTPError, match=f"fault {status}"):
        publish(hub)
    assert repo.head.title == "push"
    assert list(repo.tags) == (["v1"] if call == TAG else [])


@pytest.mark.parametrize("fault", [Drop, Lose, Truncate])
@pytest.mark.parametrize("call", RETRIED, ids=named)
def test_connections_that_break_in_uploads(hub, call, fault):
    """The client asks for the upload again; what came twice is there once."""
    repo = hub.repo("org/owl")
    assert hub.faults.on(fault(), *call).fired == 0
    publish(hub)
    assert hub.naps.seconds == [1]
    assert repo.content("model.safetensors") == WEIGHTS


@pytest.mark.parametrize("fault", [Drop, Lose, Truncate])
@pytest.mark.parametrize("call", NOT_RETRIED, ids=named)
def test_connections_that_break(hub, call, fault):
    """The client raises the error of its own library; a lost reply may hide that it was done."""
    repo = hub.repo("org/owl")
    hub.faults.on(fault(), *call)
    with pytest.raises(transport_error()) as caught:
        publish(hub)
    assert not isinstance(caught.value, HfHubHTTPError)
    done = fault is not Drop
    assert repo.head.title == ("push" if call == TAG or (call == COMMIT and done) else "initial commit")
    assert list(repo.tags) == (["v1"] if call == TAG and done else [])


def test_an_upload_that_fails_for_good(hub):
    """The client gives up after some tries, with the error of the Hub as the cause of its own."""
    repo = hub.repo("org/owl")
    plan = hub.faults.on(Status(503), *SEND, times=None)
    with pytest.raises(RuntimeError, match=r"Error while uploading 'model\.safetensors'") as caught:
        publish(hub)
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert (plan.fired, hub.naps.seconds) == (6, [1, 2, 4, 8, 8])
    assert repo.head.title == "initial commit"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("call", PULLING, ids=named)
def test_errors_while_pulling(hub, call, status):
    """Whatever the client makes of an error: it has the right bytes, or raises and has no wrong ones."""
    repo = hub.repo("org/owl", FILES)
    plan = hub.faults.on(Status(status), *call)
    if call == INFO:
        with pytest.raises(LocalEntryNotFoundError):
            pull(hub)
    elif call in (READ, FETCH) and status != 429:
        with pytest.raises(HfHubHTTPError, match=f"fault {status}"):
            pull(hub)
    elif call == TREE:  # 2.x tries again, 1.x does not
        with contextlib.suppress(HfHubHTTPError):
            pull(hub)
    else:
        pull(hub)
    assert plan.fired == 1
    assert blobs(hub).items() <= {entry.key: hub.blobs[entry.key] for entry in repo.head.files.values()}.items()
    found = pull(hub)
    assert {path: (found / path).read_bytes() for path in FILES} == FILES


@pytest.mark.parametrize("fault", [Drop, Lose, Truncate])
@pytest.mark.parametrize("call", PULLING, ids=named)
def test_connections_that_break_while_pulling(hub, call, fault):
    """The right bytes, or an error of the client's library; a second pull has them."""
    repo = hub.repo("org/owl", FILES)
    plan = hub.faults.on(fault(), *call)
    with contextlib.suppress(transport_error()):
        pull(hub)
    assert plan.fired == 1
    assert blobs(hub).items() <= {entry.key: hub.blobs[entry.key] for entry in repo.head.files.values()}.items()
    found = pull(hub)
    assert {path: (found / path).read_bytes() for path in FILES} == FILES
    assert not list(hub.cache.rglob("*.incomplete"))


@pytest.mark.parametrize("call", [INFO, WEIGH], ids=named)
def test_a_cached_copy_hides_an_error(hub, call):
    """With a copy in the cache, an error of the Hub's is no error of the client's: it may be an old copy."""
    repo = hub.repo("org/owl", FILES)
    pull(hub)
    old = repo.head.id
    hub.add(repo, {"model.safetensors": b"new"})
    hub.faults.on(Status(503), *call, times=None)
    api = hub.api()
    found = pull(hub) if call == INFO else Path(api.hf_hub_download("org/owl", "model.safetensors")).parent
    assert found.name == old
    assert (found / "model.safetensors").read_bytes() == WEIGHTS


def test_a_download_is_resumed(hub):
    """What was cut in the middle goes on where a piece of 10 MiB ended."""
    content = WEIGHTS * 2048
    hub.repo("org/owl", {"model.safetensors": content})
    hub.faults.on(Truncate(15 * 2**20), *FETCH)
    assert Path(hub.api().hf_hub_download("org/owl", "model.safetensors")).read_bytes() == content
    first, second = hub.seen(host="cdn")
    assert ("range" in first.headers, second.headers["range"]) == (False, "bytes=10485760-")
    assert second.status == 206
    assert hub.leaks(hub.token) == []


def test_a_download_that_is_always_cut(hub):
    """The client gives up when nothing comes any more, and leaves nothing behind."""
    hub.repo("org/owl", FILES)
    plan = hub.faults.on(Truncate(), *FETCH, times=None)
    with pytest.raises(transport_error()):
        hub.api().hf_hub_download("org/owl", "model.safetensors")
    assert plan.fired == 6
    assert blobs(hub) == {}


@pytest.mark.parametrize(("call", "path"), [(READ, "config.json"), (FETCH, "model.safetensors")])
def test_damage_of_equal_size_is_not_noticed(hub, call, path):
    """The client takes wrong bytes and keeps them under the right name; it finds them only if it is asked to."""
    repo = hub.repo("org/owl", FILES)
    hub.faults.on(Corrupt(), *call)
    found = Path(hub.api().hf_hub_download("org/owl", path, revision=repo.head.id))
    assert found.read_bytes() != FILES[path]
    assert found.resolve().name == repo.head.files[path].key
    checked = hub.api().verify_repo_checksums("org/owl", revision=repo.head.id)
    assert [mismatch["path"] for mismatch in checked.mismatches] == [path]


@pytest.mark.parametrize(("call", "error"), [(ASK, ValueError), (TREE, ValueError), (CHECK, ValueError)], ids=named)
def test_damaged_facts(hub, call, error):
    """Facts that are no JSON any more are an error of the JSON library."""
    hub.repo("org/owl", FILES)
    hub.faults.on(Alter(lambda reply: Reply(200, reply.headers, reply.body[:-1])), *call)
    with pytest.raises(error) as caught:
        pull(hub) if call == TREE else publish(hub)
    assert isinstance(caught.value, json.JSONDecodeError)


def test_a_late_answer(hub, monkeypatch):
    """A question that is not answered in time is asked again; 1.22 gives up a download that does not begin."""
    from huggingface_hub import constants

    hub.repo("org/owl", FILES)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    late = [hub.faults.on(Slow(60), *FETCH, host="cdn"), hub.faults.on(Slow(60), *WEIGH)]
    api = hub.api()
    with contextlib.suppress(transport_error()):
        api.hf_hub_download("org/owl", "model.safetensors", etag_timeout=0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 60)
    assert Path(api.hf_hub_download("org/owl", "model.safetensors")).read_bytes() == WEIGHTS
    assert [plan.fired for plan in late] == [1, 1]


def test_a_slow_answer_that_is_in_time(hub):
    """A delay alone changes nothing."""
    hub.repo("org/owl", FILES)
    plan = hub.faults.on(Slow(0.05), *INFO)
    assert (pull(hub) / "config.json").exists()
    assert plan.fired == 1


@pytest.mark.parametrize("status", [302, 307, 308])
@pytest.mark.parametrize("call", [*RETRIED, *NOT_RETRIED, *PULLING], ids=named)
def test_no_token_follows_a_redirect(hub, call, status):
    """Wherever the Hub sends the client, the token stays behind."""
    hub.repo("org/owl", FILES if call in PULLING else None)
    plan = hub.faults.on(Redirect(hub.stranger, status), *call)
    with pytest.raises(Exception) as caught:  # the stranger has no answers: any error will do
        pull(hub) if call in PULLING else publish(hub)
    assert plan.fired == 1
    assert bool(hub.seen(host="stranger")) is (call[0] != "HEAD" and not (call == SEND and status != 302))
    assert hub.leaks(hub.token) == []
    assert hub.token not in repr(caught.value)


@pytest.mark.parametrize("call", [WEIGH, ("HEAD", "/config.json")], ids=named)
def test_no_token_follows_a_file(hub, call):
    """A file that the Hub says is at a stranger's is fetched from there, without the token."""
    hub.repo("org/owl", FILES)
    place = f"{hub.stranger}/evil"
    hub.faults.on(Alter(lambda reply: Reply(302, {**reply.headers, "Location": place}, reply.body)), *call)
    with pytest.raises(HfHubHTTPError):
        pull(hub)
    assert [str(one.path) for one in hub.seen(host="stranger")] == ["/evil"]
    assert hub.leaks(hub.token) == []


def test_the_content_follows_a_redirect(hub):
    """What is committed goes wherever the Hub sends the client, though the token does not."""
    hub.repo("org/owl")
    hub.faults.on(Redirect(hub.stranger, 307), *COMMIT)
    with pytest.raises(HfHubHTTPError):
        publish(hub)
    assert [one.method for one in hub.seen(host="stranger") if one.contains('"key": "file"')] == ["POST"]


def test_a_redirect_away_and_back(hub):
    """The token is not sent to a stranger who leads back to the Hub."""
    hub.repo("org/owl", FILES, private=True)
    hub.faults.on(Redirect(hub.stranger), *READ)
    hub.faults.on(Redirect(hub.endpoint), host="stranger")
    with pytest.raises(RepositoryNotFoundError):
        hub.api().hf_hub_download("org/owl", "config.json")
    assert [("authorization" in one.headers) for one in hub.seen("GET")] == [True, False, False]


@pytest.mark.parametrize("late", [False, True])
def test_something_happens_in_between(hub, late):
    """What is called before an answer changes it; what is called after changes the next."""
    repo = hub.repo("org/owl", FILES)
    first = repo.head.id
    hub.faults.on(Hook(lambda _request: hub.add(repo, {"config.json": b"new"}), late=late), *INFO)
    found = pull(hub)
    assert found.name == (first if late else repo.head.id)
    assert (found / "config.json").read_bytes() == (FILES["config.json"] if late else b"new")


def test_an_answer_is_put_in_place_of_another(hub):
    """The Hub may lie: here about the size of a file, which the client then misses."""
    hub.repo("org/owl", FILES)

    def shorter(reply):
        reply.headers["X-Linked-Size"] = "5"
        return reply

    hub.faults.on(Alter(shorter), *WEIGH)
    with pytest.raises(OSError, match="Consistency check failed: file should be of size 5"):
        hub.api().hf_hub_download("org/owl", "model.safetensors")
    assert blobs(hub) == {}


@pytest.mark.parametrize("path", ["../../../evil", "/evil", "a/../../../../evil"])
def test_hostile_names_stay_within(hub, tmp_path, path):
    """A tree whose names lead out of the folder writes nothing outside of it."""
    repo = hub.repo("org/owl", FILES)
    repo.plant({path: b"evil"})
    with contextlib.suppress(Exception):
        pull(hub)
    assert [one for one in tmp_path.rglob("evil*") if not one.resolve().is_relative_to(hub.cache)] == []


def test_a_hub_that_is_gone(hub):
    """When the server is stopped, the client says that it cannot connect."""
    hub.repo("org/owl", FILES)
    hub.api().model_info("org/owl")
    hub.hosts["hub"].stop()
    with pytest.raises(transport_error()):
        hub.api().model_info("org/owl")
    hub.hosts.pop("hub")


def test_waits_end_with_the_hub(hub):
    """A test that is over does not wait for the answers that it held back."""
    hub.repo("org/owl")
    plan = hub.faults.on(Slow(600), *INFO)
    asking = threading.Thread(target=hub.raw, args=("GET", "/api/models/org/owl/revision/main"))
    asking.start()
    while not plan.fired:
        time.sleep(0.001)
    hub.faults.clear()
    asking.join(30)
    assert not asking.is_alive()


def test_many_faults_of_one_request(hub):
    """Several faults of one request add up: the first answer counts, and each may change it."""
    hub.repo("org/owl", FILES)
    seen = []
    hub.faults.on(Hook(seen.append), *READ)
    hub.faults.on(Alter(lambda reply: Reply(200, reply.headers, encode("owl!!!"))), *READ)
    assert Path(hub.api().hf_hub_download("org/owl", "config.json")).read_bytes() != FILES["config.json"]
    assert [one.path for one in seen] == ["/org/owl/resolve/main/config.json"]
