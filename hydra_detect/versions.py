"""`VersionManager`: which versions of a head there are, which one is active, and how that changes.

A version is created once and never changes; the one mutable fact is which version is active. Owns no bytes on disk
(that is `storage`) and no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.comparison import Comparison, compare
from hydra_detect.errors import ConflictError, InputError, NameInvalidError, NotFoundError, RecordError, listed
from hydra_detect.history import Event, history
from hydra_detect.names import HeadRef, check_name, shown, whole_number
from hydra_detect.records import HeadRecord
from hydra_detect.retention import DEFAULT_KEEP, PruneReport, kept
from hydra_detect.storage import changes, files, heads, pointers, references
from hydra_detect.storage.check import Checker
from hydra_detect.storage.pointers import Pin
from hydra_detect.storage.publishing import publish
from hydra_detect.storage.repair import repair
from hydra_detect.storage.store import Store
from hydra_detect.tensors import raw_weights

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.check import Build
    from hydra_detect.storage.findings import CheckReport, Depth
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Change, Pointer


class VersionManager:
    """The versions of the heads in a store.

    Any number of processes may use one store: every change is one file that only one of them can create. Each method
    that changes something raises, beside what it says itself, a `StoreError` if the disk is full or not writable, a
    `ConflictError` if another process holds the head's lock for a minute, and an `InputError` for a reason that is no
    short text; each that reads, a `StoreError` if the system refuses, and a `CorruptError` for a damaged state.

    Args:
        store: A store, or the path of one that exists.
        actor: Who is at work, for the history; left out, $HYDRA_DETECT_ACTOR, or user@host.

    Raises:
        NotFoundError: If there is no store.
        StoreError: If it cannot be read, or was written by a newer version.
        InputError: If `actor` is no short text.

    """

    def __init__(self, store: str | os.PathLike[str] | Store, *, actor: str = "") -> None:
        self.store = Store.open(store)
        self.actor = changes.checked(actor, "actor")

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
            IncompatibleError: If the store has no backbone that the head was made on, or the reference of a compact
                head was made on another.
            NotFoundError: If the store does not have the reference of a compact head.
            ConflictError: If that was taken away while this one was published.
            StoreError: If the disk is full or not writable; nothing is left behind.

        """
        check_name(head)
        asked = f"create a version of {head!r}"
        if not isinstance(record, HeadRecord):
            raise RecordError(asked, f"its record is {record!r:.60}", "Give a HeadRecord.")
        weights, beside = raw_weights(tensors, asked), _attachments(attachments, asked)
        return publish(self.store, head, record, weights, attachments=beside, actor=self.actor)

    def versions(self, head: str) -> list[VersionRecord]:
        """Return all versions of a head, oldest first.

        Raises:
            NotFoundError: If there is no such head; the message says which come near.
            CorruptError: If the record or manifest of one is damaged.

        """
        item, found = heads.there(self.store, head), []
        for number in item.numbers():
            try:
                found.append(heads.find(self.store, HeadRef(head, number)))
            except NotFoundError:  # pruned since it was listed
                if number in item.numbers():
                    raise
        return found

    def active(self, head: str) -> VersionRecord:
        """Return the active version of a head.

        Raises:
            NotFoundError: If there is no such head, or none of its versions is active.
            CorruptError: If the pointer or the version it names is damaged.

        """
        return heads.find(self.store, HeadRef(head))

    def promote(self, head: str, number: int, *, instead_of: int | None = None, reason: str = "") -> VersionRecord:
        """Make a version the active one: each of its files is checked first, then one file changes the world.

        Promoting the version that is active already checks it and changes nothing, so that it stays clear which
        version was active before.

        Args:
            head: Name of the head.
            number: Number of the version.
            instead_of: The version that must still be the active one, 0 for none: what a decision was made against
                may not be active any more. Left out, it does not matter.
            reason: Why, for the history.

        Raises:
            NotFoundError: If there is no such version, or a compact one's reference is not in the store.
            IncompatibleError: If that was made for another backbone.
            CorruptError: If any of it is damaged, or it is not the one that was promoted before; the active one stays.
            ConflictError: If another version is active than `instead_of`.

        """
        number = _number(head, number)
        expected = whole_number(instead_of)
        if expected is not None and not (type(expected) is int and expected == 0):
            expected = _number(head, expected)
        item = heads.there(self.store, head)
        version = heads.whole(item, number)
        references.check(self.store, version, f"promote {head}@{number}")

        def step(before: Pointer) -> VersionRecord:
            changes.check_active(f"promote {head}@{number}", before, expected)
            heads.check_same(item, version)
            if before.is_active(number, version.manifest):
                item.confirm()
                return version
            passed = [before.active] if before.active else []
            earlier = pointers.steps_back([*before.earlier, *passed], number)
            return self._move(item, version, before, pointers.PROMOTED, earlier=earlier, reason=reason)

        return item.settled(step)

    def rollback(self, head: str, *, reason: str = "") -> VersionRecord:
        """Make the version active again that was active before; again and again, over the last 1,000 promotions.

        The version rolled back from is forgotten for this: after 1, 2, 3 two rollbacks lead to 1. Versions that were
        pruned since are passed over.

        Raises:
            NotFoundError: If there is no such head, none was active before, or what it leans on is not in the store.
            IncompatibleError: If that was made for another backbone.
            CorruptError: If that version is damaged; the active version stays.
            ConflictError: If another process changed the active version meanwhile: look again before going further
                back.

        """
        item = heads.there(self.store, head)
        version, seen = item.steady(lambda state: (heads.previous(item, state), state))
        references.check(self.store, version, f"roll back {head!r}")

        def step(before: Pointer) -> VersionRecord:
            if (before.active, before.previous) != (seen.active, seen.previous):
                found = "another process changed the active version meanwhile"
                raise ConflictError(f"roll back {head!r}", found, "Look again, then repeat it.")
            heads.check_same(item, version)
            earlier = before.earlier[:-1]
            return self._move(item, version, before, pointers.ROLLED_BACK, earlier=earlier, reason=reason)

        return item.settled(step)

    def history(self, head: str) -> list[Event]:
        """Return all that happened to a head, oldest first; also to one that was removed.

        Raises:
            NotFoundError: If there never was such a head.

        """
        events = history(self.store, head)
        if not events:
            heads.there(self.store, head)  # which says that there is no such head, and what comes near
        return events

    def compare(self, head: str, a: int, b: int) -> Comparison:
        """Compare two versions: claims, sizes, settings, and the weights of each layer.

        Raises:
            NotFoundError: If there is no such version.
            CorruptError: If one of them is damaged.

        """
        refs = [HeadRef(head, _number(head, number)) for number in (a, b)]
        heads.there(self.store, head)
        first, second = (heads.find(self.store, ref) for ref in refs)
        return compare(self.store, first, second)

    def pin(self, head: str, number: int, *, reason: str = "") -> VersionRecord:
        """Keep a version whatever retention says; a head with pinned versions can be neither renamed nor removed.

        A version may be pinned for several reasons, and is kept until the last of them is gone.

        Args:
            head: Name of the head.
            number: Number of the version.
            reason: For what it is kept; pinning it for the same reason again changes nothing.

        Raises:
            NotFoundError: If there is no such version.
            CorruptError: If its manifest or record is damaged, or another stands in its place.

        """
        ref = HeadRef(head, _number(head, number))
        item = heads.there(self.store, head)

        def step(before: Pointer) -> VersionRecord:
            version = heads.find(self.store, ref)
            heads.check_known(item, version)
            change = self._change(pointers.PINNED, reason, version=version.number, manifest=version.manifest)
            pin = Pin(version=version.number, reason=reason, actor=change.actor)
            if any((one.version, one.reason) == (pin.version, pin.reason) for one in before.pins):
                item.confirm()
            else:
                item.swap(before, {"pins": (*before.pins, pin)}, change)
            return version

        return item.settled(step)

    def unpin(self, head: str, number: int, *, pinned_for: str | None = None, reason: str = "") -> None:
        """Let retention judge a version again, a damaged one too.

        Args:
            head: Name of the head.
            number: Number of the version.
            pinned_for: The reason that it was pinned for; needed only where there are several.
            reason: Why it need not be kept any more, for the history.

        Raises:
            NotFoundError: If there is no such version, or it is pinned, and not for that.
            ConflictError: If it is pinned for several reasons and none was named: each may be somebody else's.

        """
        ref = HeadRef(head, _number(head, number))
        item = heads.there(self.store, head)

        def step(before: Pointer) -> None:
            pin = changes.pin_of(before, ref, pinned_for)
            if pin is None:
                if ref.version not in item.numbers():
                    heads.find(self.store, ref)  # which says what there is
                item.confirm()
                return
            pins = tuple(one for one in before.pins if one is not pin)
            change = self._change(pointers.UNPINNED, reason, version=ref.version, other=pin.reason)
            item.swap(before, {"pins": pins}, change)

        item.settled(step)

    def prune(self, head: str, *, keep: int = DEFAULT_KEEP, dry_run: bool = False, reason: str = "") -> PruneReport:
        """Take old versions away: all but the last `keep`, the active, the previous, the pinned, and the leant on.

        What is taken away is first written into the state, so that no one can promote it any more, and then
        deleted. A reader that holds one keeps what it has read.

        Args:
            head: Name of the head.
            keep: How many of the highest numbers stay.
            dry_run: Say what would be removed, and do nothing.
            reason: Why, for the history.

        Raises:
            NotFoundError: If there is no such head.
            InputError: If `keep` is no whole number from 1.
            CorruptError: If the manifest of one that would go is damaged: nothing could be remembered of it.

        """
        item = heads.there(self.store, head)

        def plan(before: Pointer) -> PruneReport:
            numbers = heads.there(self.store, head).numbers()
            stay = _kept(item, before, numbers, keep=keep)
            gone = [changes.remember(item, number).version for number in numbers if number not in stay]
            sizes = {number: files.nbytes(item.place.version(number)) for number in gone}
            return PruneReport(head=head, removed=sizes, kept=stay, is_dry_run=dry_run)

        def step(before: Pointer) -> PruneReport:
            report, change = plan(before), self._change(pointers.PRUNED, reason)
            if not report.removed:
                item.confirm()
                return report
            waiting = changes.take_away(item, before, report.removed, after={}, change=change)
            return attrs.evolve(report, waiting=tuple(waiting))

        return item.steady(plan) if dry_run else item.settled(step)

    def verify(self, *, depth: Depth = "full", progress: Callable[[int, int], None] | None = None) -> CheckReport:
        """Check the whole store and change nothing.

        Args:
            depth: "quick": structure, sizes, pointers. "full": also every SHA-256. "deep": also what is inside, and
                that each head's network can be built.
            progress: Called with bytes read and bytes in all.

        Returns:
            What was found; `is_sound` says whether that is nothing.

        Raises:
            InputError: If there is no such depth.

        """
        return Checker(self.store, depth=depth, progress=progress, build=_builder(self.store, depth)).run()

    def repair(self, *, depth: Depth = "full", progress: Callable[[int, int], None] | None = None) -> CheckReport:
        """Check the whole store and mend what can be mended without deleting evidence.

        Damaged versions and pointers go to the head's `quarantine` folder; a head whose active version was damaged
        goes back to the last sound one that was active before; leftovers of dead processes are cleared away. What is
        whole, and only of no use to this version of the library, is left as it is.

        Args:
            depth: As for `verify`.
            progress: As for `verify`.

        Returns:
            What is left, and in `mended` what was done.

        Raises:
            InputError: If there is no such depth.
            ConflictError: If another process changes a head while it is repaired.

        """
        checker = Checker(self.store, depth=depth, progress=progress, build=_builder(self.store, depth))
        return repair(self.store, checker, actor=self.actor)

    def _change(self, what: str, reason: str, **facts: Any) -> Change:
        return changes.change(what, actor=self.actor, reason=reason, **facts)

    def _move(
        self, item: Item, version: VersionRecord, before: Pointer, what: str, *, earlier: tuple[int, ...], reason: str
    ) -> VersionRecord:
        change = self._change(what, reason, version=version.number, manifest=version.manifest)
        item.swap(before, {"active": version.number, "manifest": version.manifest, "earlier": earlier}, change)
        return version


def _kept(item: Item, state: Pointer, numbers: Sequence[int], *, keep: int) -> dict[int, str]:
    """Return the versions that stay, and why: by the rule, and those that what stays leans on."""
    stay = kept(numbers, state, keep=keep)
    going = [number for number in numbers if number not in stay]
    needed = references.needed(item, going, besides=[HeadRef(item.name, number) for number in going])
    return dict(sorted({**stay, **needed}.items()))


def _number(head: str, number: int) -> int:
    """Return the number of a version: None, which means the active one elsewhere, is none here."""
    ref = HeadRef(check_name(head), number)
    if ref.version is None:
        remedy = "Give the version as a whole number from 1."
        raise NameInvalidError(f"refer to a version of {head!r}", "None is no version number", remedy, name=number)
    return ref.version


def _attachments(attachments: Mapping[str, bytes] | None, asked: str) -> Mapping[str, bytes]:
    attachments = {} if attachments is None else attachments
    if not isinstance(attachments, Mapping):
        raise InputError(asked, f"its attachments are {shown(attachments)}", "Give a mapping of file names to bytes.")
    wrong = [name for name, data in attachments.items() if not isinstance(data, bytes)]
    if wrong:
        raise InputError(asked, f"attachments are no bytes: {listed(map(str, wrong))}", "Encode them first.")
    return attachments


def _builder(store: Store, depth: Depth) -> Build | None:
    """Return what builds a network, for the deepest check alone: it needs torch."""
    if depth != "deep":
        return None
    from hydra_detect.loading import builder

    return builder(store)
