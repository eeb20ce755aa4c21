"""Every request to a Hub, and every error of its client in our words.

It, `downloads` and `failures` alone import huggingface_hub.

Reading is tried again where the answer was lost or put off. Writing is not: what became of a commit whose answer was
lost has to be looked up first, which is the matter of `push`. Each file is hashed against the listing of its commit.
"""

from __future__ import annotations

import hashlib
import io
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import attrs
from attrs import validators as check

from hydra_detect.errors import ConflictError, CorruptError, HubError, InputError
from hydra_detect.hub import downloads, layout
from hydra_detect.hub.failures import CONFLICT, OUTDATED, said, told
from hydra_detect.hub.refs import is_commit
from hydra_detect.names import one_line, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LIBRARY = "hydra-detect"

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the tries of a request that got no answer, or was put off."""

_LONGEST_AFTER_OTHERS = 0.2
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}

T = TypeVar("T")


def blob_of(data: bytes) -> str:
    """Return git's digest of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@attrs.frozen
class Listed:
    """A file in the listing of a commit: its size, the git digest of its blob, and of a large one its SHA-256."""

    size: int
    blob: str = attrs.field(validator=check.matches_re(r"[0-9a-f]{40}"))
    sha256: str | None = attrs.field(validator=check.optional(check.matches_re(r"[0-9a-f]{64}")))

    def is_of(self, data: bytes) -> bool:
        """Whether these are its bytes, by its strongest digest."""
        if len(data) != self.size:
            return False
        if self.sha256 is not None:
            return hashlib.sha256(data).hexdigest() == self.sha256
        return blob_of(data) == self.blob


@attrs.frozen(kw_only=True)
class FoundRepo:
    """A repository of heads, as a search shows it; all of it is what its owner says.

    Args:
        repo: "org/repo".
        tags: What it is tagged with: "hydra-head", "signal:owl".
        downloads: Of late, as the Hub counts them.
        likes: How many people like it.
        changed_at: When it was changed last, ISO 8601; "" if that is not told.

    """

    repo: str
    tags: tuple[str, ...]
    downloads: int
    likes: int
    changed_at: str

    @property
    def signals(self) -> tuple[str, ...]:
        """What its heads find."""
        return tuple(tag.removeprefix(layout.SIGNAL_TAG) for tag in self.tags if tag.startswith(layout.SIGNAL_TAG))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**attrs.asdict(self), "signals": list(self.signals)}


class Hub:
    """One Hub, asked as whoever is logged in there.

    Args:
        endpoint: Its address; None for the client's own ($HF_ENDPOINT, or the public Hub).

    Raises:
        InputError: If the address is neither https nor on this machine.

    """

    def __init__(self, endpoint: str | None = None) -> None:
        from huggingface_hub import HfApi

        import hydra_detect

        self._version = str(hydra_detect.__version__)
        self._api = HfApi(endpoint=endpoint, library_name=LIBRARY, library_version=self._version)
        self.endpoint = _checked(self._api.endpoint)

    def __repr__(self) -> str:
        return f"Hub({self.endpoint!r})"

    def commit_of(self, repo: str, revision: str = "") -> str:
        """Return the commit that a tag, branch or commit is just now; "" stands for the main branch.

        Raises:
            NotFoundError: If there is no such repository or revision, as far as this login can see.
            HubError: If access was refused, or there was no answer.

        """
        from huggingface_hub import constants

        where = f"{repo}@{revision}" if revision else repo
        asked = f"find {where} on {self.endpoint}"
        seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
        info = self._read(asked, lambda: self._api.repo_info(repo, revision=revision or None, timeout=seconds))
        commit = str(info.sha)
        if not is_commit(commit) or (is_commit(revision) and commit != revision):
            which = "another commit" if is_commit(commit) else "no commit"
            found = f"it answers with {shown(commit)}, which is {which}"
            raise HubError(asked, found, "See what answers at that address.")
        return commit

    def listing(self, repo: str, commit: str, folder: str = "") -> dict[str, Listed]:
        """Return the files of a commit by path: those of one folder, or those at the top; not what lies below.

        Raises:
            NotFoundError: If there is no such folder.
            HubError: If it has more entries than any of ours, access was refused, or there was no answer.

        """
        asked = f"list {repo}/{folder} at {commit[:12]}" if folder else f"list {repo} at {commit[:12]}"

        def entries() -> dict[str, Listed]:
            from huggingface_hub.hf_api import RepoFile

            found = {}
            tree = self._api.list_repo_tree(repo, folder or None, revision=commit)
            for count, entry in enumerate(tree, start=1):
                if count > layout.MOST_ENTRIES:
                    raise HubError(asked, f"it has more than {layout.MOST_ENTRIES} entries", "It is none of ours.")
                if isinstance(entry, RepoFile):
                    large = entry.lfs.sha256 if entry.lfs else None
                    found[str(entry.path)] = Listed(int(entry.size), str(entry.blob_id), large)
            return found

        return self._read(asked, entries)

    def read(self, repo: str, commit: str, path: str, listed: Listed, *, limit: int) -> bytes:
        """Return a file of a commit, proven to be the listed one; other bytes are asked for once more.

        Raises:
            CorruptError: If it is larger than such a file may be, or other bytes came twice.
            HubError: If access was refused, or there was no answer.

        """
        asked = f"read {path} of {repo}@{commit[:12]}"
        _check_size(listed.size, limit, asked)
        for _ in range(2):
            data = self._body(asked, repo, commit, path, most=listed.size)
            if listed.is_of(data):
                return data
        found = f"{len(data)} bytes came twice whose digest is not that of the commit's listing"
        raise CorruptError(asked, found, "Somebody between here and the Hub changes what it sends: see who.")

    def glance(self, repo: str, revision: str, path: str, *, limit: int) -> bytes:
        """Return a small file as it is at a revision just now, unproven: for people to choose by.

        Raises:
            NotFoundError: If there is no such repository, revision or file.
            CorruptError: If it is larger than the limit.
            HubError: If access was refused, or there was no answer.

        """
        asked = f"read {path} of {repo}"
        data = self._body(asked, repo, revision or "main", path, most=limit)
        _check_size(len(data), limit, asked)
        return data

    def _body(self, asked: str, repo: str, revision: str, path: str, *, most: int) -> bytes:
        """Return the body of a file, and no more than a little over so many bytes of it.

        Where connections break, it goes on from there, for as long as each time a little more of it came.
        """
        from huggingface_hub import hf_hub_url

        url, held, before = hf_hub_url(repo, path, revision=revision, endpoint=self.endpoint), io.BytesIO(), 0
        agent = {"library_name": LIBRARY, "library_version": self._version}
        while True:
            try:
                self._read(asked, lambda: downloads.receive(held, url, most=most, agent=agent))
            except HubError as error:
                if not error.facts.get("is_uncertain") or held.tell() <= before:
                    raise
                before = held.tell()
            else:
                return held.getvalue()

    def create(self, repo: str, *, private: bool) -> None:
        """Make a repository, unless it is there; a private one is looked at once more, for it may have been there.

        Raises:
            ConflictError: If it is to be private and is there already, for everybody to see.
            HubError: If this login may not, or there was no answer.

        """
        from huggingface_hub import constants

        asked, seconds = f"make {repo} on {self.endpoint}", constants.HF_HUB_DOWNLOAD_TIMEOUT
        self._read(asked, lambda: self._api.create_repo(repo, private=private, exist_ok=True))
        if private and not self._read(asked, lambda: self._api.repo_info(repo, timeout=seconds)).private:
            found = "it is there already, and everybody may see it; nothing was sent"
            remedy = "Make it private on its page, or publish elsewhere."
            raise ConflictError(f"publish in {repo} as private", found, remedy)

    def commit(self, repo: str, contents: Mapping[str, bytes], *, parent: str, title: str, text: str) -> str:
        """Write files as one commit on the main branch, which has to stand at `parent`; return it.

        Raises:
            InputError: If the Hub refuses the card.
            HubError: With `facts["status"]` 412 if the branch was elsewhere; if this login may not; and with
                `facts["is_uncertain"]` if there was no answer: the commit may be there all the same.

        """
        from huggingface_hub import CommitOperationAdd

        asked = f"commit to {repo} on {self.endpoint}"
        added = [CommitOperationAdd(path, data) for path, data in sorted(contents.items())]
        with told(asked):
            try:
                made = self._api.create_commit(
                    repo, added, commit_message=title, commit_description=text, parent_commit=parent
                )
            except ValueError as error:  # the card, which the Hub is asked to look at before anything is sent
                if "metadata" not in str(error):
                    raise
                found = f"the Hub refuses the card{said(str(error))}"
                raise InputError(asked, found, "See what the card is to say: licence, description.") from None
        return str(made.oid)

    def commits(self, repo: str) -> list[tuple[str, str]]:
        """Return the commits of the main branch, newest first, each with its title and text."""
        made = self._read(f"read the history of {repo}", lambda: self._api.list_repo_commits(repo))
        return [(str(one.commit_id), f"{one.title}\n{one.message}") for one in made]

    def tags(self, repo: str) -> dict[str, str]:
        """Return the commit of each tag."""
        refs = self._read(f"list the tags of {repo}", lambda: self._api.list_repo_refs(repo))
        return {str(tag.name): str(tag.target_commit) for tag in refs.tags}

    def tag(self, repo: str, name: str, commit: str) -> None:
        """Give a commit a tag, unless it has it.

        Raises:
            HubError: If another commit has it, this login may not, or there was no answer.

        """
        asked = f"tag {repo} with {name} on {self.endpoint}"
        try:
            self._read(asked, lambda: self._api.create_tag(repo, tag=name, revision=commit))
        except HubError as error:
            if error.facts.get("status") != CONFLICT:
                raise
            there = self.tags(repo).get(name)
            if there != commit:
                found = f"that tag stands at {str(there)[:12]}, not at {commit[:12]}"
                raise HubError(asked, found, "See who moved it; a release keeps its tag.", status=CONFLICT) from None

    def search(self, *tags: str, text: str = "", most: int) -> list[FoundRepo]:
        """Return the repositories that have all these tags, the most downloaded first."""

        def found() -> list[FoundRepo]:
            models = self._api.list_models(filter=list(tags), search=text or None, sort="downloads", limit=most)
            return [
                FoundRepo(
                    repo=one_line(str(model.id)),
                    tags=tuple(map(str, model.tags or ())),
                    downloads=int(model.downloads or 0),
                    likes=int(model.likes or 0),
                    changed_at=model.last_modified.isoformat() if model.last_modified else "",
                )
                for model in models
            ]

        return self._read(f"search {self.endpoint}", found)

    def _read(self, asked: str, call: Callable[[], T]) -> T:
        """Make a request that changes nothing when it is repeated, until there is an answer."""
        for pause in (*PAUSES, None):
            try:
                with told(asked):
                    return call()
            except HubError as error:
                if pause is None or not error.facts.get("is_uncertain"):
                    raise
            time.sleep(pause)
        raise AssertionError  # the last try returns or raises


def is_offline() -> bool:
    """Whether the client was told to ask nobody (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def pause_after(error: HubError, pauses: Iterator[float]) -> float:
    """Return how many seconds to wait before looking again where a branch stands, after a commit that failed.

    Args:
        error: What became of it: the branch had moved on, or nobody knows, or it was refused for good.
        pauses: Those of `PAUSES` that are left, for when nobody knows.

    Raises:
        HubError: The error itself, where no waiting helps.

    """
    if error.facts.get("status") in {CONFLICT, OUTDATED}:
        return random.uniform(0, _LONGEST_AFTER_OTHERS)  # noqa: S311  so that those who wait do not meet again
    pause = next(pauses, None) if error.facts.get("is_uncertain") else None
    if pause is None:
        raise error
    return pause


def _check_size(size: int, limit: int, asked: str) -> None:
    if size > limit:
        raise CorruptError(asked, f"it has {size} bytes, and such a file {limit} at most", "It is none of ours.")


def _checked(endpoint: str) -> str:
    """Return an address that a token may be sent to: encrypted, or on this machine."""
    parts = urlsplit(endpoint)
    is_here = parts.scheme == "http" and parts.hostname in _LOOPBACK
    is_plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if is_plain and (is_here or (parts.scheme == "https" and parts.hostname)):
        return endpoint.rstrip("/")
    if not is_plain:
        found = "its address has a user, a password, a query or a fragment, which would be written into files"
        raise InputError("ask a Hub", found, "Give the address alone; the token is that of the Hub's own login.")
    found = f"{shown(endpoint)} is neither https nor on this machine"
    raise InputError("ask a Hub", found, "Give its address as https://...")
