"""One backbone or head: its immutable versions, and its state, which changes by compare-and-swap.

Two commit points carry everything. A version exists from the rename of its finished folder on; the state changes with
the creation of the next generation's file, which only one writer can create. Neither needs a lock to be safe.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from hydra_detect import codec
from hydra_detect.errors import (
    NameInvalidError,
    NotFoundError,
    StaleError,
    StoreError,
    listed_numbers,
    near_matches,
)
from hydra_detect.names import check_file_name
from hydra_detect.storage import artifacts, files, layout, locks, manifests, owners, pointers, recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hydra_detect.storage.disk import Disk
    from hydra_detect.storage.manifests import Manifest, Published
    from hydra_detect.storage.pointers import Change, Pointer
    from hydra_detect.storage.store import Store

_MOST_TRIES = 100  # beyond this many lost races in a row something else is wrong

T = TypeVar("T")


@attrs.frozen
class Item:
    """One backbone or head of a store, whether there is such a one yet or not.

    Args:
        store: The store.
        kind: "backbones" or "heads".
        name: Its name.

    """

    store: Store
    kind: str
    name: str
    place: layout.ItemLayout = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        """Find its place, which refuses names that could leave the store."""
        object.__setattr__(self, "place", self.store.layout.item(self.kind, self.name))

    @property
    def disk(self) -> Disk:
        """What changes the disk."""
        return self.store.disk

    # Reading

    def pointer(self) -> Pointer:
        """Return its state; generation 0 if nothing ever happened to it.

        Raises:
            CorruptError: If the newest generation is damaged.
            RecordError: If a newer version wrote it.

        """
        return pointers.newest(self.place)

    def numbers(self) -> list[int]:
        """Return the numbers of the published versions that were not taken away, ascending."""
        numbers = self.place.version_numbers()
        gone = self._gone() if numbers else ()
        return [number for number in numbers if number not in gone]

    def _gone(self) -> tuple[int, ...]:
        with files.unless_damaged():
            return self.pointer().gone
        return ()  # whoever needs the pointer will hear of its damage; the versions are there

    def manifest(self, number: int) -> Manifest:
        """Read and check the manifest of a version.

        Raises:
            NotFoundError: If there is no such version; the message says which there are.
            CorruptError: If the manifest is damaged.
            StoreError: If the system refuses.

        """
        asked = f"read {self.name}@{number}"
        is_number = type(number) is int and number > 0
        if not is_number or not files.exists(self.place.version(number), asked) or number in self._gone():
            raise self._lacks(number, asked)
        for folder in (self.place.root, self.place.versions, self.place.version(number)):
            files.check_folder(folder, asked)
        path = self.place.version(number) / layout.MANIFEST
        data = files.read_whole(path, limit=codec.MAX_JSON_BYTES, asked=asked)
        return manifests.parse(data, self.kind, self.name, number)

    def _lacks(self, number: int, asked: str) -> NotFoundError:
        numbers = self.numbers()
        if not numbers:
            near = near_matches(self.name, self.store.names(self.kind))
            found = f"the store {self.store.root} has no such {self.kind.removesuffix('s')}"
            return NotFoundError(asked, found, near)
        there = "is version" if len(numbers) == 1 else "are versions"
        remedy = f"There {there} {listed_numbers(numbers)}."
        return NotFoundError(asked, f"{self.name!r} has no version {number}", remedy)

    def read(self, version: Published, path: str) -> bytes:
        """Read one file of a version into memory and check it there; parse what is returned, not the file again.

        Raises:
            NotFoundError: If the file is missing.
            CorruptError: If it is not, byte for byte, what the manifest lists.

        """
        asked = self._asked(version, path)
        data = files.read_whole(**self._listed(version, path, asked))
        manifests.check_listed(version, path, len(data), files.sha256(data), asked=asked)
        return data

    def check(self, version: Published, path: str) -> int:
        """See that one file of a version is, byte for byte, what the manifest lists; return its size.

        Raises:
            NotFoundError: If the file is missing.
            CorruptError: If it is another.

        """
        asked = self._asked(version, path)
        nbytes, digest = files.hash_whole(**self._listed(version, path, asked))
        manifests.check_listed(version, path, nbytes, digest, asked=asked)
        return nbytes

    def _asked(self, version: Published, path: str) -> str:
        return f"read {path} of {self.name}@{version.number}"

    def _listed(self, version: Published, path: str, asked: str) -> dict[str, Any]:
        size = manifests.listed_size(version, path, asked)
        place = self.place.version(version.number) / path
        return {"path": place, "limit": artifacts.MAX_TENSORS_BYTES, "asked": asked, "size": size}

    def steady(self, look: Callable[[Pointer], T]) -> T:
        """Look at the present state, again and again until no other process changed it meanwhile.

        That is right without a lock, too: `swap` refuses what was built on an old state, and a version that is not
        found counts as missing only if the state that was looked at is still the present one.

        Raises:
            StaleError: If others get in between a hundred times in a row.

        """
        for _ in range(_MOST_TRIES):
            before = self.pointer()
            try:
                return look(before)
            except StaleError:
                continue
            except NotFoundError:
                if self.pointer().generation == before.generation:
                    raise
        found = f"other processes changed it {_MOST_TRIES} times meanwhile"
        raise StaleError(f"look at {self.name!r}", found, "Try again later.")

    # Writing

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, after clearing away what dead processes left.

        The same thread may hold it more than once.

        Raises:
            ConflictError: If another process holds it for a minute.
            StoreError: If this version may not write here.

        """
        path, asked = self.store.layout.lock(self.kind, self.name), f"lock {self.name!r}"
        self.store.check_writable(asked)
        with files.explained(asked):
            files.ensure_folder(self.disk, path.parent, asked)  # not durable: a lock outlasts no power loss
        with locks.held(path, asked):
            recovery.recover(self)
            yield

    def settled(self, step: Callable[[Pointer], T]) -> T:
        """Under the lock, run a step on the present state until no other process gets in between."""
        with self.changing():
            return self.steady(step)

    def _prepare(self) -> None:
        """Make the folders that writing needs, and make durable what leads to them, whoever made it."""
        place = self.place
        files.make_branch(self.disk, self.store.root, place.claims, place.versions, place.pointers, place.staging)

    def confirm(self) -> None:
        """Make durable what can be seen: before it is said to be so, since who did it may have died before he could.

        Raises:
            StoreError: If the disk does not confirm it.

        """
        with files.explained(f"confirm the state of {self.name!r}"):
            self._prepare()
            self.disk.sync_folder(self.place.versions)
            self.disk.sync_folder(self.place.pointers)

    def publish(self, contents: Mapping[str, bytes], *, created_at: str, actor: str = "") -> Manifest:
        """Write a new version: whole, or not at all.

        Raises:
            NameInvalidError: If a file of `contents` has a name that could leave its folder.
            StoreError: If the disk is full or the system refuses; nothing is left behind.

        """
        asked = f"publish a version of {self.name!r}"
        self.store.check_writable(asked)
        check_file_names(contents, asked)
        facts = {"listing": manifests.listing_of(contents), "created_at": created_at, "actor": actor}
        stage = self.place.staging / owners.staging_name()
        with files.explained(asked):
            with self.changing():  # what the dead left is cleared away while there may still be room
                self._prepare()
            try:
                self.disk.make_folder(stage)
                for path, data in contents.items():
                    files.write_new(self.disk, stage / path, data, mode=0o444)
                with self.changing():
                    return self._commit(stage, facts)
            finally:
                files.discard(self.disk, stage)  # gone already after a success

    def _commit(self, stage: Path, facts: Mapping[str, Any]) -> Manifest:
        """Give a staged version its number, its manifest and its place."""
        while True:
            number = self._claim()
            parent = self._known().active
            if parent:  # whoever made it the active one may have been killed before he could make that last
                self.disk.sync_folder(self.place.pointers)
            text = manifests.text(self.kind, self.name, number, parent=parent, **facts)
            files.discard(self.disk, stage / layout.MANIFEST)
            files.write_new(self.disk, stage / layout.MANIFEST, text, mode=0o444)
            self.disk.sync_folder(stage)
            try:
                self.disk.rename(stage, self.place.version(number))
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    continue
                raise
            with files.explained(f"publish {self.name}@{number}", files.UNCERTAIN):
                self.disk.sync_folder(self.place.versions)
            return manifests.parse(text, self.kind, self.name, number)

    def _claim(self) -> int:
        """Take the next number for ever.

        The claim itself is not synced: a number that a power loss gives back was never a version's, since a version's
        folder holds its number, and once that is taken away the pointer does.
        """
        number = self._high(self._known()) + 1
        while True:
            _check_number(number, self.place.claims)
            try:
                files.claim(self.disk, self.place.claim(number))
            except FileExistsError:
                number += 1
            else:
                return number

    def _high(self, known: Pointer) -> int:
        return max([known.high, *self.place.claimed_numbers(), *self.place.version_numbers()])

    def _known(self) -> Pointer:
        """Return the state; of a damaged one, which forbids no new version, the newest that can be read."""
        with files.unless_damaged():
            return self.pointer()
        return [pointers.NOTHING, *pointers.intact(self.place)][-1]

    def swap(self, before: Pointer, after: Mapping[str, Any], change: Change, *, newest: int | None = None) -> Pointer:
        """Change the state, if it is still `before`: the one compare-and-swap.

        Args:
            before: The state that was looked at.
            after: The fields that change; `generation`, `high` and `gone` are kept up here, the last with what is
                given as gone by this change.
            change: What happens.
            newest: The generation that there is none beyond, where that is not `before`, because those are damaged.

        Raises:
            StaleError: If another writer changed it first.
            StoreError: If the disk is full or not writable.

        """
        asked = f"change the state of {self.name!r}"
        self.store.check_writable(asked)
        conflict = StaleError(asked, "another process changed it first", "Look again, then repeat it.")
        newest = before.generation if newest is None else newest
        if max([0, *self.place.pointer_generations()]) != newest:
            raise conflict
        if after.get("active", before.active) in {*before.gone, *after.get("gone", ())}:
            raise conflict  # whatever was looked at: what was taken away will be deleted
        pointer = self._next(before, {**after, "generation": newest + 1, "change": change})
        text = pointers.text(self.place, pointer)
        with files.explained(asked):
            self._prepare()
            # A version that another process published, and was killed before it could sync, must not be lost behind
            # a pointer to it; nor may one come back that the pointer no longer knows to be gone.
            self.disk.sync_folder(self.place.versions)
            aside = self.place.staging / owners.staging_name()
            if not files.put_new(self.disk, text, self.place.pointer(pointer.generation), aside=aside, mode=0o444):
                raise conflict
            with files.explained(asked, files.UNCERTAIN):
                self.disk.sync_folder(self.place.pointers)
        return pointer

    def _next(self, before: Pointer, after: Mapping[str, Any]) -> Pointer:
        _check_number(after["generation"], self.place.pointers)
        gone = {*before.gone, *after.get("gone", ())}
        still_there = tuple(number for number in self.place.version_numbers() if number in gone)
        return attrs.evolve(before, **{**after, "gone": still_there, "high": self._high(before)})


def check_file_names(names: Mapping[str, Any], asked: str) -> None:
    """See that files may lie side by side in a version, on every file system.

    Raises:
        NameInvalidError: If one could leave its folder, is the store's own, or is another one's name in other letters.

    """
    taken = {layout.MANIFEST.casefold(): "the store's own file"}
    for path in names:  # on some systems names that differ in case alone are one
        if check_file_name(path).casefold() in taken:
            found = f"{path} is {taken[path.casefold()]}"
            raise NameInvalidError(asked, found, "Name it otherwise.", name=path)
        taken[path.casefold()] = f"{path} in other letters"


def _check_number(number: int, folder: Path) -> None:
    if number > layout.HIGHEST:
        found, remedy = f"the numbers in {folder} are used up", "Move away what has no business to be there."
        raise StoreError(f"give out number {number}", found, remedy)
