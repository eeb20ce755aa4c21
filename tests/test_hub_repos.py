"""Repositories of the test Hub: named as git names them, and changed by one writer at a time."""

import pytest
from hub_http import Refusal
from hub_repos import ATTRIBUTES, Change, Entry, Repo, check_path, git_id, tree_ids

FILES = {
    "config.json": b"{}", "heads/owl/config.json": b"1", "heads/owl/model.safetensors": b"xx", "heads.txt": b"q",
    "heads-a/x": b"z", "heads/a": b"1", "z": b"",
}  # fmt: skip


@pytest.fixture
def repo():
    """Return a repository with one commit."""
    made = Repo("org/owl", {})
    made.commit(Change({path: made.store(content, path=path) for path, content in FILES.items()}), "first")
    return made


def test_no_files_are_the_empty_tree_of_git():
    """A commit without files has the tree that git knows for nothing."""
    assert tree_ids({}) == {"": "4b825dc642cb6eb9a060e54bf8d69288fbee4904"}
    assert git_id("blob", b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_ids_are_those_of_git(repo):
    """Trees and commits are named as git itself named them, for the same files, words and times."""
    second = repo.commit(Change({"n": repo.store(b"n")}), "second", description="body")
    first = repo.commits[second.parents[0]]
    assert (first.id, first.trees[""]) == (
        "1c8c6e4324fe26f2894ee2056dd0956df0adb2ec", "bf2483d76d82a1550ee37d0e20ecefd6aa1c2c48",
    )  # fmt: skip
    assert (second.id, second.trees[""]) == (
        "7bd89c83af4f6e173af5d17a5737a0ebb53cd204", "1eccb54dd8e09b1550755bad078b78b41e94d4f5",
    )  # fmt: skip


def test_what_is_large_goes_to_lfs_by_suffix(repo):
    """A file of LFS has two names: that of its pointer in git, and that of its bytes."""
    entry = repo.head.files["heads/owl/model.safetensors"]
    assert entry.key == entry.sha256 != entry.oid
    assert entry.facts()["lfs"] == {"oid": entry.sha256, "size": 2, "pointerSize": 126}
    assert repo.head.files["config.json"].facts() == {}
    assert repo.content("heads/owl/model.safetensors") == b"xx"


@pytest.mark.parametrize("name", ["main", "refs/heads/main", "v1", "refs/tags/v1", "id"])
def test_revisions(repo, name):
    """A branch, a tag, a full reference and a full id name a commit."""
    repo.add_ref("tag", "v1", "main")
    assert repo.resolve(repo.head.id if name == "id" else name) == repo.head


@pytest.mark.parametrize("name", ["", "dev", "refs/tags/main", "refs/heads/v1", "short", "0" * 40, "refs/pr/1"])
def test_no_revisions(repo, name):
    """Anything else does not, a shortened id neither."""
    repo.add_ref("tag", "v1", "main")
    with pytest.raises(Refusal, match="Invalid rev id") as caught:
        repo.resolve(repo.head.id[:7] if name == "short" else name)
    assert (caught.value.status, caught.value.code) == (404, "RevisionNotFound")


@pytest.mark.parametrize("cut", [40, 7])
def test_a_stale_parent_is_refused(repo, cut):
    """Of two commits on one parent, the first is made; the parent may be shortened."""
    parent = repo.head.id[:cut]
    repo.commit(Change({"a": repo.store(b"a")}), "mine", parent=parent)
    with pytest.raises(Refusal, match="A commit has happened since") as caught:
        repo.commit(Change({"b": repo.store(b"b")}), "yours", parent=parent)
    assert caught.value.status == 412
    assert "b" not in repo.head.files


@pytest.mark.parametrize(
    "path", ["", ".", "..", "a/../b", "/a", "a/", "a//b", ".git/config", "a/.GIT/b", "a\\b", "a\nb", "a\0b"]
)
def test_hostile_paths_are_refused(path):
    """A path that leaves the repository, or that git would not take, is refused."""
    with pytest.raises(Refusal, match="Invalid path"):
        check_path(path)


def test_a_file_is_no_folder(repo):
    """A path cannot be a file and a folder at once, in whichever order they come."""
    for path, message in (("config.json/a", "A file is in the way"), ("heads", "A folder is in the way")):
        with pytest.raises(Refusal, match=message):
            repo.commit(Change({path: repo.store(b"")}), "clash")


def test_a_rule_is_not_applied_to_what_is_planted(repo):
    """A hostile tree can be had for the tests of those who read it."""
    planted = repo.plant({"../../etc/passwd": b"x", "/root": b"y", "a\0b": b""})
    assert {"../../etc/passwd", "/root", "a\0b"} < set(repo.head.files)
    assert repo.head == planted


def test_changes_delete_before_they_write():
    """A folder can be replaced in one commit; what is not there cannot be deleted."""
    old, new = Entry("1" * 40, 1), Entry("2" * 40, 1)
    assert Change({"a/x": new}, delete_folders=("a/",)).apply({"a/x": old, "a/y": old, "ab": old}) == {
        "a/x": new, "ab": old,
    }  # fmt: skip
    for change in (Change(delete=("b",)), Change(delete_folders=("b",)), Change(delete_folders=("ab",))):
        with pytest.raises(Refusal, match="with this name doesn't exist") as caught:
            change.apply({"ab": old})
        assert caught.value.code == "EntryNotFound"


def test_the_history_of_a_branch(repo):
    """A branch goes its own way from where it began."""
    repo.add_ref("branch", "dev", "main")
    for branch in ("dev", "main", "dev"):
        repo.commit(Change({".gitattributes": repo.store(ATTRIBUTES)}), f"on {branch}", branch=branch)
    assert [commit.title for commit in repo.history("dev")] == ["on dev", "on dev", "first"]
    assert [commit.title for commit in repo.history("main")] == ["on main", "first"]
