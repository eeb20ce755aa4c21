"""A disk that remembers what was synced: from its log every state follows that a power loss could leave.

The model is POSIX at its most careless: a file's content is safe once the file was synced, an entry of a folder once
the folder was. Until then content may be lost, half there, zeros, or half of each, and each entry's making or vanishing
may or may not have happened. Of up to five such changes every combination is a state; of more: none, all, each one
alone, all but each one, and some drawn at random. Only a rename is one thing: it has happened or it has not.
"""

import itertools
import os
import random
import re

import attrs

from hydra_detect.storage.disk import Disk

EXHAUSTIVE_UP_TO = 5
RANDOM_SUBSETS = 24
_STAGED = re.compile(r"([a-z0-9-]+\.)[0-9]+(\.[0-9]+\.[0-9a-f]{32})")


@attrs.define(eq=False)
class Node:
    """A file or folder: its content for certain, and what it may be as long as it was not synced."""

    is_folder: bool
    entries: dict = attrs.field(factory=dict)
    content: bytes = b""
    unsynced: bytes | None = None


@attrs.frozen(eq=False)
class Change:
    """One change of entries that no folder's sync has made certain yet: (folder, name, node or None) each."""

    entries: tuple

    def touches(self, folder):
        """Whether it changes this folder."""
        return any(owner is folder for owner, _name, _node in self.entries)

    def places(self):
        """The entries that it changes."""
        return {(id(owner), name) for owner, name, _node in self.entries}

    def apply(self, entries_of):
        """Do it."""
        for owner, name, node in self.entries:
            if node is None:
                entries_of(owner).pop(name, None)
            else:
                entries_of(owner)[name] = node


class RecordingDisk:
    """Performs the steps on a real folder and writes down what is certain after each of them."""

    def __init__(self, root, before=None):
        """Begin on a folder all of which is certain, or where another process (`before`) left off."""
        self.disk, self.root = Disk("fast"), root
        self.tree = before.tree if before else read_tree(root)
        self.pending = before.pending if before else []
        self.descriptors = {}
        self.log = []
        self.on_step = None

    @property
    def steps(self):
        """How many steps were done; what was refused, as a folder that is there, is none."""
        return len(self.log)

    # What every process sees, certain or not

    def _seen(self, folder):
        entries = dict(folder.entries)
        for change in self.pending:
            if change.touches(folder):
                change.apply(lambda owner, folder=folder, entries=entries: entries if owner is folder else {})
        return entries

    def _node(self, path):
        node = self.tree
        for part in path.relative_to(self.root).parts:
            node = self._seen(node)[part]
        return node

    def _change(self, *entries):
        self.pending.append(Change(tuple((self._node(path.parent), path.name, node) for path, node in entries)))

    def _done(self, kind):
        self.log.append(kind)
        if self.on_step:
            self.on_step()

    # The steps

    def make_folder(self, path):
        """As `Disk`."""
        self.disk.make_folder(path)
        self._change((path, Node(is_folder=True)))
        self._done("make_folder")

    def create(self, path, mode):
        """As `Disk`."""
        descriptor = self.disk.create(path, mode)
        node = Node(is_folder=False, unsynced=b"")
        self._change((path, node))
        self.descriptors[descriptor] = node
        self._done("create")
        return descriptor

    def write(self, descriptor, data):
        """As `Disk`."""
        self.disk.write(descriptor, data)
        node = self.descriptors[descriptor]
        node.unsynced = (node.unsynced or b"") + bytes(data)
        self._done("write")

    def sync(self, descriptor):
        """As `Disk`: the content is certain."""
        node = self.descriptors.pop(descriptor)
        node.content, node.unsynced = node.unsynced or b"", None
        self._done("sync")

    def sync_folder(self, path):
        """As `Disk`: the entries are certain."""
        if self.root in path.parents or path == self.root:
            folder = self._node(path)
            for change in [change for change in self.pending if change.touches(folder)]:
                change.apply(lambda owner: owner.entries)
                # What came before it in the same places is undone: a renamed file cannot come back under the name that
                # it had first. What came after it, elsewhere too, is as uncertain as ever.
                place = self.pending.index(change)
                earlier = [other for other in self.pending[:place] if not other.places() <= change.places()]
                self.pending = [*earlier, *self.pending[place + 1 :]]
        self._done("sync_folder")

    def link(self, path, target):
        """As `Disk`."""
        self.disk.link(path, target)
        self._change((target, self._node(path)))
        self._done("link")

    def rename(self, path, target):
        """As `Disk`."""
        self.disk.rename(path, target)
        self._change((path, None), (target, self._node(path)))
        self._done("rename")

    def replace(self, path, target):
        """As `Disk`."""
        self.disk.replace(path, target)
        self._change((path, None), (target, self._node(path)))
        self._done("replace")

    def unlink(self, path):
        """As `Disk`."""
        self.disk.unlink(path)
        self._change((path, None))
        self._done("unlink")

    def remove_folder(self, path):
        """As `Disk`."""
        self.disk.remove_folder(path)
        self._change((path, None))
        self._done("remove_folder")


def read_tree(root):
    """Return a folder as nodes, all of it certain."""
    node = Node(is_folder=root.is_dir(), content=b"" if root.is_dir() else root.read_bytes())
    if node.is_folder:
        node.entries = {path.name: read_tree(path) for path in root.iterdir()}
    return node


def survivors(disk, seed=0):
    """Yield every state that a power loss now could leave: folders as dicts, files as bytes."""
    count = len(disk.pending)
    if count <= EXHAUSTIVE_UP_TO:
        subsets = list(itertools.product((False, True), repeat=count))
    else:
        rng = random.Random(f"{seed} {disk.steps}")  # noqa: S311  no secret: the same subsets each time
        subsets = [tuple(is_all for _ in range(count)) for is_all in (False, True)]
        subsets += [
            tuple((place == one) is not is_all for place in range(count))
            for one in range(count)
            for is_all in (False, True)
        ]
        subsets += [tuple(rng.random() < 0.5 for _ in range(count)) for _ in range(RANDOM_SUBSETS)]
    for chosen in subsets:
        changes = [change for change, happened in zip(disk.pending, chosen, strict=True) if happened]
        for content in (_old, _half, _zeros, _half_zeros, _whole, _mixed):
            yield _materialised(disk.tree, changes, content)


def _materialised(tree, changes, content):
    """Return the tree with some of the pending changes, and unsynced files as `content` says."""
    entries = {}

    def entries_of(folder):
        return entries.setdefault(id(folder), dict(folder.entries))

    for change in changes:
        change.apply(entries_of)

    counter = itertools.count()

    def walk(node):
        if not node.is_folder:
            return node.content if node.unsynced is None else content(node, next(counter))
        return {name: walk(child) for name, child in sorted(entries_of(node).items())}

    return walk(tree)


# What an unsynced file holds: each takes the file, and the how manyth of its kind it is.


def _old(node, _number):
    return node.content


def _half(node, _number):
    return node.unsynced[: len(node.unsynced) // 2]


def _zeros(node, _number):
    return bytes(len(node.unsynced))


def _half_zeros(node, number):
    return _half(node, number).ljust(len(node.unsynced), b"\0")


def _whole(node, _number):
    return node.unsynced


def _mixed(node, number):
    return (_whole, _zeros, _half)[number % 3](node, number)


class Writer:
    """Writes states to a real folder; equal contents are one file with many names, since no one may write to them."""

    def __init__(self, folder):
        self.folder, self.pool = folder, {}
        (folder / "pool").mkdir()

    def write(self, state, root):
        """Make `root` hold a state."""
        root.mkdir()
        for entry, content in state.items():
            # After a power loss nobody is alive, whatever number the process had.
            name = _STAGED.sub(r"\g<1>99999999\g<2>", entry)
            if isinstance(content, dict):
                self.write(content, root / name)
            else:
                os.link(self._file(content), root / name)

    def _file(self, content):
        if content not in self.pool:
            self.pool[content] = self.folder / "pool" / str(len(self.pool))
            self.pool[content].write_bytes(content)
        return self.pool[content]


def frozen(state):
    """Return a state as something that can be a member of a set: how a process called its things does not matter."""
    return tuple(
        ("tmp" if _STAGED.fullmatch(name) else name, frozen(content) if isinstance(content, dict) else content)
        for name, content in state.items()
    )
