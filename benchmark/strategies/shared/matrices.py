"""Which parameters of a model are the matrices that some methods treat apart: the linear layers' weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def block_matrices(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Name -> weight of every linear layer in the blocks: neither embeddings nor the head have any."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from benchmark.engine import find_units

    units = [unit for unit in find_units(model) if unit.kind == "block"]
    in_blocks = {name for unit in units for name in unit.parameters}
    linear = (name for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)))
    names = [f"{name}.weight" for name in linear]
    return {name: model.get_parameter(name) for name in names if name in in_blocks}
