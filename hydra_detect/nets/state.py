"""Between raw tensors and torch: state dicts in and out, strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hydra_detect.errors import CheckpointError, RecordError, listed
from hydra_detect.tensors import RawTensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TORCH = {name: dtype for dtype, name in _DTYPES.items()}


def raw_tensors(state: Mapping[str, torch.Tensor]) -> dict[str, RawTensor]:
    """Return a state dict as raw tensors, bit for bit, whatever its device and layout in memory.

    Raises:
        RecordError: For a dtype that an artifact cannot hold; the tensor is named.

    """
    raw = {}
    for name, tensor in state.items():
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
            raise RecordError(
                f"store tensor {name!r}",
                f"it is {tensor.dtype} with layout {tensor.layout}",
                f"Convert it to a dense tensor of {listed(str(dtype) for dtype in _DTYPES)}.",
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        raw[name] = RawTensor(_DTYPES[tensor.dtype], tuple(tensor.shape), data)
    return raw


def torch_tensors(raw: Mapping[str, RawTensor]) -> dict[str, torch.Tensor]:
    """Return raw tensors as torch tensors of the same dtype and shape, in memory that torch allocated.

    Memory from elsewhere may begin at any byte; torch aligns its own to 64, which is worth several percent of speed.
    """
    state = {}
    for name, tensor in raw.items():
        value = torch.empty(tensor.shape, dtype=_TORCH[tensor.dtype])
        if value.numel():
            value.view(-1).view(torch.uint8).numpy()[:] = np.frombuffer(tensor.data, dtype=np.uint8)
        state[name] = value
    return state


def mismatch(
    expected: Mapping[str, torch.Size | tuple[int, ...]], found: Mapping[str, torch.Size | tuple[int, ...]]
) -> str:
    """Return what is missing, unexpected and of wrong shape, all at once; empty if nothing is.

    Args:
        expected: Tensor names to shapes, as the network has them.
        found: The same, as the file has them.

    """
    wrong = [
        f"{name} is {list(found[name])} instead of {list(expected[name])}"
        for name in expected.keys() & found.keys()
        if tuple(expected[name]) != tuple(found[name])
    ]
    parts = {
        "missing": expected.keys() - found.keys(),
        "unexpected": found.keys() - expected.keys(),
        "of wrong shape": wrong,
    }
    return "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in parts.items() if names)


def _is_alike(value: torch.Tensor, tensor: RawTensor) -> bool:
    """Whether both hold fractions, of whatever precision, or both hold whole numbers."""
    return value.is_floating_point() == _TORCH[tensor.dtype].is_floating_point


def load_strict(module: nn.Module, raw: Mapping[str, RawTensor], what: str) -> None:
    """Give a module built on the meta device its weights, as float32, frozen and in evaluation mode.

    Raises:
        CheckpointError: Listing every tensor that is missing, unexpected, or of wrong shape or dtype.

    """
    own = module.state_dict()
    problems = mismatch(
        {name: value.shape for name, value in own.items()}, {name: tensor.shape for name, tensor in raw.items()}
    )
    odd = [f"{name} is {raw[name].dtype}" for name in own if name in raw and not _is_alike(own[name], raw[name])]
    if odd and not problems:
        problems = f"{len(odd)} of wrong dtype: {listed(odd)}"
    if problems:
        raise CheckpointError(f"load {what}", problems, "The file and its record belong to different networks.")
    module.load_state_dict(torch_tensors(raw), strict=True, assign=True)
    module.float().eval().requires_grad_(requires_grad=False)


def module_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers in memory; tensors it shares with itself count once."""
    return tensor_bytes([*module.parameters(), *module.buffers()])


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of tensors in memory; what several share counts once."""
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())
