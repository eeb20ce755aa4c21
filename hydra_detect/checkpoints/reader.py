"""Read a foreign checkpoint, safely: the one place where a pickle is opened, and only with `weights_only=True`.

Finds the state dict inside, takes off wrappers' prefixes, and gives keys of older torchvision versions their present
names, remembering what was changed.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from hydra_detect.errors import CheckpointError, HydraDetectError, NotFoundError
from hydra_detect.names import Digest
from hydra_detect.storage import artifacts, files

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

STATE_KEYS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
_SUFFIXES = (".pth", ".pt", ".safetensors")
# Before torchvision 0.13 the pyramid's and the RPN's convolutions stood bare, without the block around them.
_OLD_NAMES = (
    (re.compile(r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)"), r"\1.0.\2"),
    (re.compile(r"(rpn\.head\.conv)\.(weight|bias)"), r"\1.0.0.\2"),
)
# What torch.load raises for files that are no checkpoints, from its zip reader, its unpickler and its own checks.
_LOAD_ERRORS = (
    RuntimeError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)
_CONVERT = (
    "It holds more than weights. Where you trust it, convert it once, where it was made:\n"
    "    held = torch.load({name!r}, weights_only=False); "
    "held = next((held[k] for k in {keys} if k in held), held) if isinstance(held, dict) else held\n"
    '    torch.save(held.state_dict() if hasattr(held, "state_dict") else held, "weights.pth")'
)


@attrs.frozen
class Checkpoint:
    """The tensors of a foreign file under torchvision's present names.

    Args:
        tensors: Name to tensor.
        file: Where they came from, as given.
        path: The file itself.
        sha256: Of the whole file.
        nbytes: Size of the whole file.
        renamed: Present name to the name in the file, where the two differ beyond a wrapper's prefix.
        preset: Settings that belong to the file, for torchvision's own weights.
        class_names: Categories that belong to the file, for torchvision's own weights.

    """

    tensors: Mapping[str, torch.Tensor]
    file: str
    path: Path
    sha256: Digest
    nbytes: int
    renamed: Mapping[str, str] = attrs.field(factory=dict)
    preset: str | None = None
    class_names: tuple[str, ...] | None = None


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read the state dict in a foreign file, under torchvision's present names.

    Args:
        path: A `.pth`, `.pt` or `.safetensors` file.

    Raises:
        NotFoundError: If there is no such file.
        CheckpointError: If it is empty, truncated, no checkpoint, or needs more than `weights_only`.

    """
    path = Path(path)
    asked = f"read the checkpoint {path}"
    if path.suffix not in _SUFFIXES:
        raise CheckpointError(
            asked, f"its name ends in {path.suffix!r}", f"Give a file that ends in {', '.join(_SUFFIXES)}."
        )
    with files.explained(asked):
        if not path.is_file():
            found = "it is a folder" if path.is_dir() else "there is no such file"
            raise NotFoundError(asked, found, "Check the path.")
        nbytes = path.stat().st_size
    if not nbytes:
        raise CheckpointError(asked, "the file is empty", "Copy it again from where it was made.")
    content = _read_safetensors(path, asked) if path.suffix == ".safetensors" else _read_pickle(path, asked)
    tensors = _only_tensors(_state_dict_in(content, asked), asked)
    tensors, renamed = _present_names(_without_prefix(tensors))
    return Checkpoint(tensors, str(path), path, file_sha256(path), nbytes, renamed)


def file_sha256(path: Path) -> Digest:
    """Return the SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest())


def _read_safetensors(path: Path, asked: str) -> dict[str, torch.Tensor]:
    remedy = "Copy it again from where it was made."
    try:
        with path.open("rb") as file:
            artifacts.read_header(file.read(artifacts.MAX_HEADER_BYTES + 8), asked)
        return load_file(path)
    except HydraDetectError as error:
        raise CheckpointError(asked, error.found, remedy) from None
    except (SafetensorError, RuntimeError, OSError) as error:  # torch's own: a shape that no stride can reach
        raise CheckpointError(asked, f"it is no complete safetensors file ({error!s:.200})", remedy) from None


def _read_pickle(path: Path, asked: str) -> Any:
    # Files written before torch 1.6 are no zip archives; those cannot be mapped, but weights_only holds for them too.
    mapped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of old storage classes, which concerns nobody here
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _LOAD_ERRORS as error:
        if _is_pickle_of_objects(error):
            raise CheckpointError(
                asked, "it is a pickle that weights_only=True refuses", _CONVERT.format(name=path.name, keys=STATE_KEYS)
            ) from None
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            asked,
            f"it is no complete torch checkpoint ({first_line:.200})",
            "Copy it again from where it was made; a text file or a download page is often found in its place.",
        ) from None


def _is_pickle_of_objects(error: Exception) -> bool:
    text = str(error)
    return "Weights only load failed" in text and ("Unsupported global" in text or "GLOBAL" in text)


def _state_dict_in(content: Any, asked: str) -> Any:
    if isinstance(content, dict):
        for key in STATE_KEYS:
            if isinstance(content.get(key), dict):
                return content[key]
        return content
    raise CheckpointError(
        asked,
        f"it holds a {type(content).__name__}, not a state dict",
        f"Save model.state_dict(), alone or in a dict under one of {', '.join(STATE_KEYS)}.",
    )


def _only_tensors(state: dict[Any, Any], asked: str) -> dict[str, torch.Tensor]:
    others = [key for key, value in state.items() if not (isinstance(key, str) and isinstance(value, torch.Tensor))]
    if others or not state:
        found = (
            f"{len(others)} of {len(state)} entries are no tensors, such as {others[0]!a:.80}"
            if others
            else "it holds no tensors"
        )
        raise CheckpointError(
            asked,
            found,
            f"Save model.state_dict(), alone or in a dict under one of {', '.join(STATE_KEYS)}.",
        )
    return state


def _without_prefix(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    while True:
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            return tensors
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _present_names(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    present, renamed = {}, {}
    for name, tensor in tensors.items():
        current = name
        for pattern, replacement in _OLD_NAMES:
            if pattern.fullmatch(name):
                current = pattern.sub(replacement, name)
        if current != name and current not in tensors:
            renamed[current] = name
            present[current] = tensor
        else:
            present[name] = tensor
    return present, renamed
