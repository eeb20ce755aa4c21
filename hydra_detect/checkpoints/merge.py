"""The way back: backbone and head as one state dict that torchvision loads strictly."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hydra_detect.checkpoints.proof import read_rebuilt
from hydra_detect.checkpoints.recognise import BACKBONE_PREFIX
from hydra_detect.errors import ConflictError, CorruptError, StoreError, listed
from hydra_detect.nets.state import torch_tensors
from hydra_detect.storage import artifacts, backbones, files, heads
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from hydra_detect.names import HeadRef
    from hydra_detect.records import VersionRecord
    from hydra_detect.tensors import RawTensor

_SUFFIXES = (".pth", ".pt", ".safetensors")


def merge_checkpoint(store: str | os.PathLike[str] | Store, head: str | HeadRef, path: str | os.PathLike[str]) -> Path:
    """Write the original again: the state dict that `head` was split from, key for key and bit for bit.

    Args:
        store: The store, or its path.
        head: Head, or one version of it.
        path: A new `.pth`, `.pt` or `.safetensors` file.

    Returns:
        The path written.

    Raises:
        ConflictError: If something stands at `path`; it is left alone.
        IncompatibleError: If the stored backbone is not the one the head was made on.
        StoreError: If the file cannot be written.

    """
    path = Path(path)
    asked = f"write {path}"
    if path.suffix not in _SUFFIXES:
        raise StoreError(
            asked, f"its name ends in {path.suffix!r}", f"Name a file that ends in {', '.join(_SUFFIXES)}."
        )
    with files.explained(asked):
        if path.exists():
            raise ConflictError(asked, "the file exists", "Name a new file, or move that one away first.")
    store = Store.open(store)
    version = heads.find(store, head)
    tensors = _whole(store, version)
    backbone = backbones.find(store, version.record.backbone_name)
    source = version.record.source or backbone.record.source
    renamed = source.renamed if source else {}
    strangers = renamed.keys() - tensors.keys()
    if strangers:
        raise CorruptError(
            asked, f"the head's record renames tensors that it has not: {listed(strangers)}", "Split anew."
        )
    for new, old in renamed.items():
        tensors[old] = tensors.pop(new)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4()}")
    with files.explained(asked):
        if not files.put_new(store.disk, _as_bytes(tensors, path.suffix), path, aside=temporary):
            raise ConflictError(asked, "the file exists", "Name a new file, or move that one away first.")
        with files.explained(asked, files.UNCERTAIN):
            store.disk.sync_folder(path.parent)
    return path


def to_torchvision(store: str | os.PathLike[str] | Store, head: str | HeadRef) -> dict[str, torch.Tensor]:
    """Return backbone and head as one state dict under torchvision's present names, for `load_state_dict` as it is.

    Args:
        store: The store, or its path.
        head: Head, or one version of it; the weights of a compact one are written out.

    Raises:
        NotFoundError: If there is no such head or version.
        IncompatibleError: If the stored backbone is not the one the head was made on.
        CorruptError: If any of it is damaged.

    """
    store = Store.open(store)
    return torch_tensors(_whole(store, heads.find(store, head)))


def _whole(store: Store, version: VersionRecord) -> dict[str, RawTensor]:
    rebuilt = read_rebuilt(store, version)
    return {BACKBONE_PREFIX + name: tensor for name, tensor in rebuilt.backbone.items()} | dict(rebuilt.head)


def _as_bytes(tensors: Mapping[str, RawTensor], suffix: str) -> bytes:
    if suffix == ".safetensors":
        return artifacts.encode_tensors(tensors)
    buffer = io.BytesIO()  # written to disk by our own writer, which syncs and explains a full disk
    torch.save(torch_tensors(tensors), buffer)
    return buffer.getvalue()
