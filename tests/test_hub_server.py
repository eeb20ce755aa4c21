"""The test Hub is strict: what the real client never sends is an error, and is kept for the test to fail by."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time

import hub_fixtures
import pytest
from hub_http import Reply, Request, Surprise, partial
from hub_server import Clock, HubServer, RateLimit
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
BATCH = {"Content-Type": "application/vnd.git-lfs+json", "Accept": "application/vnd.git-lfs+json"}
HEADER = {"key": "header", "value": {"summary": "s", "description": ""}}
OWL = "/api/models/org/owl"
OBJECT = {"oid": "0" * 64, "size": 3}


def text(data):
    """Return JSON as bytes."""
    return json.dumps(data).encode()


def lines(*items):
    """Return a commit's body."""
    return b"".join(text(item) + b"\n" for item in items)


SURPRISES = {
    "no such call": ("GET", "/api/datasets", b"", {}),
    "no such page": ("GET", "/org/owl", b"", {}),
    "no git": ("GET", "/org/owl.git/info/refs?service=git-upload-pack", b"", {}),
    "wrong method": ("PATCH", OWL, b"", {}),
    "post of facts": ("POST", OWL, b"{}", JSON),
    "unknown query": ("GET", f"{OWL}?colour=red", b"", {}),
    "flag of another kind": ("GET", f"{OWL}?blobs=1", b"", {}),
    "parameter twice": ("GET", "/api/models?author=a&author=b", b"", {}),
    "body of a get": ("GET", OWL, b"{}", JSON),
    "no content type": ("POST", "/api/repos/create", b"{}", {}),
    "wrong content type": ("POST", f"{OWL}/commit/main", lines(HEADER), JSON),
    "no json": ("POST", "/api/repos/create", b"{", JSON),
    "no object": ("POST", "/api/repos/create", b"[]", JSON),
    "field missing": ("POST", "/api/repos/create", text({"name": "x"}), JSON),
    "field unknown": ("POST", f"{OWL}/tag/main", text({"tag": "v1", "force": True}), JSON),
    "field of another type": ("POST", f"{OWL}/tag/main", text({"tag": 1}), JSON),
    "truth for a number": ("POST", "/org/owl.git/info/lfs/objects/verify", text({"oid": "0", "size": True}), JSON),
    "another kind of repository": (
        "POST", "/api/repos/create", text({"name": "x", "organization": None, "type": "dataset"}), JSON,
    ),
    "visibility": (
        "POST", "/api/repos/create", text({"name": "x", "organization": None, "visibility": "protected"}), JSON,
    ),
    "no settings": ("PUT", f"{OWL}/settings", b"{}", JSON),
    "gated by what": ("PUT", f"{OWL}/settings", text({"gated": "never"}), JSON),
    "no header": ("POST", f"{OWL}/commit/main", b"", NDJSON),
    "commit line": ("POST", f"{OWL}/commit/main", lines(HEADER, {"key": "rename", "value": {}}), NDJSON),
    "encoding": (
        "POST", f"{OWL}/commit/main",
        lines(HEADER, {"key": "file", "value": {"path": "a", "content": "", "encoding": "utf-8"}}), NDJSON,
    ),
    "algorithm": (
        "POST", f"{OWL}/commit/main",
        lines(HEADER, {"key": "lfsFile", "value": {"path": "a", "algo": "md5", "oid": "0"}}), NDJSON,
    ),
    "pull request": ("POST", f"{OWL}/commit/main?create_pr=1", lines(HEADER), NDJSON),
    "sample": (
        "POST", f"{OWL}/preupload/main", text({"files": [{"path": "a", "sample": "", "size": 5}]}), JSON,
    ),
    "batch without accept": ("POST", "/org/owl.git/info/lfs/objects/batch", text(
        {"operation": "upload", "transfers": ["basic"], "objects": [], "hash_algo": "sha256"}
    ), {"Content-Type": BATCH["Content-Type"]}),
    "batch to download": ("POST", "/org/owl.git/info/lfs/objects/batch", text(
        {"operation": "download", "transfers": ["basic"], "objects": [], "hash_algo": "sha256"}
    ), BATCH),
    "form": (
        "POST", f"{OWL}/paths-info/main", b"paths=a&colour=red", {"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "range": ("GET", "/org/owl/resolve/main/config.json", b"", {"Range": "bytes=0-1,3-4"}),
    "xet": ("GET", f"{OWL}/xet-write-token/main", b"", {}),
}  # fmt: skip

REFUSALS = {
    "no such revision": ("GET", f"{OWL}/revision/none", b"", {}, 404, "RevisionNotFound"),
    "no such file": ("HEAD", "/org/owl/resolve/main/none", b"", {}, 404, "EntryNotFound"),
    "no such repository": ("HEAD", "/org/none/resolve/main/a", b"", {}, 404, "RepoNotFound"),
    "a path out of it": ("HEAD", "/org/owl/resolve/main/..%2F..%2Fetc/passwd", b"", {}, 404, "EntryNotFound"),
    "not bearer": ("GET", OWL, b"", {"Authorization": "Basic eDp5"}, 401, None),
    "sort": ("GET", "/api/models?sort=colour", b"", {}, 400, None),
    "name": ("POST", "/api/repos/create", text({"name": "a..b", "organization": "org"}), JSON, 400, None),
    "empty summary": (
        "POST", f"{OWL}/commit/main", lines({"key": "header", "value": {"summary": "", "description": ""}}), NDJSON,
        400, None,
    ),
    "an object that never came": (
        "POST", f"{OWL}/commit/main",
        lines(HEADER, {"key": "lfsFile", "value": {"path": "a", "algo": "sha256", "oid": "0" * 64, "size": 3}}),
        NDJSON, 400, None,
    ),
    "large in the commit": (
        "POST", f"{OWL}/commit/main",
        lines(HEADER, {"key": "file", "value": {"path": "a.bin", "content": "eHh4", "encoding": "base64"}}),
        NDJSON, 400, None,
    ),
    "a path to the outside": (
        "POST", f"{OWL}/commit/main",
        lines(HEADER, {"key": "file", "value": {"path": "../a", "content": "", "encoding": "base64"}}),
        NDJSON, 400, None,
    ),
    "verify": ("POST", "/org/owl.git/info/lfs/objects/verify", text(OBJECT), JSON, 404, None),
    "a range beyond the end": ("GET", "/org/owl/resolve/main/config.json", b"", {"Range": "bytes=99-"}, 416, None),
    "a ticket of nobody's": ("POST", f"/api/complete/{'0' * 64}", text({"oid": "0", "parts": []}), BATCH, 403, None),
}  # fmt: skip


@pytest.fixture
def owl(hub):
    """Return a Hub with one repository."""
    hub.repo("org/owl", {"config.json": b'{"a": 1}', "m.safetensors": b"weights"})
    return hub


@pytest.mark.parametrize("case", SURPRISES)
def test_what_no_client_sends(owl, case):
    """It is answered with an error, changes nothing, and is kept."""
    method, target, body, headers = SURPRISES[case]
    before = owl.repos["org/owl"].head
    status, _headers, _body = owl.raw(method, target, body, **headers)
    assert 400 <= status < 600
    assert len(owl.forgive()) == 1
    assert (owl.repos["org/owl"].head, list(owl.repos), owl.repos["org/owl"].tags) == (before, ["org/owl"], {})


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused(owl, case):
    """What a client may well send is refused in the Hub's own words."""
    method, target, body, headers, status, code = REFUSALS[case]
    got, found, said = owl.raw(method, target, body, **headers)
    assert (got, found.get("X-Error-Code")) == (status, code)
    assert found["X-Error-Message"]
    assert (said == b"") is (method == "HEAD")


def test_a_surprise_fails_the_test_at_its_end():
    """The fixture checks for surprises when the test is over, whatever the client made of the answers."""
    server = HubServer()
    server.check()
    server.answer(Request("hub", "GET", "/nowhere", {}, b""))
    with pytest.raises(AssertionError, match="no such call"):
        server.check()
    with server:
        pass


def test_a_mistake_of_the_server_is_a_surprise(owl):
    """An error within the server is told with its trace, and does not hang the client."""
    owl.repos["org/owl"] = None
    owl.repos["org/fox"] = object()
    assert owl.raw("GET", "/api/models/org/fox")[0] == 418
    assert "AttributeError" in owl.forgive()[0]


@pytest.mark.parametrize("role", ["cdn", "stranger"])
def test_a_token_at_another_host_is_seen(owl, role):
    """It is found in a header, in the address and in the body."""
    url = owl.hosts[role].url
    owl.raw("GET", "/x", url=url)
    owl.raw("GET", f"/x?token={owl.token}", url=url, token=False)
    owl.raw("PUT", "/x", owl.token.encode(), url=url, token=False)
    owl.raw("GET", "/x", url=url, token=False)
    assert [request.number for request in owl.leaks(owl.token)] == [1, 2, 3]
    assert len([said for said in owl.forgive() if "a token was sent to another host" in said]) == 1


def test_the_hosts_are_different():
    """The CDN and the stranger differ from the Hub in name and port."""
    server = HubServer()
    with server:
        assert len({server.endpoint, server.cdn, server.stranger}) == 3
        assert server.endpoint.startswith("http://127.0.0.1:")
        assert server.cdn.startswith("http://localhost:")


def test_the_address_at_the_cdn_is_signed(owl):
    """Nobody reads a file there who was not sent by the Hub."""
    place = owl.raw("GET", "/org/owl/resolve/main/m.safetensors")[1]["Location"]
    path = place.removeprefix(owl.cdn)
    assert owl.raw("GET", path, url=owl.cdn, token=False)[2] == b"weights"
    for wrong in (path[:-1] + ("0" if path[-1] != "0" else "1"), path.partition("?")[0]):
        assert owl.raw("GET", wrong, url=owl.cdn, token=False)[0] == 403


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-3", 206, b"weig"), ("bytes=3-", 206, b"ghts"), ("bytes=-2", 206, b"ts"), ("bytes=5-99", 206, b"ts"),
        ("bytes=7-", 416, None), ("bytes=0-", 206, b"weights"),
    ],
)  # fmt: skip
def test_ranges(owl, wanted, status, body):
    """A range of a file is served as such; one beyond the end is refused."""
    place = owl.raw("GET", "/org/owl/resolve/main/m.safetensors")[1]["Location"].removeprefix(owl.cdn)
    got, headers, found = owl.raw("GET", place, url=owl.cdn, token=False, Range=wanted)
    assert got == status
    assert headers["Content-Range"].endswith("/7")
    assert body is None or found == body


def test_a_file_that_the_client_has(owl):
    """A file under the name that the client knows is not sent again."""
    etag = owl.raw("HEAD", "/org/owl/resolve/main/config.json")[1]["ETag"]
    status, headers, body = owl.raw("GET", "/org/owl/resolve/main/config.json", **{"If-None-Match": etag})
    assert (status, headers["ETag"], body) == (304, etag, b"")


@pytest.mark.parametrize("body", [b"xxx", b"weightS", b"weights and more", b""])
def test_uploads_are_checked(owl, body):
    """Bytes of another size or hash are refused, and the object is not there."""
    wanted = {"oid": "b" * 64, "size": 7}
    asked = {"operation": "upload", "transfers": ["basic"], "objects": [wanted], "hash_algo": "sha256"}
    said = json.loads(owl.raw("POST", "/org/owl.git/info/lfs/objects/batch", text(asked), **BATCH)[2])
    place = said["objects"][0]["actions"]["upload"]["href"].removeprefix(owl.cdn)
    assert owl.raw("PUT", place, body, url=owl.cdn, token=False)[0] == 400
    assert owl.raw("POST", "/org/owl.git/info/lfs/objects/verify", text(wanted), **JSON)[0] == 404
    assert "b" * 64 not in owl.blobs


def test_a_body_without_a_length(owl):
    """Storage takes no body whose length it was not told; the connection ends."""
    with pytest.raises(ConnectionError):
        owl.raw("PUT", "/upload/x", iter([b"a"]), url=owl.cdn, token=False)
    assert ["a body without a length" in said for said in owl.forgive()] == [True]


def test_a_client_that_goes_away(owl):
    """What came in part is not looked at."""
    with socket.create_connection(owl.hosts["hub"].server_address) as connection:
        connection.sendall(b"POST /api/repos/create HTTP/1.1\r\nContent-Length: 99\r\n\r\n{")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert owl.requests == []


def test_a_text_in_files(tmp_path):
    """A token that was written down is found, in a file or in its name."""
    assert hub_fixtures.files_with(tmp_path, "hf_x") == []
    (tmp_path / "a").write_bytes(b"\xffhf_x")
    (tmp_path / "hf_x").mkdir()
    (tmp_path / "hf_x" / "b").touch()
    (tmp_path / "c").touch()
    assert hub_fixtures.files_with(tmp_path, "hf_x") == [tmp_path / "a", tmp_path / "hf_x" / "b"]


def test_odd_ranges():
    """A range of nothing is none that a client asks for; without a name, no file is one that the client has."""
    request = Request("hub", "GET", "/", {"Range": "bytes=-"}, b"")
    with pytest.raises(Surprise, match="a range that no client asks for"):
        partial(request, b"x", {})
    assert partial(Request("hub", "GET", "/", {}, b""), b"x", {}) == Reply(200, {"Accept-Ranges": "bytes"}, b"x")


def test_requests_are_numbered_and_kept(owl):
    """The log has every request with its headers, its body and what became of it."""
    owl.api().model_info("org/owl")
    owl.api().create_tag("org/owl", tag="v1")
    first, second = owl.requests
    assert str(first) == f"1: hub GET {OWL} -> 200"
    assert first.headers["user-agent"].startswith("hydra-detect/0; hf_hub/")
    assert second.data == {"tag": "v1"}
    assert owl.seen("POST", "/tag/") == [second]


def test_rate_limits(owl):
    """The Hub says how many requests are left; the client waits where it tries again, and fails where it does not."""
    owl.rate_limit(2, 60)
    api = owl.api()
    for _ in range(2):
        api.model_info("org/owl")
    api.create_commit("org/owl", [CommitOperationAdd("a.json", b"1")], commit_message="late")
    assert [request.status for request in owl.requests] == [200, 200, 429, 200, 200]
    assert 55 < owl.naps.seconds[0] <= 61
    with pytest.raises(HfHubHTTPError, match="reached your 'api' rate limit") as caught:
        api.model_info("org/owl")
    assert caught.value.response.status_code == 429


def test_time_passes_for_the_limit():
    """The window ends with the time, even if somebody only slept."""
    clock = Clock()
    limit = RateLimit(clock, 1, 10)
    assert [limit.count()[1] for _ in range(3)] == [False, True, True]
    clock.skip(11)
    assert limit.count() == ({"RateLimit": '"api";r=0;t=9', "RateLimit-Policy": '"fixed window";"api";q=1;w=10'}, False)


def test_nothing_is_left_running():
    """A Hub that was stopped has left no thread, though a client still holds its connection."""
    before = set(threading.enumerate())
    with HubServer() as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.hosts["hub"].server_address[1])
        connection.request("GET", "/api/models")
        assert connection.getresponse().read() == b"[]"
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    connection.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("token", [None, hub_fixtures.CANARY])
def test_a_process_of_its_own(owl, token):
    """The environment for another process leads it to this Hub, with the token or without."""
    code = "import huggingface_hub as h; print(h.HfApi().model_info('org/owl').sha, h.constants.HF_HOME, h.get_token())"
    run = subprocess.run([sys.executable, "-c", code], env=owl.environment(token), capture_output=True, check=True)
    assert run.stdout.decode().split() == [owl.repos["org/owl"].head.id, str(owl.folder), str(token)]


def test_the_client_is_kept_to_itself(owl):
    """It has no token but the one it is given, and a forgotten endpoint leads nowhere."""
    from huggingface_hub import HfApi, get_token

    assert get_token() is None
    assert HfApi().endpoint == hub_fixtures.NOWHERE
    assert os.environ["HF_HOME"] == str(owl.folder)
    with pytest.raises(hub_fixtures.transport_error()):
        HfApi().model_info("org/owl")
    assert owl.requests == []


def test_xet_is_not_spoken(owl, monkeypatch):
    """A client that was not told to do without Xet fails, and the Hub says why."""
    from huggingface_hub import constants

    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with pytest.raises(Exception, match=r"404|xet"):  # the errors are Xet's own
        owl.api().create_commit("org/owl", [CommitOperationAdd("x.bin", b"x")], commit_message="xet")
    assert all("HF_HUB_DISABLE_XET" in said for said in owl.forgive())
