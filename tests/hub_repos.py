"""Repositories of the test Hub: files, commits, branches and tags, addressed by content as git does it.

Knows no HTTP beyond the refusals. Whoever calls holds the server's lock.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hub_http import Refusal, missing

MAIN = "main"
START = datetime(2026, 1, 1, tzinfo=UTC)
FULL = re.compile(r"[0-9a-f]{40}")
SHORT = re.compile(r"[0-9a-f]{7,40}")
REF = re.compile(r"(?!.*(\.\.|//|@\{|/\.|\.lock$|\.$|/$))[^\x00-\x20\x7f~^:?*\[\\/.][^\x00-\x20\x7f~^:?*\[\\]{0,200}")
LFS_SUFFIXES = ("safetensors", "bin", "pt", "pth", "onnx", "pkl", "npz", "zip", "tar", "msgpack", "h5")
ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()


def git_id(kind, content):
    """Return the name that git gives to an object."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content, usedforsecurity=False).hexdigest()


def pointer(sha256, size):
    """Return the text that stands in git for a file of LFS."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True)
class Entry:
    """A file of a commit: where its bytes are, and how large they are."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def key(self):
        """The name under which the bytes are stored."""
        return self.sha256 or self.oid

    def facts(self):
        """Return what the Hub says of a file of LFS, or nothing for another."""
        if self.sha256 is None:
            return {}
        size = len(pointer(self.sha256, self.size))
        return {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": size}}


@dataclass(frozen=True)
class Commit:
    """A state of all files, and what led there."""

    id: str
    parents: tuple[str, ...]
    files: Mapping[str, Entry]
    trees: Mapping[str, str]
    title: str
    description: str
    author: str
    at: datetime


@dataclass(frozen=True)
class Change:
    """What a commit does: files that it writes, paths that it deletes, folders that it deletes."""

    write: Mapping[str, Entry] = field(default_factory=dict)
    delete: tuple[str, ...] = ()
    delete_folders: tuple[str, ...] = ()

    def apply(self, files):
        """Return the files after it."""
        files = dict(files)
        for path in self.delete:
            if files.pop(path, None) is None:
                raise missing("EntryNotFound", f"A file with this name doesn't exist: {path}")
        for folder in self.delete_folders:
            within = [path for path in files if path.startswith(folder.rstrip("/") + "/")]
            if not within:
                raise missing("EntryNotFound", f"A folder with this name doesn't exist: {folder}")
            for path in within:
                del files[path]
        files.update(self.write)
        for path in self.write:
            check_path(path, files)
        return files


def check_path(path, files=()):
    """Refuse a path that does not belong in a repository, or that is a file and a folder at once."""
    parts = path.split("/")
    control = any(ord(character) < ord(" ") for character in path)
    if control or "\\" in path or any(part.lower() in {"", ".", "..", ".git"} for part in parts):
        raise Refusal(400, f"Invalid path in repository: {path!r}")
    above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    if above.intersection(files):
        raise Refusal(400, f"A file is in the way of the folder of {path!r}")
    if any(other.startswith(path + "/") for other in files):
        raise Refusal(400, f"A folder is in the way of {path!r}")


def tree_ids(files):
    """Return the git names of all folders of the files, of the root under the empty name."""
    folders = {"": {}}
    for path, entry in files.items():
        *above, name = path.split("/")
        for depth in range(len(above)):
            folders.setdefault("/".join(above[: depth + 1]), {})
            folders["/".join(above[:depth])][above[depth]] = None
        folders["/".join(above)][name] = entry.oid
    ids = {}
    for folder in sorted(folders, key=lambda name: -len(name.split("/")) if name else 1):
        rows = []
        for name, oid in folders[folder].items():
            inner = f"{folder}/{name}" if folder else name
            sort_as, mode = (name, b"100644") if oid else (name + "/", b"40000")
            rows.append((sort_as.encode(), mode + b" " + name.encode() + b"\0" + bytes.fromhex(oid or ids[inner])))
        ids[folder] = git_id("tree", b"".join(row for _key, row in sorted(rows)))
    return ids


@dataclass
class Repo:
    """A model repository with its history."""

    name: str
    blobs: dict
    private: bool = False
    gated: object = False
    readers: set = field(default_factory=set)
    downloads: int = 0
    created: datetime = START
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    objects: set = field(default_factory=set)
    ticks: int = 0

    @property
    def namespace(self):
        """The user or organisation that it belongs to."""
        return self.name.partition("/")[0]

    @property
    def head(self):
        """The last commit of the main branch."""
        return self.commits[self.branches[MAIN]]

    def store(self, content, *, lfs=None, path=""):
        """Keep bytes, and return the entry for them; by suffix in LFS, unless the caller says."""
        if lfs if lfs is not None else path.endswith(tuple(f".{suffix}" for suffix in LFS_SUFFIXES)):
            sha256 = hashlib.sha256(content).hexdigest()
            self.blobs[sha256] = content
            self.objects.add(sha256)
            return self.pointed(sha256, len(content))
        oid = git_id("blob", content)
        self.blobs[oid] = content
        return Entry(oid, len(content))

    def pointed(self, sha256, size):
        """Return the entry for an object of LFS."""
        return Entry(git_id("blob", pointer(sha256, size)), size, sha256)

    def content(self, path, revision=MAIN):
        """Return the bytes of a file."""
        return self.blobs[self.resolve(revision).files[path].key]

    def resolve(self, revision):
        """Return the commit that a full id, a branch, a tag or a full reference names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if FULL.fullmatch(revision) and revision in self.commits:
            return self.commits[revision]
        if name in self.branches and not revision.startswith("refs/tags/"):
            return self.commits[self.branches[name]]
        if name in self.tags and not revision.startswith("refs/heads/"):
            return self.commits[self.tags[name]]
        raise missing("RevisionNotFound", f"Invalid rev id: {revision}")

    def history(self, revision):
        """Return the commits that lead to one, the last first."""
        commits = [self.resolve(revision)]
        while commits[-1].parents:
            commits.append(self.commits[commits[-1].parents[0]])
        return commits

    def commit(self, change, title, *, branch=MAIN, parent=None, description="", author="somebody"):
        """Add a commit to a branch: refused as stale unless the parent, if given, is its head."""
        if branch not in self.branches and self.branches:
            raise missing("RevisionNotFound", f"Invalid rev id: {branch}")
        head = self.commits[self.branches[branch]] if self.branches else None
        if parent is not None and not (head and SHORT.fullmatch(parent) and head.id.startswith(parent)):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        made = self.sealed(change.apply(head.files if head else {}), head, (title, description, author))
        self.branches[branch] = made.id
        return made

    def plant(self, files, title="planted"):
        """Add a commit that no rule is applied to: for trees that are hostile."""
        entries = {path: self.store(content, path=path) for path, content in files.items()}
        names = {"": git_id("tree", repr(sorted(files)).encode())}
        made = self.sealed({**self.head.files, **entries}, self.head, (title, "", "mallory"), names)
        self.branches[MAIN] = made.id
        return made

    def sealed(self, files, head, words, trees=None):
        """Return the commit of these files, which is kept."""
        title, description, author = words
        self.ticks += 1
        at, trees = self.created + timedelta(seconds=self.ticks), trees or tree_ids(files)
        by = f"{author} <{author}@example.org> {int(at.timestamp())} +0000"
        lines = [f"tree {trees['']}", *([f"parent {head.id}"] if head else []), f"author {by}", f"committer {by}"]
        text = "\n".join([*lines, "", title, *(["", description] if description else []), ""])
        parents = (head.id,) if head else ()
        made = Commit(git_id("commit", text.encode()), parents, files, trees, title, description, author, at)
        self.commits[made.id] = made
        return made

    def add_ref(self, kind, name, revision):
        """Point a new branch or tag at a commit; one that exists is a conflict."""
        if not REF.fullmatch(name):
            raise Refusal(400, f"Invalid reference name: {name!r}")
        refs = {"branch": self.branches, "tag": self.tags}[kind]
        commit = self.resolve(revision)
        if name in refs:
            raise Refusal(409, f"Reference already exists: the {kind} {name}")
        refs[name] = commit.id

    def drop_ref(self, kind, name):
        """Delete a branch or tag."""
        refs = {"branch": self.branches, "tag": self.tags}[kind]
        if (kind, name) == ("branch", MAIN):
            raise Refusal(403, "The main branch cannot be deleted")
        if name not in refs:
            raise missing("RevisionNotFound", f"Invalid rev id: {name}")
        del refs[name]
