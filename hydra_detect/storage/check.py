"""Checking a store: is everything there, whole, and what it says it is? Changes nothing.

It reads through the same functions that everything else reads through, so it cannot call sound what a reader would
refuse. What it adds is looking everywhere, and at what no reader asks for: files that nobody listed, generations that
are missing, leftovers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError, InputError, NameInvalidError, NotFoundError, RecordError
from hydra_detect.records import BackboneRecord, HeadRecord
from hydra_detect.storage import artifacts, files, layout, pointers, recovery, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.storage.artifacts import Manifest
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

Depth = Literal["quick", "full", "deep"]

# What is wrong; `storage.repair` knows what to do about each.
VERSION, POINTER, STATE, GAP = "version", "pointer", "state", "gap"
PLACE, EXTRA, BACKBONE, INDEX, REFUSED = "place", "extra", "backbone", "index", "refused"
LEFTOVER, UNFINISHED, CLAIM, FOREIGN = "leftover", "unfinished", "claim", "foreign"
HARMLESS = frozenset([INDEX, LEFTOVER, UNFINISHED, CLAIM, FOREIGN])
"""What no reader is hurt by."""

_MOST_LOOKS = 20  # at a head that is changed all the while; beyond that the findings stand
_MOST_MISSING = 100  # one stray file of a high number would else be a finding for each number below it
_TOP = frozenset(["STORE.json", "registry.json", "locks", "tmp", "quarantine", layout.BACKBONES, layout.HEADS])


@attrs.frozen(kw_only=True)
class Finding:
    """Something that is not as it should be.

    Args:
        what: What kind of thing, one of the constants of this module.
        path: Where, from the store's root.
        problem: What is wrong, as a sentence without a stop.
        kind: "backbones" or "heads", where it belongs to one.
        name: Its name.
        number: Version or generation.

    """

    what: str
    path: str
    problem: str
    kind: str = ""
    name: str = ""
    number: int | None = None

    @property
    def is_harmless(self) -> bool:
        """Whether it hurts no reader."""
        return self.what in HARMLESS

    def __str__(self) -> str:
        path = self.path if self.path.isprintable() else ascii(self.path)
        word = "note" if self.is_harmless else "not read" if self.what == REFUSED else "damage"
        return f"{word}: {path}: {self.problem}"


@attrs.frozen(kw_only=True)
class CheckReport:
    """What a check found.

    Args:
        depth: How deep it looked.
        findings: What is not as it should be, now.
        mended: What a repair did, a sentence each.
        versions: Versions looked at.
        nbytes: Bytes read and hashed.

    """

    depth: Depth
    findings: tuple[Finding, ...]
    versions: int
    nbytes: int
    mended: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, now."""
        return all(finding.is_harmless for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return {**plain, "sound": self.is_sound}

    def __str__(self) -> str:
        """What was found and done, and the verdict."""
        lines = [*map(str, self.findings), *(f"mended: {text}" for text in self.mended)]
        harm = [finding for finding in self.findings if not finding.is_harmless]
        verdict = "sound" if not harm else "unclear" if all(one.what == REFUSED for one in harm) else "damaged"
        read = f", {self.nbytes / 1e6:.1f} MB hashed" if self.nbytes else ""
        return "\n".join([*lines, f"{verdict}: {self.versions} versions, {self.depth} check{read}"])


def check(
    store: Store,
    *,
    depth: Depth = "full",
    progress: Callable[[int, int], None] | None = None,
    build: Callable[[BackboneRecord | HeadRecord, Mapping[str, RawTensor]], object] | None = None,
) -> CheckReport:
    """Check a store.

    Args:
        store: The store.
        depth: "quick" looks at structure, sizes and pointers; "full" reads and hashes every file; "deep" also decodes
            tensors and compares them with their records.
        progress: Called with bytes read and bytes in all.
        build: Makes the network of a backbone or head, or raises; asked in a deep check only.

    Raises:
        InputError: For a depth that there is not.
        StoreError: If the system refuses.

    """
    if depth not in get_args(Depth):
        raise InputError("check the store", f"depth is {depth!r:.60}", f"Choose from {', '.join(get_args(Depth))}.")
    with files.explained(f"check the store {store.root}", "See to the file system and run it again."):
        return _Check(store, depth, progress, build).run()


class _Check:
    """One walk through a store, and what it found so far."""

    def __init__(
        self,
        store: Store,
        depth: Depth,
        progress: Callable[[int, int], None] | None,
        build: Callable[[BackboneRecord | HeadRecord, Mapping[str, RawTensor]], object] | None,
    ) -> None:
        self.store, self.depth, self.progress, self.build = store, depth, progress, build
        self.findings: list[Finding] = []
        self.contracts: dict[str, BackboneContract] = {}  # digest of a backbone's weights to its contract
        self.versions = self.nbytes = self.total = 0

    def run(self) -> CheckReport:
        self._check_top()
        places = [(kind, name) for kind in (layout.BACKBONES, layout.HEADS) for name in self._names(kind)]
        if self.depth != "quick" and self.progress:
            self.total = sum(
                files.nbytes(self.store.layout.item(kind, name).versions, layout.MANIFEST) for kind, name in places
            )
        for kind, name in places:
            self._check_item(kind, name)
        return CheckReport(depth=self.depth, findings=tuple(self.findings), versions=self.versions, nbytes=self.nbytes)

    def _say(self, what: str, path: Path, problem: str, **facts: Any) -> None:
        where = path.relative_to(self.store.root).as_posix()
        self.findings.append(Finding(what=what, path=where, problem=problem, **facts))

    def _blame(self, what: str, path: Path, error: HydraDetectError, prefix: str = "", /, **facts: Any) -> None:
        """Note what an error found; what the system or this version refuses to read is no damage, nothing to mend."""
        is_unread = files.is_refusal(error) or _is_newer(error)
        self._say(REFUSED if is_unread else what, path, f"{prefix}{error.found}", **facts)

    def _check_top(self) -> None:
        root = self.store.root
        for path in sorted(root.iterdir()):
            if path.name not in _TOP:
                self._say(FOREIGN, path, "it is not the store's; it is left alone")
        if root.stat().st_mode & stat.S_IWOTH and not root.stat().st_mode & stat.S_ISVTX:
            self._say(FOREIGN, root, "everybody may write here: others can replace what you load")
        for folder in (self.store.layout.quarantine, self.store.layout.staging):
            self._is_folder(folder)
        for path in sorted((root / "locks").iterdir()) if self._is_folder(root / "locks") else ():
            if not stat.S_ISREG(path.lstat().st_mode):
                self._say(PLACE, path, "it is no file, and cannot be locked")
        self._check_leftovers(self.store.layout.staging)
        if os.path.lexists(self.store.layout.index):
            try:
                asked = "read the index of heads"
                data = files.read_whole(self.store.layout.index, limit=codec.MAX_JSON_BYTES, asked=asked)
                sealed.unseal(data, "the index of heads")
            except HydraDetectError as error:
                self._say(INDEX, self.store.layout.index, f"{error.found}; it is derived and will be made anew")

    def _is_folder(self, path: Path, **facts: Any) -> bool:
        """Whether a folder is there; a link or a file in its place is damage."""
        try:
            files.check_folder(path, "check it")
        except NotFoundError:
            return False
        except HydraDetectError:
            self._say(PLACE, path, "it is no folder", **facts)
            return False
        return True

    def _check_leftovers(self, folder: Path, **facts: Any) -> None:
        for path in recovery.abandoned(folder):
            self._say(LEFTOVER, path, "a process that ended left it behind", **facts)

    def _names(self, kind: str) -> Iterator[str]:
        folder = self.store.layout.kind(kind)
        if not self._is_folder(folder):
            return
        for path in sorted(folder.iterdir()):
            try:
                self.store.layout.item(kind, path.name)
            except NameInvalidError:
                self._say(FOREIGN, path, "its name cannot be that of a backbone or head; it is left alone")
                continue
            if self._is_folder(path, kind=kind, name=path.name):
                yield path.name

    def _check_item(self, kind: str, name: str) -> None:
        """Look at a backbone or head, and again if what looked damaged was only being changed meanwhile."""
        item = self.store.layout.item(kind, name)
        for look in range(1, _MOST_LOOKS + 1):
            first, *counts = len(self.findings), self.versions, self.nbytes
            moment = item.version_numbers(), item.pointer_generations()
            self._look_at(kind, name)
            quiet = moment == (item.version_numbers(), item.pointer_generations())
            found = {finding.what for finding in self.findings[first:]}
            if quiet or found <= {LEFTOVER, UNFINISHED} or look == _MOST_LOOKS:
                return
            del self.findings[first:]
            self.versions, self.nbytes = counts

    def _look_at(self, kind: str, name: str) -> None:
        item, facts = self.store.layout.item(kind, name), {"kind": kind, "name": name}
        folders = (item.claims, item.versions, item.pointers, item.staging, item.quarantine)
        whole = [self._is_folder(folder, **facts) for folder in folders]
        for path in sorted(set(item.root.iterdir()) - set(folders)):
            self._say(FOREIGN, path, "it is not the store's; it is left alone", **facts)
        self._check_leftovers(item.staging, **facts)
        if whole[1]:
            self._check_versions(kind, name)
        if whole[2]:
            self._check_pointers(kind, name)

    def _check_versions(self, kind: str, name: str) -> None:
        item, facts = self.store.layout.item(kind, name), {"kind": kind, "name": name}
        listed = set(item.version_numbers())
        for path in sorted(set(item.versions.iterdir()) - {item.version(number) for number in listed}):
            self._say(FOREIGN, path, "it is no version; it is left alone", **facts)
        unfinished = set(recovery.unfinished(item))
        for number in sorted(unfinished):
            problem = "it was taken away, and its files are still there"
            self._say(UNFINISHED, item.version(number), problem, **facts, number=number)
        claimed = set() if item.claims.is_symlink() else set(item.claimed_numbers())
        for number in sorted(listed - unfinished):
            self.versions += 1
            if number not in claimed:
                self._say(CLAIM, item.claim(number), "the number is not claimed", **facts, number=number)
            self._check_version(kind, name, number)

    def _check_version(self, kind: str, name: str, number: int) -> None:
        before = len(self.findings)
        try:
            self._look_into(kind, name, number)
        except FileNotFoundError:
            if number in self.store.numbers(kind, name):
                raise
        if self.findings[before:] and number not in self.store.numbers(kind, name):
            del self.findings[before:]  # it was pruned while this looked at it

    def _look_into(self, kind: str, name: str, number: int) -> None:
        folder = self.store.layout.item(kind, name).version(number)
        facts = {"kind": kind, "name": name, "number": number}
        try:
            manifest = self.store.manifest(kind, name, number)
        except HydraDetectError as error:
            self._blame(VERSION, folder, error, "its manifest: ", **facts)
            return
        for path in sorted(folder.iterdir()):
            if path.name not in {*manifest.files, layout.MANIFEST}:
                self._say(EXTRA, path, "the version's manifest does not list it", **facts)
        try:
            for file in manifest.files:
                problem = self._file_problem(manifest, file, folder / file)
                if problem:
                    self._say(VERSION, folder / file, problem, **facts)
                    return  # one reason is enough to set the version aside
            self._check_facts(manifest)
        except _LinkProblem as problem:
            self._say(BACKBONE, folder, str(problem), **facts)
        except HydraDetectError as error:
            self._blame(VERSION, folder, error, **facts)

    def _file_problem(self, manifest: Manifest, path: str, place: Path) -> str:
        """Return what is wrong with one file of a version, or nothing."""
        try:
            if self.depth == "quick":
                facts = place.lstat()
                if not stat.S_ISREG(facts.st_mode):
                    return "it is no regular file"
                size = manifest.files[path][0]
                return "" if facts.st_size == size else f"it has {facts.st_size} bytes, the manifest says {size}"
            # As `Store.read` does, but without holding the whole of a file.
            nbytes, digest = files.hash_whole(place, limit=artifacts.MAX_TENSORS_BYTES, asked=f"check {place}")
            artifacts.check_listed(manifest, path, nbytes, digest)
            self.nbytes += nbytes
        except FileNotFoundError:
            return "it is missing"
        except HydraDetectError as error:
            if files.is_refusal(error):
                raise
            return error.found
        if self.progress:
            self.progress(self.nbytes, max(self.total, self.nbytes))
        return ""

    def _check_facts(self, manifest: Manifest) -> None:
        """Read the record of a version, and in a deep check its tensors; see that a head's backbone is there."""
        place = f"{manifest.name}@{manifest.version}"
        kind: type[BackboneRecord | HeadRecord]
        kind = BackboneRecord if manifest.kind == layout.BACKBONES else HeadRecord
        artifacts.check_lists(manifest, layout.TENSORS)
        record = codec.decode(kind, self.store.read(manifest, layout.RECORD), f"the record of {place}")
        if isinstance(record, BackboneRecord) and self._is_active(manifest):
            self.contracts[str(record.contract.digest)] = record.contract
        if self.depth == "deep":
            data = self.store.read(manifest, layout.TENSORS)
            tensors = artifacts.decode_weights(data, record.tensors, f"the weights of {place}")
            if self.build:
                self.build(record, tensors)
        if isinstance(record, HeadRecord):
            own = self.contracts.get(str(record.backbone.digest))
            if own is None:
                raise _LinkProblem(f"the store has no sound backbone of its weights ({record.backbone.digest.short})")
            differences = own.differences(record.backbone)
            if differences:
                raise _LinkProblem(f"it was made for a backbone of other settings: {'; '.join(differences)}")

    def _is_active(self, manifest: Manifest) -> bool:
        with contextlib.suppress(HydraDetectError):  # reported with the pointer
            return self.store.pointer(manifest.kind, manifest.name).active == manifest.version
        return False

    def _check_pointers(self, kind: str, name: str) -> None:
        item, facts = self.store.layout.item(kind, name), {"kind": kind, "name": name}
        generations = item.pointer_generations()
        for path in sorted(set(item.pointers.iterdir()) - {item.pointer(number) for number in generations}):
            self._say(FOREIGN, path, "it is no generation of the pointer; it is left alone", **facts)
        state, repaired = None, 0
        for generation in generations:
            try:
                state = pointers.read(item, name, generation)
                repaired = generation if state.event == pointers.REPAIRED else repaired
            except HydraDetectError as error:
                state = None
                self._blame(POINTER, item.pointer(generation), error, **facts, number=generation)
        # A repair looked at all that was missing before it, and said so.
        present = [repaired, *(generation for generation in generations if generation > repaired)]
        missing = (number for low, high in itertools.pairwise(present) for number in range(low + 1, high))
        for generation in itertools.islice(missing, _MOST_MISSING):
            problem = "this generation of the pointer is missing from the history"
            self._say(GAP, item.pointer(generation), problem, **facts, number=generation)
        if state:
            self._check_state(kind, name, state)

    def _check_state(self, kind: str, name: str, state: Pointer) -> None:
        item = self.store.layout.item(kind, name)
        present = set(self.store.numbers(kind, name))
        path, facts = item.pointer(state.generation), {"kind": kind, "name": name, "number": state.generation}
        for what, numbers in (("active", (state.active,)), ("earlier", state.earlier), ("pinned", state.pinned)):
            missing = sorted({number for number in numbers if number and number not in present})
            if missing:
                self._say(STATE, path, f"it calls {what} what is not there: {', '.join(map(str, missing))}", **facts)
        if state.active in present:
            with contextlib.suppress(HydraDetectError):  # reported with the version
                if self.store.manifest(kind, name, state.active or 0).digest != state.manifest:
                    self._say(STATE, path, "the active version is not the one that was promoted", **facts)


def _is_newer(error: HydraDetectError) -> bool:
    """Whether a newer version of this library wrote what was read: the errors for that name its format."""
    return isinstance(error, RecordError) and not {"format", "schema"}.isdisjoint(error.facts)


class _LinkProblem(Exception):  # noqa: N818  never leaves this module
    """A head whose backbone is not here: nothing of its own is damaged."""
