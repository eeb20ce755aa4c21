"""Where and in what precision networks run: chosen once, refused clearly."""

from __future__ import annotations

import torch
import torchvision

from hydra_detect.errors import DeviceError, listed
from hydra_detect.records import Environment

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device of this name; "auto" is a GPU if there is one.

    Raises:
        DeviceError: If this machine does not have it.

    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # the meta device has no values to give
    except (RuntimeError, AssertionError, ValueError, TypeError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"use device {str(device)!r}", f"{first_line:.160}", "Use 'cpu', or 'auto' for whatever there is."
        ) from None
    return place


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device | None = None) -> torch.dtype:
    """Return the dtype of this name; None is float32.

    Args:
        dtype: Its name, or torch's own.
        device: Where it is to be computed in.

    Raises:
        DeviceError: If it is not offered, or the device does not have it.

    """
    wanted = DTYPES.get(dtype) if isinstance(dtype, str) else dtype or torch.float32
    if wanted is None or wanted not in DTYPES.values():
        raise DeviceError(f"compute in {dtype}", "it is not offered", f"Use one of {listed(DTYPES)}.")
    is_cuda = device is not None and device.type == "cuda"
    if is_cuda and wanted == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
        found = f"{torch.cuda.get_device_name(device)} has no bfloat16"
        raise DeviceError(f"compute in {dtype} on {device}", found, "Use float16 or float32.")
    return wanted


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was given: or its time would be booked on whoever waits for it first."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def environment() -> Environment:
    """Return what decides the last bits of a computation here and now."""
    return Environment(
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        cpu=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
    )
