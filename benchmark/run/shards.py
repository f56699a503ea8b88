"""Shards: the model of a run while its devices divide it (FSDP2), and how it becomes whole again.

Each rank has its part of every weight, and so of its gradient and its optimizer state. A block, as the engine
finds them, is gathered to compute its forward and its backward pass, and freed after each; so is, for the
whole of a pass, what is in no block, which is embeddings and head. A forward pass needs all ranks, with or
without gradients. So an evaluation during the training is one that all ranks make, each on all rows, and
takes no more memory than that.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from benchmark.engine import find_units
from benchmark.engine.sharded import gathered, is_sharded

TABLES = [
    name
    for name, value in vars(nn.Module()).items()
    if isinstance(value, dict) and name not in ("_buffers", "_modules")
]
"""The attributes of a module that hold its parameters and its hooks."""


class Shards:
    """A model whose weights are divided over all ranks, from here on until `gather`.

    `model` itself is changed, on each rank at once, and its parameters are others until then. It is on the
    host, as the strategy prepared it; a block at a time moves to `device`, where its part stays.
    """

    def __init__(self, model: nn.Module, ranks: int, device: torch.device) -> None:
        """ranks: of the process group, all of which have equal weights. device: of this rank.

        Raises UserError for a model without repeated blocks.
        """
        self._model = model
        self._before = [_Module(module) for module in model.modules()]
        mesh = init_device_mesh(device.type, (ranks,))
        blocks = [unit.name for unit in find_units(model) if unit.kind == "block"]
        for module in (*map(model.get_submodule, blocks), model):
            whole = [p for p in module.parameters() if not is_sharded(p)]
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            for parameter in whole:
                parameter.data = parameter.data.new_empty(0)
        if hasattr(model, "peft_config"):  # its generate() calls a model inside it
            register_fsdp_forward_method(model, "generate")

    def gather(self) -> None:
        """Make the model whole again, as it was but for its weights: those of the first rank are in host
        memory, and the others have none. Call it on every rank."""
        weights = gathered({name: p.detach() for name, p in self._model.named_parameters()})
        for module in self._before:
            module.restore()
        parameters = dict(self._model.named_parameters())
        for name, weight in weights.items():
            parameters[name].data = weight


class _Module:
    """A module as it is now: its class, its own parameters and hooks, and the names of its attributes."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._kind = module, type(module)
        self._tables: dict[str, Any] = {name: vars(module)[name].copy() for name in TABLES}
        self._names = set(vars(module))

    def restore(self) -> None:
        """Undo what was done to it since, but for buffers and for values of its other attributes."""
        attributes = vars(self._module)
        for name in attributes.keys() - self._names:
            del attributes[name]
        attributes.update(self._tables)
        self._module.__class__ = self._kind
