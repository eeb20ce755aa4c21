"""`load_bundle` and `Bundle`: a version from elsewhere, checked whole before any of it is believed.

A bundle is taken for a stranger's. Nothing of it is unpacked to disk, compressed, linked or executed; every byte that
is not refused is either listed with its SHA-256 or part of a text that proves itself. That proves what a bundle is, not
that its maker meant well: a version that is added from one is never promoted by that.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from hydra_detect import codec
from hydra_detect.arriving import Arrival, ArrivingBackbone, ArrivingHead
from hydra_detect.bundles import manifest, zips
from hydra_detect.data.splits import Split
from hydra_detect.errors import CorruptError, IncompatibleError, NotFoundError, RecordError, listed
from hydra_detect.measure.outcomes import Outcomes
from hydra_detect.names import HeadRef, check_name, one_line
from hydra_detect.records import BackboneRecord, HeadRecord, OperatingPolicy
from hydra_detect.storage import artifacts, files, layout, manifests
from hydra_detect.versions import VersionManager

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from hydra_detect.bundles.manifest import BundleManifest
    from hydra_detect.names import Digest
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.store import Store
    from hydra_detect.tensors import RawTensor

_MOST_BYTES = sum(manifest.LIMITS.values()) + codec.MAX_JSON_BYTES  # more than a zip file adds to what it holds


@attrs.frozen(kw_only=True)
class Bundle:
    """One version of a head, and the backbone that it was made on, as they were in the store they came from.

    Args:
        origin: Where it came from, and what its files are.
        digest: SHA-256 of bundle.json, which lists that of every other file: equal digests are equal bundles.
        backbone: The facts of the backbone.
        backbone_tensors: Its weights.
        record: The facts of the head.
        tensors: Its weights.
        files: What lay beside the version, by name, such as split.json.
        reference: What a compact head leans on; None for a full one.

    """

    origin: BundleManifest
    digest: Digest
    backbone: BackboneRecord
    backbone_tensors: Mapping[str, RawTensor] = attrs.field(repr=False)
    record: HeadRecord
    tensors: Mapping[str, RawTensor] = attrs.field(repr=False)
    files: Mapping[str, bytes] = attrs.field(repr=False)
    reference: ArrivingHead | None = None

    @property
    def head(self) -> str:
        """Name of the head, there."""
        return self.origin.head

    @property
    def version(self) -> int:
        """Number of the version, there."""
        return self.origin.number

    @property
    def policy(self) -> OperatingPolicy:
        """How its scores are meant to be read."""
        return self.origin.policy

    def add_to(
        self,
        store: str | os.PathLike[str] | Store,
        *,
        head: str | None = None,
        backbone: str | None = None,
        reference: str | None = None,
        actor: str = "",
    ) -> VersionRecord:
        """Put it into a store, as a new version of a head. It is not promoted, and its notes say where it came from.

        What a compact head leans on is shared if the store has it, under whatever name; if not, it becomes a version of
        a head here, too, and is not promoted either. `version.record.compact.reference_ref` is that version.

        Run again after an error, it goes on: a backbone that is there already is shared. A version that was made from
        this bundle before, as this head on this backbone, is not made again, but returned.

        Args:
            store: The store, or its path.
            head: Name of the head here; left out, the one that it had.
            backbone: Name of its backbone here, if it is not to be shared with one of another name; left out, that of
                the same one in the store or, if there is none, the one that it had.
            reference: Name for what a compact head leans on, if that is not here yet; left out, the one that it had.
            actor: Who is at work, for the history.

        Raises:
            NameInvalidError: If a name is not allowed.
            ConflictError: If the name of the backbone belongs to another one here, or that of the reference to a head
                of another backbone.
            CorruptError: If the same backbone is there, and damaged.
            StoreError: If there is no store, or the disk is full or not writable.
            InputError: If `actor` is no short text.

        """
        where = self._where_from()
        leant = self.reference and self.reference.noted(where)
        if leant and reference is not None:
            leant = attrs.evolve(leant, name=check_name(reference))
        own = ArrivingHead(
            name=check_name(self.head if head is None else head),
            record=self.record,
            tensors=self.tensors,
            files=self.files,
        )
        arrival = Arrival(
            head=own.noted(where),
            backbone=ArrivingBackbone(name=self.origin.backbone, record=self.backbone, tensors=self.backbone_tensors),
            reference=leant,
        )
        return arrival.add_to(VersionManager(store, actor=actor), backbone=backbone, is_same=_is_same)

    def _where_from(self) -> str:
        made = one_line(f"made {self.origin.created_at} by {self.origin.actor or 'nobody named'}")
        return f"{self.origin.ref} of the bundle {self.digest}, {made}"

    def __str__(self) -> str:
        """One line: the version, its classes, its backbone, what lies beside it."""
        classes = f"{len(self.record.class_names)} class{'es' * (len(self.record.class_names) != 1)}"
        beside = f"; beside it {', '.join(sorted(self.files))}" if self.files else ""
        leant = f", leaning on {self.record.compact.reference_ref} in it" if self.record.compact else ""
        on = f"on backbone {self.origin.backbone!r}{leant}"
        return f"{self.origin.ref} ({classes}) {on}, bundle {self.digest.short}{beside}"


def _is_same(version: VersionRecord, record: HeadRecord) -> bool:
    """Whether a version has this record, whose notes name the bundle; what it leans on may have another name by now."""
    own = version.record
    if own.compact and record.compact:
        own = attrs.evolve(own, compact=attrs.evolve(own.compact, reference_ref=record.compact.reference_ref))
    return own == record


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle into memory and check all of it; nothing is unpacked to disk, and nothing is executed.

    Checked are: the names of the files, their number and sizes before anything is read; every SHA-256; that the
    manifest is one that this version knows; every record; that weights are finite and those that their records name;
    that the head was made on this backbone; and that the one operating policy is the head's. Whether the network can be
    built is seen when a detector loads the head, as for every version.

    Args:
        path: The zip file or folder that `export_bundle` wrote.

    Raises:
        NotFoundError: If there is nothing at `path`.
        CorruptError: If a byte of it is another than when it was written, a file is missing or too much, or weights
            hold NaN or infinity.
        RecordError: If its format is newer, or a record or the policy is not what it has to be.
        IncompatibleError: If the head belongs to another backbone.
        StoreError: If the system refuses to read it.

    """
    path = Path(path)
    where = f"the bundle {path}"
    return opened(_read(path, f"load {where}"), where)


def _read(path: Path, asked: str) -> dict[str, bytes]:
    """Return the files of a bundle by name, each no larger than it may be."""
    kind = files.kind_of(path, asked)
    if kind == files.NOTHING:
        raise NotFoundError(asked, "there is no such file or folder", "Check the path.")
    if kind == files.FOLDER:
        return _read_folder(path, asked)
    data = files.read_whole(path, limit=_MOST_BYTES, asked=asked)  # which refuses links and devices
    return zips.unpack(data, limits=manifest.LIMITS, asked=asked)


def _read_folder(path: Path, asked: str) -> dict[str, bytes]:
    names: list[str] = []
    for name in files.names_in(path, asked):
        if name in manifest.FOLDERS and files.kind_of(path / name, asked) == files.FOLDER:
            names += [f"{name}/{inner}" for inner in files.names_in(path / name, asked)]
        else:
            names.append(name)
    manifest.check_names(names, asked)
    return {name: files.read_whole(path / name, limit=manifest.LIMITS[name], asked=asked) for name in sorted(names)}


def opened(contents: Mapping[str, bytes], where: str) -> Bundle:
    """Return the bundle that files make, after checking all of them: the one gate, for reading and for writing.

    Args:
        contents: The files of the bundle, by name.
        where: Which bundle, for the error ("the bundle owl.zip").

    Raises:
        CorruptError: As for `load_bundle`.
        RecordError: As for `load_bundle`.
        IncompatibleError: As for `load_bundle`.

    """
    asked = f"load {where}"
    manifest.check_names(contents, asked)
    origin = manifest.parse(contents[manifest.MANIFEST], where)
    manifest.check_same_files(origin, contents, asked)
    for name in origin.files:
        data = contents[name]
        manifests.check_listed(origin, name, len(data), files.sha256(data), asked=f"read {name} of {where}")

    backbone = codec.decode(BackboneRecord, contents[manifest.BACKBONE_RECORD], f"the backbone's record of {where}")
    record = codec.decode(HeadRecord, contents[manifest.HEAD_RECORD], f"the head's record of {where}")
    bundle = Bundle(
        origin=origin,
        digest=files.sha256(contents[manifest.MANIFEST]),
        backbone=backbone,
        backbone_tensors=artifacts.decode_weights(
            contents[manifest.BACKBONE_TENSORS], backbone.tensors, f"the backbone's weights of {where}"
        ),
        record=record,
        tensors=artifacts.decode_weights(
            contents[manifest.HEAD_TENSORS], record.tensors, f"the head's weights of {where}"
        ),
        files=_beside(contents, where, record.class_names),
        reference=_reference(contents, record, where),
    )
    _check_agreement(bundle, asked)
    return bundle


def _beside(contents: Mapping[str, bytes], where: str, class_names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files beside the version, once they are seen to be what their names say, and of this head."""
    found = {}
    for name in manifest.BESIDE:
        data = contents.get(f"{manifest.HEAD}/{name}")
        if data is None:
            continue
        what = f"{name} of {where}"
        if name in manifest.RECORDS_BESIDE:
            codec.decode(manifest.RECORDS_BESIDE[name], data, what, limit=codec.MAX_LIST_BYTES)
        else:
            Outcomes.from_tensors(artifacts.decode_tensors(data, what)).check_classes(class_names, what)
        found[name] = data
    return found


def _reference(contents: Mapping[str, bytes], record: HeadRecord, where: str) -> ArrivingHead | None:
    """Return what a compact head leans on, once it is seen to be that.

    Raises:
        CorruptError: If it is missing, or there is one that nothing leans on, or its weights are others.
        IncompatibleError: If it belongs to another backbone, or is a compact head itself.

    """
    asked, there = f"load {where}", [name for name in contents if name.startswith(f"{manifest.REFERENCE}/")]
    form = record.compact
    if form is None:
        if there:
            raise CorruptError(asked, f"it holds {listed(there)}, and its head leans on nothing", manifest.REMEDY)
        return None
    if not {manifest.REFERENCE_TENSORS, manifest.REFERENCE_RECORD} <= set(there):
        raise CorruptError(asked, f"its head leans on {form.reference_ref}, which is not in it", manifest.REMEDY)
    own = codec.decode(HeadRecord, contents[manifest.REFERENCE_RECORD], f"the reference's record of {where}")
    if own.tensors != form.reference:
        found = f"its head leans on tensors {form.reference.short}, and it holds {own.tensors.short}"
        raise CorruptError(asked, found, manifest.REMEDY)
    differences = own.backbone.differences(record.backbone)
    if differences or own.compact:
        found = f"what its head leans on is of another kind or backbone: {'; '.join(differences) or own.compact}"
        raise IncompatibleError(asked, found, manifest.REMEDY)
    split = contents.get(manifest.REFERENCE_SPLIT)
    if split is not None:
        codec.decode(Split, split, f"the reference's split of {where}", limit=codec.MAX_LIST_BYTES)
    return ArrivingHead(
        name=HeadRef.parse(form.reference_ref).name,
        record=own,
        tensors=artifacts.decode_weights(
            contents[manifest.REFERENCE_TENSORS], own.tensors, f"the reference's weights of {where}"
        ),
        files={} if split is None else {layout.SPLIT: split},
    )


def _check_agreement(bundle: Bundle, asked: str) -> None:
    """See that backbone, head and manifest speak of the same."""
    differences = bundle.backbone.contract.differences(bundle.record.backbone)
    if differences:
        found = f"its head was made for another backbone (backbone in it against the head's): {'; '.join(differences)}"
        remedy = "Export the head again, from a store that has its backbone."
        raise IncompatibleError(asked, found, remedy, differences=differences)
    if bundle.policy != bundle.record.policy:
        found = f"{manifest.MANIFEST} gives another operating policy than the record of its head"
        raise RecordError(asked, found, "Export the head again: a version has exactly one.")
