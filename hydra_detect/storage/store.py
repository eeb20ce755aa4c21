"""The store: a folder of backbones and heads, and who may write there.

What can happen to one of them is the matter of `items`. Opening and reading never write; only the derived index is
refreshed by who may write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect.errors import HydraDetectError, InputError, NameInvalidError, StoreError
from hydra_detect.storage import files, identity, layout, owners
from hydra_detect.storage.disk import FAST, FULL, Disk
from hydra_detect.storage.items import Item

if TYPE_CHECKING:
    import os
    from pathlib import Path


class Store:
    """A folder of backbones and heads.

    `Store.open` opens one that exists, `Store.create` makes or opens one.
    """

    def __init__(self, root: Path, *, disk: Disk | None = None) -> None:
        self.root = root
        self.layout = layout.StoreLayout(root)
        self.disk = disk or Disk()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    @classmethod
    def open(cls, root: str | os.PathLike[str] | Store, *, durability: str | None = None) -> Store:
        """Open a store without writing anything.

        Args:
            root: Its folder; or a store, which is returned.
            durability: "full", the default: what was acknowledged survives a power loss. "fast": it survives the end
                of any process, and a power loss may take the last seconds; for tests and scratch stores.

        Raises:
            StoreError: If there is none, or it was made by a newer version.
            InputError: If there is no such durability, or the store given has another.

        """
        disk = _disk(durability)
        if isinstance(root, Store):
            if durability and durability != root.disk.durability:
                found = f"it is open already, with durability {root.disk.durability!r}"
                raise InputError(f"open {root!r} with durability {durability!r}", found, "Open its path anew.")
            return root
        store = cls(identity.absolute(root), disk=disk)
        identity.min_writer(store.layout)
        return store

    @classmethod
    def create(cls, root: str | os.PathLike[str] | Store, *, durability: str | None = None) -> Store:
        """Open a store, making it first if the folder is missing or empty.

        Raises:
            StoreError: If the folder holds other things, or cannot be written.
            InputError: As for `open`.

        """
        present = cls.find(root, durability=durability)
        if present or isinstance(root, Store):
            return cls.open(present or root, durability=durability)
        store = cls(identity.absolute(root), disk=_disk(durability))
        store._establish()
        return cls.open(root, durability=durability)

    def _establish(self) -> None:
        """Make the folder a store, unless another process was first.

        Raises:
            StoreError: If it cannot be written.

        """
        with files.explained(f"make a store at {self.root}"):
            files.make_folder(self.disk, self.root)
            files.make_branch(self.disk, self.root, self.layout.staging)
            aside = self.layout.staging / owners.staging_name()
            files.put_new(self.disk, identity.new(), self.layout.identity, aside=aside)
            self.disk.sync_folder(self.root)

    @classmethod
    def find(cls, root: str | os.PathLike[str] | Store, *, durability: str | None = None) -> Store | None:
        """Open a store if there is one; None for a missing or empty folder, which could become one.

        Raises:
            StoreError: If the folder holds other things, is no folder, or a store made by a newer version.
            InputError: As for `open`.

        """
        if isinstance(root, Store):
            return cls.open(root, durability=durability)
        _disk(durability)
        where = layout.StoreLayout(identity.absolute(root))
        asked = f"make a store at {where.root}"
        with files.explained(asked):
            if files.exists(where.identity, asked):
                return cls.open(root, durability=durability)
            if not files.exists(where.root, asked):
                return None
            # What another process that makes this store has written so far is no reason to refuse.
            foreign = [entry for entry in where.root.iterdir() if entry != where.staging]
            if foreign and not files.exists(where.identity, asked):
                raise StoreError(
                    asked, "the folder holds other files and no STORE.json", "Name a new or an empty folder."
                )
        return None

    def check_writable(self, asked: str) -> None:
        """See that this version of the library may write here, as of now: a newer one may have come to share it.

        Raises:
            StoreError: If the store was made by a newer version that forbids it.

        """
        writer = identity.min_writer(self.layout)
        if writer > identity.FORMAT:
            raise StoreError(
                asked,
                f"it needs a writer of format {writer} and this version of hydra-detect writes {identity.FORMAT}",
                "Upgrade hydra-detect; nothing was changed.",
                format=writer,
            )

    def item(self, kind: str, name: str) -> Item:
        """Return one backbone or head, whether there is such a one or not.

        Raises:
            NameInvalidError: If none can have that name.

        """
        return Item(self, kind, name)

    def head(self, name: str) -> Item:
        """Return one head, as `item` does."""
        return Item(self, layout.HEADS, name)

    def backbone(self, name: str) -> Item:
        """Return one backbone, as `item` does."""
        return Item(self, layout.BACKBONES, name)

    def names(self, kind: str) -> list[str]:
        """Names with at least one published version, sorted; also those that the system refuses to look into.

        Raises:
            StoreError: If the system refuses to list them at all.

        """
        found = []
        for name in sorted(files.names_in(self.layout.kind(kind), f"list the {kind} of {self!r}")):
            try:
                if self.item(kind, name).numbers():
                    found.append(name)
            except NameInvalidError:  # a folder of another name is not ours
                continue
            except HydraDetectError:  # whoever asks for it by name will hear why
                found.append(name)
        return found


def _disk(durability: str | None) -> Disk:
    if durability not in (None, FULL, FAST):  # a set would not take what cannot be hashed
        raise InputError("open a store", f"durability is {durability!r:.60}", f"Choose from {FULL}, {FAST}.")
    return Disk(durability or FULL)
