"""Proposals: from maps to the boxes that a head looks at more closely (Ren et al. 2015, arXiv:1506.01497).

The 3x3 convolution of all heads runs band by band over each map, with what they share computed once; each band goes on
to every head's two predictors while it is in the cache. Then each head selects by itself: the best anchors of each
level, decoded, clipped, suppressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn import functional
from torchvision.ops import clip_boxes_to_image, nms, remove_small_boxes

from hydra_detect.engine.convolutions import filled
from hydra_detect.engine.decoding import decoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RPNHead

    from hydra_detect.engine.convolutions import Convolutions
    from hydra_detect.engine.layers import Layer
    from hydra_detect.engine.stopwatch import Stopwatch
    from hydra_detect.records import HeadSettings

LEAST_SIDE = 1e-3
"""Pixels: torchvision's side below which a proposal is dropped."""

_CORNERS = 4


@attrs.frozen(eq=False)
class Proposer:
    """The proposal network of one head.

    Args:
        layers: Its convolutions, the last in the form of `convolutions`.
        predictor: [5 * anchor, channel]: logits of all anchors, then their deltas, filled up with zeros.
        predictor_bias: [5 * anchor], filled up too.
        cells: [level] of [anchor, 4]: the anchors around 0, pixels of the network input.
        coder: Decodes deltas.
        settings: Counts and thresholds.

    """

    layers: Sequence[Layer]
    predictor: torch.Tensor
    predictor_bias: torch.Tensor
    cells: Sequence[torch.Tensor]
    coder: BoxCoder
    settings: HeadSettings

    @classmethod
    def of(
        cls, layers: Sequence[Layer], head: RPNHead, anchors: AnchorGenerator, coder: BoxCoder, settings: HeadSettings
    ) -> Proposer:
        """Join both predictors of a proposal network into one."""
        dtype, device = layers[-1].base.dtype, layers[-1].base.device
        parts = (head.cls_logits, head.bbox_pred)
        return cls(
            layers,
            filled(torch.cat([part.weight.detach().flatten(1) for part in parts])).to(dtype),
            filled(torch.cat([part.bias.detach() for part in parts])).to(dtype),
            [cell.to(device) for cell in anchors.cell_anchors],
            coder,
            settings,
        )

    def predicted(self, shared: torch.Tensor, thin: torch.Tensor | None) -> torch.Tensor:
        """Return logits and deltas [position, 5 * anchor] from what base and thin made of positions."""
        return functional.linear(self.layers[-1].finished(shared, thin), self.predictor, self.predictor_bias)

    def selected(
        self,
        per_level: Sequence[torch.Tensor],
        shapes: Sequence[tuple[int, int]],
        *,
        size: tuple[int, int],
        padded: tuple[int, int],
    ) -> torch.Tensor:
        """Return the proposals of one picture, best first.

        Args:
            per_level: [position, 5 * anchor] of each level.
            shapes: (height, width) of each level.
            size: (height, width) of the network input, without its padding.
            padded: The same with it.

        Returns:
            [proposal, 4] xyxy float32, pixels of the network input.

        """
        logits, boxes, counts = [], [], []
        for values, cell, shape in zip(per_level, self.cells, shapes, strict=True):
            own, found = self.best(values.float(), cell, shape, padded)
            logits.append(own)
            boxes.append(found)
            counts.append(len(own))
        scores = torch.cat(logits).sigmoid()
        every = clip_boxes_to_image(torch.cat(boxes), size)
        levels = torch.cat([scores.new_full((count,), level) for level, count in enumerate(counts)])
        kept = remove_small_boxes(every, LEAST_SIDE)
        kept = kept[scores[kept] >= self.settings.rpn_score_threshold]
        every, scores, levels = every[kept], scores[kept], levels[kept]
        survivors = torch.cat(
            [
                rows[nms(every[rows], scores[rows], self.settings.rpn_nms_threshold)]
                for rows in (torch.where(levels == level)[0] for level in range(len(counts)))
            ]
        )
        best = scores[survivors].sort(descending=True, stable=True).indices[: self.settings.rpn_post_nms_top_n]
        return every[survivors[best]]

    def best(
        self, values: torch.Tensor, cell: torch.Tensor, shape: tuple[int, int], padded: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [anchor] and boxes [anchor, 4] of the best anchors of one level, best first."""
        anchors, (height, width) = len(cell), shape
        every = values[:, :anchors].flatten()
        logits, chosen = every.topk(min(self.settings.rpn_pre_nms_top_n, len(every)))
        position, kind = chosen // anchors, chosen % anchors
        deltas = values[:, anchors : 5 * anchors].reshape(-1, _CORNERS)[chosen]
        x = position % width * (padded[1] // width)  # the stride is a whole number, as torchvision has it
        y = position // width * (padded[0] // height)
        boxes = cell[kind] + torch.stack([x, y, x, y], dim=1)
        return logits, decoded(self.coder, deltas, boxes)[:, 0]


def predict(
    maps: Sequence[torch.Tensor], heads: Sequence[Proposer], convolutions: Convolutions, watch: Stopwatch
) -> list[list[torch.Tensor]]:
    """Return for each head and level logits and deltas [position, 5 * anchor], positions in row-major order.

    Args:
        maps: [1, channel, y, x] of one picture, channels last, finest first.
        heads: Their proposal networks.
        convolutions: How the last convolution is computed.
        watch: Books time on heads, by their place, and on what they share.

    """
    found: list[list[torch.Tensor]] = [[] for _ in heads]
    last = [head.layers[-1] for head in heads]
    kernels = {id(one): one for layer in last for one in (layer.base, layer.thin) if one is not None}
    ready = {key: convolutions.ready(kernel) for key, kernel in kernels.items()}
    for level in maps:
        for places in _groups(heads, convolutions):
            parts: dict[int, list[torch.Tensor]] = {place: [] for place in places}
            inputs = _before_last(level, [heads[place] for place in places])
            for band in _bands(inputs, [last[place] for place in places], convolutions, ready):
                watch.mark(None)
                for place, (shared, thin) in zip(places, band, strict=True):
                    parts[place].append(heads[place].predicted(shared, thin))
                    watch.mark(place)
            for place, own in parts.items():
                found[place].append(convolutions.in_rows(own, *level.shape[-2:]))
                watch.mark(place)
    return found


def _groups(heads: Sequence[Proposer], convolutions: Convolutions) -> list[list[int]]:
    """Return the places of heads that are computed together: those of one base, or where maps are shared, all.

    Heads of several convolutions stay alone: their last one reads what their own first ones made.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for place, head in enumerate(heads):
        together = ("maps", 0) if convolutions.shares_maps else ("base", id(head.layers[-1].base))
        groups.setdefault(("alone", place) if len(head.layers) > 1 else together, []).append(place)
    return list(groups.values())


def _before_last(level: torch.Tensor, heads: Sequence[Proposer]) -> torch.Tensor:
    for layer in heads[0].layers[:-1]:
        level = layer.convolved(level)
    return level


def _bands(
    level: torch.Tensor, layers: Sequence[Layer], convolutions: Convolutions, ready: Mapping[int, torch.Tensor]
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor | None]]]:
    """Yield for each layer what base and thin make of some positions of a map; a base that layers share runs once."""
    bases = list(dict.fromkeys(id(layer.base) for layer in layers))
    thins = [id(layer.thin) for layer in layers if layer.thin is not None]
    places = {base: place for place, base in enumerate(bases)}
    for outputs in convolutions.bands(level, [ready[key] for key in (*bases, *thins)]):
        rest = iter(outputs[len(bases) :])
        yield [(outputs[places[id(layer.base)]], None if layer.thin is None else next(rest)) for layer in layers]
