"""A compact head: low-rank differences from a reference head of the same backbone, and predictors of its own.

Of the layers between the features and the predictors a compact head keeps, layer by layer, either all weights or two
thin matrices whose product is added to the reference's weights (Hu et al. 2021, arXiv:2106.09685). The reference's
weights are held once, however many heads lean on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn
from torch.nn import functional

from hydra_detect.errors import IncompatibleError, RecordError, near_matches
from hydra_detect.nets.heads import RCNNHead
from hydra_detect.nets.state import load_strict, mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hydra_detect.contracts import Level
    from hydra_detect.names import Digest
    from hydra_detect.records import HeadSettings
    from hydra_detect.tensors import RawTensor

_LEAST_IMPORTANCE = 0.1  # of a row or column, against the mean: what moved no loss yet is not thrown away

PREDICTORS = ("rpn.head.cls_logits", "rpn.head.bbox_pred", "roi_heads.box_predictor")
"""What says something of classes and anchors: always a head's own."""


def shared_layers(head: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the layers that a compact head may have in common with its reference, by their names in the module."""
    return {
        name: layer
        for name, layer in head.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not name.startswith(PREDICTORS)
    }


@attrs.frozen(eq=False)
class Reference:
    """The weights that compact heads lean on: all of a full head's but those of its predictors.

    Args:
        digest: Canonical digest of all tensors of that head.
        weights: Tensor name to value, float32.

    """

    digest: Digest
    weights: Mapping[str, torch.Tensor]

    @classmethod
    def of(
        cls, digest: Digest, settings: HeadSettings, levels: Sequence[Level], raw: Mapping[str, RawTensor]
    ) -> Reference:
        """Take the shared layers of a full head.

        Raises:
            CheckpointError: If these are not the weights of such a head.

        """
        return cls.of_head(digest, RCNNHead.load(settings, levels, raw))

    @classmethod
    def of_head(cls, digest: Digest, head: RCNNHead) -> Reference:
        """Take the shared layers of a full head that is built."""
        state = head.state_dict()
        return cls(digest, {name: value for name, value in state.items() if not name.startswith(PREDICTORS)})

    @property
    def layers(self) -> dict[str, torch.Tensor]:
        """The weights of its layers, by layer name; biases and norms are always a head's own."""
        matrices = {name: value for name, value in self.weights.items() if value.dim() > 1}
        return {name.removesuffix(".weight"): value for name, value in matrices.items()}

    def to(self, device: torch.device) -> Reference:
        """Return it on a device."""
        return Reference(self.digest, {name: weight.to(device) for name, weight in self.weights.items()})


@attrs.frozen(kw_only=True, eq=False)
class Lean:
    """What a compact head leans on, and how.

    Args:
        reference: The weights.
        ranks: Layer name to rank; 0 for a layer that is the reference's own. Layers not named are whole.

    """

    reference: Reference
    ranks: Mapping[str, int]

    @classmethod
    def fitting(
        cls, reference: Reference, ranks: Mapping[str, int], settings: HeadSettings, levels: Sequence[Level]
    ) -> Lean:
        """Return it once it is seen that a head of these settings can lean so.

        Raises:
            RecordError: If there is no such layer, or a rank is larger than its layer has.
            IncompatibleError: If the reference's layers are of other shapes.

        """
        lean = cls(reference=reference, ranks=ranks)
        CompactHead(settings, levels, lean=lean)
        return lean

    def to(self, device: torch.device) -> Lean:
        """Return it on a device."""
        return Lean(reference=self.reference.to(device), ranks=self.ranks)


class LowRank(nn.Module):
    """A linear or convolutional layer whose weight is that of a reference plus `up` @ `down`.

    Args:
        layer: The layer whose place it takes; its bias is kept.
        weight: The reference's, [out, in] or [out, in, y, x]; it is not copied and not saved.
        rank: Columns of `up` [out, rank] and rows of `down` [rank, in * y * x].

    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, weight: torch.Tensor, rank: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.weight: torch.Tensor
        place = layer.weight.device
        self.down = nn.Parameter(torch.empty(rank, weight[0].numel(), device=place))
        self.up = nn.Parameter(torch.zeros(len(weight), rank, device=place))
        self.bias = layer.bias
        self.geometry = (
            {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
            if isinstance(layer, nn.Conv2d)
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer with the whole weight would, to rounding, in two parts."""
        if self.geometry is None:
            return functional.linear(x, self.weight, self.bias) + functional.linear(
                functional.linear(x, self.down), self.up
            )
        thin = functional.conv2d(x, self.down.view(-1, *self.weight.shape[1:]), **self.geometry)
        shared = functional.conv2d(x, self.weight, self.bias, **self.geometry)
        return shared + functional.conv2d(thin, self.up[:, :, None, None])

    def expanded(self) -> torch.Tensor:
        """Return the whole weight."""
        return self.weight + (self.up @ self.down).view_as(self.weight)


class CompactHead(RCNNHead):
    """A head of which some layers are kept as differences; its state dict holds those, and the rest whole.

    Args:
        settings: What it computes with beside its weights.
        levels: The maps of its backbone.
        lean: What it leans on, and how.
        device: Where it is built: on "meta" it has shapes alone.

    Raises:
        RecordError: If there is no such layer, or a rank is larger than its layer has.
        IncompatibleError: If the reference's layers are of other shapes.

    """

    def __init__(
        self,
        settings: HeadSettings,
        levels: Sequence[Level],
        *,
        lean: Lean,
        device: str = "meta",
    ) -> None:
        super().__init__(settings, levels, device=device)
        self.lean = lean
        layers = shared_layers(self)
        _check_ranks(lean.ranks, layers)
        _check_shapes(lean, layers)
        for name, rank in lean.ranks.items():
            self.set_submodule(name, LowRank(layers[name], lean.reference.weights[f"{name}.weight"], rank))

    @classmethod
    def restored(
        cls, settings: HeadSettings, levels: Sequence[Level], raw: Mapping[str, RawTensor], *, lean: Lean
    ) -> CompactHead:
        """Build a compact head and give it its weights: float32, frozen, in evaluation mode."""
        head = cls(settings, levels, lean=lean)
        load_strict(head, raw, "the compact head")
        return head

    @classmethod
    @torch.no_grad()
    def nearest(cls, head: RCNNHead, lean: Lean) -> CompactHead:
        """Return the compact head that is nearest to a full one, layer by layer, on the CPU.

        Raises:
            RecordError: As for the class.
            IncompatibleError: As for the class.

        """
        compact = cls(head.settings, head.levels, lean=lean)
        state = {name: value.detach().cpu() for name, value in head.state_dict().items()}
        for name, rank in lean.ranks.items():
            reference = lean.reference.weights[f"{name}.weight"].cpu()
            difference = (state.pop(f"{name}.weight") - reference).flatten(1)
            state[f"{name}.up"], state[f"{name}.down"] = factors(difference, rank)
        compact.load_state_dict(state, strict=True, assign=True)
        return compact.eval().requires_grad_(requires_grad=False)

    @property
    def low_rank(self) -> dict[str, LowRank]:
        """The layers that are kept as differences."""
        return {name: layer for name, layer in self.named_modules() if isinstance(layer, LowRank)}

    @torch.no_grad()
    def whole(self) -> RCNNHead:
        """Return the full head that this one stands for, in evaluation mode: the same function, written out."""
        state = {name: value.detach() for name, value in self.state_dict().items()}
        for name, layer in self.low_rank.items():
            del state[f"{name}.down"], state[f"{name}.up"]
            state[f"{name}.weight"] = layer.expanded()
        full = RCNNHead(self.settings, self.levels)
        full.load_state_dict(state, strict=True, assign=True)
        return full.eval().requires_grad_(requires_grad=False)


@torch.no_grad()
def project(head: RCNNHead, lean: Lean, importance: Mapping[str, torch.Tensor] | None = None) -> None:
    """Move the layers of a full head to the nearest that a compact one can have, in place.

    Args:
        head: The full head.
        lean: What the compact one leans on, and how.
        importance: By layer, how much each weight matters: the mean square of the loss's gradient, shaped as it is.

    """
    layers = shared_layers(head)
    for name, rank in lean.ranks.items():
        weight, reference = layers[name].weight, lean.reference.weights[f"{name}.weight"]
        own = None if importance is None else importance[name].flatten(1)
        up, down = factors((weight - reference).flatten(1), rank, own)
        weight.copy_(reference + (up @ down).view_as(weight))


def factors(
    difference: torch.Tensor, rank: int, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `up` [out, rank] and `down` [rank, in] whose product is nearest to a matrix [out, in].

    The truncated singular value decomposition (Eckart and Young 1936), the singular values shared equally; by the
    eigenvectors of the small square matrix, which takes a tenth of the time. Where the importance of the elements is
    known, rows and columns count as much as theirs (after Hsu et al. 2022, arXiv:2207.00112, who weight rows).

    Args:
        difference: The matrix.
        rank: Of the product.
        importance: [out, in] mean square of a loss's gradient.

    """
    matrix = difference.double()
    rows, columns = (1.0, 1.0) if importance is None else (_scale(importance, 1)[:, None], _scale(importance, 0))
    matrix = matrix * rows * columns
    squares, left = torch.linalg.eigh(matrix @ matrix.T)  # ascending
    left = left.flip(1)[:, :rank]
    root = squares.flip(0)[:rank].clamp(min=0).sqrt().sqrt()[:, None]  # of the singular values
    down = torch.where(root > 0, left.T @ matrix / root.clamp(min=torch.finfo(torch.float64).tiny), 0.0)
    return (left * root.T / rows).float(), (down / columns).float()


def _scale(importance: torch.Tensor, axis: int) -> torch.Tensor:
    """Return what rows or columns are multiplied by: the root of their importance, 1 in the mean, and never nothing."""
    root = importance.double().mean(dim=axis).sqrt()
    mean = root.mean()
    return root / mean + _LEAST_IMPORTANCE if mean > 0 else torch.ones_like(root)


def _check_ranks(ranks: Mapping[str, int], layers: Mapping[str, nn.Conv2d | nn.Linear]) -> None:
    for name, rank in ranks.items():
        if name not in layers:
            raise RecordError(
                "build a compact head", f"it has no layer {name!r:.100} to be reduced", near_matches(name, layers)
            )
        most = min(len(layers[name].weight), layers[name].weight[0].numel())
        if not 0 <= rank <= most:
            raise RecordError(
                "build a compact head",
                f"layer {name!r} of shape {list(layers[name].weight.shape)} is to have rank {rank}",
                f"Give a rank from 0 to {most}, or keep the layer whole.",
            )


def _check_shapes(lean: Lean, layers: Mapping[str, nn.Conv2d | nn.Linear]) -> None:
    expected = {f"{name}.weight": layers[name].weight.shape for name in lean.ranks}
    found = {name: value.shape for name, value in lean.reference.weights.items() if name in expected}
    problems = mismatch(expected, found)
    if problems:
        raise IncompatibleError(
            "build a compact head on its reference",
            f"the reference {lean.reference.digest.short} does not fit: {problems}",
            "Take the reference that it was made on, or one of the same architecture.",
        )
