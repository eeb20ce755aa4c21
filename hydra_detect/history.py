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
from hydra_detect.storage import layout, pointers

if TYPE_CHECKING:
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store

CREATED, UNREADABLE = "created", "unreadable"
_PRESENT_KINDS = (CREATED, UNREADABLE, *pointers.EVENTS)


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened to a head.

    Args:
        at: When, ISO 8601 in UTC.
        what: "created", one of `storage.pointers.EVENTS`, or "unreadable" for a generation that is damaged.
        head: Its name.
        versions: The versions it happened to; several for "pruned", "removed", "renamed" and "repaired".
        other: The other name, of a renaming.
        active: The version that was active after it; None if none was, and for a creation, which does not change it.
        actor: Who did it.
        reason: Why.
        digest: SHA-256 of the manifest of the version that was created or became active.
        generation: The pointer's generation; 0 for a creation, which moves no pointer.

    """

    at: str
    what: str = attrs.field(validator=attrs.validators.in_(_PRESENT_KINDS))
    head: str
    versions: tuple[int, ...] = ()
    other: str = ""
    active: int | None = None
    actor: str = ""
    reason: str = ""
    digest: Digest | None = None
    generation: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain: dict[str, Any] = codec.to_dict(self)
        return plain

    def __str__(self) -> str:
        """One line: when, what, who and why."""
        which = ", ".join(f"{self.head}@{number}" for number in self.versions) or self.head
        digest = f" {self.digest.short}" if self.digest else ""
        other = f" {'to' if self.versions else 'from'} {self.other}" if self.other else ""
        who = f" by {self.actor}" if self.actor else ""
        why = f": {self.reason}" if self.reason else ""
        what = "rolled back to" if self.what == pointers.ROLLED_BACK else self.what
        return one_line(f"{self.at}  {what} {which}{other}{digest}{who}{why}")


def history(store: Store, head: str) -> list[Event]:
    """Return all that happened to a head, oldest first; also to one that was removed.

    A generation that is damaged has its place too, as an event "unreadable"; `VersionManager.repair` sets it aside.
    """
    item = store.layout.item(layout.HEADS, head)
    generations, changes = [], []
    for generation in item.pointer_generations():
        try:
            generations.append(pointers.read(item, head, generation))
            changes.append(_event(head, generations[-1]))
        except HydraDetectError as error:
            at = changes[-1].at if changes else ""
            changes.append(Event(at=at, what=UNREADABLE, head=head, reason=error.found, generation=generation))
    taken = {taken.version: taken for pointer in generations for taken in pointer.taken}
    creations = {
        number: Event(
            at=past.created_at, what=CREATED, head=head, versions=(number,), actor=past.actor, digest=past.manifest
        )
        for number, past in taken.items()
        if past.created_at
    }
    for number in store.numbers(layout.HEADS, head):
        try:
            manifest = store.manifest(layout.HEADS, head, number)
        except HydraDetectError:  # as above
            continue
        creations[number] = Event(
            at=manifest.created_at,
            what=CREATED,
            head=head,
            versions=(number,),
            actor=manifest.actor,
            digest=manifest.digest,
        )
    return _merged([creations[number] for number in sorted(creations)], changes)


def _event(head: str, pointer: Pointer) -> Event:
    several = tuple(taken.version for taken in pointer.taken)
    moved = pointer.event in {pointers.PROMOTED, pointers.ROLLED_BACK, pointers.REPAIRED} and not several
    return Event(
        at=pointer.at,
        what=pointer.event,
        head=head,
        versions=several or ((pointer.version,) if pointer.version else ()),
        other=pointer.other,
        active=pointer.active,
        actor=pointer.actor,
        reason=pointer.reason,
        digest=pointer.manifest if moved else None,
        generation=pointer.generation,
    )


def _merged(creations: list[Event], changes: list[Event]) -> list[Event]:
    """Merge by time, each list in its own order: clocks may differ between machines, generations do not."""
    merged: list[Event] = []
    while creations and changes:
        first = creations if creations[0].at <= changes[0].at else changes
        merged.append(first.pop(0))
    return [*merged, *creations, *changes]
