"""What made something: the versions of the libraries that decide what a weight or a figure comes out as."""

from __future__ import annotations

import importlib.metadata

_LIBRARIES = ("hydra-detect", "torch", "torchvision", "safetensors", "numpy")


def libraries() -> dict[str, str]:
    """Return the installed version of each, by the name of its distribution."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}
