"""What an optimizer holds in memory and which group it updates, asked alike of block-wise ones and others."""

import torch


def active_group(optimizer: torch.optim.Optimizer) -> int:
    """Index of the group that trains now; 0 for an optimizer without groups."""
    return int(getattr(getattr(optimizer, "active", None), "index", 0))


def state_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Every tensor that the optimizer holds on the device beside weights and gradients."""
    if hasattr(optimizer, "device_tensors"):
        held: list[torch.Tensor] = optimizer.device_tensors()
        return held
    values = (v for state in optimizer.state.values() for v in state.values())
    return [v for v in values if isinstance(v, torch.Tensor)]


def state_bytes(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, int]]:
    """Bytes of optimizer state and master weights, on the device and parked on the host: as a block-wise
    optimizer says itself, all on the device for any other."""
    if hasattr(optimizer, "state_bytes"):
        said: dict[str, dict[str, int]] = optimizer.state_bytes()
        return said
    state = sum(tensor.nbytes for tensor in state_tensors(optimizer))
    return {"device": {"optimizer_state": state, "master": 0}, "host": {}}
