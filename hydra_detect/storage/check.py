"""Checking a store: is everything there, whole, and what it says it is? Changes nothing.

It reads through the same functions that everything else reads through, so it cannot call sound what a reader would
refuse. What it adds is looking everywhere, and at what no reader asks for: files that nobody listed, generations that
are missing, leftovers.
"""

from __future__ import annotations

import contextlib
import stat
from typing import TYPE_CHECKING, get_args

from hydra_detect import codec
from hydra_detect.errors import (
    HydraDetectError,
    IncompatibleError,
    InputError,
    NameInvalidError,
    NotFoundError,
    RecordError,
    StoreError,
    listed,
    listed_numbers,
)
from hydra_detect.records import BackboneRecord, HeadRecord
from hydra_detect.storage import artifacts, files, findings, layout, manifests, pointers, recovery, references, sealed
from hydra_detect.storage.findings import CheckReport, Depth, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.names import Digest
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.manifests import Manifest
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

    _Moment = tuple[list[int], list[int]]
    Build = Callable[[BackboneRecord | HeadRecord, Mapping[str, RawTensor]], object]
    """Makes the network of a record and its tensors, or raises."""

_LOOK = "check it"
_MOST_LOOKS = 20  # at a head that is changed all the while; beyond that the findings stand


class Checker:
    """Looks at a store, and keeps what it learnt of the backbones while it looks at the heads.

    Args:
        store: The store.
        depth: "quick" looks at structure, sizes and pointers; "full" reads and hashes every file; "deep" also decodes
            tensors and compares them with their records.
        progress: Called with bytes read and bytes in all.
        build: Makes the network of a backbone or head, or raises; asked in a deep check only.

    Raises:
        InputError: For a depth that there is not.

    """

    def __init__(
        self,
        store: Store,
        *,
        depth: Depth = "full",
        progress: Callable[[int, int], None] | None = None,
        build: Build | None = None,
    ) -> None:
        if depth not in get_args(Depth):
            raise InputError("check the store", f"depth is {depth!r:.60}", f"Choose from {', '.join(get_args(Depth))}.")
        self.store, self.depth, self.progress, self.build = store, depth, progress, build
        self._findings: list[Finding] = []
        self._contracts: dict[str, BackboneContract] = {}  # digest of a backbone's weights to its contract
        self._unread: set[str] = set()  # names of backbones of which not everything could be read
        self._moments: dict[Path, _Moment] = {}  # what each held when it was looked at
        self._versions = self._nbytes = self._total = 0

    def run(self) -> CheckReport:
        """Look at everything.

        Raises:
            StoreError: If the system refuses.

        """
        self._findings, self._contracts, self._unread, self._moments = [], {}, set(), {}
        self._versions = self._nbytes = 0
        with files.explained(f"check the store {self.store.root}", "See to the file system and run it again."):
            self._check_top()
            items = [item for kind in (layout.BACKBONES, layout.HEADS) for item in self._items(kind)]
            if self.depth != "quick" and self.progress:
                with contextlib.suppress(StoreError):  # it is told with the item, and progress goes without
                    self._total = sum(files.nbytes(item.place.versions, layout.MANIFEST) for item in items)
            for item in items:
                try:
                    self._check_item(item)
                except (OSError, StoreError) as error:  # what the system refuses here hides nothing elsewhere
                    found = error.found if isinstance(error, StoreError) else error.strerror or str(error)
                    self._say(findings.REFUSED, item.place.root, found, item)
        return CheckReport(
            depth=self.depth, findings=tuple(self._findings), versions=self._versions, nbytes=self._nbytes
        )

    def look_at(self, item: Item) -> list[Finding]:
        """Look at one backbone or head, after `run`; return what was found there."""
        first = len(self._findings)
        if item.kind == layout.BACKBONES:
            self._unread.discard(item.name)
        if self._is_folder(item.place.root, item):
            self._check_item(item)
        found = self._findings[first:]
        del self._findings[first:]
        return found

    def _say(self, what: str, path: Path, problem: str, item: Item | None = None, number: int | None = None) -> None:
        where = path.relative_to(self.store.root).as_posix()
        kind, name = (item.kind, item.name) if item else ("", "")
        if what == findings.REFUSED and kind == layout.BACKBONES:
            self._unread.add(name)
        self._findings.append(Finding(what=what, path=where, problem=problem, kind=kind, name=name, number=number))

    def _blame(
        self, what: str, path: Path, error: HydraDetectError, item: Item | None = None, number: int | None = None
    ) -> None:
        """Note what an error found; what the system or this version refuses to read is no damage, nothing to mend."""
        is_unread = files.is_refusal(error) or not {"format", "schema"}.isdisjoint(error.facts)
        self._say(findings.REFUSED if is_unread else what, path, error.found, item, number)

    def _check_top(self) -> None:
        root = self.store.root
        for path in sorted(root.iterdir()):
            if path.name not in layout.TOP:
                self._say(findings.FOREIGN, path, "it is not the store's; it is left alone")
        if root.stat().st_mode & stat.S_IWOTH and not root.stat().st_mode & stat.S_ISVTX:
            self._say(findings.FOREIGN, root, "everybody may write here: others can replace what you load")
        for folder in (self.store.layout.quarantine, self.store.layout.staging):
            self._is_folder(folder)
        for path in sorted((root / "locks").iterdir()) if self._is_folder(root / "locks") else ():
            if not stat.S_ISREG(path.lstat().st_mode):
                self._say(findings.PLACE, path, "it is no file, and cannot be locked")
        self._check_leftovers(self.store.layout.staging)
        index = self.store.layout.index
        if files.exists(index, _LOOK):
            try:
                data = files.read_whole(index, limit=codec.MAX_JSON_BYTES, asked="read the index of heads")
                sealed.unseal(data, "the index of heads")
            except HydraDetectError as error:
                self._blame(findings.INDEX, index, error)

    def _is_folder(self, path: Path, item: Item | None = None) -> bool:
        """Whether a folder is there; a link or a file in its place is damage, and what is refused is none."""
        try:
            files.check_folder(path, _LOOK)
        except NotFoundError:
            return False
        except HydraDetectError as error:
            self._blame(findings.PLACE, path, error, item)
            return False
        return True

    def _check_leftovers(self, folder: Path, item: Item | None = None) -> None:
        for path in recovery.abandoned(folder):
            self._say(findings.LEFTOVER, path, "a process that ended left it behind", item)

    def _items(self, kind: str) -> Iterator[Item]:
        folder = self.store.layout.kind(kind)
        if not self._is_folder(folder):
            return
        for path in sorted(folder.iterdir()):
            try:
                item = self.store.item(kind, path.name)
            except NameInvalidError:
                self._say(findings.FOREIGN, path, "its name cannot be that of a backbone or head; it is left alone")
                continue
            if self._is_folder(path, item):
                yield item

    def _check_item(self, item: Item) -> None:
        """Look at a backbone or head, and again if what looked damaged was only being changed meanwhile."""
        for look in range(1, _MOST_LOOKS + 1):
            first, *counts = len(self._findings), self._versions, self._nbytes
            moment = _moment(item)
            self._look_at(item)
            quiet = moment == _moment(item)
            found = {finding.what for finding in self._findings[first:]}
            if quiet or found <= {findings.LEFTOVER, findings.UNFINISHED} or look == _MOST_LOOKS:
                self._moments[item.place.root] = moment
                return
            del self._findings[first:]
            self._versions, self._nbytes = counts

    def _contract(self, digest: str) -> BackboneContract | None:
        """Return the contract of a sound backbone, also of one that came since the backbones were looked at."""
        for name in self.store.names(layout.BACKBONES) if digest not in self._contracts else ():
            item = self.store.backbone(name)
            if self._moments.get(item.place.root) != _moment(item):
                later = Checker(self.store, depth=self.depth, build=self.build)
                later.look_at(item)
                self._contracts |= later._contracts
                self._unread = self._unread - {name} | later._unread
        return self._contracts.get(digest)

    def _look_at(self, item: Item) -> None:
        place = item.place
        folders = (place.claims, place.versions, place.pointers, place.staging, place.quarantine)
        whole = [self._is_folder(folder, item) for folder in folders]
        for path in sorted(set(place.root.iterdir()) - set(folders)):
            self._say(findings.FOREIGN, path, "it is not the store's; it is left alone", item)
        self._check_leftovers(place.staging, item)
        known = self._check_pointers(item) if whole[2] else []
        if whole[1]:
            self._check_versions(item, pointers.digests_of(known))
        if not place.pointer_generations() and files.kind_of(place.pointers, _LOOK) != files.LINK:
            self._check_without_state(item)

    def _check_versions(self, item: Item, expected: Mapping[int, Digest]) -> None:
        place = item.place
        numbers = set(place.version_numbers())
        for path in sorted(set(place.versions.iterdir()) - {place.version(number) for number in numbers}):
            self._say(findings.FOREIGN, path, "it is no version; it is left alone", item)
        unfinished = set(recovery.unfinished(item))
        for number in sorted(unfinished):
            problem = "it was taken away, and its files are still there"
            self._say(findings.UNFINISHED, place.version(number), problem, item, number)
        claimed = set() if files.kind_of(place.claims, _LOOK) == files.LINK else set(place.claimed_numbers())
        for number in sorted(numbers - unfinished):
            self._versions += 1
            if number not in claimed:
                self._say(findings.CLAIM, place.claim(number), "the number is not claimed", item, number)
            self._check_version(item, number, expected.get(number))

    def _check_version(self, item: Item, number: int, expected: Digest | None) -> None:
        before = len(self._findings)
        try:
            self._look_into(item, number, expected)
        except FileNotFoundError:
            if number in item.numbers():
                raise
        if self._findings[before:] and number not in item.numbers():
            del self._findings[before:]  # it was pruned while this looked at it

    def _look_into(self, item: Item, number: int, expected: Digest | None) -> None:
        """See that a version is what was published, then that this is of use."""
        folder = item.place.version(number)
        try:
            manifest = item.manifest(number)
            for path in sorted(folder.iterdir()):
                if path.name not in {*manifest.files, layout.MANIFEST}:
                    self._say(findings.EXTRA, path, "the version's manifest does not list it", item, number)
        except HydraDetectError as error:
            self._blame(findings.VERSION, folder, error, item, number)
            return
        if expected not in {None, manifest.digest}:
            self._say(findings.VERSION, folder, pointers.EXCHANGED, item, number)
            return
        try:
            if self._is_whole(item, manifest):
                self._check_facts(item, manifest)
        except _LinkProblem as problem:
            self._say(problem.what, folder, str(problem), item, number)
        except HydraDetectError as error:
            self._blame(findings.CONTENT, folder, error, item, number)

    def _is_whole(self, item: Item, manifest: Manifest) -> bool:
        """Whether each file is there: with its size in a quick check, byte for byte in the others."""
        for path in manifest.files:
            place = item.place.version(manifest.number) / path
            try:
                if self.depth == "quick" and path != layout.RECORD:
                    files.check_size(place, manifest.files[path][0], asked=_LOOK)
                else:
                    self._count(item.check(manifest, path))
            except HydraDetectError as error:
                self._blame(findings.VERSION, place, error, item, manifest.number)
                return False  # one reason is enough to set the version aside
        return True

    def _count(self, nbytes: int) -> None:
        if self.depth != "quick":
            self._nbytes += nbytes
            if self.progress:
                self.progress(self._nbytes, max(self._total, self._nbytes))

    def _check_facts(self, item: Item, manifest: Manifest) -> None:
        """Read the record of a version, see that what a head needs is there, and in a deep check build its network."""
        place = f"{manifest.name}@{manifest.number}"
        kind: type[BackboneRecord | HeadRecord]
        kind = BackboneRecord if manifest.kind == layout.BACKBONES else HeadRecord
        manifests.listed_size(manifest, layout.TENSORS, f"read {place}")
        record = codec.decode(kind, item.read(manifest, layout.RECORD), f"the record of {place}")
        if isinstance(record, BackboneRecord) and self._is_active(item, manifest):
            self._contracts[str(record.contract.digest)] = record.contract
        tensors = None
        if self.depth == "deep":
            data = item.read(manifest, layout.TENSORS)
            tensors = artifacts.decode_weights(data, record.tensors, f"the weights of {place}")
        if isinstance(record, HeadRecord):
            self._check_links(item, manifest, record)
        if self.build and tensors is not None:
            self.build(record, tensors)

    def _check_links(self, item: Item, manifest: Manifest, record: HeadRecord) -> None:
        """See that a head's backbone is here, and what a compact one leans on: that is looked at where it lies."""
        own = self._contract(str(record.backbone.digest))
        if own is None and self._unread:
            problem = f"whether its backbone is here is not known: {listed(sorted(self._unread))} cannot be read"
            self._say(findings.REFUSED, item.place.version(manifest.number), problem, item, manifest.number)
            return
        if own is None:
            problem = f"the store has no sound backbone of its weights ({record.backbone.digest.short})"
            raise _LinkProblem(findings.BACKBONE, problem)
        differences = own.differences(record.backbone)
        if differences:
            problem = f"it was made for a backbone of other settings: {'; '.join(differences)}"
            raise _LinkProblem(findings.BACKBONE, problem)
        if record.compact:
            try:
                references.find(self.store, record, f"use {manifest.name}@{manifest.number}")
            except (NotFoundError, IncompatibleError) as error:
                raise _LinkProblem(findings.REFERENCE, error.found) from None

    def _is_active(self, item: Item, manifest: Manifest) -> bool:
        with files.unless_damaged():
            return item.pointer().active == manifest.number
        return False

    def _check_pointers(self, item: Item) -> list[Pointer]:
        """Look at the generations, and at the state; return those that can be read."""
        place = item.place
        generations = place.pointer_generations()
        for path in sorted(set(place.pointers.iterdir()) - {place.pointer(number) for number in generations}):
            self._say(findings.FOREIGN, path, "it is no generation of the pointer; it is left alone", item)
        state, known = None, []
        for generation in generations:
            try:
                state = pointers.read(place, generation)
                known.append(state)
            except RecordError as error:  # it is whole, and this version does not know what it says
                state = None
                self._say(findings.REFUSED, place.pointer(generation), error.found, item, generation)
            except HydraDetectError as error:
                state = None
                self._blame(findings.POINTER, place.pointer(generation), error, item, generation)
        for first, last in pointers.missing(generations, known):
            problem = f"missing from the history: {pointers.spanned(first, last)}"
            self._say(findings.GAP, place.pointer(first), problem, item, first)
        if state:
            self._check_state(item, state)
        return known

    def _check_without_state(self, item: Item) -> None:
        """Look at one that has no generation: a backbone has not got its name yet, a head never had an active version.

        Unless one of its versions says that it was made when another one was active.
        """
        numbers = item.numbers()
        if item.kind == layout.BACKBONES and numbers:
            problem = "it was written, and its name not given to it yet; publish it again, which does"
            self._say(findings.UNUSED, item.place.versions, problem, item)
        if item.kind == layout.HEADS and any(self._parent(item, number) for number in numbers):
            problem = "its history is missing: it had an active version when another one was published"
            self._say(findings.GAP, item.place.pointers, problem, item)

    def _parent(self, item: Item, number: int) -> int | None:
        with files.unless_damaged():
            return item.manifest(number).parent
        return None

    def _check_state(self, item: Item, state: Pointer) -> None:
        present, path = set(item.numbers()), item.place.pointer(state.generation)
        for what, numbers in (("active", (state.active,)), ("earlier", state.earlier), ("pinned", state.pinned)):
            absent = {number for number in numbers if number and number not in present}
            if absent:
                problem = f"it calls {what} what is not there: {listed_numbers(absent)}"
                self._say(findings.STATE, path, problem, item, state.generation)


def _moment(item: Item) -> _Moment:
    """Return what a change of a backbone or head would change."""
    return item.place.version_numbers(), item.place.pointer_generations()


class _LinkProblem(Exception):  # noqa: N818  never leaves this module
    """A head whose backbone or reference is not here: nothing of its own is damaged."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(problem)
        self.what = what
