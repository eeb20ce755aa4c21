"""`VersionManager`: which versions of a head there are, which one is active, and how that changes.

A version is created once and never changes; the one mutable fact is which version is active. Owns no bytes on disk
(that is `storage`) and no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra_detect.comparison import Comparison, compare
from hydra_detect.errors import CorruptError, NameInvalidError, NotFoundError, RecordError, listed
from hydra_detect.history import Event, history
from hydra_detect.names import HeadRef, check_name
from hydra_detect.retention import DEFAULT_KEEP, PruneReport, kept
from hydra_detect.storage import artifacts, changes, check, heads, layout, owners, pointers, repair
from hydra_detect.storage.pointers import Pin
from hydra_detect.storage.store import Store
from hydra_detect.tensors import RawTensor, check_finite, tensors_digest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from hydra_detect.records import BackboneRecord, HeadRecord, VersionRecord
    from hydra_detect.storage.check import CheckReport, Depth
    from hydra_detect.storage.pointers import Pointer


class VersionManager:
    """The versions of the heads in a store.

    Any number of processes may use one store: every change is one file that only one of them can create.

    Args:
        store: A store, or the path of one that exists.
        actor: Who is at work, for the history; left out, $HYDRA_DETECT_ACTOR, or user@host.

    """

    def __init__(self, store: str | os.PathLike[str] | Store, *, actor: str = "") -> None:
        self.store = Store.open(store)
        self.actor = actor or owners.actor()
        changes.check_text(self.actor, "actor")

    def __repr__(self) -> str:
        return f"VersionManager({str(self.store.root)!r})"

    def create(
        self,
        head: str,
        tensors: Mapping[str, Any],
        record: HeadRecord,
        *,
        attachments: Mapping[str, bytes] | None = None,
    ) -> VersionRecord:
        """Publish a new version of a head. It does not become active by this: see `promote`.

        Args:
            head: Name of the head.
            tensors: Tensor names to `RawTensor`, numpy arrays or CPU tensors.
            record: The facts; its digest must be that of `tensors`.
            attachments: Further small files to keep beside it, such as the parity report.

        Raises:
            NameInvalidError: If the head or an attachment has a name that is not allowed.
            RecordError: If there are no tensors, or they, the record or the list of files could not be read again.
            CorruptError: If a tensor holds NaN or infinity, or the digest in the record is another.
            StoreError: If the disk is full or not writable; nothing is left behind.

        """
        check_name(head)
        asked = f"create a version of {head!r}"
        own = {layout.TENSORS, layout.RECORD}.intersection(attachments or {})
        if own:
            raise NameInvalidError(asked, f"attachments would replace {listed(own)}", "Name them otherwise.")
        raw = {name: RawTensor.of(value) for name, value in tensors.items()}
        if not raw or not all(isinstance(name, str) for name in raw):
            found = "a tensor has a name that is no text" if raw else "it has no tensors"
            raise RecordError(asked, found, "Give the weights of the head by name.")
        weights = artifacts.encode_tensors(raw)
        check_finite(raw, asked)
        if tensors_digest(raw) != record.tensors:
            raise CorruptError(
                asked,
                f"the record names tensors {record.tensors.short}... and these have {tensors_digest(raw).short}...",
                "Make the record from these tensors.",
            )
        contents = {layout.TENSORS: weights, **(attachments or {})}
        return heads.publish(self.store, head, record, contents, actor=self.actor)

    def versions(self, head: str) -> list[VersionRecord]:
        """Return all versions of a head, oldest first.

        Raises:
            NotFoundError: If there is no such head; the message says which come near.
            CorruptError: If the record or manifest of one is damaged.

        """
        found = []
        for number in heads.numbers(self.store, head):
            try:
                found.append(heads.find(self.store, HeadRef(head, number)))
            except NotFoundError:  # pruned since it was listed
                if number in self.store.numbers(layout.HEADS, head):
                    raise
        return found

    def active(self, head: str) -> VersionRecord:
        """Return the active version of a head.

        Raises:
            NotFoundError: If there is no such head, or none of its versions is active.
            CorruptError: If the pointer or the version it names is damaged.

        """
        return heads.find(self.store, HeadRef(head))

    def promote(self, head: str, number: int, *, reason: str = "") -> VersionRecord:
        """Make a version the active one: all of it is read and checked first, then one file changes the world.

        Promoting the version that is active already checks it and changes nothing, so that it stays clear which
        version was active before.

        Args:
            head: Name of the head.
            number: Number of the version.
            reason: Why, for the history.

        Raises:
            NotFoundError: If there is no such version.
            CorruptError: If any of it is damaged; the active version stays.

        """

        def step(before: Pointer) -> VersionRecord:
            version = self._checked(head, number)
            if before.active == number:
                return version
            earlier = pointers.steps_back([*before.earlier, *([before.active] if before.active else [])], number)
            return self._move(version, before, pointers.PROMOTED, earlier=earlier, reason=reason)

        heads.numbers(self.store, head)
        return changes.settled(self.store, head, step)

    def rollback(self, head: str, *, reason: str = "") -> VersionRecord:
        """Make the version active again that was active before; again and again, over the last 256 promotions.

        The version rolled back from is forgotten for this: after 1, 2, 3 two rollbacks lead to 1. Versions that were
        pruned since are passed over.

        Raises:
            NotFoundError: If there is no such head, or no version was active before.
            CorruptError: If that version is damaged; the active version stays.
            ConflictError: If another process changed the active version meanwhile: look again before going further
                back.

        """
        heads.numbers(self.store, head)
        before = self.store.pointer(layout.HEADS, head)
        with self.store.changing(layout.HEADS, head):
            if before.previous is None:
                found = f"no version is known that was active before version {before.active}"
                found = found if before.active else "none of its versions is active"
                remedy = f"'hydra-detect versions {head}' shows what there is to promote."
                raise NotFoundError(f"roll back {head!r}", found, remedy)
            try:
                version = self._checked(head, before.previous)
            except NotFoundError:  # pruned, if it is no longer the previous one
                changes.check_present(self.store, head, before)
                raise
            except CorruptError as error:
                further = [number for number in before.earlier if number != before.previous][-1:]
                remedy = f"'hydra-detect promote {head} {further[0]}' goes further back; " if further else ""
                remedy += "'hydra-detect store verify --repair' sets the damaged one aside."
                raise CorruptError(f"roll back {head!r}", f"{error.asked}: {error.found}", remedy) from None
            return self._move(version, before, pointers.ROLLED_BACK, earlier=before.earlier[:-1], reason=reason)

    def history(self, head: str) -> list[Event]:
        """Return all that happened to a head, oldest first; also to one that was removed.

        Raises:
            NotFoundError: If there never was such a head.

        """
        check_name(head)
        events = history(self.store, head)
        if not events:
            heads.numbers(self.store, head)  # which says that there is no such head, and what comes near
        return events

    def compare(self, head: str, a: int, b: int) -> Comparison:
        """Compare two versions: claims, sizes, settings, and the weights of each layer.

        Raises:
            NotFoundError: If there is no such version.
            CorruptError: If one of them is damaged.

        """
        return compare(self.store, heads.find(self.store, _exactly(head, a)), heads.find(self.store, _exactly(head, b)))

    def pin(self, head: str, number: int, *, reason: str = "") -> VersionRecord:
        """Keep a version whatever retention says; a head with pinned versions can be neither renamed nor removed.

        Raises:
            NotFoundError: If there is no such version.

        """

        def step(before: Pointer) -> VersionRecord:
            version = heads.find(self.store, _exactly(head, number))
            if number not in before.pinned:
                after = {
                    "event": pointers.PINNED,
                    "version": number,
                    "pins": (*before.pins, Pin(version=number, reason=reason)),
                }
                changes.note(self.store, head, before, after, actor=self.actor, reason=reason)
            return version

        heads.numbers(self.store, head)
        return changes.settled(self.store, head, step)

    def unpin(self, head: str, number: int, *, reason: str = "") -> None:
        """Let retention judge a version again, a damaged one too.

        Raises:
            NotFoundError: If there is no such version.

        """

        def step(before: Pointer) -> None:
            if number in before.pinned:
                pins = tuple(pin for pin in before.pins if pin.version != number)
                after = {"event": pointers.UNPINNED, "version": number, "pins": pins}
                changes.note(self.store, head, before, after, actor=self.actor, reason=reason)
            elif number not in heads.numbers(self.store, head):
                heads.find(self.store, _exactly(head, number))  # which says what there is

        _exactly(head, number)
        heads.numbers(self.store, head)
        changes.settled(self.store, head, step)

    def prune(self, head: str, *, keep: int = DEFAULT_KEEP, dry_run: bool = False, reason: str = "") -> PruneReport:
        """Take old versions away: all but the last `keep` by number, the active, the previous and the pinned ones.

        What is taken away is first written into the pointer, so that no one can promote it any more, and then
        deleted. A reader that holds one keeps what it has read.

        Args:
            head: Name of the head.
            keep: How many of the highest numbers stay.
            dry_run: Say what would be removed, and do nothing.
            reason: Why, for the history.

        Raises:
            NotFoundError: If there is no such head.
            InputError: If `keep` is no whole number from 1.
            CorruptError: If the manifest of one that would go is damaged: evidence is never deleted.

        """

        def plan(before: Pointer) -> PruneReport:
            numbers = heads.numbers(self.store, head)
            stay = kept(numbers, before, keep=keep)
            sizes = {number: self._nbytes(head, number) for number in numbers if number not in stay}
            return PruneReport(head=head, removed=sizes, kept=stay, is_dry_run=dry_run)

        def step(before: Pointer) -> PruneReport:
            report = plan(before)
            if report.removed:
                after = {"event": pointers.PRUNED}
                changes.take_away(
                    self.store, head, before, report.removed, after=after, actor=self.actor, reason=reason
                )
            return report

        heads.numbers(self.store, head)
        if dry_run:
            return changes.steady(self.store, head, plan)
        return changes.settled(self.store, head, step)

    def verify(self, *, depth: Depth = "full", progress: Callable[[int, int], None] | None = None) -> CheckReport:
        """Check the whole store and change nothing.

        Args:
            depth: "quick": structure, sizes, pointers. "full": also every SHA-256. "deep": also what is inside, and
                that each head's network can be built.
            progress: Called with bytes read and bytes in all.

        """
        return check.check(self.store, depth=depth, progress=progress, build=_builder(depth))

    def repair(self, *, depth: Depth = "full", progress: Callable[[int, int], None] | None = None) -> CheckReport:
        """Check the whole store and mend what can be mended without deleting evidence.

        Damaged versions and pointers go to the head's `quarantine` folder; a head whose active version was damaged
        goes back to the last sound one that was active before; leftovers of dead processes are cleared away.

        Args:
            depth: As for `verify`.
            progress: As for `verify`.

        """
        found = self.verify(depth=depth, progress=progress)
        return repair.repair(self.store, found, actor=self.actor, build=_builder(depth))

    def _checked(self, head: str, number: int) -> VersionRecord:
        version = heads.find(self.store, _exactly(head, number))
        heads.tensors(self.store, version)
        return version

    def _move(
        self, version: VersionRecord, before: Pointer, event: str, *, earlier: tuple[int, ...], reason: str
    ) -> VersionRecord:
        after = {
            "event": event,
            "version": version.number,
            "active": version.number,
            "earlier": earlier,
            "manifest": version.manifest,
        }
        changes.note(self.store, version.head, before, after, actor=self.actor, reason=reason)
        return version

    def _nbytes(self, head: str, number: int) -> int:
        return sum(size for size, _digest in self.store.manifest(layout.HEADS, head, number).files.values())


def _exactly(head: str, number: int) -> HeadRef:
    """Return the reference to one version: None, which would mean the active one elsewhere, is no number here."""
    ref = HeadRef(head, number)
    if ref.version is None:
        remedy = "Give the version as a whole number from 1."
        raise NameInvalidError(f"refer to a version of {head!r}", "None is no version number", remedy, name=number)
    return ref


def _builder(depth: Depth) -> Callable[[BackboneRecord | HeadRecord, Mapping[str, RawTensor]], object] | None:
    """Return what builds a network, for the deepest check alone: it needs torch."""
    if depth != "deep":
        return None
    from hydra_detect.loading import build

    return build
