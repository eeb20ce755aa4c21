"""An original straight from a Hub: `hf://org/repo/model.safetensors@revision`.

Only safetensors: what a stranger pickled is not read, whatever it is called. What was downloaded once is kept by its
digest, below `cache_folder()`, and proven again each time.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hydra_detect.environment import cache_folder
from hydra_detect.errors import CheckpointError, NotFoundError
from hydra_detect.hub.client import Hub
from hydra_detect.hub.refs import HubRef
from hydra_detect.names import shown
from hydra_detect.storage import artifacts, files, owners
from hydra_detect.storage.disk import FAST, Disk

if TYPE_CHECKING:
    from hydra_detect.hub.client import Listed

SCHEME = "hf://"
_SUFFIX = ".safetensors"
_LEAST_PARTS = 3  # org, repo, file


def fetched(address: str, *, endpoint: str | None = None) -> tuple[Path, str]:
    """Download an original, and return where it lies and its address at the commit that the revision is just now.

    Raises:
        NameInvalidError: If repository or revision are no such names.
        CheckpointError: If it is no .safetensors file.
        NotFoundError: If there is no such repository, revision or file.
        CorruptError: If it is too large, or other bytes came twice.
        HubError: If access was refused, or there was no answer.
        StoreError: If it cannot be kept.

    """
    asked = f"read {shown(address)}"
    where, _at, revision = address.removeprefix(SCHEME).partition("@")
    parts = where.split("/")
    path = "/".join(parts[2:])
    if len(parts) < _LEAST_PARTS or PurePosixPath(path).suffix != _SUFFIX or ".." in parts or "" in parts:
        remedy = f"Write {SCHEME}ORG/REPO/FILE{_SUFFIX}@REVISION; a pickle from elsewhere is not read."
        raise CheckpointError(asked, f"it names no {_SUFFIX} file in a repository", remedy)
    ref, hub = HubRef("/".join(parts[:2]), revision=revision), Hub(endpoint)
    commit = hub.commit_of(ref.repo, ref.revision)
    there = hub.listing(ref.repo, commit, path.rpartition("/")[0]).get(path)
    if there is None:
        raise NotFoundError(asked, f"{ref.repo}@{commit[:12]} has no {path}", "See its page for what it has.")
    target = cache_folder() / "originals" / f"{there.sha256 or there.blob}{_SUFFIX}"
    if not _is_kept(target, there):
        _keep(target, hub.read(ref.repo, commit, path, there, limit=artifacts.MAX_TENSORS_BYTES), asked)
    return target, f"{SCHEME}{ref.repo}/{path}@{commit}"


def _is_kept(target: Path, there: Listed) -> bool:
    with files.unless_damaged():
        return there.is_of(files.read_whole(target, limit=artifacts.MAX_TENSORS_BYTES, asked=f"read {target}"))
    return False


def _keep(target: Path, data: bytes, asked: str) -> None:
    """Write a file in place of the one that is there: whole, or not at all."""
    disk, aside = Disk(FAST), target.with_name(owners.staging_name())
    with files.explained(asked):
        try:
            files.make_folder(disk, target.parent)
            files.write_new(disk, aside, data)
            disk.replace(aside, target)
        finally:
            files.discard(disk, aside)  # gone already after a success
