"""The store: immutable versions published by one rename, and a pointer changed by compare-and-swap.

Two commit points carry everything. A version exists from the rename of its finished folder on; a pointer moves with
the creation of the next generation's file, which only one writer can create. Neither needs a lock to be safe; the
lock only orders writers. Opening and reading never write; only the derived index is refreshed by who may write.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

import attrs
import filelock

from hydra_detect import codec
from hydra_detect.errors import (
    ConflictError,
    HydraDetectError,
    NameInvalidError,
    NotFoundError,
    StaleError,
    StoreError,
    near_matches,
)
from hydra_detect.names import check_file_name
from hydra_detect.storage import artifacts, files, identity, layout, owners, pointers, recovery
from hydra_detect.storage.disk import FULL, Disk
from hydra_detect.storage.identity import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from hydra_detect.storage.artifacts import Manifest
    from hydra_detect.storage.pointers import Pointer

_LOCK_SECONDS = 60.0
_LOCK_POLL_SECONDS = 0.005
_HELD = "Look whether what you asked for was done; others wait until this process ends."


class Store:
    """A folder of backbones and heads.

    `Store.open` opens one that exists, `Store.create` makes or opens one.
    """

    def __init__(self, root: Path, *, disk: Disk | None = None, min_writer: int = FORMAT) -> None:
        self.root = root
        self.layout = layout.StoreLayout(root)
        self.disk = disk or Disk()
        self._min_writer = min_writer

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    @classmethod
    def open(cls, root: str | os.PathLike[str] | Store, *, durability: str = FULL) -> Store:
        """Open a store without writing anything.

        Args:
            root: Its folder.
            durability: "full": what was acknowledged survives a power loss. "fast": it survives the end of any
                process, and a power loss may take the last seconds; for tests and scratch stores.

        Raises:
            StoreError: If there is none, or it was made by a newer version.

        """
        if isinstance(root, Store):
            return root
        path = identity.absolute(root)
        return cls(path, disk=Disk(durability), min_writer=identity.min_writer(layout.StoreLayout(path)))

    @classmethod
    def create(cls, root: str | os.PathLike[str] | Store, *, durability: str = FULL) -> Store:
        """Open a store, making it first if the folder is missing or empty.

        Raises:
            StoreError: If the folder holds other things, or cannot be written.

        """
        if isinstance(root, Store):
            return root
        present = cls.find(root, durability=durability)
        if present:
            return present
        store = cls(identity.absolute(root), disk=Disk(durability))
        store._establish()
        return cls.open(root, durability=durability)

    def _establish(self) -> None:
        """Make the folder a store, unless another process was first.

        Raises:
            StoreError: If it cannot be written.

        """
        with files.explained(f"make a store at {self.root}"):
            files.make_folder(self.disk, self.root)
            self._put(self.layout.staging, identity.new(), self.layout.identity)
            self.disk.sync_folder(self.root)

    def _put(self, staging: Path, data: bytes, target: Path, *, mode: int = 0o666) -> bool:
        """Write a file aside and give it its name; False if another writer was first."""
        files.make_branch(self.disk, self.root, staging)
        temporary = staging / owners.staging_name()
        try:
            files.write_new(self.disk, temporary, data, mode=mode)
            files.put_if_absent(self.disk, temporary, target)
        except FileExistsError:
            return False
        finally:
            files.discard(self.disk, temporary)
        return True

    @classmethod
    def find(cls, root: str | os.PathLike[str] | Store, *, durability: str = FULL) -> Store | None:
        """Open a store if there is one; None for a missing or empty folder, which could become one.

        Raises:
            StoreError: If the folder holds other things, is no folder, or a store made by a newer version.

        """
        if isinstance(root, Store):
            return root
        where = layout.StoreLayout(identity.absolute(root))
        asked = f"make a store at {where.root}"
        with files.explained(asked):
            if where.identity.exists():
                return cls.open(root, durability=durability)
            if not where.root.exists():
                return None
            # What another process that makes this store has written so far is no reason to refuse.
            foreign = [entry for entry in where.root.iterdir() if entry != where.staging]
            if foreign and not where.identity.exists():
                raise StoreError(
                    asked, "the folder holds other files and no STORE.json", "Name a new or an empty folder."
                )
        return None

    def check_writable(self, asked: str) -> None:
        """See that this version of the library may write here.

        Raises:
            StoreError: If the store was made by a newer version that forbids it.

        """
        if self._min_writer > FORMAT:
            raise StoreError(
                asked,
                f"it needs a writer of format {self._min_writer} and this version of hydra-detect writes {FORMAT}",
                "Upgrade hydra-detect; nothing was changed.",
                format=self._min_writer,
            )

    # Reading

    def names(self, kind: str) -> list[str]:
        """Names with at least one published version, sorted."""
        folder = self.layout.kind(kind)
        if not folder.is_dir():
            return []
        found = []
        with files.explained(f"list the {kind} of {self!r}"):
            entries = list(folder.iterdir())
        for entry in entries:
            with contextlib.suppress(NameInvalidError):  # a folder of another name is not ours
                if self.numbers(kind, entry.name):
                    found.append(entry.name)
        return sorted(found)

    def numbers(self, kind: str, name: str) -> list[int]:
        """Numbers of the published versions that were not taken away, ascending."""
        item = self.layout.item(kind, name)
        numbers = item.version_numbers()
        try:
            gone = self.pointer(kind, name).gone if numbers else ()
        except HydraDetectError:  # whoever needs the pointer will hear of it; the versions are there
            gone = ()
        return [number for number in numbers if number not in gone]

    def _is_version(self, kind: str, name: str, number: int) -> bool:
        """Whether there is such a version, as `numbers` would say; without listing thousands of them."""
        item = self.layout.item(kind, name)
        if type(number) is not int or number < 1 or not os.path.lexists(item.version(number)):
            return False
        try:
            return number not in self.pointer(kind, name).gone
        except HydraDetectError:  # as in `numbers`
            return True

    def manifest(self, kind: str, name: str, number: int) -> Manifest:
        """Read and check the manifest of a version.

        Raises:
            NotFoundError: If there is no such version; the message says which there are.
            CorruptError: If the manifest is damaged.

        """
        item = self.layout.item(kind, name)
        asked = f"read {name}@{number}"
        if not self._is_version(kind, name, number):
            numbers = self.numbers(kind, name)
            if not numbers:
                raise NotFoundError(asked, f"{self!r} has no {name!r}", near_matches(name, self.names(kind)))
            remedy = f"There are versions {', '.join(map(str, numbers))}."
            raise NotFoundError(asked, f"{name!r} has no version {number}", remedy)
        for folder in (item.root, item.versions, item.version(number)):
            files.check_folder(folder, asked)
        data = files.read_whole(item.version(number) / layout.MANIFEST, limit=codec.MAX_JSON_BYTES, asked=asked)
        return artifacts.read_manifest(data, kind, name, number)

    def read(self, manifest: Manifest, path: str) -> bytes:
        """Read one file of a version into memory and check it there; parse what is returned, not the file again.

        Raises:
            NotFoundError: If the file is missing.
            CorruptError: If it is not, byte for byte, what the manifest lists.

        """
        folder = self.layout.item(manifest.kind, manifest.name).version(manifest.version)
        asked = f"read {path} of {manifest.name}@{manifest.version}"
        data = files.read_whole(folder / path, limit=artifacts.MAX_TENSORS_BYTES, asked=asked)
        artifacts.check_content(manifest, path, data)
        return data

    def pointer(self, kind: str, name: str) -> Pointer:
        """Return the state of a head or backbone; generation 0 if nothing ever happened to it.

        Raises:
            CorruptError: If the newest generation is damaged.

        """
        return pointers.newest(self.layout.item(kind, name), name)

    # Writing

    @contextlib.contextmanager
    def changing(self, kind: str, name: str) -> Iterator[None]:
        """Hold the lock of one backbone or head, after clearing away what dead processes left there.

        The lock orders writers; it is not what makes them safe. The same thread may hold it more than once.

        Raises:
            ConflictError: If another process holds it for a minute.
            StoreError: If this version may not write here.

        """
        path = self.layout.lock(kind, name)
        asked = f"lock {name!r}"
        self.check_writable(asked)
        lock = filelock.FileLock(path, is_singleton=True, poll_interval=_LOCK_POLL_SECONDS)
        with files.explained(asked):
            files.make_branch(self.disk, self.root, path.parent)
            try:
                lock.acquire(timeout=_LOCK_SECONDS)
            except filelock.Timeout:
                raise ConflictError(
                    asked, f"another process has held {path} for {_LOCK_SECONDS:.0f} s", "Try again later."
                ) from None
        try:
            recovery.recover(self.disk, self.layout, self.layout.item(kind, name))
            yield  # outside `explained`: an error of the work under the lock is no error of the lock
        finally:
            with files.explained(f"unlock {name!r}", _HELD):
                lock.release()

    def publish(
        self, kind: str, name: str, contents: Mapping[str, bytes], *, created_at: str, actor: str = ""
    ) -> Manifest:
        """Write a new version: whole, or not at all.

        Raises:
            NameInvalidError: If a file of `contents` has a name that could leave its folder.
            StoreError: If the disk is full or the system refuses; nothing is left behind.

        """
        item = self.layout.item(kind, name)
        asked = f"publish a version of {name!r}"
        self.check_writable(asked)
        taken = {layout.MANIFEST.casefold(): "the store's own file"}
        for path in contents:  # on some systems names that differ in case alone are one
            if check_file_name(path).casefold() in taken:
                found = f"{path} is {taken[path.casefold()]}"
                raise NameInvalidError(asked, found, "Name it otherwise.", name=path)
            taken[path.casefold()] = f"{path} in other letters"
        facts = {"listing": artifacts.listing_of(contents), "created_at": created_at, "actor": actor}
        with self.changing(kind, name), files.explained(asked):
            for folder in (item.claims, item.versions, item.staging):
                files.make_branch(self.disk, self.root, folder)
            stage = item.staging / owners.staging_name()
            try:
                self.disk.make_folder(stage)
                for path, data in contents.items():
                    files.write_new(self.disk, stage / path, data, mode=0o444)
                return self._commit(kind, name, stage, facts)
            finally:
                files.discard(self.disk, stage)  # gone already after a success

    def _commit(self, kind: str, name: str, stage: Path, facts: Mapping[str, Any]) -> Manifest:
        """Give a staged version its number, its manifest and its place."""
        item = self.layout.item(kind, name)
        while True:
            number = self._claim(kind, name)
            text = artifacts.make_manifest(kind, name, number, **facts)
            files.discard(self.disk, stage / layout.MANIFEST)
            files.write_new(self.disk, stage / layout.MANIFEST, text, mode=0o444)
            self.disk.sync_folder(stage)
            try:
                self.disk.rename(stage, item.version(number))
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    continue
                raise
            with files.explained(f"publish {name}@{number}", files.UNCERTAIN):
                self.disk.sync_folder(item.versions)
            return artifacts.read_manifest(text, kind, name, number)

    def _claim(self, kind: str, name: str) -> int:
        """Take the next number for ever.

        The claim itself is not synced: a number that a power loss gives back was never a version's, since a version's
        folder holds its number, and once that is taken away the pointer does.
        """
        item = self.layout.item(kind, name)
        number = self._high(kind, name) + 1
        while True:
            _check_number(number, item.claims)
            try:
                files.claim(self.disk, item.claim(number))
            except FileExistsError:
                number += 1
            else:
                return number

    def _high(self, kind: str, name: str) -> int:
        item = self.layout.item(kind, name)
        known = [0, *item.claimed_numbers(), *item.version_numbers()]
        try:
            known.append(self.pointer(kind, name).high)
        except HydraDetectError:  # a damaged pointer forbids no new version; the generations before it know too
            with contextlib.suppress(HydraDetectError):
                known += [pointer.high for pointer in pointers.intact(item, name)]
        return max(known)

    def swap(self, kind: str, name: str, before: Pointer, after: Mapping[str, Any]) -> Pointer:
        """Change the state of a head or backbone, if it is still `before`: the one compare-and-swap.

        Args:
            kind: Which kind.
            name: Its name.
            before: The state that was looked at.
            after: The fields that change; generation, high and what is gone are kept up here.

        Raises:
            StaleError: If another writer changed it first.
            StoreError: If the disk is full or not writable.

        """
        item = self.layout.item(kind, name)
        asked = f"change what is active in {name!r}"
        self.check_writable(asked)
        conflict = StaleError(asked, "another process changed it first", "Look again, then repeat it.")
        if max([0, *item.pointer_generations()]) != before.generation:
            raise conflict
        present = item.version_numbers()
        gone = {*before.gone, *after.get("gone", ())}
        kept_up = {
            "generation": before.generation + 1,
            "gone": tuple(number for number in present if number in gone),
            "high": self._high(kind, name),
        }
        _check_number(before.generation + 1, item.pointers)
        pointer = attrs.evolve(before, **{"version": None, "taken": (), "other": "", **after, **kept_up})
        text = pointers.text(pointer, of=pointers.owner_of(item))
        with files.explained(asked):
            files.make_branch(self.disk, self.root, item.pointers)
            # A version that another process published, and was killed before it could sync, must not be lost behind
            # a pointer to it; nor may one come back that the pointer no longer knows to be gone.
            if item.versions.is_dir():
                self.disk.sync_folder(item.versions)
            if not self._put(item.staging, text, item.pointer(pointer.generation), mode=0o444):
                raise conflict
            with files.explained(asked, files.UNCERTAIN):
                self.disk.sync_folder(item.pointers)
        return pointer


def _check_number(number: int, folder: Path) -> None:
    if number > layout.HIGHEST:
        found, remedy = f"the numbers in {folder} are used up", "Move away what has no business to be there."
        raise StoreError(f"give out number {number}", found, remedy)
