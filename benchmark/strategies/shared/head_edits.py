"""HeadEdits: a scale and an offset for the output of every attention head of a layer (LoFiT)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class HeadEdits(nn.Module):
    """(1 + scale) * output + offset, before the projection that joins the heads.

    scale, offset: (heads, width of a head). chosen: (heads, 1), 1 for heads whose offset trains; all of them
    until `choose`. The offsets are zeros until then.
    """

    chosen: torch.Tensor

    def __init__(self, heads: int, width: int, spread: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(heads, width) * spread)
        self.offset = nn.Parameter(torch.zeros(heads, width))
        self.register_buffer("chosen", torch.ones(heads, 1), persistent=False)

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        """(..., heads * width) -> the same shape."""
        by_head = outputs.unflatten(-1, self.scale.shape)
        edited = by_head * (1 + self.scale) + self.offset * self.chosen
        return edited.flatten(-2).to(outputs.dtype)


def edit(model: nn.Module, projection: str, heads: int, spread: float) -> None:
    """Put HeadEdits before the module `projection`, as its sibling `lofit`."""
    module: Any = model.get_submodule(projection)
    width = module.weight.shape[0 if hasattr(module, "nf") else 1]  # GPT-2's Conv1D is transposed
    edits = HeadEdits(heads, width // heads, spread).to(module.weight.device)
    model.get_submodule(projection.rpartition(".")[0]).add_module("lofit", edits)
    module.register_forward_pre_hook(lambda _, inputs: (edits(inputs[0]), *inputs[1:]))


@torch.no_grad()
def choose(layers: Sequence[HeadEdits], share: float, spread: float) -> None:
    """Choose the heads with the largest scales. Scales go to zero, and the chosen heads' offsets train."""
    scores = torch.cat([layer.scale.norm(dim=1) for layer in layers])
    count = max(1, round(share * len(scores)))
    mask = torch.zeros_like(scores)
    mask[scores.topk(count).indices] = 1
    for layer, chosen in zip(layers, mask.split([len(x.scale) for x in layers]), strict=True):
        layer.chosen.copy_(chosen[:, None])
        layer.offset.copy_(torch.randn_like(layer.offset) * spread * layer.chosen)
        layer.offset.requires_grad_(bool(chosen.any()))
        layer.scale.zero_()
        layer.scale.requires_grad_(False)
        layer.scale.grad = None
