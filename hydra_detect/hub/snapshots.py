"""One commit of a repository, read as far as it is asked for: each listing and text once, and proven by its listing."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hydra_detect.codec import Record
from hydra_detect.errors import CorruptError, NotFoundError
from hydra_detect.hub import documents, layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hydra_detect.hub.client import Hub, Listed

R = TypeVar("R", bound=Record)


class Snapshot:
    """A commit of a repository; what it says never changes.

    Args:
        hub: Where it lies.
        repo: The repository.
        commit: The commit.

    """

    def __init__(self, hub: Hub, repo: str, commit: str) -> None:
        self.hub, self.repo, self.commit = hub, repo, commit
        self._listings: dict[str, Mapping[str, Listed]] = {}
        self._texts: dict[str, bytes] = {}

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit[:12]}"

    def listing(self, folder: str = "") -> Mapping[str, Listed]:
        """Return the files of a folder by path, without those below it; none where there is no such folder."""
        if folder not in self._listings:
            try:
                self._listings[folder] = self.hub.listing(self.repo, self.commit, folder)
            except NotFoundError:
                if not folder:
                    raise
                self._listings[folder] = {}
        return self._listings[folder]

    def listed(self, path: str) -> Listed | None:
        """Return one file in the listing; None if there is none."""
        return self.listing(path.rpartition("/")[0]).get(path)

    def read(self, path: str) -> bytes:
        """Return a file, proven by the listing.

        Raises:
            CorruptError: If there is none, it is too large, or other bytes came twice.
            HubError: If access was refused, or there was no answer.

        """
        there = self.listed(path)
        if there is None:
            raise CorruptError(f"read {path} of {self}", "there is no such file", "Ask whoever published it.")
        limit = layout.LIMITS[path.rpartition("/")[2]]
        if path.endswith(layout.TENSORS):  # asked for once, and too large to keep
            return self.hub.read(self.repo, self.commit, path, there, limit=limit)
        if path not in self._texts:
            self._texts[path] = self.hub.read(self.repo, self.commit, path, there, limit=limit)
        return self._texts[path]

    def document(self, kind: type[R], path: str) -> R | None:
        """Return a document, if it is there.

        Raises:
            CorruptError: If it is damaged, or too large.
            RecordError: If a key is unknown, missing or of the wrong kind, or its schema is newer.

        """
        if self.listed(path) is None:
            return None
        limit = layout.LIMITS[path.rpartition("/")[2]]
        return documents.read(kind, self.read(path), f"{path} of {self}", limit=limit)
