"""Tensor files that are written as a whole and checked as they are read: no pickle, and no bit changes unnoticed."""

from __future__ import annotations

import errno
import zlib
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch

from hydra_detect.storage.owners import staging_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_SEAL = "crc32"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> int:
    """Write or replace a file: whoever reads sees the old one or the new one, and neither in part.

    Args:
        path: Of the file; its folder is made if it is not there.
        tensors: By name, contiguous.
        facts: What is to be read with them.

    Returns:
        How many bytes the file has.

    Raises:
        OSError: If the disk refuses.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(staging_name())
    try:
        seal = checksum(tensors, facts)
        safetensors.torch.save_file(dict(tensors), aside, metadata={**facts, _SEAL: seal})
        size = aside.stat().st_size
        aside.replace(path)
    except safetensors.SafetensorError as error:  # which hides the system's own
        raise OSError(errno.EIO, str(error), str(path)) from error
    finally:
        aside.unlink(missing_ok=True)
    return size


def load(path: Path, *, is_known: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Map a file into memory; return its tensors and facts.

    Args:
        path: Of the file.
        is_known: Whether it was checked before, which need not be done at each look.

    Raises:
        OSError: If it cannot be read, or is not there.
        ValueError: If it is damaged.

    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from None
    seal = facts.pop(_SEAL, "")
    if not is_known and seal != checksum(tensors, facts):
        raise ValueError("its checksum is another")
    return tensors, facts


def checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """Return the CRC-32 of facts and tensors, names, shapes and dtypes included, in whatever order they stand."""
    total = zlib.crc32(repr(sorted(facts.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        if tensor.numel():
            total = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"
