"""What compact heads lean on: found by the digest of its weights, and kept for as long as anything needs it.

A reference is a version of a full head like any other. What leans on it is in the records of compact versions: however
a reference came back to the store, it is kept. That one was published is also written into the history of its
reference, as a change: so whoever takes versions away and looked before finds another state, and looks again. Where a
record cannot be read, history says what leaned on what.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

from hydra_detect.errors import (
    ConflictError,
    CorruptError,
    HydraDetectError,
    IncompatibleError,
    NameInvalidError,
    NotFoundError,
    RecordError,
    listed,
)
from hydra_detect.names import HeadRef
from hydra_detect.storage import files, heads, pointers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hydra_detect.names import Digest
    from hydra_detect.records import CompactForm, HeadRecord, VersionRecord
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor


def find(store: Store, record: HeadRecord, asked: str) -> VersionRecord:
    """Return the version that a compact head leans on, whatever it is called by now.

    Raises:
        NotFoundError: If the store does not have it; what lies where it was is said.
        IncompatibleError: If it was made for another backbone.
        CorruptError: If it cannot be read.

    """
    form, others = record.compact, []
    assert form is not None  # noqa: S101  callers ask for compact heads alone
    for version in _of_digest(store, form):
        differences = record.backbone.differences(version.record.backbone)
        if not differences:
            return version
        others.append((version.ref, differences))
    for ref, differences in others:
        problem = f"its reference {ref} was made for another backbone: {'; '.join(differences)}"
        raise IncompatibleError(asked, problem, "Use the reference that it was made on.", differences=differences)
    raise _missing(store, form, asked)


def _of_digest(store: Store, form: CompactForm) -> Iterator[VersionRecord]:
    """Yield the full versions that have these weights, the one that is named first.

    The others are listed when that is not it: a head that is being renamed has its new name before it loses the old.
    """
    for ref in itertools.chain([HeadRef.parse(form.reference_ref)], _refs(store)):
        with contextlib.suppress(NotFoundError, NameInvalidError), files.unless_damaged():
            version = heads.find(store, ref)
            if version.record.tensors == form.reference and version.record.compact is None:
                yield version


def _refs(store: Store) -> Iterator[HeadRef]:
    for name in heads.names(store):
        yield from (HeadRef(name, number) for number in store.head(name).numbers())


def _missing(store: Store, form: CompactForm, asked: str) -> HydraDetectError:
    """Return the error that says what is where the reference was."""
    remedy = "Restore it from a copy or the quarantine folder, or add a bundle that holds it (hydra-detect unbundle)."
    try:
        there = heads.find(store, form.reference_ref)
    except NotFoundError:
        found = f"its reference {form.reference_ref} ({form.reference.short}) is not in the store"
        return NotFoundError(asked, found, remedy)
    except HydraDetectError as error:  # it may well be the one
        return error
    found = f"it leans on tensors {form.reference.short}, and {form.reference_ref} has {there.record.tensors.short}"
    return NotFoundError(asked, found, remedy)


def load(store: Store, record: HeadRecord, asked: str) -> tuple[VersionRecord, dict[str, RawTensor]]:
    """Return the version that a compact head leans on, and its weights.

    Raises:
        NotFoundError: If the store does not have it.
        IncompatibleError: If it was made for another backbone.
        CorruptError: If it is damaged.

    """
    version = find(store, record, asked)
    return version, heads.tensors(store, version)


def check(store: Store, version: VersionRecord, asked: str) -> None:
    """See that what a version leans on, if it does, is there.

    Raises:
        NotFoundError: If the store does not have it.
        IncompatibleError: If it was made for another backbone.
        CorruptError: If it cannot be read.

    """
    if version.record.compact:
        find(store, version.record, asked)


def needed(item: Item, numbers: Collection[int], *, besides: Collection[HeadRef]) -> dict[int, str]:
    """Return which versions of a head something leans on, each with what that is.

    Args:
        item: The head.
        numbers: The versions that are asked of.
        besides: Versions that do not count, because they go with it.

    """
    leaning = dependents(item.store, besides=besides)
    unread, reasons = set(leaning.pop(None, [])), {}
    for number in sorted(numbers):
        try:
            own = leaning.get(heads.find(item.store, HeadRef(item.name, number)).record.tensors, [])
        except (CorruptError, RecordError):
            unread |= {name for names in leaning.values() for name in names}
            own = []
        own = own or (sorted(unread & _told(item, number)) if unread else [])
        if own:
            reasons[number] = f"{listed(own)} {'leans' if len(own) == 1 else 'lean'} on it"
    return reasons


def _told(item: Item, number: int) -> set[str]:
    """Return the compact versions that a version's history names: all that is known where a record cannot be read."""
    happened = [state.change for state in pointers.intact(item.place) if state.change]
    return {one.other for one in happened if (one.what, one.version) == (pointers.REFERENCED, number)}


def dependents(store: Store, *, besides: Collection[HeadRef] = ()) -> dict[Digest | None, list[str]]:
    """Return the compact versions by what they lean on; by None those that cannot be read, which may be compact.

    Raises:
        StoreError: If the system refuses to read one: nobody knows then what it leans on.

    """
    found: dict[Digest | None, list[str]] = {}
    for ref in _refs(store):
        if ref in besides:
            continue
        try:
            form = heads.find(store, ref).record.compact
        except NotFoundError:  # taken away meanwhile
            continue
        except (CorruptError, RecordError):
            found.setdefault(None, []).append(str(ref))
            continue
        if form:
            found.setdefault(form.reference, []).append(str(ref))
    return found


def check_free(item: Item, asked: str) -> None:
    """See that no version of another head leans on one of a head.

    Raises:
        ConflictError: Naming those that do.

    """
    own = [HeadRef(item.name, number) for number in item.numbers()]
    reasons = needed(item, item.numbers(), besides=own)
    if reasons:
        found = listed(f"{item.name}@{number}: {reason}" for number, reason in reasons.items())
        remedy = "Remove those first, or expand and promote them and prune what is compact."
        raise ConflictError(asked, found, f"{remedy} 'hydra-detect store verify --repair' sets aside what is damaged.")
