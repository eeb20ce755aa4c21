"""History: what happened to a head, as events in the past tense.

Creations stand in the manifests of the versions, and in the pointer for versions that were taken away; everything else
is a generation of the pointer. Nothing is written twice, so the history cannot disagree with the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect import codec
from hydra_detect.errors import HydraDetectError
from hydra_detect.names import Digest, one_line  # Digest here and not below: the codec reads annotations as it runs
from hydra_detect.storage import files, pointers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Change, Pointer
    from hydra_detect.storage.store import Store

CREATED, DAMAGED = "created", "damaged"
_KINDS = (CREATED, DAMAGED, *pointers.EVENTS)
_BEFORE_OTHER = {pointers.UNPINNED: "for", pointers.REFERENCED: "by"}


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened to a head.

    Args:
        at: When, ISO 8601 in UTC; None for a generation that is damaged.
        what: "created", one of `storage.pointers.EVENTS`, or "damaged" for a generation that cannot be read any more.
        head: Its name.
        versions: The versions it happened to; several for "pruned", "removed", "renamed" and "repaired".
        digests: SHA-256 of the manifest of each of these, None of one that was damaged.
        other: The other name, of a renaming; what the version was pinned for, of an unpinning; the compact version that
            leans on it, of a reference.
        active: The version that was active after it; None if none was, and for a creation, which does not change it.
        active_digest: SHA-256 of the manifest of that version.
        actor: Who did it.
        reason: Why.
        generation: The pointer's generation; 0 for a creation, which moves no pointer.

    """

    at: str | None
    what: str = attrs.field(validator=attrs.validators.in_(_KINDS))
    head: str
    versions: tuple[int, ...] = ()
    digests: tuple[Digest | None, ...] = ()
    other: str = ""
    active: int | None = None
    active_digest: Digest | None = None
    actor: str = ""
    reason: str = ""
    generation: int = 0

    @property
    def digest(self) -> Digest | None:
        """SHA-256 of the manifest of the one version that it happened to; None where there are several."""
        return self.digests[0] if len(self.digests) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    def __str__(self) -> str:
        """One line: when, what, who and why, and which version was active from then on."""
        which = ", ".join(f"{self.head}@{number}" for number in self.versions) or self.head
        digest = f" {self.digest.short}" if self.digest else ""
        to = _BEFORE_OTHER.get(self.what) or ("to" if self.versions else "from")
        other = f" {to} {self.other}" if self.other else ""
        who = f" by {self.actor}" if self.actor else ""
        why = f": {self.reason}" if self.reason else ""
        what = "rolled back to" if self.what == pointers.ROLLED_BACK else self.what
        now = "" if self.what in {CREATED, DAMAGED} else f"  [active: {self.active or 'none'}]"
        return one_line(f"{self.at or '(time unknown)'}  {what} {which}{other}{digest}{who}{why}{now}")


def history(store: Store, head: str) -> list[Event]:
    """Return all that happened to a head, oldest first; also to one that was removed, and under its earlier names.

    A generation that is damaged has its place too, as an event "damaged"; `VersionManager.repair` sets it aside.

    Raises:
        StoreError: If the system refuses to read a part of it.

    """
    return _history(store, head, frozenset())


def _history(store: Store, head: str, later: frozenset[str]) -> list[Event]:
    """Return the history of a head; names that it had later are not looked at again, whatever a stranger wrote."""
    item = store.head(head)
    generations, changes = [], []
    for generation in item.place.pointer_generations():
        try:
            generations.append(pointers.read(item.place, generation))
            changes.append(_event(head, generations[-1]))
        except HydraDetectError as error:
            if files.is_refusal(error):
                raise
            changes.append(Event(at=None, what=DAMAGED, head=head, reason=error.found, generation=generation))
    came = _renaming(generations)
    born = generations[0].high if came else 0  # the versions up to there were created under another name
    creations = [event for event in _creations(item, generations) if event.versions[0] > born]
    before = _until_renamed(store, came, head, later | {head}) if came else []
    return [*before, *_merged(creations, changes)]


def _renaming(generations: list[Pointer]) -> Change | None:
    """Return the change by which a head came from another name, if it did."""
    first = generations[0] if generations else None
    change = first.change if first and first.generation == 1 else None
    # Of a head that went, versions were taken away; it may have gone with its first change.
    return change if change and change.what == pointers.RENAMED and not change.taken else None


def _until_renamed(store: Store, came: Change, new: str, later: frozenset[str]) -> list[Event]:
    """Return what happened to a head under its earlier name; nothing of what the name was used for since.

    Where a renaming was cut off, and the old name worked on, that is what came before it in time.
    """
    events = [] if came.other in later else _history(store, came.other, later)
    ends = [place for place, event in enumerate(events) if (event.what, event.other) == (pointers.RENAMED, new)]
    if ends:
        return events[: ends[0] + 1]
    since = [place for place, event in enumerate(events) if event.at and event.at > came.at]
    return events[: since[0]] if since else events


def _event(head: str, pointer: Pointer) -> Event:
    change = pointer.change or pointers.Change(what=pointers.REPAIRED, at="")
    one = {change.version: change.manifest} if change.version and not change.taken else {}
    of = {taken.version: taken.manifest for taken in change.taken} or one
    return Event(
        at=change.at,
        what=change.what,
        head=head,
        versions=tuple(of),
        digests=tuple(of.values()),
        other=change.other,
        active=pointer.active,
        active_digest=pointer.manifest,
        actor=change.actor,
        reason=change.reason,
        generation=pointer.generation,
    )


def _creations(item: Item, generations: Iterable[Pointer]) -> list[Event]:
    """Return when each version was made, by number: those that are there, and those remembered as taken away."""
    found = {}
    for state in generations:
        for taken in state.change.taken if state.change else ():
            if taken.created_at:  # a damaged one that was set aside may have been no more than its number
                found[taken.version] = (taken.created_at, taken.actor, taken.manifest)
    for number in item.numbers():
        with files.unless_damaged():
            manifest = item.manifest(number)
            found[number] = (manifest.created_at, manifest.actor, manifest.digest)
    return [
        Event(at=at, what=CREATED, head=item.name, versions=(number,), digests=(digest,), actor=actor)
        for number, (at, actor, digest) in sorted(found.items())
    ]


def _merged(creations: list[Event], changes: list[Event]) -> list[Event]:
    """Merge by time, each list in its own order: clocks may differ between machines, generations do not.

    What has no time stands where it stood among the changes.
    """
    merged: list[Event] = []
    for change in changes:
        while change.at and creations and (creations[0].at or "") <= change.at:
            merged.append(creations.pop(0))
        merged.append(change)
    return [*merged, *creations]
