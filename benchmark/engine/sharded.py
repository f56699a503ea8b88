"""FSDP2: a block-wise optimizer over the shards (DTensors) that `fully_shard` makes of a model.

Shard first, then build the optimizer. fully_shard reduces only gradients that exist, so only the
active group's are communicated, and its MixedPrecisionPolicy takes the place of master weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmark.engine.contract import Blockwise
from benchmark.errors import UserError


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a DTensor, as fully_shard makes them."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Any) -> torch.Tensor:
    """The part of the tensor that is in this process."""
    part: torch.Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return part


def prepare(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    *,
    master: str,
    idle: str,
    update: str,
    follows_gradients: bool,
) -> None:
    """Prepare a sharded model for freezing. Raises UserError for settings that do not work with shards."""
    shards: list[Any] = [p for p in parameters.values() if is_sharded(p)]
    if not shards:
        return
    if master != "none":
        raise UserError(
            f'master="{master}" with fully_shard: the shards are the masters already; give '
            "fully_shard a MixedPrecisionPolicy instead"
        )
    if idle == "cpu" and any(not local(shard).is_cpu for shard in shards):
        raise UserError('idle="cpu" cannot park shards of fully_shard yet: pass idle="keep"')
    if update == "in_backward":
        raise UserError(
            'update="in_backward" with fully_shard, which reduces gradients after their hooks: pass '
            'update="step"'
        )
    if follows_gradients:
        raise UserError(
            "an order that gradients decide needs whole gradients, and fully_shard leaves each rank a part"
        )
    modules: list[Any] = list(model.modules())  # parents first: the outermost is FSDP's root
    for module in modules:
        if hasattr(module, "_get_fsdp_state"):
            # FSDP takes the dtype in which it reduces a module's gradients from the trainable parameters,
            # once, at the first forward pass. Most are frozen by then, so this makes it do so now.
            module._get_fsdp_state()._lazy_init()


def full_state_dict(optimizer: Blockwise) -> dict[str, Any]:
    """`state_dict()` with each shard gathered into a plain tensor on the CPU, one at a time.

    Call it on every rank: rank 0 gets the dict and the others {}. Any optimizer of the same groups
    loads it: sharded over another number of ranks, or in one process.
    """
    state = optimizer.state_dict()
    keep = dist.get_rank() == 0
    for _, entry in sorted(state["state"].items()):  # ranks must gather in the same order
        for key, value in sorted(entry.items()):
            if isinstance(value, torch.Tensor):
                entry[key] = _gather(value, keep)
    return state if keep else {}


def shard_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This rank's part of a full tensor, sharded like `parameter`. No communication.

    Raises UserError if the shapes differ.
    """
    from torch.distributed.tensor import distribute_tensor

    if value.shape != parameter.shape:
        raise UserError(
            f"state of shape {list(value.shape)} cannot be sharded like its parameter of shape "
            f"{list(parameter.shape)}"
        )
    layout: Any = parameter
    return distribute_tensor(value, layout.device_mesh, layout.placements, src_data_rank=None)


def _gather(value: Any, keep: bool) -> torch.Tensor | None:
    full = value.full_tensor() if is_sharded(value) else value
    return full.cpu() if keep else None
