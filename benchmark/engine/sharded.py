"""FSDP2: a block-wise optimizer over the shards (DTensors) that `fully_shard` makes of a model.

Shard first, then build the optimizer. fully_shard reduces only gradients that exist, so only the active
group's are communicated. Each rank has its part of state and masters, and with idle="cpu" its host memory has
those of idle groups. Masters are for a model that was lowered before it was sharded:

    master = lower(model, torch.bfloat16)
    fully_shard(model)
    optimizer = HiFT(model, master=master)

With fully_shard's MixedPrecisionPolicy instead, the shards themselves are in fp32, and all on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmark import rows
from benchmark.errors import UserError


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a DTensor, as fully_shard makes them."""
    return hasattr(tensor, "device_mesh")


def has_shards(model: nn.Module) -> bool:
    """Whether fully_shard has divided weights of the model."""
    return any(map(is_sharded, model.parameters()))


def local(tensor: Any) -> torch.Tensor:
    """The part of the tensor that is in this process, without a graph where it is sharded."""
    part: torch.Tensor = tensor._local_tensor if is_sharded(tensor) else tensor
    return part


def layout(tensor: Any) -> Any:
    """How a DTensor is cut, for `shard`."""
    return tensor._spec


def shard(part: torch.Tensor, layout: Any) -> torch.Tensor:
    """The DTensor that is cut in that way and has `part` in this process, on whatever device `part` is."""
    from torch.distributed.tensor import DTensor

    make: Any = DTensor
    whole: torch.Tensor = make(part, layout, requires_grad=False)
    return whole


def of_part(change: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor) -> torch.Tensor:
    """`change(tensor)`, of a DTensor with the part that is in this process changed. The dtype must stay."""
    if not is_sharded(tensor):
        return change(tensor)
    return shard(change(local(tensor.detach())), layout(tensor))


def check(
    parameters: Mapping[str, nn.Parameter],
    names: Iterable[str],
    *,
    master: str,
    low_dtype: torch.dtype | None,
    update: str,
    follows_gradients: bool,
) -> None:
    """Raise UserError for settings that do not work with shards. names: of the weights that train."""
    shards: list[Any] = [p for p in parameters.values() if is_sharded(p)]
    if not shards:
        return
    if master != "none" and (low_dtype or any(each.dtype == torch.float32 for each in shards)):
        raise UserError(
            f'master="{master}" with fully_shard, which has sharded weights in fp32: lower the model before '
            "(master = lower(model, torch.bfloat16)), or give fully_shard a MixedPrecisionPolicy instead"
        )
    if update == "in_backward":
        raise UserError(
            'update="in_backward" with fully_shard, which reduces gradients after their hooks: pass '
            'update="step"'
        )
    if any(map(rows.is_part, names)):
        raise UserError(
            'partition="rows:N" with fully_shard, whose ranks hold other rows: pass partition="modules"'
        )
    if follows_gradients:
        raise UserError(
            "an order that gradients decide needs whole gradients, and fully_shard leaves each rank a part"
        )


def settle(model: nn.Module) -> None:
    """Prepare a model for freezing, if it is sharded."""
    modules: list[Any] = list(model.modules())  # parents first: the outermost is FSDP's root
    for module in modules:
        if hasattr(module, "_get_fsdp_state"):
            # FSDP takes the dtype in which it reduces a module's gradients from the trainable parameters,
            # once, at the first forward pass. Most are frozen by then, so this makes it do so now.
            module._get_fsdp_state()._lazy_init()


def full_state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """`state_dict()` of any optimizer with each shard gathered into a plain tensor on the CPU, one at a time.

    Call it on every rank: rank 0 gets the dict and the others {}. Any optimizer of the same groups
    loads it: sharded over another number of ranks, or in one process; one of torch by `shard_state`.
    """
    state = optimizer.state_dict()
    entries = {name: gathered(entry) for name, entry in sorted(state["state"].items())}
    return {**state, "state": entries} if dist.get_rank() == 0 else {}


def gathered(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with each tensor whole and on the CPU, gathered one at a time.

    Call it on every rank, with the same keys: rank 0 gets the dict and the others {}.
    """
    keep, whole = dist.get_rank() == 0, {}
    for key, value in sorted(values.items()):  # ranks must gather in the same order
        whole[key] = _gather(value, keep) if isinstance(value, torch.Tensor) else value
    return whole if keep else {}


def shard_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A `full_state_dict` with tensors cut like the parameters of an optimizer of torch, which can load it.

    A state dict is by the numbers of the parameters; `BlockwiseOptimizer.load_state_dict` does it itself.
    """
    groups = zip(optimizer.param_groups, state["param_groups"], strict=True)
    pairs = [p for mine, saved in groups for p in zip(mine["params"], saved["params"], strict=True)]
    cut = {
        number: {
            key: part_like(value, parameter) if isinstance(value, torch.Tensor) else value
            for key, value in state["state"][number].items()
        }
        for parameter, number in pairs
        if number in state["state"]
    }
    return {**state, "state": cut}


def part_like(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`value`, cut as `like` is if that is sharded and has the same shape."""
    return shard_like(value, like) if is_sharded(like) and value.shape == like.shape else value


def shard_like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This rank's part of a full tensor, sharded like `parameter`. No communication. The full tensor is not
    kept.

    Raises UserError if the shapes differ.
    """
    from torch.distributed.tensor import distribute_tensor

    if value.shape != parameter.shape:
        raise UserError(
            f"state of shape {list(value.shape)} cannot be sharded like its parameter of shape "
            f"{list(parameter.shape)}"
        )
    like: Any = parameter
    whole = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return of_part(torch.clone, whole)


def _gather(value: Any, keep: bool) -> torch.Tensor | None:
    if is_sharded(value):  # ranks communicate on the device of the mesh
        there = value.device_mesh.device_type
        moved: Any = of_part(lambda part: part.to(there), value)
        value = moved.full_tensor()
    return value.cpu() if keep else None
