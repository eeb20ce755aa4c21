"""Originals that are no file here: torchvision's own, through its download and cache, and those on a Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import attrs
import torch
from torchvision.models import get_model_weights
from torchvision.models.detection import faster_rcnn

from hydra_detect.checkpoints.reader import Checkpoint, file_sha256, read_checkpoint
from hydra_detect.errors import CheckpointError, near_matches

if TYPE_CHECKING:
    import os

SCHEME = "torchvision:"
HUB_SCHEME = "hf://"
MODELS = tuple(name for name in faster_rcnn.__all__ if name.startswith("fasterrcnn_"))
_BACKGROUND = 1  # categories begin with the background, which is no user's class


def read_original(path: str | os.PathLike[str], *, endpoint: str | None = None) -> Checkpoint:
    """Read an original: a file, `torchvision:NAME`, or `hf://ORG/REPO/FILE.safetensors@REVISION`.

    Args:
        path: Which.
        endpoint: Address of the Hub; None for the client's own ($HF_ENDPOINT).

    Raises:
        NotFoundError: If there is no such file.
        CheckpointError: If it cannot be read.
        HubError: If the Hub refused access, or did not answer.

    """
    if isinstance(path, str) and path.startswith(HUB_SCHEME):
        return read_hub(path, endpoint=endpoint)
    return read_torchvision(str(path)) if str(path).startswith(SCHEME) else read_checkpoint(path)


def read_hub(address: str, *, endpoint: str | None = None) -> Checkpoint:
    """Read `hf://ORG/REPO/FILE.safetensors@REVISION`, at the commit that the revision is just now.

    Raises:
        As `read_original`.

    """
    from hydra_detect.hub.originals import fetched

    file, pinned = fetched(address, endpoint=endpoint)
    return attrs.evolve(read_checkpoint(file), file=pinned)


def read_torchvision(spec: str) -> Checkpoint:
    """Read `torchvision:NAME`: its weights, its categories, and the preset of settings that belongs to it.

    The download, its hash check and its cache (`TORCH_HOME`) are torchvision's.

    Raises:
        CheckpointError: If torchvision has no such Faster R-CNN, or the download fails.

    """
    name = spec.removeprefix(SCHEME)
    asked = f"read {spec!r}"
    if name not in MODELS:
        raise CheckpointError(asked, "torchvision has no such Faster R-CNN", near_matches(name, MODELS))
    weights = get_model_weights(name).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            asked,
            f"torchvision could not fetch {weights.url} ({error})",
            f"See to the network, or put the file into {cached_file(weights.url).parent} yourself.",
        ) from None
    path = cached_file(weights.url)
    categories = tuple(weights.meta["categories"][_BACKGROUND:])
    return Checkpoint(state, spec, path, file_sha256(path), path.stat().st_size, preset=spec, class_names=categories)


def cached_file(url: str) -> Path:
    """Where torch's hub cache keeps the file of an address."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
