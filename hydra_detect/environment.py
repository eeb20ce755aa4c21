"""What this process runs in: the libraries that decide what a weight or figure comes out as, and a folder of caches."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

CACHE_VARIABLE = "HYDRA_DETECT_CACHE"

_LIBRARIES = ("hydra-detect", "torch", "torchvision", "safetensors", "numpy")


def libraries() -> dict[str, str]:
    """Return the installed version of each, by the name of its distribution."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def cache_folder() -> Path:
    """Return where that is kept which can be had again: $HYDRA_DETECT_CACHE, or a folder at home."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "hydra-detect")
