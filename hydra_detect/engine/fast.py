"""The fast engine: the same function as the exact one, reordered; equal but for rounding.

    pictures -> folded backbone, channels last -> maps
    maps -> one convolution for all that share it -> each head's predictors -> its proposals
    maps -> one table -> each head's proposals cropped, its box head, its boxes

What a head computes has the same shapes whatever runs beside it, so its result is the same bit for bit, alone or among
others.
"""

from __future__ import annotations

import functools
import threading
import weakref
from typing import TYPE_CHECKING

import attrs
import torch

from hydra_detect.engine import convolutions, proposals, waitless
from hydra_detect.engine.boxes import BoxHead
from hydra_detect.engine.folding import fold_norms
from hydra_detect.engine.found import Found, Memory
from hydra_detect.engine.layers import Forms
from hydra_detect.engine.proposals import Proposer
from hydra_detect.engine.roi_align import Table
from hydra_detect.engine.stopwatch import Stopwatch
from hydra_detect.nets import devices
from hydra_detect.nets.backbones import Features
from hydra_detect.nets.building import build_head
from hydra_detect.nets.compact import Reference
from hydra_detect.nets.state import module_bytes, tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hydra_detect.names import Digest
    from hydra_detect.nets.backbones import Backbone, Prepared
    from hydra_detect.nets.heads import HeadOutput, RCNNHead
    from hydra_detect.records import HeadRecord
    from hydra_detect.tensors import RawTensor


_META = torch.device("meta")


@attrs.frozen(eq=False)
class FastHead:
    """A head as the fast engine holds it.

    Args:
        proposer: Its first stage.
        boxes: Its second stage.
        chooser: What turns scores into boxes: the head without its weights.
        leant_on: The weights of another head that it leans on; a full one has none.
        shapes: What the weights look like that others may lean on, on the meta device: a full head's own.

    """

    proposer: Proposer
    boxes: BoxHead
    chooser: RCNNHead
    leant_on: Sequence[torch.Tensor]
    shapes: Reference

    def tensors(self) -> list[torch.Tensor]:
        """All that it runs with, what it leans on too."""
        layers = [
            tensor for stage in (self.proposer, self.boxes) for layer in stage.layers for tensor in layer.tensors()
        ]
        own = [tensor for stage in (self.proposer, self.boxes) for tensor in (stage.predictor, stage.predictor_bias)]
        return [*layers, *own, *self.proposer.cells]


class FastEngine:
    """Runs all heads over one picture together, with what they share computed once.

    Args:
        backbone: The shared network, on its device; it is changed.
        device: Where everything runs.
        dtype: What weights and maps are held and computed in; boxes and scores are float32.

    """

    name = "fast"

    def __init__(self, backbone: Backbone, *, device: torch.device, dtype: torch.dtype) -> None:
        fold_norms(backbone.network)
        backbone.network.to(dtype=dtype, memory_format=torch.channels_last)
        self.backbone = backbone
        self.device = device
        self.dtype = dtype
        self.convolutions = convolutions.chosen(device, dtype)
        # A full head's weights are those that compact ones lean on, whichever came first.
        self._bases: weakref.WeakValueDictionary[tuple[Digest, str, str | int], torch.Tensor]
        self._bases = weakref.WeakValueDictionary()
        self._shapes: weakref.WeakValueDictionary[Digest, Reference] = weakref.WeakValueDictionary()
        self._laying_out = threading.Lock()

    @torch.no_grad()
    def load(
        self, record: HeadRecord, raw: Mapping[str, RawTensor], reference: Callable[[], Reference | None]
    ) -> FastHead:
        """Return a head as this engine runs it; nothing of other heads is laid out anew.

        Args:
            record: What it says of itself.
            raw: Its weights.
            reference: Gives what a compact head leans on, and is asked only if no other head has the same.

        """
        forms = Forms(record.settings, self.convolutions, self.dtype)
        digest = record.compact.reference if record.compact else record.tensors
        with self._laying_out:
            source: Callable[[], Reference]
            if record.compact:
                source = functools.cache(lambda: _found(reference()))
                shapes = self._shapes.get(digest) or source().to(_META)
                head = build_head(record, raw, reference=shapes)
            else:
                head = build_head(record, raw, reference=None)
                own = Reference.of_head(digest, head)
                source, shapes = lambda: own, self._shapes.get(digest) or own.to(_META)
            self._shapes[digest] = shapes
            _move(head, self.device)
            layers = forms.layers(head, functools.partial(self._base, digest, forms, source))
        rpn, roi = head.rpn, head.roi_heads
        of_rpn = [layer for name, layer in layers.items() if name.startswith("rpn.")]
        of_boxes = [layer for name, layer in layers.items() if not name.startswith("rpn.")]
        return FastHead(
            Proposer.of(of_rpn, rpn.head, rpn.anchor_generator, rpn.box_coder, record.settings),
            BoxHead.of(of_boxes, roi.box_predictor, roi.box_roi_pool),
            head.to(_META),
            [layers[name].base for name in (record.compact.ranks if record.compact else ())],
            shapes,
        )

    def _base(self, digest: Digest, forms: Forms, source: Callable[[], Reference], name: str) -> torch.Tensor:
        """Return a weight of a full head in its form: the one that another head has, or laid out now."""
        key = (digest, *forms.key(name))
        base = self._bases.get(key)
        if base is None:
            base = self._bases[key] = forms.of(name, source().layers[name].to(self.device))
        return base

    def encode(self, pictures: Sequence[Prepared]) -> Features:
        """Run the backbone once over pictures of one padded size."""
        ready = [
            attrs.evolve(one, pixels=one.pixels.to(dtype=self.dtype, memory_format=torch.channels_last))
            for one in pictures
        ]
        features: Features = self.backbone(ready)
        devices.wait(self.device)
        return features

    def detect(self, features: Features, heads: Sequence[tuple[FastHead, float]]) -> Found:
        """Run heads, each with the score that its boxes have to be above."""
        watch = Stopwatch(len(heads))
        one = self.without_waiting if self.device.type == "cuda" else self.one_by_one
        outputs = [one(_picture(features, image), heads, watch) for image in range(len(features.original_sizes))]
        return Found([list(of_head) for of_head in zip(*outputs, strict=True)], watch.heads, watch.shared)

    def one_by_one(
        self, picture: Features, heads: Sequence[tuple[FastHead, float]], watch: Stopwatch
    ) -> list[HeadOutput]:
        """Return what each head finds in one picture, with no more boxes at any time than are left."""
        predicted, shapes, tables = self._predicted(picture, heads, watch)
        found: list[HeadOutput] = []
        for place, ((head, threshold), per_level) in enumerate(zip(heads, predicted, strict=True)):
            table = self._table(picture, head, tables)
            watch.mark(None)
            boxes = head.proposer.selected(per_level, shapes, size=_size(picture), padded=_padded(picture))
            scored = head.boxes.scored(table, boxes)
            found += head.chooser.choose(picture, [boxes], scored, score_threshold=threshold)
            watch.mark(place)
        return found

    def without_waiting(
        self, picture: Features, heads: Sequence[tuple[FastHead, float]], watch: Stopwatch
    ) -> list[HeadOutput]:
        """Return the same, on the CPU, with a fixed number of boxes for each head and one transfer for all of them.

        A head whose suppression is not settled then, which takes a long chain of boxes, is run again one by one. How
        long the device was at which head, nobody knows who does not wait: all time is booked on what heads share.
        """
        predicted, shapes, tables = self._predicted(picture, heads, Stopwatch(len(heads)))
        size, padded = _size(picture), _padded(picture)
        boxes = waitless.proposed([head.proposer for head, _ in heads], predicted, shapes, size=size, padded=padded)
        scored = [
            head.boxes.scored(self._table(picture, head, tables), own.boxes)
            for (head, _threshold), own in zip(heads, boxes, strict=True)
        ]
        masked = waitless.chosen([(head.chooser, threshold) for head, threshold in heads], picture, boxes, scored)
        found = [
            self.one_by_one(picture, [head], Stopwatch(1))[0] if output is None else output
            for head, output in zip(heads, waitless.fetched(masked), strict=True)
        ]
        watch.mark(None)
        return found

    def _predicted(
        self, picture: Features, heads: Sequence[tuple[FastHead, float]], watch: Stopwatch
    ) -> tuple[list[list[torch.Tensor]], list[tuple[int, int]], dict[tuple[str, ...], Table]]:
        """Return what every head predicts of anchors, the shapes of the maps, and a place for tables of maps."""
        maps = list(picture.maps.values())
        shapes = [(level.shape[-2], level.shape[-1]) for level in maps]
        proposers = [head.proposer for head, _threshold in heads]
        return proposals.predict(maps, proposers, self.convolutions, watch), shapes, {}

    def _table(self, picture: Features, head: FastHead, tables: dict[tuple[str, ...], Table]) -> Table:
        """Return the maps that a head crops from, laid out once for all that crop from the same."""
        pool = head.boxes.pool
        names = tuple(pool.names)
        if names not in tables:
            tables[names] = Table.of({name: picture.maps[name] for name in names}, pool.scales)
        return tables[names]

    def memory(self, heads: Mapping[str, FastHead]) -> Memory:
        """Measure what the backbone, heads and what they lean on take."""
        leant = {id(base): base for head in heads.values() for base in head.leant_on}
        return Memory(
            module_bytes(self.backbone),
            {
                name: tensor_bytes([tensor for tensor in head.tensors() if id(tensor) not in leant])
                for name, head in heads.items()
            },
            tensor_bytes(leant.values()),
        )


def _found(reference: Reference | None) -> Reference:
    assert reference is not None  # noqa: S101  a compact head has one, or it is an error
    return reference


def _picture(features: Features, image: int) -> Features:
    """Return one picture of a batch."""
    images = type(features.images)(features.images.tensors[image : image + 1], [features.images.image_sizes[image]])
    maps = {name: level[image : image + 1] for name, level in features.maps.items()}
    return Features(maps, images, [features.original_sizes[image]])


def _move(head: RCNNHead, device: torch.device) -> None:
    """Move what a head has of its own to a device; what it leans on may be no more than a shape."""
    for tensor in (*head.parameters(), *head.buffers()):
        if not tensor.is_meta:
            tensor.data = tensor.data.to(device)


def _size(picture: Features) -> tuple[int, int]:
    return picture.images.image_sizes[0]


def _padded(picture: Features) -> tuple[int, int]:
    return picture.images.tensors.shape[-2], picture.images.tensors.shape[-1]
