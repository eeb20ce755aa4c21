"""The test Hub and the unchanged client: accounts, repositories, settings, references, trees and lists."""

import pytest
from huggingface_hub import RepoFile, RepoFolder
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

CARD = b"""---
library_name: hydra-detect
pipeline_tag: object-detection
base_model: org/backbone
base_model_relation: adapter
license: apache-2.0
tags: [hydra-head, "signal:owl"]
---
# Owl
"""


def status(caught):
    """Return the status of an error."""
    return caught.value.response.status_code


def test_who_am_i(hub):
    """A token says whose it is, what it may do, and where."""
    found = hub.api().whoami()
    assert (found["name"], [org["name"] for org in found["orgs"]]) == ("owner", ["org", "lab"])
    assert found["auth"]["accessToken"]["role"] == "write"
    assert hub.api(hub.read_token).whoami()["auth"]["accessToken"]["role"] == "read"


def test_a_wrong_token_is_no_token(hub):
    """A token that is worthless is refused, even where none is needed."""
    hub.repo("org/owl")
    hub.accounts.revoke(hub.other_token)
    for token in ("hf_nobody", hub.other_token):
        with pytest.raises(HfHubHTTPError, match="Invalid user token") as caught:
            hub.api(token).whoami()
        assert status(caught) == 401
        with pytest.raises(HfHubHTTPError, match="Invalid credentials in Authorization header") as caught:
            hub.api(token).model_info("org/owl")
        assert not isinstance(caught.value, RepositoryNotFoundError)


def test_tokens_hide_their_text(hub):
    """A token prints without its text, so that no failing test shows it."""
    assert hub.token not in repr(hub.accounts)
    with pytest.raises(ValueError, match="no token for 'nobody'"):
        hub.accounts.add_token("nobody")


@pytest.mark.parametrize("private", [None, False, True])
def test_a_repository_is_created_once(hub, private):
    """A repository that exists is a conflict, or fine if the caller says so."""
    api = hub.api()
    url = api.create_repo("org/owl", private=private)
    assert (url.repo_id, str(url)) == ("org/owl", f"{hub.endpoint}/org/owl")
    assert hub.repos["org/owl"].private is bool(private)
    assert list(hub.repos["org/owl"].head.files) == [".gitattributes"]
    with pytest.raises(HfHubHTTPError, match="You already created this model repo") as caught:
        api.create_repo("org/owl")
    assert status(caught) == 409
    assert api.create_repo("org/owl", exist_ok=True).repo_id == "org/owl"
    assert api.model_info("org/owl").author == "org"


def test_without_a_namespace_it_is_the_users_own(hub):
    """The client leaves it to the Hub whose repository it is."""
    assert hub.api().create_repo("owl").repo_id == "owner/owl"


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("read_token", 403, "you must use a write token"),
        ("other_token", 403, 'rights to write to the namespace "org"'),
        ("lab_token", 403, 'rights to write to the namespace "org"'),
        (None, 401, "Invalid username or password"),
    ],
)
def test_who_may_create(hub, kind, code, words):
    """Only a token that may write, of a member, and not meant for another namespace."""
    with pytest.raises(HfHubHTTPError, match=words) as caught:
        hub.api(token=getattr(hub, kind) if kind else False).create_repo("org/owl")
    assert status(caught) == code
    assert not hub.repos


def test_a_fine_grained_token_reaches_its_namespace(hub):
    """It creates where it may, and sees no private repository elsewhere."""
    hub.repo("org/hidden", private=True)
    hub.repo("lab/hidden", private=True)
    api = hub.api(hub.lab_token)
    assert api.create_repo("lab/owl").repo_id == "lab/owl"
    assert api.model_info("lab/hidden").private is True
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("org/hidden")


def test_exist_ok_with_a_token_that_only_reads(hub):
    """Whoever may not create is told that it exists, if it does; the client asks again."""
    hub.repo("org/owl")
    assert str(hub.api(hub.read_token).create_repo("org/owl", exist_ok=True)).endswith("/org/owl")
    assert [request.status for request in hub.requests] == [403, 200]


def test_a_repository_is_deleted(hub):
    """It is gone with all that it had; a second time it is missing."""
    hub.repo("org/owl", {"config.json": b"{}"})
    api = hub.api()
    api.delete_repo("org/owl")
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo("org/owl")
    api.delete_repo("org/owl", missing_ok=True)
    assert api.repo_exists("org/owl") is False


@pytest.mark.parametrize("kind", ["read_token", "other_token", "lab_token"])
def test_who_may_change_a_repository(hub, kind):
    """Deleting, settings, tags and branches are for writers."""
    hub.repo("org/owl")
    api = hub.api(getattr(hub, kind))
    calls = [
        lambda: api.delete_repo("org/owl"), lambda: api.update_repo_settings("org/owl", private=True),
        lambda: api.create_tag("org/owl", tag="v1"), lambda: api.delete_tag("org/owl", tag="v1"),
        lambda: api.create_branch("org/owl", branch="dev"), lambda: api.delete_branch("org/owl", branch="dev"),
        lambda: api.auth_check("org/owl", write=True),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(HfHubHTTPError, match="Forbidden") as caught:
            call()
        assert status(caught) == 403


def test_a_private_repository_is_as_if_missing(hub):
    """A stranger cannot tell it from one that does not exist, and is answered otherwise only without a token."""
    hub.repo("org/owl", {"config.json": b"{}"}, private=True)
    for token, code in ((hub.other_token, 404), (False, 401)):
        api, found = hub.api(token), []
        for name in ("org/owl", "org/none"):
            with pytest.raises(RepositoryNotFoundError) as caught:
                api.model_info(name)
            found.append((status(caught), caught.value.server_message))
        assert found[0] == found[1]
        assert found[0][0] == code
        assert api.repo_exists("org/owl") is False
        assert api.file_exists("org/owl", "config.json") is False
    assert hub.api(hub.read_token).model_info("org/owl").private is True


def test_visibility_changes(hub):
    """A repository is made private and public again."""
    hub.repo("org/owl")
    for private in (True, False):
        hub.api().update_repo_settings("org/owl", private=private)
        assert hub.api(hub.other_token).repo_exists("org/owl") is not private


@pytest.mark.parametrize("how", ["auto", "manual"])
def test_a_gated_repository_shows_its_facts_but_no_files(hub, how):
    """Whoever was not let in sees the name and the list, and is told so for a file."""
    hub.repo("org/owl", {"config.json": b"{}"})
    hub.api().update_repo_settings("org/owl", gated=how)
    for token, code in ((hub.other_token, 403), (False, 401)):
        api = hub.api(token)
        assert api.model_info("org/owl").gated == how
        assert "config.json" in api.list_repo_files("org/owl")
        for call in (
            lambda api=api: api.file_exists("org/owl", "config.json"),
            lambda api=api: api.auth_check("org/owl"),
        ):
            with pytest.raises(GatedRepoError) as caught:
                call()
            assert status(caught) == code
    hub.repos["org/owl"].readers.add("reader")
    hub.api(hub.other_token).auth_check("org/owl")
    assert hub.api(hub.other_token).file_exists("org/owl", "config.json")


def test_model_info(hub):
    """The facts of a model are those of its card, its files and its last commit."""
    repo = hub.repo("org/owl", {"README.md": CARD, "model.safetensors": b"x" * 8})
    info = hub.api().model_info("org/owl", files_metadata=True, securityStatus=True)
    assert (info.sha, info.last_modified) == (repo.head.id, repo.head.at)
    assert (info.library_name, info.pipeline_tag) == ("hydra-detect", "object-detection")
    assert info.card_data.base_model == "org/backbone"
    assert info.base_models == ["org/backbone"]
    assert {"hydra-head", "signal:owl", "base_model:adapter:org/backbone", "license:apache-2.0"} < set(info.tags)
    weights = {sibling.rfilename: sibling for sibling in info.siblings}["model.safetensors"]
    assert (weights.size, weights.lfs.sha256) == (8, repo.head.files["model.safetensors"].sha256)
    assert info.security_repo_status["filesWithIssues"] == []


@pytest.mark.parametrize("wanted", ["sha", "siblings", "tags", "cardData", "downloads", "lastModified", "gated"])
def test_model_info_of_chosen_facts(hub, wanted):
    """With `expand`, only what was asked for is told."""
    hub.repo("org/owl", {"README.md": CARD})
    info = hub.api().model_info("org/owl", expand=[wanted])
    named = {"cardData": "card_data", "lastModified": "last_modified"}.get(wanted, wanted)
    assert getattr(info, named) is not None
    assert info.author is None


def test_what_cannot_be_expanded(hub):
    """A fact that the Hub does not know is an error."""
    hub.repo("org/owl")
    with pytest.raises(BadRequestError, match="Invalid expand: colour"):
        hub.api().model_info("org/owl", expand=["colour"])


def test_revisions(hub):
    """A tag stays where it was put, a branch moves, and both are listed with their commits."""
    repo = hub.repo("org/owl", {"a": b"1"})
    first, api = repo.head.id, hub.api()
    api.create_tag("org/owl", tag="v1", tag_message="one")
    api.create_branch("org/owl", branch="dev/x")
    hub.add(repo, {"a": b"2"}, "second")
    api.create_tag("org/owl", tag="v0", revision=first)
    refs = api.list_repo_refs("org/owl", include_pull_requests=True)
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first, "v0": first}
    assert {ref.ref: ref.target_commit for ref in refs.branches} == {
        "refs/heads/main": repo.head.id, "refs/heads/dev/x": first,
    }  # fmt: skip
    assert refs.pull_requests == refs.converts == []
    for revision in ("v1", "dev/x", first, "refs/tags/v1", "refs/heads/dev/x"):
        assert api.model_info("org/owl", revision=revision).sha == first
    assert [commit.title for commit in api.list_repo_commits("org/owl")] == ["second", "files", "initial commit"]
    assert [commit.title for commit in api.list_repo_commits("org/owl", revision="v1")] == ["files", "initial commit"]


def test_a_reference_is_made_once(hub):
    """A tag or branch that exists is a conflict, or fine if the caller says so; it does not move."""
    repo, api = hub.repo("org/owl"), hub.api()
    first = repo.head.id
    for create, name in ((api.create_tag, "tag"), (api.create_branch, "branch")):
        create("org/owl", **{name: "v1"})
        hub.add(repo, {"a": name.encode()})
        with pytest.raises(HfHubHTTPError, match="Reference already exists") as caught:
            create("org/owl", **{name: "v1"})
        assert status(caught) == 409
        create("org/owl", **{name: "v1"}, exist_ok=True)
    assert repo.tags["v1"] == first != repo.branches["v1"]


def test_references_are_deleted(hub):
    """A tag is moved by deleting it first; the main branch cannot go."""
    repo, api = hub.repo("org/owl"), hub.api()
    api.create_tag("org/owl", tag="v1")
    hub.add(repo, {"a": b"1"})
    api.delete_tag("org/owl", tag="v1")
    api.create_tag("org/owl", tag="v1")
    assert repo.tags == {"v1": repo.head.id}
    api.create_branch("org/owl", branch="dev")
    api.delete_branch("org/owl", branch="dev")
    for call in (lambda: api.delete_branch("org/owl", branch="dev"), lambda: api.delete_tag("org/owl", tag="dev")):
        with pytest.raises(RevisionNotFoundError):
            call()
    with pytest.raises(HfHubHTTPError, match="The main branch cannot be deleted") as caught:
        api.delete_branch("org/owl", branch="main")
    assert status(caught) == 403


@pytest.mark.parametrize("call", ["model_info", "list_repo_files", "create_tag", "create_branch", "list_repo_commits"])
def test_missing_revisions(hub, call):
    """What is asked of a revision that does not exist is refused as such."""
    hub.repo("org/owl")
    more = {"create_tag": {"tag": "v1"}, "create_branch": {"branch": "x"}}.get(call, {})
    with pytest.raises(RevisionNotFoundError):
        getattr(hub.api(), call)("org/owl", revision="none", **more)
    assert hub.api().revision_exists("org/owl", "none") is False


@pytest.mark.parametrize("name", ["a..b", "a b", "a~1", "-^", "a:b", "x.lock", "a?", "[x", "a\\b", "/a", "a/", "@{x"])
def test_names_that_git_does_not_take(hub, name):
    """A tag that git could not have is refused."""
    hub.repo("org/owl")
    with pytest.raises(BadRequestError, match="Invalid reference name"):
        hub.api().create_tag("org/owl", tag=name)


def test_the_tree(hub):
    """Folders are listed one by one or all at once, with what git and LFS know."""
    repo = hub.repo("org/owl", {"heads/a/config.json": b"{}", "heads/a/model.safetensors": b"xy", "n": b""})
    api = hub.api()
    assert [node.path for node in api.list_repo_tree("org/owl")] == [".gitattributes", "heads", "n"]
    assert [node.path for node in api.list_repo_tree("org/owl", "heads")] == ["heads/a"]
    inner = list(api.list_repo_tree("org/owl", "heads/a", expand=True))
    assert [node.path for node in inner] == ["heads/a/config.json", "heads/a/model.safetensors"]
    assert inner[1].lfs.sha256 == repo.head.files["heads/a/model.safetensors"].sha256
    assert (inner[1].size, inner[1].security.safe, inner[1].last_commit.title) == (2, True, "files")
    nodes = list(api.list_repo_tree("org/owl", recursive=True))
    assert {node.path for node in nodes if isinstance(node, RepoFolder)} == {"heads", "heads/a"}
    assert sorted(node.path for node in nodes if isinstance(node, RepoFile)) == sorted(repo.head.files)
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("org/owl", "heads/b"))


def test_the_last_change_of_each_path(hub):
    """A path comes from the commit that changed it last."""
    repo = hub.repo("org/owl", {"a/x": b"1", "b": b"1"})
    hub.add(repo, {"a/x": b"2"}, "second")
    hub.add(repo, {"c": b"2"}, "third")
    found = {node.path: node.last_commit.title for node in hub.api().list_repo_tree("org/owl", expand=True)}
    assert found == {".gitattributes": "initial commit", "a": "second", "b": "files", "c": "third"}


@pytest.mark.parametrize("expand", [False, True])
def test_paths(hub, expand):
    """Some paths are asked for; those that are missing are left out."""
    hub.repo("org/owl", {"a/x": b"1", "b": b"1"})
    found = hub.api().get_paths_info("org/owl", ["a", "b", "none"], expand=expand)
    assert [node.path for node in found] == ["a", "b"]
    assert bool(found[1].last_commit) is expand


@pytest.mark.parametrize(("count", "size", "calls"), [(0, 1000, 1), (300, 1000, 1), (300, 100, 4), (299, 100, 3)])
def test_pages_of_a_tree(hub, count, size, calls):
    """A long list comes in pages, each of which tells where the next one is."""
    repo = hub.repo("org/owl", {f"{number:03}.txt": b"x" for number in range(count)})
    hub.files_a_page = size
    assert sorted(hub.api().list_repo_files("org/owl")) == sorted(repo.head.files)
    assert len(hub.seen("GET", "/tree/")) == calls


def test_pages_of_commits(hub):
    """So does a long history."""
    repo = hub.repo("org/owl")
    for number in range(60):
        hub.add(repo, {"a": b"%d" % number}, f"number {number}")
    commits = hub.api().list_repo_commits("org/owl", formatted=True)
    assert (len(commits), commits[0].title, commits[0].formatted_title) == (61, "number 59", "<p>number 59</p>")
    assert len(hub.seen("GET", "/commits/")) == 2


def test_lists_of_models(hub):
    """Models are found by tag, author, words and pipeline, and private ones by their members alone."""
    assert list(hub.api().list_models()) == []
    hub.repo("org/owl", {"README.md": CARD})
    hub.repo("org/fox", {"README.md": CARD.replace(b"org/backbone", b"org/other")})
    hub.repo("lab/owl", private=True)
    api = hub.api()

    def names(**words):
        return sorted(model.id for model in api.list_models(**words))

    assert names() == ["lab/owl", "org/fox", "org/owl"]
    assert names(filter="base_model:adapter:org/backbone") == ["org/owl"]
    assert names(filter=["hydra-head", "base_model:org/other"]) == ["org/fox"]
    assert names(author="org") == ["org/fox", "org/owl"]
    assert names(search="OWL") == ["lab/owl", "org/owl"]
    assert names(pipeline_tag="object-detection", author="lab") == []
    assert names(gated=True) == []
    assert [model.id for model in hub.api(token=False).list_models(search="owl")] == ["org/owl"]
    assert [model.id for model in hub.api(hub.other_token).list_models(search="owl")] == ["org/owl"]


def test_what_the_list_tells(hub):
    """It tells more if more is asked for."""
    hub.repo("org/owl", {"README.md": CARD})
    plain, full, card, some = (
        next(iter(hub.api().list_models(**words)))
        for words in ({}, {"full": True}, {"cardData": True}, {"expand": ["sha"]})
    )
    assert (plain.sha, plain.siblings, plain.card_data) == (None, None, None)
    assert full.sha == some.sha == hub.repos["org/owl"].head.id
    assert card.card_data.library_name == "hydra-detect"


def test_the_order_of_a_list(hub):
    """It is sorted as asked, the largest first."""
    for name in ("a", "b", "c"):
        hub.repo(f"org/{name}")
    hub.repos["org/b"].downloads = 5
    hub.add(hub.repos["org/a"], {"x": b"1"})
    hub.repos["org/a"].ticks += 1000
    hub.add(hub.repos["org/a"], {"x": b"2"})
    first = {
        sort: next(iter(hub.api().list_models(sort=sort))).id for sort in ("created_at", "downloads", "last_modified")
    }
    assert first == {"created_at": "org/c", "downloads": "org/b", "last_modified": "org/a"}


@pytest.mark.parametrize(("limit", "calls", "found"), [(None, 3, 300), (150, 2, 150), (100, 1, 100), (5, 1, 5)])
def test_pages_of_models(hub, limit, calls, found):
    """300 models come in pages, and no more of them than were asked for."""
    for number in range(300):
        hub.repo(f"org/{number:03}")
    hub.models_a_page = 100
    assert len({model.id for model in hub.api().list_models(limit=limit)}) == found
    assert len(hub.seen("GET", "/api/models$")) == calls
