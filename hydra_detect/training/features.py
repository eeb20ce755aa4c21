"""Frozen features: what the backbone makes of each picture and view, computed once and kept on disk.

A feature file depends on the backbone's contract, the picture's bytes, the view and whatever decides the last bits of
a convolution, and on nothing else; all of it is in the file's name. Features are rounded to the dtype that they are
kept in whether they are kept or not, so that a training never depends on what happens to lie in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import logging
import math
import os
from typing import TYPE_CHECKING

import attrs
import numpy as np
import PIL
import torch
from torchvision.models.detection.image_list import ImageList

from hydra_detect import codec, pictures
from hydra_detect.environment import cache_folder, libraries
from hydra_detect.nets.backbones import Features
from hydra_detect.nets.devices import environment
from hydra_detect.storage.files import explained
from hydra_detect.storage.owners import is_abandoned
from hydra_detect.training import tensor_files
from hydra_detect.training.views import see

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from hydra_detect.contracts import BackboneContract
    from hydra_detect.data.samples import Sample
    from hydra_detect.nets.backbones import Backbone

_SUFFIX = ".features"
_SIZES = ("size", "padded_size", "original_size")
_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_HEADER = 4096  # bytes: more than names, shapes and facts of a few maps take in a file
_LISTINGS = 16  # of the folder, in the time in which a cache writes as much as it may keep
_LOG = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Encoded:
    """What the frozen backbone makes of one picture.

    Args:
        maps: Level name to [1, channel, y, x].
        size: (height, width) of the network input before padding.
        padded_size: (height, width) after padding; only pictures equal in this share a batch.
        original_size: (height, width) of the picture as given.

    """

    maps: dict[str, Tensor]
    size: tuple[int, int]
    padded_size: tuple[int, int]
    original_size: tuple[int, int]


@attrs.frozen(kw_only=True)
class Seen:
    """One labelled picture as a training sees it.

    Args:
        encoded: Its features, float32.
        boxes: [N, 4] xyxy float32 in pixels of the network input.
        labels: [N] int64, from 1.
        sample: Id of the sample.

    """

    encoded: Encoded
    boxes: Tensor
    labels: Tensor
    sample: str = ""


def stack(pictures_seen: Sequence[Encoded]) -> Features:
    """Return pictures of one padded size as a batch, as the backbone would."""
    height, width = pictures_seen[0].padded_size
    first = next(iter(pictures_seen[0].maps.values()))
    # A head reads the shape of the padded pictures alone.
    pixels = first.new_zeros(1).expand(len(pictures_seen), 1, height, width)
    return Features(
        {name: torch.cat([one.maps[name] for one in pictures_seen]) for name in pictures_seen[0].maps},
        ImageList(pixels, [one.size for one in pictures_seen]),
        [one.original_size for one in pictures_seen],
    )


def default_cache() -> Path:
    """Return the folder that features are kept in unless another is named: $HYDRA_DETECT_CACHE, or one at home."""
    return cache_folder() / "features"


class FeatureCache:
    """A folder of feature files, bounded in size; any of them may be deleted at any time.

    Files that this object has not used make room for its own, the longest unused first; once all that is left is its
    own, nothing more is kept.

    The folder is listed when the first file is written, and again after each sixteenth of the limit that this object
    has written; in between it counts for itself. So where several processes share a folder, all files together may
    pass the limit for a while, by up to a sixteenth for each process.

    Args:
        folder: Where; made when the first file is written.
        limit: Most bytes of all files together; 0 keeps nothing.

    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self.hits = self.misses = 0
        self._refused: set[str] = set()
        self._own: dict[str, int] = {}  # bytes of each file by key
        self._others: dict[str, int] = {}
        self._oldest: list[tuple[float, str]] = []  # a heap of (last used, key) of all others
        self._own_bytes = self._other_bytes = 0
        self._unlisted = math.inf  # bytes written since the folder was last listed

    @property
    def refused(self) -> int:
        """Files for which there was no room, each counted once."""
        return len(self._refused)

    def get(self, key: str) -> Encoded | None:
        """Return what is kept under a key, or None; what is damaged is deleted and computed again."""
        path = self._path(key)
        try:
            maps, facts = tensor_files.load(path, is_known=key in self._own)
            sizes = {name: _size(facts[name]) for name in _SIZES}
            with contextlib.suppress(PermissionError):  # a cache that others keep: when it was used matters less
                os.utime(path)
            if key not in self._own:
                self._count(key, path.stat().st_size)
        except FileNotFoundError:
            self._forget(key)
            self.misses += 1
            return None
        except (OSError, ValueError, KeyError) as error:
            _LOG.warning("the feature file %s cannot be used (%s); its features are computed again", path, error)
            with contextlib.suppress(OSError):
                path.unlink()
                self._forget(key)
            self.misses += 1
            return None
        self.hits += 1
        return Encoded(maps=maps, **sizes)

    def put(self, key: str, encoded: Encoded) -> None:
        """Keep what the backbone made of a picture, if there is room.

        Raises:
            StoreError: If the folder cannot be written.

        """
        facts = {name: " ".join(map(str, getattr(encoded, name))) for name in _SIZES}
        remedy = "Name another folder (--cache, HYDRA_DETECT_CACHE or Tools.cache), or set cache_bytes to 0."
        with explained(f"keep features in {self.folder}", remedy):
            if not self._make_room(sum(level.nbytes for level in encoded.maps.values()) + _HEADER):
                self._refused.add(key)
                return
            size = tensor_files.save(self._path(key), encoded.maps, facts)
        self._count(key, size)
        self._unlisted += size

    def _path(self, key: str) -> Path:
        return self.folder / (key + _SUFFIX)

    def _make_room(self, size: int) -> bool:
        """Delete what others used longest ago until there is room; nothing, if there would be none all the same."""
        if self._own_bytes + size > self.limit:
            return False
        if self._unlisted > self.limit / _LISTINGS:
            self._list()
        most = self.limit - size
        while self._own_bytes + self._other_bytes > most and self._oldest:
            self._evict(*heapq.heappop(self._oldest))
        return self._own_bytes + self._other_bytes <= most

    def _evict(self, used: float, key: str) -> None:
        """Delete a file of others, unless somebody used it since it was listed: then it waits its turn again."""
        if key not in self._others:
            return  # this object has used it since
        path = self._path(key)
        try:
            latest = path.stat().st_mtime
            if latest != used:
                heapq.heappush(self._oldest, (latest, key))
                return
            path.unlink()
        except FileNotFoundError:  # another process made room
            pass
        except PermissionError:  # Windows: another process reads it
            return
        self._forget(key)

    def _count(self, key: str, size: int) -> None:
        """Count a file as this object's own."""
        self._forget(key)
        self._own[key] = size
        self._own_bytes += size

    def _forget(self, key: str) -> None:
        """Count a file no longer, whoever used it."""
        self._own_bytes -= self._own.pop(key, 0)
        self._other_bytes -= self._others.pop(key, 0)

    def _list(self) -> None:
        """See what lies in the folder; delete what a process left half-written when it was killed."""
        own, self._own, self._others, self._oldest = self._own, {}, {}, []
        for path in self.folder.glob("*"):
            key = path.name.removesuffix(_SUFFIX)
            if path.suffix == _SUFFIX:
                with contextlib.suppress(FileNotFoundError):  # another process made room
                    facts = path.stat()
                    (self._own if key in own else self._others)[key] = facts.st_size
                    if key not in own:
                        self._oldest.append((facts.st_mtime, key))
            elif is_abandoned(path):
                path.unlink(missing_ok=True)
        heapq.heapify(self._oldest)
        self._own_bytes, self._other_bytes = sum(self._own.values()), sum(self._others.values())
        self._unlisted = 0


def _size(text: str) -> tuple[int, int]:
    height, width = text.split()
    return int(height), int(width)


def picture_of(sample: Sample, channels: int) -> Tensor:
    """Read a sample's picture as [channel, height, width] float32 in [0, 1].

    Raises:
        InputError: If it cannot be read or is of another size than its labels say.

    """
    return torch.from_numpy(np.array(pictures.to_channels(sample.open(), channels).pixels))


class FrozenFeatures:
    """What the backbone makes of samples, view by view.

    Args:
        backbone: Frozen, in evaluation mode.
        cache: Where its maps are kept.
        dtype: What they are rounded to and kept in, "float16" or "float32".

    """

    def __init__(self, backbone: Backbone, cache: FeatureCache, *, dtype: str = "float16") -> None:
        self.backbone = backbone
        self.cache = cache
        self.dtype = _DTYPES[dtype]
        self.passes = 0
        self.device = next(backbone.parameters()).device
        self._basis = _basis(backbone.contract, self.device, dtype)

    def of(self, sample: Sample, view: str = "plain") -> Encoded:
        """Return the features of one sample as a view shows it, float32 on the backbone's device.

        Raises:
            InputError: If its picture cannot be read or is of another size than its labels say.
            StoreError: If the cache cannot be written.

        """
        key = hashlib.sha256(f"{self._basis} {sample.picture_digest} {view}".encode()).hexdigest()
        encoded = self.cache.get(key)
        if encoded is None:
            encoded = self._rounded(self.run(see(view, self.pixels(sample), torch.zeros(0, 4))[0]))
            self.cache.put(key, encoded)
        return self._usable(encoded)

    def fresh(self, pixels: Tensor) -> Encoded:
        """Return the features of a picture that is seen once, [channel, height, width], rounded as others are."""
        return self._usable(self._rounded(self.run(pixels)))

    def pixels(self, sample: Sample) -> Tensor:
        """Read a sample's picture as [channel, height, width] float32 in [0, 1], on the backbone's device."""
        return picture_of(sample, self.backbone.contract.architecture.in_channels).to(self.device)

    def run(self, pixels: Tensor) -> Encoded:
        """Run the backbone over one picture, exactly as a detector does."""
        self.passes += 1
        with torch.no_grad():
            prepared = self.backbone.prepare(pixels)
            features = self.backbone([prepared])
        return Encoded(
            maps=dict(features.maps),
            size=prepared.size,
            padded_size=prepared.padded_size,
            original_size=prepared.original_size,
        )

    def _rounded(self, encoded: Encoded) -> Encoded:
        maps = {name: level.to(self.dtype).cpu().contiguous() for name, level in encoded.maps.items()}
        return attrs.evolve(encoded, maps=maps)

    def _usable(self, encoded: Encoded) -> Encoded:
        maps = {name: level.to(self.device).float() for name, level in encoded.maps.items()}
        return attrs.evolve(encoded, maps=maps)


def _basis(contract: BackboneContract, device: torch.device, dtype: str) -> str:
    """Return what features depend on beside picture and view."""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    made_by = f"{environment()} {libraries()['hydra-detect']} pillow {PIL.__version__}"
    return f"{codec.digest_of(codec.to_dict(contract)).hex} {made_by} {place} {dtype}"
