"""Where everything lies in a repository, and how large each file may be.

::

    README.md            the card, for people; no pull downloads it
    config.json          what the release is: its record, what it depends on, the digests of its other files
    model.safetensors    weights
    beside.json          what was measured of them, and who must not be asked again
    picture.png          the card's picture; never downloaded
    head.sig             a signature over the others, if there is one
    releases.json        every release so far, each with the digest of its config.json
    channels.json        which release is in production, and which was before
    heads/<name>/...     in a pack of many heads: all these of one head
    index.json           in a pack: its heads at a glance
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from hydra_detect import codec
from hydra_detect.storage import artifacts

if TYPE_CHECKING:
    from collections.abc import Mapping

CARD = "README.md"
CONFIG = "config.json"
TENSORS = "model.safetensors"
BESIDE = "beside.json"
PICTURE = "picture.png"
SIGNATURE = "head.sig"
RELEASES = "releases.json"
CHANNELS = "channels.json"
INDEX = "index.json"
HEADS = "heads"
IGNORE = ".gitignore"

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        CONFIG: 256 << 10,
        TENSORS: artifacts.MAX_TENSORS_BYTES,
        BESIDE: codec.MAX_LIST_BYTES,
        SIGNATURE: 1 << 20,
        RELEASES: codec.MAX_JSON_BYTES,
        CHANNELS: 64 << 10,
        INDEX: codec.MAX_JSON_BYTES,
        CARD: 1 << 20,
    }
)
"""Every file that is ever downloaded, and how many bytes it may have."""

HEAD_TAG, BACKBONE_TAG, PACK_TAG = "hydra-head", "hydra-backbone", "hydra-pack"
SIGNAL_TAG = "signal:"
"""What a card is tagged with, for the Hub's search; behind the last one comes the name of what a head finds."""

MOST_ENTRIES = 10_000
"""Files and folders that a listing may have: a folder of one release has ten."""


def folder_of(head: str) -> str:
    """Return the folder of a head in a pack; "" is the top, of a repository of one."""
    return f"{HEADS}/{head}" if head else ""


def path_of(folder: str, name: str) -> str:
    """Return the path of a file in a repository."""
    return f"{folder}/{name}" if folder else name
