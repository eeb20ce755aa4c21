"""The store: immutable versions published by one rename, and a pointer changed by compare-and-swap.

Two commit points carry everything. A version exists from the rename of its finished folder on; a pointer moves with
the creation of the next generation's file, which only one writer can create. Neither needs a lock to be safe; the
lock only orders writers. Opening and reading never write.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import filelock

from hydra_detect import codec
from hydra_detect.errors import (
    ConflictError,
    CorruptError,
    HydraDetectError,
    NameInvalidError,
    NotFoundError,
    RecordError,
    StoreError,
    near_matches,
)
from hydra_detect.names import Digest, check_file_name
from hydra_detect.storage import artifacts, files, layout, sealed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from hydra_detect.storage.artifacts import Manifest

FORMAT = 1
_MAX_SMALL_FILE = codec.MAX_JSON_BYTES
_LOCK_SECONDS = 60.0
_LIMITS = ("min_reader", "min_writer")
_UNFINISHED = ".STORE-"


@attrs.frozen(kw_only=True)
class Pointer(codec.Record):
    """One generation of the record that says which version is active.

    `previous` is the version active before; `manifest` is the SHA-256 of the active version's manifest.
    """

    generation: int
    active: int
    previous: int | None
    manifest: Digest
    at: str
    reason: str


class Store:
    """A folder of backbones and heads.

    `Store.open` opens one that exists, `Store.create` makes or opens one.
    """

    def __init__(self, root: Path, *, min_writer: int = FORMAT) -> None:
        self.root = root
        self.layout = layout.StoreLayout(root)
        self._min_writer = min_writer

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    @classmethod
    def open(cls, root: str | os.PathLike[str] | Store) -> Store:
        """Open a store without writing anything.

        Raises:
            StoreError: If there is none, or it was made by a newer version.

        """
        if isinstance(root, Store):
            return root
        path = Path(root).absolute()
        store = cls(path)
        asked = f"open the store {path}"
        try:
            identity = codec.loads(
                files.read_whole(store.layout.identity, limit=_MAX_SMALL_FILE, asked=asked), str(store.layout.identity)
            )
        except NotFoundError:
            found = "the folder holds no STORE.json" if store.root.is_dir() else "there is no such folder"
            raise StoreError(asked, found, "Check the path; 'hydra-detect split' makes a new store.") from None
        reader, writer = (identity.get(key) if isinstance(identity, dict) else None for key in _LIMITS)
        if type(reader) is not int or type(writer) is not int:
            raise CorruptError(asked, "STORE.json is not one of ours", "Restore it from a copy.")
        if reader > FORMAT:
            raise StoreError(
                asked,
                f"it needs a reader of format {reader} and this version of hydra-detect reads {FORMAT}",
                "Upgrade hydra-detect; nothing was changed.",
                format=reader,
            )
        return cls(path, min_writer=writer)

    @classmethod
    def create(cls, root: str | os.PathLike[str] | Store) -> Store:
        """Open a store, making it first if the folder is missing or empty.

        Raises:
            StoreError: If the folder holds other things, or cannot be written.

        """
        if isinstance(root, Store):
            return root
        present = cls.find(root)
        if present:
            return present
        store = cls(Path(root).absolute())
        with files.explained(f"make a store at {store.root}"):
            files.make_folder(store.root)
            identity = {"format": FORMAT, "min_reader": 1, "min_writer": 1, "store_id": str(uuid.uuid4())}
            temporary = store.root / f"{_UNFINISHED}{uuid.uuid4()}"
            try:
                files.write_new(temporary, codec.dumps(identity))
                files.put_if_absent(temporary, store.layout.identity)
            except FileExistsError:
                pass  # another process was first, with an equal right
            finally:
                temporary.unlink(missing_ok=True)
        return cls.open(root)

    @classmethod
    def find(cls, root: str | os.PathLike[str] | Store) -> Store | None:
        """Open a store if there is one; None for a missing or empty folder, which could become one.

        Raises:
            StoreError: If the folder holds other things, is no folder, or a store made by a newer version.

        """
        if isinstance(root, Store):
            return root
        store = cls(Path(root).absolute())
        asked = f"make a store at {store.root}"
        with files.explained(asked):
            if store.layout.identity.exists():
                return cls.open(root)
            if not store.root.exists():
                return None
            # What another process that makes this store has written so far is no reason to refuse.
            foreign = [entry for entry in store.root.iterdir() if not entry.name.startswith(_UNFINISHED)]
            if foreign and not store.layout.identity.exists():
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
        for entry in folder.iterdir():
            with contextlib.suppress(HydraDetectError):  # a folder of another name is not ours
                if self.layout.item(kind, entry.name).version_numbers():
                    found.append(entry.name)
        return sorted(found)

    def numbers(self, kind: str, name: str) -> list[int]:
        """Numbers of the published versions, ascending."""
        return self.layout.item(kind, name).version_numbers()

    def manifest(self, kind: str, name: str, number: int) -> Manifest:
        """Read and check the manifest of a version.

        Raises:
            NotFoundError: If there is no such version; the message says which there are.
            CorruptError: If the manifest is damaged.

        """
        item = self.layout.item(kind, name)
        asked = f"read {name}@{number}"
        numbers = item.version_numbers()
        if number not in numbers:
            if not numbers:
                raise NotFoundError(asked, f"{self!r} has no {name!r}", near_matches(name, self.names(kind)))
            remedy = f"There are versions {', '.join(map(str, numbers))}."
            raise NotFoundError(asked, f"{name!r} has no version {number}", remedy)
        data = files.read_whole(item.version(number) / layout.MANIFEST, limit=_MAX_SMALL_FILE, asked=asked)
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

    def pointer(self, kind: str, name: str) -> Pointer | None:
        """Return the newest generation of the pointer, or None if nothing was ever made active.

        Raises:
            CorruptError: If the newest generation is damaged.

        """
        item = self.layout.item(kind, name)
        generations = item.pointer_generations()
        if not generations:
            return None
        what = f"the pointer of {name!r}"
        path = item.pointer(generations[-1])
        data = files.read_whole(path, limit=_MAX_SMALL_FILE, asked=f"read {what}")
        return _pointer_of(sealed.unseal(data, what), generations[-1], what)

    # Writing

    def publish(self, kind: str, name: str, contents: Mapping[str, bytes], *, created_at: str) -> Manifest:
        """Write a new version: whole, or not at all.

        Raises:
            NameInvalidError: If a file of `contents` has a name that could leave its folder.
            StoreError: If the disk is full or the system refuses; nothing is left behind.

        """
        item = self.layout.item(kind, name)
        asked = f"publish a version of {name!r}"
        self.check_writable(asked)
        for path in contents:
            if check_file_name(path) == layout.MANIFEST:
                raise NameInvalidError(asked, f"{path} is the store's own file", "Name it otherwise.", name=path)
        with files.explained(asked):
            for folder in (item.claims, item.versions, item.staging):
                files.make_folder(folder)
            stage = item.staging / str(uuid.uuid4())
            try:
                return self._publish(kind, name, contents, created_at, stage)
            finally:
                shutil.rmtree(stage, ignore_errors=True)  # gone already after a success

    def _publish(self, kind: str, name: str, contents: Mapping[str, bytes], created_at: str, stage: Path) -> Manifest:
        item = self.layout.item(kind, name)
        stage.mkdir()
        for path, data in contents.items():
            files.write_new(stage / path, data, mode=0o444)
        while True:
            number = self._claim(item)
            text = artifacts.make_manifest(kind, name, number, created_at=created_at, contents=contents)
            (stage / layout.MANIFEST).unlink(missing_ok=True)
            files.write_new(stage / layout.MANIFEST, text, mode=0o444)
            files.sync_folder(stage)
            try:
                stage.rename(item.version(number))
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    continue
                raise
            files.sync_folder(item.versions)
            return artifacts.read_manifest(text, kind, name, number)

    @staticmethod
    def _claim(item: layout.ItemLayout) -> int:
        number = max([0, *item.claimed_numbers(), *item.version_numbers()]) + 1
        while True:
            try:
                files.write_new(item.claim(number), b"")
            except FileExistsError:
                number += 1
            else:
                files.sync_folder(item.claims)
                return number

    def point(self, kind: str, name: str, number: int, *, expected: int, at: str, reason: str) -> Pointer:
        """Make a version active, if the pointer still has generation `expected` (0: none yet).

        Raises:
            ConflictError: If another writer moved the pointer first.
            NotFoundError: If there is no such version.
            CorruptError: If the version or the pointer is damaged.

        """
        item = self.layout.item(kind, name)
        asked = f"make {name}@{number} active"
        self.check_writable(asked)
        target = self.manifest(kind, name, number)
        before = self.pointer(kind, name)
        if (before.generation if before else 0) != expected:
            raise ConflictError(asked, "another process changed the active version", "Look again, then repeat it.")
        document = {
            "format": FORMAT,
            "generation": expected + 1,
            "active": number,
            "previous": before.active if before else None,
            "manifest": str(target.digest),
            "at": at,
            "reason": reason,
        }
        with files.explained(asked):
            for folder in (item.pointers, item.staging):
                files.make_folder(folder)
            temporary = item.staging / f"{uuid.uuid4()}.json"
            try:
                files.write_new(temporary, sealed.seal(document), mode=0o444)
                files.put_if_absent(temporary, item.pointer(expected + 1))
            except FileExistsError:
                raise ConflictError(
                    asked, "another process changed the active version", "Look again, then repeat it."
                ) from None
            finally:
                temporary.unlink(missing_ok=True)
        return _pointer_of(document, expected + 1, asked)

    @contextlib.contextmanager
    def lock(self, kind: str, name: str) -> Iterator[None]:
        """Hold the lock of one backbone or head: for order among writers, not for safety.

        Raises:
            ConflictError: If another process holds it for a minute.

        """
        path = self.layout.lock(kind, name)
        asked = f"lock {name!r}"
        lock = filelock.FileLock(path)
        with files.explained(asked):
            files.make_folder(path.parent)
            try:
                lock.acquire(timeout=_LOCK_SECONDS)
            except filelock.Timeout:
                raise ConflictError(
                    asked, f"another process has held {path} for {_LOCK_SECONDS:.0f} s", "Try again later."
                ) from None
        try:
            yield  # outside `explained`: an error of the work under the lock is no error of the lock
        finally:
            lock.release()


def _pointer_of(document: Mapping[str, Any], generation: int, what: str) -> Pointer:
    facts = {key: value for key, value in document.items() if key != "format"}
    try:
        pointer = codec.from_dict(Pointer, facts, what)
    except RecordError as error:
        raise CorruptError(error.asked, error.found, "Restore it from a copy.") from None
    if document.get("format") != FORMAT or pointer.generation != generation:
        raise CorruptError(f"read {what}", "it has another format or generation", "Restore it from a copy.")
    return pointer
