"""Layers of heads as the fast engine holds them: a base, which heads may share, and what is a head's own.

Every layer of a head is laid out once, when it is loaded, in the form that its stage takes. What decides the form of a
weight is its key, so one that heads share is laid out once for all of them that need it in the same form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

from hydra_detect.engine.convolutions import filled
from hydra_detect.engine.folding import scale_and_shift
from hydra_detect.nets.compact import LowRank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hydra_detect.engine.convolutions import Convolutions
    from hydra_detect.nets.heads import RCNNHead
    from hydra_detect.records import HeadSettings

_RPN, _BOX = "rpn.head.conv.", "roi_heads.box_head."


@attrs.frozen(eq=False)
class Layer:
    """A layer: (base + up @ thin) * scale + bias, then a rectifier.

    Args:
        base: The weight, in the form of its place.
        thin: The first factor of a difference from it, in the same form; None where there is none.
        up: The second factor, [out, rank].
        scale: [out] of the norm behind it; None for 1.
        bias: [out]; None for 0.

    """

    base: torch.Tensor
    thin: torch.Tensor | None = None
    up: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    bias: torch.Tensor | None = None

    def finished(self, shared: torch.Tensor, thin: torch.Tensor | None) -> torch.Tensor:
        """Return the output rows [row, out] from what base and thin made of the input; neither is changed."""
        total = shared if thin is None or self.up is None else torch.addmm(shared, thin, self.up.T)
        if self.scale is not None:
            total = total * self.scale
        if self.bias is not None:
            total = total + self.bias if total is shared else total.add_(self.bias)
        return total.relu() if total is shared else total.relu_()

    def linear(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what it makes of rows [row, in]: [row, out]."""
        return self.finished(
            functional.linear(rows, self.base), None if self.thin is None else functional.linear(rows, self.thin)
        )

    def convolved(self, maps: torch.Tensor) -> torch.Tensor:
        """Return what it makes of maps [map, in, y, x], channels last: [map, out, y, x], channels last."""

        def rows(kernel: torch.Tensor) -> torch.Tensor:
            return functional.conv2d(maps, kernel, padding=1).permute(0, 2, 3, 1).flatten(0, 2)

        out = self.finished(rows(self.base), None if self.thin is None else rows(self.thin))
        return out.view(len(maps), *maps.shape[-2:], out.shape[-1]).permute(0, 3, 1, 2)

    @property
    def is_convolution(self) -> bool:
        """Whether it reads maps, not rows."""
        return _is_kernel(self.base)

    def tensors(self) -> Iterator[torch.Tensor]:
        """All that it holds, the base too."""
        return (value for value in attrs.astuple(self, recurse=False) if value is not None)


@attrs.frozen(eq=False)
class Forms:
    """What form the weight of each place takes.

    Args:
        settings: Of the head.
        convolutions: How the last convolution of the proposal network is computed.
        dtype: What everything is held in.

    """

    settings: HeadSettings
    convolutions: Convolutions
    dtype: torch.dtype

    def of(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """Return a weight in the form of its place.

        Args:
            name: Of the layer, in torchvision's modules.
            weight: [out, in] or [out, in, y, x], float32.

        """
        if _is_kernel(weight):
            if name == self.last_of_rpn:
                return self.convolutions.kernel(weight).to(self.dtype)
            return weight.to(self.dtype).contiguous(memory_format=torch.channels_last)
        if name == self.first_of_rows:  # it reads bins of channels where torchvision's reads channels of bins
            bins = self.settings.roi_size**2
            weight = weight.view(len(weight), -1, bins).transpose(1, 2).flatten(1)
        return weight.to(self.dtype).contiguous()

    def key(self, name: str) -> tuple[str, str | int]:
        """Return what decides the form of a weight of this name, beside its device and dtype."""
        if name == self.first_of_rows:
            return name, self.settings.roi_size
        return name, "last" if name == self.last_of_rpn else ""

    @property
    def last_of_rpn(self) -> str:
        """The name of the proposal network's last convolution."""
        return f"{_RPN}{self.settings.rpn_conv_depth - 1}.0"

    @property
    def first_of_rows(self) -> str:
        """The name of the box head's first linear layer."""
        if self.settings.box_head == "mlp":
            return f"{_BOX}fc6"
        return f"{_BOX}{len(self.settings.box_convolutions) + 1}"

    def layers(self, head: RCNNHead, base: Callable[[str], torch.Tensor]) -> dict[str, Layer]:
        """Return the layers of a head between features and predictors, by name, in the order that they are run.

        Args:
            head: With its own weights; those of its reference may be missing.
            base: Gives what others may have in common with it, in form, by layer name: of a compact head the weights
                that it leans on, of a full one all.

        """
        modules = dict(head.named_modules())
        is_full = not any(isinstance(module, LowRank) for module in modules.values())
        return {
            name: self._layer(name, module, base, _norm_behind(modules, name), is_full=is_full)
            for name, module in modules.items()
            if name.startswith((_RPN, _BOX)) and isinstance(module, nn.Conv2d | nn.Linear | LowRank)
        }

    def _layer(
        self,
        name: str,
        module: nn.Conv2d | nn.Linear | LowRank,
        base: Callable[[str], torch.Tensor],
        norm: nn.BatchNorm2d | FrozenBatchNorm2d | None,
        *,
        is_full: bool,
    ) -> Layer:
        scale, bias = _scale_and_bias(module, norm)
        own = [None if value is None else value.detach().to(self.dtype) for value in (scale, bias)]
        if not isinstance(module, LowRank):
            return Layer(base(name) if is_full else self.of(name, module.weight.detach()), None, None, *own)
        if not len(module.down):
            return Layer(base(name), None, None, *own)
        down, up = module.down.detach(), module.up.detach()
        if name == self.last_of_rpn:  # a product of few columns takes longer, not less; elsewhere rows make up for it
            down, up = filled(down), filled(up.T).T
        thin = self.of(name, down.view(-1, *module.weight.shape[1:]))
        return Layer(base(name), thin, up.to(self.dtype).contiguous(), *own)


def _is_kernel(weight: torch.Tensor) -> bool:
    return weight.dim() != 2  # noqa: PLR2004  [out, in]


def _scale_and_bias(
    module: nn.Conv2d | nn.Linear | LowRank, norm: nn.BatchNorm2d | FrozenBatchNorm2d | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return what the outputs of a layer are multiplied by, and what is added then, its norm included."""
    if norm is None:
        return None, module.bias
    scale, shift = scale_and_shift(norm)
    return scale, shift if module.bias is None else shift + module.bias * scale


def _norm_behind(modules: Mapping[str, nn.Module], name: str) -> nn.BatchNorm2d | FrozenBatchNorm2d | None:
    """Return the norm of a `Conv2dNormActivation`, whose parts are numbered."""
    parent, _dot, place = name.rpartition(".")
    follower = modules.get(f"{parent}.{int(place) + 1}") if place.isdecimal() else None
    return follower if isinstance(follower, nn.BatchNorm2d | FrozenBatchNorm2d) else None
