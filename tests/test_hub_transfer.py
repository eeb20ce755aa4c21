"""The test Hub and the unchanged client: commits and what they upload, downloads and what they check."""

import hashlib
import io
from pathlib import Path

import pytest
from hub_fixtures import files_with
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub import CommitOperationCopy as Copy
from huggingface_hub import CommitOperationDelete as Delete
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

WEIGHTS = bytes(range(256)) * 40
HEAD = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "heads/owl/config.json": b"{}"}


def push(hub, files, *, token=None, name="org/owl", **words):
    """Commit files, or delete those that are None."""
    operations = [Delete(path) if content is None else Add(path, content) for path, content in files.items()]
    return hub.api(token).create_commit(name, operations, **{"commit_message": "push", **words})


def calls(hub, since=0):
    """Return what was asked, without the parts that differ from run to run."""
    return [f"{request.method} {request.path.split('/')[-2]}" for request in hub.requests[since:]]


def test_a_commit_is_one_commit(hub):
    """Small files come with the commit, large ones before it; nothing but the Hub hears of the token."""
    repo = hub.repo("org/owl")
    first = repo.head.id
    info = push(hub, HEAD, commit_description="more", parent_commit=first)
    assert info.oid == repo.head.id == repo.resolve("main").id
    assert (repo.head.parents, repo.head.title, repo.head.description) == ((first,), "push", "more")
    assert {path: repo.content(path) for path in HEAD} == HEAD
    assert repo.head.files["model.safetensors"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert calls(hub) == ["POST preupload", "POST objects", "PUT upload", "POST objects", "POST commit"]
    assert [request.host for request in hub.requests if request.host != "hub"] == ["cdn"]
    assert hub.leaks(hub.token) == []


@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_bytes_paths_and_files_are_the_same(hub, tmp_path, kind):
    """However the client is given a file, the Hub has its bytes."""
    repo, path = hub.repo("org/owl"), tmp_path / "m.safetensors"
    path.write_bytes(WEIGHTS)
    given = {"bytes": WEIGHTS, "path": path, "file": io.BytesIO(WEIGHTS)}[kind]
    push(hub, {"m.safetensors": given})
    assert repo.content("m.safetensors") == WEIGHTS


@pytest.mark.parametrize(
    ("path", "content", "mode"),
    [
        ("a.json", b"{}", "regular"), ("a.safetensors", b"x", "lfs"), ("b/a.bin", b"x", "lfs"),
        ("a.png", b"\0x", "lfs"), ("big.txt", b"x" * (10 * 2**20 + 1), "lfs"),
        ("empty.safetensors", b"", "regular"), ("safetensors", b"x", "regular"),
    ],
)  # fmt: skip
def test_what_is_large(hub, path, content, mode):
    """Files go to LFS by the repository's rules, by size, or if they are no text; empty ones never."""
    repo = hub.repo("org/owl")
    push(hub, {path: content})
    assert ("lfs" if repo.head.files[path].sha256 else "regular") == mode
    assert len(hub.seen("PUT", host="cdn")) == (mode == "lfs")


def test_the_repositorys_own_rules(hub):
    """The rules for LFS, and what is ignored, are files of the repository."""
    repo = hub.repo("org/owl")
    push(hub, {".gitattributes": b"heads/*.txt filter=lfs -text\n", ".gitignore": b"# none\nsecret*\n/tmp\n"})
    push(hub, {"heads/a.txt": b"x", "a.txt": b"x", "a.safetensors": b"x", "secrets.txt": b"x", "tmp/y": b"x"})
    kinds = {path: bool(entry.sha256) for path, entry in repo.head.files.items() if not path.startswith(".")}
    assert kinds == {"heads/a.txt": True, "a.txt": False, "a.safetensors": False}


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_large_objects_come_in_parts(hub, parts):
    """An object above the limit comes in parts, which are put together and checked."""
    repo, hub.multipart_over, hub.chunk = hub.repo("org/owl"), 1, 4096
    content = WEIGHTS[: 4096 * parts - 1]
    push(hub, {"m.safetensors": content})
    assert repo.content("m.safetensors") == content
    assert len(hub.seen("PUT", host="cdn")) == parts
    assert len(hub.seen("POST", "/api/complete/")) == 1
    assert hub.leaks(hub.token) == []


def test_many_objects_at_once(hub):
    """300 files are one commit, whether they are large or small."""
    repo = hub.repo("org/owl")
    push(hub, {f"heads/{number}.{end}": b"%d" % number for number in range(150) for end in ("json", "safetensors")})
    assert (len(repo.commits), len(repo.head.files)) == (2, 301)
    assert len(hub.seen("POST", "/preupload/")) == 2
    assert len(hub.seen("PUT", host="cdn")) == 150


def test_the_clients_shortcuts(hub, tmp_path):
    """A folder, a file and a deletion are commits like others: without Xet, a folder is one."""
    repo, api = hub.repo("org/owl"), hub.api()
    (tmp_path / "owl" / "a").mkdir(parents=True)
    for name in ("a/config.json", "m.safetensors"):
        (tmp_path / "owl" / name).write_bytes(b"x")
    api.upload_folder(repo_id="org/owl", folder_path=tmp_path / "owl")
    api.upload_file(repo_id="org/owl", path_or_fileobj=b"1", path_in_repo="x.json")
    assert sorted(repo.head.files) == [".gitattributes", "a/config.json", "m.safetensors", "x.json"]
    api.delete_file("x.json", "org/owl")
    api.delete_folder("a", "org/owl")
    assert sorted(repo.head.files) == [".gitattributes", "m.safetensors"]
    assert len(repo.commits) == 5


def test_an_object_that_is_there_is_not_sent(hub):
    """The same bytes are sent once for each repository: another one's objects are not this one's."""
    hub.repo("org/owl")
    hub.repo("lab/owl")
    push(hub, {"a.safetensors": WEIGHTS})
    push(hub, {"b.safetensors": WEIGHTS})
    assert len(hub.seen("PUT", host="cdn")) == 1
    push(hub, {"b.safetensors": WEIGHTS}, name="lab/owl")
    assert len(hub.seen("PUT", host="cdn")) == 2


def test_a_commit_that_changes_nothing(hub):
    """The client makes no commit if nothing changed, and then does not look at the parent either."""
    repo = hub.repo("org/owl", HEAD)
    first = repo.history("main")[-1].id
    assert push(hub, HEAD, parent_commit=first).oid == repo.head.id
    assert calls(hub)[-1] == "GET revision"
    assert hub.seen("POST", "/commit/") == []
    assert len(repo.commits) == 2


def test_files_that_did_not_change_are_left_out(hub):
    """The client sends what changed alone."""
    repo = hub.repo("org/owl", HEAD)
    push(hub, {**HEAD, "config.json": b"new"})
    assert [line["key"] for line in hub.seen("POST", "/commit/")[0].data] == ["header", "file"]
    assert repo.content("config.json") == b"new"


@pytest.mark.parametrize("cut", [40, 7])
def test_a_stale_parent_is_412(hub, cut):
    """A commit onto what is no longer the head is refused, and nothing has changed."""
    repo = hub.repo("org/owl")
    stale = repo.head.id[:cut]
    head = push(hub, {"a": b"1"}, parent_commit=stale).oid
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        push(hub, {"b": b"1"}, parent_commit=stale)
    assert caught.value.response.status_code == 412
    assert repo.head.id == head


def test_deleting(hub):
    """Files and folders go; what is not there cannot."""
    repo = hub.repo("org/owl", HEAD)
    push(hub, {"config.json": None, "heads/": None})
    assert sorted(repo.head.files) == [".gitattributes", "model.safetensors"]
    for path in ("none", "none/"):
        with pytest.raises(RemoteEntryNotFoundError, match="with this name doesn't exist"):
            push(hub, {path: None})


def test_copying(hub):
    """A file of LFS is copied without its bytes; a regular one is read and sent again."""
    repo = hub.repo("org/owl", HEAD)
    copies = [Copy("model.safetensors", "copy.safetensors"), Copy("config.json", "copy.json")]
    hub.api().create_commit("org/owl", copies, commit_message="copy")
    assert repo.head.files["copy.safetensors"] == repo.head.files["model.safetensors"]
    assert repo.content("copy.json") == HEAD["config.json"]
    assert hub.seen(host="cdn") == []


def test_branches_go_their_own_way(hub):
    """A commit goes to the branch that is named; a tag or a commit is none."""
    repo, api = hub.repo("org/owl", HEAD), hub.api()
    api.create_branch("org/owl", branch="dev/x")
    api.create_tag("org/owl", tag="v1")
    push(hub, {"config.json": b"dev"}, revision="dev/x")
    assert (repo.content("config.json", "dev/x"), repo.content("config.json")) == (b"dev", HEAD["config.json"])
    for revision in ("none", "v1", repo.head.id):
        with pytest.raises(RevisionNotFoundError):
            push(hub, {"config.json": b"x"}, revision=revision)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("read_token", HfHubHTTPError), ("other_token", HfHubHTTPError), ("lab_token", HfHubHTTPError)],
)
@pytest.mark.parametrize("private", [False, True])
def test_who_may_commit(hub, kind, error, private):
    """A stranger is refused at the first call, and told nothing of what is private."""
    repo = hub.repo("org/owl", HEAD, private=private)
    with pytest.raises(error) as caught:
        push(hub, {"config.json": b"x", "m.safetensors": b"x"}, token=getattr(hub, kind))
    hidden = private and kind != "read_token"
    assert isinstance(caught.value, RepositoryNotFoundError) is hidden
    assert caught.value.response.status_code == (404 if hidden else 403)
    assert len(hub.requests) == 1
    assert repo.head.title == "files"


@pytest.mark.parametrize("path", ["a\\b", "config.json/x", "heads"])
def test_paths_that_are_refused(hub, path):
    """A path that the client lets pass is checked again."""
    repo = hub.repo("org/owl", HEAD)
    with pytest.raises(BadRequestError):
        push(hub, {path: b"x"})
    assert repo.head.title == "files"


@pytest.mark.parametrize("revision", ["main", "v1", "dev/x", "id", "refs/tags/v1"])
def test_files_by_revision(hub, revision):
    """A file is downloaded at a branch, tag or commit, small or large."""
    repo = hub.repo("org/owl", HEAD)
    repo.add_ref("tag", "v1", "main")
    repo.add_ref("branch", "dev/x", "main")
    revision = repo.head.id if revision == "id" else revision
    for path, content in HEAD.items():
        found = Path(hub.api().hf_hub_download("org/owl", path, revision=revision))
        assert found.read_bytes() == content
        assert found.is_relative_to(hub.cache)
        assert repo.head.id in found.parts
        assert found.resolve().name == repo.head.files[path].key
    assert hub.leaks(hub.token) == []
    assert hub.leaks("Bearer") == []


def test_what_a_file_says_of_itself(hub):
    """Its commit, its name by content, its size, and where it is."""
    repo = hub.repo("org/owl", HEAD)
    for path in ("config.json", "model.safetensors"):
        url, entry = f"{hub.endpoint}/org/owl/resolve/main/{path}", repo.head.files[path]
        found = hub.api().get_hf_file_metadata(url=url)
        assert (found.commit_hash, found.etag, found.size) == (repo.head.id, entry.key, entry.size)
        assert found.location.startswith(hub.cdn if entry.sha256 else url)
        assert found.xet_file_data is None


def test_files_that_are_missing(hub):
    """A file, a revision and a repository that do not exist are told apart."""
    hub.repo("org/owl", HEAD)
    api = hub.api()
    for name, path, revision, error in (
        ("org/owl", "none.json", "main", RemoteEntryNotFoundError),
        ("org/owl", "config.json", "none", RevisionNotFoundError),
        ("org/none", "config.json", "main", RepositoryNotFoundError),
    ):
        with pytest.raises(error) as caught:
            api.hf_hub_download(name, path, revision=revision)
        assert caught.value.response.status_code == 404
        assert api.file_exists(name, path, revision=revision) is False
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("org/owl", "none.json")


def test_a_gated_file(hub):
    """Whoever was not let in gets no byte, neither from the Hub nor from the CDN."""
    repo = hub.repo("org/owl", HEAD, gated="manual")
    for token, code in ((hub.other_token, 403), (False, 401)):
        with pytest.raises(GatedRepoError) as caught:
            hub.api(token=token).hf_hub_download("org/owl", "model.safetensors")
        assert caught.value.response.status_code == code
    assert hub.seen(host="cdn") == []
    repo.readers.add("reader")
    assert Path(hub.api(hub.other_token).hf_hub_download("org/owl", "model.safetensors")).read_bytes() == WEIGHTS


@pytest.mark.parametrize("folder", ["cache", "local"])
def test_a_snapshot(hub, tmp_path, folder):
    """All files of a revision, or those that fit; the second time by commit it asks for nothing."""
    repo = hub.repo("org/owl", HEAD)
    repo.add_ref("tag", "v1", "main")
    more = {"local_dir": tmp_path / "local"} if folder == "local" else {}
    found = Path(hub.api().snapshot_download("org/owl", revision="v1", max_workers=1, **more))
    assert {path: (found / path).read_bytes() for path in HEAD} == HEAD
    assert calls(hub)[:2] == ["GET revision", "GET tree"]
    assert len(hub.requests) == 2 + 2 * len(repo.head.files)
    assert files_with(tmp_path, hub.token) == []
    before = len(hub.requests)
    hub.api().snapshot_download("org/owl", revision="v1", **more)
    assert calls(hub, before) == ["GET revision"]


def test_a_pinned_snapshot_needs_no_network(hub):
    """By commit and for local files only there are no requests; other files of it are missed."""
    repo = hub.repo("org/owl", HEAD)
    words = {"revision": repo.head.id, "allow_patterns": ["config.json"], "max_workers": 1}
    hub.api().snapshot_download("org/owl", **words)
    before = len(hub.requests)
    found = Path(hub.api().snapshot_download("org/owl", local_files_only=True, **words))
    assert [path.name for path in found.iterdir()] == ["config.json"]
    with pytest.raises(IncompleteSnapshotError):
        hub.api().snapshot_download("org/owl", revision=repo.head.id, local_files_only=True)
    with pytest.raises(LocalEntryNotFoundError):
        hub.api().snapshot_download("org/owl", revision="v1", local_files_only=True)
    assert len(hub.requests) == before


def test_offline_asks_for_nothing(hub, monkeypatch):
    """With the switch on, the client makes no request at all."""
    from huggingface_hub import constants

    repo = hub.repo("org/owl", HEAD)
    hub.api().snapshot_download("org/owl", revision=repo.head.id)
    before = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert snapshot_download("org/owl", revision=repo.head.id, endpoint=hub.endpoint)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("org/owl", "config.json", revision="v2", endpoint=hub.endpoint)
    assert len(hub.requests) == before


def test_one_head_of_300(hub):
    """Of a pack of 300 heads, one is had in few requests."""
    hub.repo("org/pack", {f"heads/{n}/{name}": b"x" for n in range(300) for name in ("config.json", "m.safetensors")})
    found = hub.api().snapshot_download("org/pack", allow_patterns=["heads/7/*"])
    assert len([path for path in Path(found).rglob("*") if path.is_file()]) == 2
    assert len(hub.requests) == 6


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_redirects_within_the_hub(hub, path):
    """The Hub may send a small file from elsewhere within itself; the token goes there, and nowhere else."""
    hub.resolve_cache = True
    hub.repo("org/owl", HEAD, private=True)
    assert Path(hub.api().hf_hub_download("org/owl", path)).read_bytes() == HEAD[path]
    assert bool(hub.seen("GET", "/api/resolve-cache/")) is (path == "config.json")
    assert hub.leaks(hub.token) == []


def test_downloads_are_counted(hub):
    """Each request for a config.json counts, and those for other files do not."""
    repo = hub.repo("org/owl", HEAD)
    hub.api().snapshot_download("org/owl", allow_patterns=["*.json"])
    hub.api().hf_hub_download("org/owl", "model.safetensors")
    assert hub.api().model_info("org/owl").downloads == repo.downloads == 4


def test_what_was_downloaded_can_be_verified(hub):
    """The client checks a cache against the Hub if it is asked to."""
    repo = hub.repo("org/owl", HEAD)
    found = Path(hub.api().snapshot_download("org/owl", revision=repo.head.id))
    assert hub.api().verify_repo_checksums("org/owl", revision=repo.head.id).mismatches == []
    (found / "model.safetensors").resolve().write_bytes(WEIGHTS[::-1])
    assert len(hub.api().verify_repo_checksums("org/owl", revision=repo.head.id).mismatches) == 1


def test_large_bytes_arrive(hub):
    """Files of many megabytes come whole, both ways."""
    hub.repo("org/owl")
    content = hashlib.sha256(b"owl").digest() * 2**19
    push(hub, {"m.safetensors": content})
    assert Path(hub.api().hf_hub_download("org/owl", "m.safetensors")).read_bytes() == content
