"""`HydraDetector`: encode a picture once, run any number of heads over it.

The object's one mutable part is which heads are loaded, a mapping that is replaced as a whole; a prediction takes
the mapping once per batch and then needs no lock. Heads are separate modules without state, so what one finds never
depends on the others, nor but for rounding on the pictures beside it.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from hydra_detect import answers, batches, pictures, watching
from hydra_detect.answers import LoadedHead
from hydra_detect.engine import engines
from hydra_detect.errors import InputError, NotFoundError, near_matches
from hydra_detect.loading import Shelf
from hydra_detect.names import HeadRef, one_version_each, shown
from hydra_detect.nets import devices
from hydra_detect.nets.backbones import Backbone
from hydra_detect.registry import HeadRegistry, check_fits
from hydra_detect.storage import backbones, heads
from hydra_detect.storage.store import Store
from hydra_detect.watching import Refreshed, Watcher

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hydra_detect.detections import Detections
    from hydra_detect.engine.engines import Engine
    from hydra_detect.engine.found import Memory
    from hydra_detect.hub.cards import About
    from hydra_detect.hub.push import Pushed
    from hydra_detect.records import VersionRecord

DEFAULT_ENGINE = "fast"
DEFAULT_BATCH_SIZE = 1

_LOG = logging.getLogger(__name__)


class HydraDetector:
    """One backbone, any number of heads.

    Made by `HydraDetector.from_store`. Threads may share it: they may predict while others load, swap or unload.

    Args:
        store: Where heads are loaded from.
        engine: The shared network, and how heads run over what it makes.

    """

    def __init__(self, store: Store, engine: Engine) -> None:
        self.registry = HeadRegistry(store)
        self._engine = engine
        self.engine, self.backbone = engine.name, engine.backbone
        self.device, self.dtype = engine.device, engine.dtype
        self._shelf = Shelf(store, engine.device)
        self._heads: Mapping[str, LoadedHead] = MappingProxyType({})
        self._changing = threading.Lock()
        self._complained: dict[str, str] = {}  # head to what was last said of it, so that a log is not flooded
        self._watcher: Watcher | None = None
        self.last_refresh = Refreshed(MappingProxyType({}), MappingProxyType({}))

    @classmethod
    def from_store(
        cls,
        store: str | os.PathLike[str] | Store,
        heads: Iterable[str | HeadRef] | None = None,
        *,
        backbone: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        engine: str = DEFAULT_ENGINE,
        watch: float | None = None,
    ) -> HydraDetector:
        """Load a backbone and heads from a store.

        Args:
            store: The store, or its path.
            heads: Names ("owl") or versions ("owl@3"); None for the active version of every head of the backbone.
            backbone: Its name; needed only where the store has several.
            device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one.
            dtype: None or "float32"; "float16" or "bfloat16" compute in half precision, which the fast engine keeps its
                weights in, too, and boxes and scores in float32.
            engine: "exact" gives what torchvision gives, bit for bit in float32 on a CPU; "fast" the same but for
                rounding, in a fraction of the time.
            watch: Call `refresh` every so many seconds, in a thread that ends with `close` or with the detector.

        Raises:
            StoreError: If there is no store.
            NotFoundError: If a head or backbone is not there, or it is not clear which backbone is meant.
            IncompatibleError: If a head was made for another backbone.
            CorruptError: If a file is damaged.
            DeviceError: If the device, dtype or engine is not to be had.

        """
        store = Store.open(store)
        watching.check_seconds(watch)
        place = devices.choose_device(device)
        precision = devices.choose_dtype(dtype, place)
        made = engines.choose(engine)
        stored = backbones.find(store, backbones.only(store) if backbone is None else backbone)
        module = Backbone(stored.record.contract, backbones.tensors(store, stored)).to(place)
        detector = cls(store, made(module, device=place, dtype=precision))
        if heads is None:
            heads = detector.registry.fitting(stored.record.contract)
        for ref in one_version_each(heads):
            detector.load_head(ref)
        if watch is not None:
            detector._watcher = Watcher(detector.refresh, watch)
        return detector

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        heads: Iterable[str | HeadRef] | None = None,
        *,
        store: str | os.PathLike[str] | Store | None = None,
        allow_older: bool = False,
        endpoint: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        engine: str = DEFAULT_ENGINE,
    ) -> HydraDetector:
        """Load a backbone and heads from a Hub: what the store lacks is pulled into it, checked, and promoted nowhere.

        Args:
            source: "org/backbone", or a folder that `save_pretrained` wrote.
            heads: "org/hydra-whistle@v3", "org/pack/whistle@v3", or names in the store; None for all of a pack.
            store: Where they are kept; None for $HYDRA_DETECT_STORE, or one at home.
            allow_older: As for `hub.pull.pull`, like the next.
            endpoint: See there.
            device: As for `from_store`, like the next two.
            dtype: See there.
            engine: See there.

        Raises:
            HydraDetectError: As for `hub.pull.pull` and `from_store`.

        """
        from hydra_detect.hub import pretrained

        place, backbone, refs = pretrained.gathered(
            source, heads, store=store, allow_older=allow_older, endpoint=endpoint
        )
        return cls.from_store(place, refs, backbone=backbone, device=device, dtype=dtype, engine=engine)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write backbone and loaded heads, numbered anew, to a new folder: a store of these, for `from_pretrained`."""
        from hydra_detect.hub import pretrained

        return pretrained.save(self.registry.store, self.backbone.contract, self.heads.values(), folder)

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = False,
        message: str = "",
        about: About | None = None,
        sign_with: str | os.PathLike[str] | None = None,
        endpoint: str | None = None,
    ) -> list[Pushed]:
        """Publish backbone and loaded heads as one repository; `hub.push.push` says what that means, and raises."""
        from hydra_detect.hub import pretrained

        own = self.registry.store, self.backbone.contract, self.heads.values()
        return pretrained.publish(
            *own, repo, private=private, message=message, about=about, sign_with=sign_with, endpoint=endpoint
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        loaded = ", ".join(f"{head.version.head}@{head.version.number}" for head in self._heads.values())
        return f"HydraDetector({self.backbone.contract.architecture.name}, heads=[{loaded}], device={self.device})"

    @property
    def heads(self) -> dict[str, VersionRecord]:
        """The loaded heads: name to version."""
        return {name: head.version for name, head in self._heads.items()}

    def load_head(self, ref: str | HeadRef, *, allow_older: bool = False, endpoint: str | None = None) -> VersionRecord:
        """Load a head, or another version of a loaded one; the change is one atomic assignment.

        Other heads are not touched, and a prediction in progress finishes with what it began with.

        Args:
            ref: "owl" for the active version, "owl@3" for that one; "org/hydra-owl@v3" is pulled first.
            allow_older: As for `hub.pull.pull`, like the next.
            endpoint: See there.

        Returns:
            The version that is now loaded.

        Raises:
            NotFoundError: If the store has no such head or version.
            IncompatibleError: If it was made for another backbone.
            CorruptError: If it is damaged; what was loaded stays.

        """
        if isinstance(ref, str) and "/" in ref:  # which can only mean something on a Hub
            from hydra_detect.hub.pull import pull

            ref = pull(ref, self.registry.store, allow_older=allow_older, endpoint=endpoint)
        return self._install(ref, only_if_loaded=False)

    def swap(self, ref: str | HeadRef) -> VersionRecord:
        """Replace a loaded head by another version of it, or by the active one: `load_head` for a head in use.

        Raises:
            NotFoundError: If no version of it is loaded, or the store has no such version.
            IncompatibleError: If it was made for another backbone.
            CorruptError: If it is damaged; what was loaded stays.

        """
        self._loaded([HeadRef.parse(ref).name], "swap")
        return self._install(ref, only_if_loaded=True)

    def _install(self, ref: str | HeadRef, *, only_if_loaded: bool) -> VersionRecord:
        head = self._read(ref)
        with self._changing:
            if only_if_loaded:  # another thread may have dropped it while this one was reading
                self._loaded([head.version.head], "swap")
            self._put(head)
        return head.version

    def _read(self, ref: str | HeadRef) -> LoadedHead:
        ref = HeadRef.parse(ref)
        version, raw = heads.load(self.registry.store, ref)
        check_fits(version, self.backbone.contract)
        lean = functools.partial(self._shelf.reference, version.record, f"load {version.ref}")
        return LoadedHead(version, self._engine.load(version.record, raw, lean), follows=ref.version is None)

    def _put(self, head: LoadedHead) -> None:
        self._heads = MappingProxyType({**self._heads, head.version.head: head})

    def refresh(self) -> Refreshed:
        """Follow the store: swap exactly the heads whose active version is another one by now.

        Heads that were loaded by a version ("owl@3") stay as they are, and heads that were not loaded are not loaded.
        A new version that is damaged, or does not fit, is refused, and the old one keeps serving; the logger
        "hydra_detect.detector" warns of it once.

        Returns:
            What was swapped, and what was refused and why; also kept as `last_refresh`.

        """
        swapped, refused = {}, {}
        for name, head in self._heads.items():
            if not head.follows:
                continue
            try:
                version = self._follow(name, head)
            except Exception as error:  # noqa: BLE001  whatever it is, memory too: one head holds up no other
                refused[name] = why = watching.refusal(name, error)
                if self._complained.get(name) != why.found:
                    _LOG.warning("%s@%s keeps serving: %s", name, head.version.number, why)
                    self._complained[name] = why.found
                continue
            self._complained.pop(name, None)
            if version:
                swapped[name] = version
        self.last_refresh = Refreshed(MappingProxyType(swapped), MappingProxyType(refused))
        return self.last_refresh

    def _follow(self, name: str, head: LoadedHead) -> VersionRecord | None:
        """Swap one head to its active version; None if it is that already, or if somebody else replaced it."""
        if self.registry.store.head(name).pointer().is_active(head.version.number, head.version.manifest):
            return None
        new = self._read(name)
        with self._changing:
            if self._heads.get(name) is not head or new.version == head.version:
                return None
            self._put(new)
        return new.version

    def close(self) -> None:
        """Stop watching the store; everything else goes on."""
        if self._watcher:
            self._watcher.stop()

    def unload_head(self, name: str) -> None:
        """Drop a head; its memory is freed when the last prediction that uses it ends.

        Raises:
            NotFoundError: If it is not loaded.

        """
        with self._changing:
            self._loaded([name], "unload")
            self._heads = MappingProxyType({other: head for other, head in self._heads.items() if other != name})

    def memory(self) -> Memory:
        """Return the bytes that backbone and heads occupy, measured from their tensors."""
        return self._engine.memory({name: head.network for name, head in self._heads.items()})

    def predict(
        self,
        x: Any,
        *,
        heads: Sequence[str] | None = None,
        score_threshold: float | Mapping[str, float] | None = None,
        raw_scores: bool = False,
        batch_size: int = DEFAULT_BATCH_SIZE,
        stream: bool = False,
        max_pixels: int = pictures.DEFAULT_MAX_PIXELS,
    ) -> Any:
        """Detect with every loaded head, or with some of them.

        Args:
            x: A picture: path, PIL image, array [height, width(, channel)] in RGB, tensor [(channel,) height,
                width]. Or many: directory, glob, or any iterable of pictures.
            heads: Names of loaded heads; None for all. Only these are run.
            score_threshold: Drop boxes whose calibrated score is not above it: one number, or one per head name. None
                for each head's operating policy, or the threshold it was made with.
            raw_scores: Give scores as the network has them, not calibrated; the boxes are the same.
            batch_size: Pictures held at a time; those of equal padded size run as one batch.
            stream: Yield results one by one, holding `batch_size` pictures at most.
            max_pixels: Refuse pictures with more pixels than this before decoding them.

        Returns:
            `Detections` for one picture, a list for many, an iterator with `stream=True`.

        Raises:
            InputError: If something is no picture, or a threshold is no probability.
            NotFoundError: If a named head is not loaded.

        """
        if not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise InputError("predict", f"batch_size is {batch_size!r}", "Give a whole number from 1.")
        names = None if heads is None else answers.listed_heads(heads)
        self._loaded(names)
        answers.check_thresholds(score_threshold, self._heads)
        reading = answers.Reading(score_threshold, raw_scores)
        results = self._stream(pictures.iter_pictures(x, max_pixels=max_pixels), names, reading, batch_size=batch_size)
        if stream:
            return results
        return next(results) if pictures.is_single(x) else list(results)

    def _stream(
        self, source: Iterator[pictures.Picture], names: list[str] | None, reading: answers.Reading, *, batch_size: int
    ) -> Iterator[Detections]:
        for chunk in batches.chunks(source, self._prepare, size=batch_size):
            run = functools.partial(self._run, heads=self._loaded(names), reading=reading)
            results, problem = batches.by_size(chunk.jobs, run), chunk.problem
            del chunk, run  # or its pictures would be held while the next ones are read
            yield from results
            if problem:
                raise problem

    def _prepare(self, picture: pictures.Picture) -> batches.Job:
        started = time.perf_counter()
        fitting = pictures.to_channels(picture, self.backbone.contract.architecture.in_channels)
        pixels = torch.from_numpy(np.array(fitting.pixels)).to(self.device)
        with torch.inference_mode():
            prepared = self.backbone.prepare(pixels)
        devices.wait(self.device)
        return batches.Job(picture.source, prepared, time.perf_counter() - started)

    def _run(
        self, jobs: Sequence[batches.Job], heads: Mapping[str, LoadedHead], reading: answers.Reading
    ) -> list[Detections]:
        """Run one batch: the backbone once, then the heads over its maps."""
        with torch.inference_mode():
            started = time.perf_counter()
            features = self._engine.encode([job.prepared for job in jobs])
            encoded = time.perf_counter() - started
            wanted = [(head.network, reading.least_raw(name, head)) for name, head in heads.items()]
            found = self._engine.detect(features, wanted)
        return answers.of_batch(jobs, heads, found, encoded, reading)

    def _loaded(self, names: Sequence[str] | None, verb: str = "run") -> Mapping[str, LoadedHead]:
        heads = self._heads
        if names is None:
            return heads
        missing = [name for name in names if not isinstance(name, str) or name not in heads]
        if missing:
            remedy = f"{near_matches(missing[0], heads)} See load_head()."
            raise NotFoundError(f"{verb} head {shown(missing[0])}", "it is not loaded", remedy)
        return {name: heads[name] for name in names}
