"""`export_bundle`: one version of a head and its backbone, as one file or folder that stands for itself."""

from __future__ import annotations

import errno
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from hydra_detect.arriving import name_in
from hydra_detect.bundles import manifest, zips
from hydra_detect.bundles.bundle import opened
from hydra_detect.bundles.manifest import BundleManifest
from hydra_detect.environment import libraries
from hydra_detect.errors import ConflictError, InputError
from hydra_detect.names import HeadRef
from hydra_detect.storage import backbones, files, heads, layout, manifests, references
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from hydra_detect.names import Digest
    from hydra_detect.records import VersionRecord
    from hydra_detect.storage.disk import Disk

_ZIP = ".zip"
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@attrs.frozen(kw_only=True)
class BundleInfo:
    """A bundle that was written.

    Args:
        path: Where.
        origin: What it says of itself.
        digest: SHA-256 of bundle.json, which lists that of every other file: give it with the bundle, and whoever
            compares it with that of the loaded one knows that they are the same.
        nbytes: Bytes of all its files.

    """

    path: Path
    origin: BundleManifest
    digest: Digest
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "path": str(self.path),
            "head": self.origin.head,
            "version": self.origin.number,
            "backbone": self.origin.backbone,
            "digest": str(self.digest),
            "nbytes": self.nbytes,
            "files": sorted(self.origin.files),
        }

    def __str__(self) -> str:
        """One line: the version, its backbone, where they are now, size and digest."""
        origin, size = self.origin, f"{self.nbytes / 1e6:.2f} MB"
        return f"{origin.ref} with backbone {origin.backbone!r} is in {self.path} ({size}; {self.digest})"


def export_bundle(
    store: str | os.PathLike[str] | Store, head: str | HeadRef, path: str | os.PathLike[str]
) -> BundleInfo:
    """Write one version of a head, with its backbone and what lies beside it, as one zip file or folder.

    The bytes are those of the store, and are checked as `load_bundle` will check them: a version that is damaged, or
    holds NaN, is never written. One version gives equal bytes each time, as long as the same libraries write it. It is
    written aside and put in place by one step; an error leaves nothing behind.

    Args:
        store: The store, or its path.
        head: "owl" for the active version, "owl@3" for that one.
        path: A new file whose name ends in ".zip", or else a new folder; the folder that it lies in has to be there.

    Returns:
        What was written.

    Raises:
        NameInvalidError: If `head` is no reference to a head.
        NotFoundError: If there is no such head or version, or none is active.
        InputError: If it is larger than a zip file may be; a folder may be of any size.
        ConflictError: If something stands at `path`; it is left alone.
        CorruptError: If a file of the version or its backbone is damaged, or weights hold NaN or infinity.
        RecordError: If a record of either is malformed.
        IncompatibleError: If the store does not have the backbone that the head was made on.
        StoreError: If the disk is full or not writable, or there is no store.

    """
    path, store, ref = Path(path), Store.open(store), HeadRef.parse(head)
    asked = f"export {ref} to {path}"
    if files.exists(path, asked):
        raise _taken(asked)
    contents = _gathered(store, ref, asked)
    nbytes = sum(map(len, contents.values()))
    if path.suffix.lower() == _ZIP and nbytes > zips.MOST_BYTES:
        found = f"it has {nbytes} bytes, and a zip file of the plain form holds {zips.MOST_BYTES}"
        raise InputError(asked, found, "Export a folder: a path that does not end in .zip.")
    bundle = opened(contents, f"the bundle of {ref}")
    aside = path.with_name(f".{path.name}.{uuid.uuid4()}")
    with files.explained(asked):
        if path.suffix.lower() == _ZIP:
            if not files.put_new(store.disk, zips.pack(contents), path, aside=aside):
                raise _taken(asked)
        else:
            _put_folder(store.disk, contents, path, aside=aside, asked=asked)
        with files.explained(asked, files.UNCERTAIN):
            store.disk.sync_folder(path.parent)
    return BundleInfo(path=path, origin=bundle.origin, digest=bundle.digest, nbytes=nbytes)


def _gathered(store: Store, ref: HeadRef, asked: str) -> dict[str, bytes]:
    """Return the files of the bundle, as of one moment: if it is pruned meanwhile, of the version active by then."""
    if ref.version is not None:
        return _contents(store, heads.find(store, ref), asked)
    return store.head(ref.name).steady(lambda _state: _contents(store, heads.find(store, ref), asked))


def _contents(store: Store, version: VersionRecord, asked: str) -> dict[str, bytes]:
    """Return the files of the bundle of a version, each as it lies in the store and as the manifests there list it."""
    item, record = store.head(version.head), version.record
    heads.check_known(item, version)
    backbones.check_holds(store, record.backbone, asked)
    backbone = backbones.find(store, name_in(store, record.backbone, likely=record.backbone_name))
    own = store.backbone(backbone.name)
    kept = [name for name in (layout.TENSORS, layout.RECORD, *manifest.BESIDE) if name in version.files]
    found = {
        manifest.BACKBONE_TENSORS: own.read(backbone.manifest, layout.TENSORS),
        manifest.BACKBONE_RECORD: own.read(backbone.manifest, layout.RECORD),
        **{f"{manifest.HEAD}/{name}": item.read(version, name) for name in kept},
        **_reference(store, version, asked),
    }
    origin = BundleManifest(
        head=version.head,
        number=version.number,
        manifest=version.manifest,
        created_at=version.created_at,
        actor=version.actor,
        backbone=backbone.name,
        policy=record.policy,
        libraries=libraries(),
        files=manifests.listing_of(found),
    )
    return {manifest.MANIFEST: manifest.text(origin), **found}


def _reference(store: Store, version: VersionRecord, asked: str) -> dict[str, bytes]:
    """Return the files of what a compact version leans on."""
    if version.record.compact is None:
        return {}
    reference = references.find(store, version.record, asked)
    names = [name for name in (layout.TENSORS, layout.RECORD, layout.SPLIT) if name in reference.files]
    return {f"{manifest.REFERENCE}/{name}": store.head(reference.head).read(reference, name) for name in names}


def _put_folder(disk: Disk, contents: Mapping[str, bytes], path: Path, *, aside: Path, asked: str) -> None:
    """Write a folder aside, make it durable, and give it its name."""
    own = {name.partition("/")[0] for name in contents if "/" in name}
    folders = [aside, *(aside / name for name in manifest.FOLDERS if name in own)]
    try:
        for folder in folders:
            disk.make_folder(folder)
        for name, data in contents.items():
            files.write_new(disk, aside / name, data)
        for folder in folders:
            disk.sync_folder(folder)
        try:
            disk.rename(aside, path)
        except OSError as error:
            if error.errno in _TAKEN:
                raise _taken(asked) from None
            raise
    finally:
        files.discard(disk, aside)  # gone already after a success


def _taken(asked: str) -> ConflictError:
    return ConflictError(asked, "something stands there already", "Name a new file or folder, or move that one away.")
