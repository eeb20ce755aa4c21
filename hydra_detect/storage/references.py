"""What compact heads lean on: found by the digest of its weights, and kept for as long as anything needs it.

A reference is a version of a full head like any other. That a head leans on it is written twice: in the head's own
record, and, as a change, in the state of the reference. The second is what makes pruning safe without any lock: whoever
takes a version away built on a state, and that state is another one as soon as a head leans on the version.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hydra_detect.errors import (
    ConflictError,
    HydraDetectError,
    IncompatibleError,
    NameInvalidError,
    NotFoundError,
    listed,
)
from hydra_detect.names import HeadRef
from hydra_detect.storage import files, heads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from hydra_detect.names import Digest
    from hydra_detect.records import CompactForm, HeadRecord, VersionRecord
    from hydra_detect.storage.items import Item
    from hydra_detect.storage.pointers import Pointer
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor


def find(store: Store, record: HeadRecord, asked: str) -> VersionRecord:
    """Return the version that a compact head leans on, whatever it is called by now.

    Raises:
        NotFoundError: If the store does not have it; what lies where it was is said.
        IncompatibleError: If it was made for another backbone.
        CorruptError: If it cannot be read.

    """
    form = record.compact
    assert form is not None  # noqa: S101  callers ask for compact heads alone
    found = next(_of_digest(store, form), None)
    if found is None:
        raise _missing(store, form, asked)
    differences = record.backbone.differences(found.record.backbone)
    if differences:
        problem = f"its reference {found.ref} was made for another backbone: {'; '.join(differences)}"
        raise IncompatibleError(asked, problem, "Use the reference that it was made on.", differences=differences)
    return found


def _of_digest(store: Store, form: CompactForm) -> Iterator[VersionRecord]:
    """Yield the full versions that have these weights, the one that is named first."""
    named = HeadRef.parse(form.reference_ref)
    others = [HeadRef(name, number) for name in heads.names(store) for number in store.head(name).numbers()]
    for ref in dict.fromkeys([named, *others]):
        with contextlib.suppress(NotFoundError, NameInvalidError), files.unless_damaged():
            version = heads.find(store, ref)
            if version.record.tensors == form.reference and version.record.compact is None:
                yield version


def _missing(store: Store, form: CompactForm, asked: str) -> HydraDetectError:
    """Return the error that says what is where the reference was."""
    remedy = f"Put {form.reference_ref} with the tensors {form.reference.short} into the store again."
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


def needed(item: Item, state: Pointer, numbers: Collection[int], *, besides: Collection[HeadRef]) -> dict[int, str]:
    """Return which versions of a head something leans on, each with what that is.

    Args:
        item: The head.
        state: Its state: only what it calls referenced is looked into.
        numbers: The versions that are asked of.
        besides: Versions that do not count, because they go with it.

    """
    asked = sorted(set(numbers) & set(state.referenced))
    if not asked:
        return {}
    dependents = _dependents(item.store, besides)
    reasons = {}
    for number in asked:
        digest = heads.find(item.store, HeadRef(item.name, number)).record.tensors
        own = [*dependents.get(digest, []), *dependents.get(None, [])]
        if own:
            reasons[number] = f"{listed(own)} {'leans' if len(own) == 1 else 'lean'} on it"
    return reasons


def _dependents(store: Store, besides: Collection[HeadRef]) -> Mapping[Digest | None, list[str]]:
    """Return the versions that lean on others, by what they lean on; None for what cannot be read, which may."""
    found: dict[Digest | None, list[str]] = {}
    for name in heads.names(store):
        for number in store.head(name).numbers():
            ref = HeadRef(name, number)
            if ref in besides:
                continue
            try:
                form = heads.find(store, ref).record.compact
            except NotFoundError:  # taken away meanwhile
                continue
            except HydraDetectError:
                found.setdefault(None, []).append(f"{ref} (which cannot be read)")
                continue
            if form:
                found.setdefault(form.reference, []).append(str(ref))
    return found


def check_free(item: Item, state: Pointer, asked: str) -> None:
    """See that no version of another head leans on one of a head.

    Raises:
        ConflictError: Naming those that do.

    """
    own = [HeadRef(item.name, number) for number in item.numbers()]
    reasons = needed(item, state, item.numbers(), besides=own)
    if reasons:
        found = listed(f"{item.name}@{number}: {reason}" for number, reason in reasons.items())
        raise ConflictError(asked, found, "Expand those heads first, or remove them.")
