"""The memory and active group of any optimizer, of the engine or of torch.optim."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmark.engine.sharded import local


def active_group(optimizer: torch.optim.Optimizer) -> int:
    """Index of the group that the next step updates; 0 for an optimizer without groups."""
    return int(getattr(getattr(optimizer, "active", None), "index", 0))


def state_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Every tensor of the optimizer on the device: its state and master weights. Of what is sharded, the part
    that is in this process."""
    if hasattr(optimizer, "device_tensors"):
        tensors: list[torch.Tensor] = optimizer.device_tensors()
        return tensors
    return [t for state in optimizer.state.values() for v in state.values() for t in _tensors(v)]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in an entry of the state; some optimizers keep them in a list or an object, as GaLore's
    projections."""
    if isinstance(value, torch.Tensor):
        yield local(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__dict__"):
        yield from _tensors(list(vars(value).values()))


def state_bytes(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, int]]:
    """Bytes of optimizer state and of master weights, on the device and on the host.

    An optimizer of the engine reports both. The state of any other optimizer counts as on the device, a
    tensor that several parameters share once, and a part of a larger tensor as the whole that it keeps alive.
    """
    if hasattr(optimizer, "state_bytes"):
        reported: dict[str, dict[str, int]] = optimizer.state_bytes()
        return reported
    storages = [tensor.untyped_storage() for tensor in state_tensors(optimizer)]
    sizes = {storage._cdata: storage.nbytes() for storage in storages}
    return {"device": {"optimizer_state": sum(sizes.values()), "master": 0}, "host": {}}
