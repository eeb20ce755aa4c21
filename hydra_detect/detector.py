"""`HydraDetector`: encode a picture once, run any number of heads over it.

The object's one mutable part is which heads are loaded, a mapping that is replaced as a whole; a prediction takes
the mapping once per batch and then needs no lock. Heads are separate modules without state, so what one finds never
depends on the others, nor on the pictures beside it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from hydra_detect import batches, pictures
from hydra_detect.detections import Detections, Timing
from hydra_detect.errors import InputError, NotFoundError, listed, near_matches
from hydra_detect.names import HeadRef
from hydra_detect.nets import devices
from hydra_detect.nets.backbones import Backbone
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import module_bytes
from hydra_detect.registry import HeadRegistry, check_fits
from hydra_detect.storage import backbones
from hydra_detect.storage.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from hydra_detect.nets.heads import HeadOutput
    from hydra_detect.records import VersionRecord

DEFAULT_BATCH_SIZE = 1


@attrs.frozen
class LoadedHead:
    """A head in memory: the version it is, and its network."""

    version: VersionRecord
    network: RCNNHead


@attrs.frozen
class Memory:
    """Bytes in memory, measured from the tensors themselves."""

    backbone: int
    heads: Mapping[str, int]

    @property
    def total(self) -> int:
        """Backbone and all heads together."""
        return self.backbone + sum(self.heads.values())


class HydraDetector:
    """One backbone, any number of heads.

    Made by `HydraDetector.from_store`. Threads may share it: they may predict while others load, swap or unload.

    Args:
        store: Where heads are loaded from.
        backbone: The shared network.
        device: Where everything runs.
        dtype: What convolutions and matrix products compute in.

    """

    def __init__(self, store: Store, backbone: Backbone, *, device: torch.device, dtype: torch.dtype) -> None:
        self.registry = HeadRegistry(store)
        self.device = device
        self.dtype = dtype
        self.backbone = backbone.to(device)
        self._heads: Mapping[str, LoadedHead] = MappingProxyType({})
        self._changing = threading.Lock()

    @classmethod
    def from_store(
        cls,
        store: str | os.PathLike[str] | Store,
        heads: Iterable[str | HeadRef] | None = None,
        *,
        backbone: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
    ) -> HydraDetector:
        """Load a backbone and heads from a store.

        Args:
            store: The store, or its path.
            heads: Names ("owl") or versions ("owl@3"); None for the active version of every head of the backbone.
            backbone: Its name; needed only where the store has several.
            device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU if there is one.
            dtype: None or "float32"; "float16" or "bfloat16" compute in mixed precision (`torch.autocast`).

        Raises:
            StoreError: If there is no store.
            NotFoundError: If a head or backbone is not there, or it is not clear which backbone is meant.
            IncompatibleError: If a head was made for another backbone.
            CorruptError: If a file is damaged.
            DeviceError: If the device or dtype is not to be had.

        """
        store = Store.open(store)
        place, precision = devices.choose_device(device), devices.choose_dtype(dtype)
        stored = backbones.find(store, backbone or _only_backbone(store))
        module = Backbone(stored.record.contract, backbones.tensors(store, stored))
        detector = cls(store, module, device=place, dtype=precision)
        if heads is None:
            heads = detector.registry.fitting(stored.record.contract)
        elif isinstance(heads, str | HeadRef):
            raise InputError(
                f"load heads {heads!s}", "heads is one reference, not a list", f"Write heads=[{str(heads)!r}]."
            )
        for ref in _one_version_each(heads):
            detector.load_head(ref)
        return detector

    def __repr__(self) -> str:
        loaded = ", ".join(f"{head.version.head}@{head.version.number}" for head in self._heads.values())
        return f"HydraDetector({self.backbone.contract.architecture.name}, heads=[{loaded}], device={self.device})"

    @property
    def heads(self) -> dict[str, VersionRecord]:
        """The loaded heads: name to version."""
        return {name: head.version for name, head in self._heads.items()}

    def load_head(self, ref: str | HeadRef) -> VersionRecord:
        """Load a head, or another version of a loaded one; the change is one atomic assignment.

        Other heads are not touched, and a prediction in progress finishes with what it began with.

        Args:
            ref: "owl" for the active version, "owl@3" for that one.

        Returns:
            The version that is now loaded.

        Raises:
            NotFoundError: If the store has no such head or version.
            IncompatibleError: If it was made for another backbone.
            CorruptError: If it is damaged; what was loaded stays.

        """
        return self._install(ref, only_if_loaded=False)

    def swap(self, ref: str | HeadRef) -> VersionRecord:
        """Replace a loaded head by another version of it, or by the active one: `load_head` for a head in use.

        Raises:
            NotFoundError: If no version of it is loaded, or the store has no such version.
            IncompatibleError: If it was made for another backbone.
            CorruptError: If it is damaged; what was loaded stays.

        """
        self._loaded([HeadRef.parse(ref).name])
        return self._install(ref, only_if_loaded=True)

    def _install(self, ref: str | HeadRef, *, only_if_loaded: bool) -> VersionRecord:
        version = self.registry[ref]
        check_fits(version, self.backbone.contract)
        raw = self.registry.manager.tensors(version)
        network = RCNNHead.load(version.record.settings, self.backbone.contract.levels, raw).to(self.device)
        with self._changing:
            if only_if_loaded:  # another thread may have dropped it while this one was reading
                self._loaded([version.head])
            self._heads = MappingProxyType({**self._heads, version.head: LoadedHead(version, network)})
        return version

    def unload_head(self, name: str) -> None:
        """Drop a head; its memory is freed when the last prediction that uses it ends.

        Raises:
            NotFoundError: If it is not loaded.

        """
        with self._changing:
            self._loaded([name])
            self._heads = MappingProxyType({other: head for other, head in self._heads.items() if other != name})

    def memory(self) -> Memory:
        """Return the bytes that backbone and heads occupy, measured from their tensors."""
        return Memory(
            module_bytes(self.backbone), {name: module_bytes(head.network) for name, head in self._heads.items()}
        )

    def predict(
        self,
        x: Any,
        *,
        heads: Sequence[str] | None = None,
        score_threshold: float | Mapping[str, float] | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        stream: bool = False,
        max_pixels: int = pictures.DEFAULT_MAX_PIXELS,
    ) -> Any:
        """Detect with every loaded head, or with some of them.

        Args:
            x: A picture: path, PIL image, array [height, width(, channel)] in RGB, tensor [(channel,) height,
                width]. Or many: directory, glob, or any iterable of pictures.
            heads: Names of loaded heads; None for all. Only these are run.
            score_threshold: Drop boxes that do not score above it: one number, or one per head name. None for
                each head's own: its operating threshold, or the one it was made with.
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
        names = None if heads is None else _listed_heads(heads)
        self._loaded(names)
        _check_thresholds(score_threshold, self._heads)
        results = self._stream(
            pictures.iter_pictures(x, max_pixels=max_pixels), names, score_threshold, batch_size=batch_size
        )
        if stream:
            return results
        return next(results) if pictures.is_single(x) else list(results)

    def _stream(
        self,
        source: Iterator[pictures.Picture],
        names: list[str] | None,
        score_threshold: float | Mapping[str, float] | None,
        *,
        batch_size: int,
    ) -> Iterator[Detections]:
        for chunk in batches.chunks(source, self._prepare, size=batch_size):
            results, problem = self._answers(chunk, self._loaded(names), score_threshold), chunk.problem
            del chunk  # or its pictures would be held while the next ones are read
            yield from results
            if problem:
                raise problem

    def _answers(
        self,
        chunk: batches.Chunk,
        heads: Mapping[str, LoadedHead],
        score_threshold: float | Mapping[str, float] | None,
    ) -> list[Detections]:
        found: dict[int, Detections] = {}
        for places in batches.by_padded_size(chunk.jobs):
            results = self._run([chunk.jobs[place] for place in places], heads, score_threshold)
            found.update(zip(places, results, strict=True))
        return [found[place] for place in range(len(chunk.jobs))]

    def _prepare(self, picture: pictures.Picture) -> batches.Job:
        started = time.perf_counter()
        fitting = pictures.to_channels(picture, self.backbone.contract.architecture.in_channels)
        pixels = torch.from_numpy(np.array(fitting.pixels)).to(self.device)
        with torch.inference_mode():
            prepared = self.backbone.prepare(pixels)
        self._synchronise()
        return batches.Job(picture.source, prepared, time.perf_counter() - started)

    def _run(
        self,
        jobs: Sequence[batches.Job],
        heads: Mapping[str, LoadedHead],
        score_threshold: float | Mapping[str, float] | None,
    ) -> list[Detections]:
        """Run one batch: the backbone once, then each head over its maps."""
        with torch.inference_mode(), self._precision():
            started = time.perf_counter()
            features = self.backbone([job.prepared for job in jobs])
            self._synchronise()
            marks, outputs = [time.perf_counter()], []
            for name, head in heads.items():
                outputs.append(head.network(features, score_threshold=_threshold(name, head, score_threshold)))
                self._synchronise()
                marks.append(time.perf_counter())
        share = 1.0 / len(jobs)
        spans = {name: (end - begin) * share for name, begin, end in zip(heads, marks, marks[1:], strict=False)}
        return [
            _detections(
                job,
                [(head, output[place]) for head, output in zip(heads.values(), outputs, strict=True)],
                Timing(job.seconds, (marks[0] - started) * share, spans),
            )
            for place, job in enumerate(jobs)
        ]

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _synchronise(self) -> None:
        # Without this a GPU's time would be booked on whoever waits for it first.
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _loaded(self, names: Sequence[str] | None) -> Mapping[str, LoadedHead]:
        heads = self._heads
        if names is None:
            return heads
        missing = [name for name in names if name not in heads]
        if missing:
            raise NotFoundError(
                f"run head {missing[0]!r}", "it is not loaded", f"{near_matches(missing[0], heads)} See load_head()."
            )
        return {name: heads[name] for name in names}


def _detections(job: batches.Job, found: Sequence[tuple[LoadedHead, HeadOutput]], timing: Timing) -> Detections:
    parts = [_of_head(head, output, image_size=job.prepared.original_size, source=job.source) for head, output in found]
    empty = Detections(image_size=job.prepared.original_size, source=job.source)
    return attrs.evolve(Detections.concat([empty, *parts]), timing=timing)


def _of_head(head: LoadedHead, output: HeadOutput, *, image_size: tuple[int, int], source: str | None) -> Detections:
    labels = output.labels.cpu().numpy()
    names = head.version.record.class_names
    return Detections(
        boxes=output.boxes.float().cpu().numpy(),
        scores=output.scores.float().cpu().numpy(),
        labels=labels,
        label_names=[names[label - 1] for label in labels],  # label 0 is the background, which no head returns
        heads=[head.version.head] * len(labels),
        head_versions=[head.version.number] * len(labels),
        image_size=image_size,
        source=source,
    )


def _threshold(name: str, head: LoadedHead, given: float | Mapping[str, float] | None) -> float:
    own = head.version.record.score_threshold
    if given is None:
        return own
    return float(given.get(name, own)) if isinstance(given, Mapping) else float(given)


def _check_thresholds(given: float | Mapping[str, float] | None, heads: Mapping[str, LoadedHead]) -> None:
    if given is None:
        return
    named: Mapping[str, Any] = given if isinstance(given, Mapping) else {"all heads": given}
    for name, value in named.items():
        if named is given and name not in heads:
            raise NotFoundError(f"set the threshold of {name!r}", "it is not loaded", near_matches(name, heads))
        if not (isinstance(value, int | float | np.number) and 0 <= value <= 1):
            raise InputError("predict", f"the score threshold of {name} is {value}", "Give a number from 0 to 1.")


def _listed_heads(heads: Sequence[str]) -> list[str]:
    if isinstance(heads, str) or not all(isinstance(name, str) for name in heads):
        raise InputError("predict", f"heads is {heads!r:.80}", "Give a list of names of loaded heads, as ['owl'].")
    return list(heads)


def _one_version_each(heads: Iterable[str | HeadRef]) -> list[HeadRef]:
    refs = list(dict.fromkeys(HeadRef.parse(ref) for ref in heads))
    for place, ref in enumerate(refs):
        if any(other.name == ref.name for other in refs[:place]):
            raise InputError(
                f"load {ref}",
                f"{ref.name!r} is named twice, with and without a version or with two",
                "Name each head once.",
            )
    return refs


def _only_backbone(store: Store) -> str:
    names = backbones.names(store)
    if len(names) == 1:
        return names[0]
    found = f"the store has several: {listed(names)}" if names else "the store has none"
    remedy = "Say which one with backbone=NAME." if names else "Split an original into it first."
    raise NotFoundError("choose the backbone", found, remedy)
