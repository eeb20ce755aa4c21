"""Which layers of a compact head are kept as differences, and of which rank: from a setting to layer names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra_detect.errors import InputError, near_matches
from hydra_detect.nets.compact import shared_layers
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.training.config import WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hydra_detect.contracts import Level
    from hydra_detect.records import HeadSettings

_SEE = "Write rank=16 for every layer, or layer by layer: rank=rpn:8,fc6:32,fc7:whole."


def ranks_of(rank: str, settings: HeadSettings, levels: Sequence[Level]) -> dict[str, int]:
    """Return the rank of each layer that is kept as a difference, by its name in the module.

    Args:
        rank: "16" for every layer; or layer by layer "rpn:8,fc6:32,fc7:whole", where those not named stay the
            reference's own. A layer of which the difference would be no smaller than the whole is kept whole.
        settings: Of the head.
        levels: The maps of its backbone.

    Raises:
        InputError: If there is no such layer, or this is no rank of it.

    """
    layers = shared_layers(RCNNHead(settings, levels))
    sizes = {name: (len(layer.weight), layer.weight[0].numel()) for name, layer in layers.items()}
    if rank.strip().isdecimal():
        numbers = dict.fromkeys(layers, int(rank))
    else:
        wanted = dict.fromkeys(layers, "0") | _named(rank, {_short(name, layers): name for name in layers})
        numbers = {name: _number(text, sizes[name]) for name, text in wanted.items() if text != WHOLE}
    saved = {name: number for name, number in numbers.items() if number * sum(sizes[name]) < _product(sizes[name])}
    if not saved:
        raise InputError("make a compact head", f"of rank {rank!r:.60} every layer would be kept whole", _SEE)
    return saved


def _named(text: str, names: dict[str, str]) -> dict[str, str]:
    found = {}
    for item in text.split(","):
        short, colon, value = (part.strip() for part in item.partition(":"))
        if not colon:
            raise InputError("make a compact head", f"{item!r:.60} names no layer and rank", _SEE)
        if short not in names:
            raise InputError("make a compact head", f"it has no layer {short!r:.60}", near_matches(short, names))
        found[names[short]] = value
    return found


def _number(text: str, size: tuple[int, int]) -> int:
    if not text.isdecimal() or int(text) > min(size):
        raise InputError(
            "make a compact head", f"{text!r:.40} is no rank of a layer of {size[0]} x {size[1]} weights", _SEE
        )
    return int(text)


def _product(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _short(name: str, layers: Iterable[str]) -> str:
    """Return what a layer is called in a setting: "rpn" or "rpn.1", "fc6", "box.0"."""
    if name.startswith("rpn.head.conv."):
        several = sum(other.startswith("rpn.head.conv.") for other in layers) > 1
        return f"rpn.{name.split('.')[3]}" if several else "rpn"
    own = name.removeprefix("roi_heads.box_head.")
    return own if own.startswith("fc") else f"box.{own.split('.')[0]}"
