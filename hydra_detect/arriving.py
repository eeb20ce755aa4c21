"""What comes from elsewhere, put into a store: a version of a head, with the backbone and reference that it needs.

It was checked by whoever brings it. What is put in is never promoted by that.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from hydra_detect.errors import ConflictError, NotFoundError
from hydra_detect.names import HeadRef, check_name
from hydra_detect.storage import backbones, files, heads, locks, references

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.records import BackboneRecord, HeadRecord, VersionRecord
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor
    from hydra_detect.versions import VersionManager


@attrs.frozen(kw_only=True)
class ArrivingBackbone:
    """A backbone that may be new to the store.

    Args:
        name: What it was called.
        record: Its facts.
        tensors: Its weights.

    """

    name: str
    record: BackboneRecord
    tensors: Mapping[str, RawTensor] = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class ArrivingHead:
    """A version of a head.

    Args:
        name: What the head was called.
        record: Its facts.
        tensors: Its weights.
        files: What is to lie beside it.

    """

    name: str
    record: HeadRecord
    tensors: Mapping[str, RawTensor] = attrs.field(repr=False)
    files: Mapping[str, bytes] = attrs.field(repr=False)

    def noted(self, note: str) -> ArrivingHead:
        """Return it with a note at the end of its notes."""
        notes = "; ".join(filter(None, [self.record.notes, note]))
        return attrs.evolve(self, record=attrs.evolve(self.record, notes=notes))


@attrs.frozen(kw_only=True)
class Arrival:
    """All that comes together.

    Args:
        head: The version.
        backbone: That backbone; None where the store is known to have it.
        reference: The full head that a compact one leans on; None for a full one, and where the store has it.

    """

    head: ArrivingHead
    backbone: ArrivingBackbone | None = None
    reference: ArrivingHead | None = None

    def add_to(
        self,
        manager: VersionManager,
        *,
        backbone: str | None = None,
        is_same: Callable[[VersionRecord, HeadRecord], bool],
    ) -> VersionRecord:
        """Put it in as a new version, or return the one that is there; nothing is promoted.

        Args:
            manager: Of the store.
            backbone: Name for the backbone here; None for that of the same one in the store or, if there is none, the
                one that it had.
            is_same: Whether a version that is there already is this one, told by what would be its record.

        Raises:
            NameInvalidError: If a name is not allowed.
            ConflictError: If the name of the backbone belongs to another one here, or that of the reference to a head
                of another backbone.
            CorruptError: If the same backbone is there, and damaged.
            StoreError: If the disk is full or not writable.

        """
        store = manager.store
        check_name(self.head.name)
        if backbone is None:
            likely = self.backbone.name if self.backbone else self.head.record.backbone_name
            backbone = name_in(store, self.head.record.backbone, likely=likely)
        if self.backbone:
            backbones.publish(store, backbone, self.backbone.record, self.backbone.tensors)
        record = attrs.evolve(self.head.record, backbone_name=backbone)
        if record.compact:
            ref = self._reference(manager, backbone)
            record = attrs.evolve(record, compact=attrs.evolve(record.compact, reference_ref=str(ref)))
        with _alone(store, self.head.name):
            for version in sound(store, self.head.name):
                if is_same(version, record):
                    return version
            return manager.create(self.head.name, self.head.tensors, record, attachments=self.head.files)

    def _reference(self, manager: VersionManager, backbone: str) -> HeadRef:
        """Return what the head leans on in a store, put there if it is not there yet, or damaged."""
        asked = f"add {self.head.name}"
        if self.reference is None:
            return references.find(manager.store, self.head.record, asked).ref
        own = self.reference
        with _alone(manager.store, own.name):
            with contextlib.suppress(NotFoundError), files.unless_damaged():
                return references.find(manager.store, self.head.record, asked).ref
            _check_fits(manager.store, own.name, self.head.record.backbone)
            record = attrs.evolve(own.record, backbone_name=backbone)
            return manager.create(own.name, own.tensors, record, attachments=own.files).ref


@contextlib.contextmanager
def _alone(store: Store, head: str) -> Iterator[None]:
    """Look and write alone: of several who bring the same at once, the first makes a version, and the others find it.

    A lock of its own, so that it is never waited for by anybody who holds that of a head.
    """
    path, asked = store.layout.lock("arriving", head), f"add a version of {head!r}"
    with files.explained(asked):
        files.ensure_folder(store.disk, path.parent, asked)
    with locks.held(path, asked):
        yield


def sound(store: Store, head: str) -> list[VersionRecord]:
    """Return the versions of a head that can be read, oldest first; none where there is no such head."""
    found = []
    for number in store.head(head).numbers():
        with contextlib.suppress(NotFoundError), files.unless_damaged():
            found.append(heads.find(store, HeadRef(head, number)))
    return found


def _check_fits(store: Store, head: str, contract: BackboneContract) -> None:
    """See that a name is free for what is to be leant on, or belongs to a head of the same backbone; damage aside."""
    for version in sound(store, head):
        differences = version.record.backbone.differences(contract)
        if differences:
            found = f"the store has a head {head!r} of another backbone: {'; '.join(differences)}"
            remedy = "Give the reference another name (reference=..., --reference)."
            raise ConflictError(f"add the reference {head!r}", found, remedy)


def name_in(store: Store, contract: BackboneContract, *, likely: str) -> str:
    """Return the name under which a store has a backbone; where it has it not, the likely one.

    One that is damaged is passed over: whoever goes on with a name will hear of it.

    Args:
        store: The store.
        contract: Weights and settings of the backbone.
        likely: The name that it has elsewhere, which is preferred.

    """
    return held_as(store, contract, likely=likely) or likely


def held_as(store: Store, contract: BackboneContract, *, likely: str = "") -> str | None:
    """Return the name under which a store has a backbone, as `name_in`; None where it has it not."""
    for name in filter(None, [likely, *backbones.names(store)]):
        with files.unless_damaged():
            if not backbones.find(store, name).record.contract.differences(contract):
                return name
    return None
