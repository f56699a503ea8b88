"""The memory, active group and coming update of any optimizer, of the engine or of torch.optim."""

import torch

from benchmark.engine.contract import Update


def active_group(optimizer: torch.optim.Optimizer) -> int:
    """Index of the group that the next step updates; 0 for an optimizer without groups."""
    return int(getattr(getattr(optimizer, "active", None), "index", 0))


def state_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Every tensor of the optimizer on the device: its state and master weights."""
    if hasattr(optimizer, "device_tensors"):
        tensors: list[torch.Tensor] = optimizer.device_tensors()
        return tensors
    values = (v for state in optimizer.state.values() for v in state.values())
    return [v for v in values if isinstance(v, torch.Tensor)]


def state_bytes(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, int]]:
    """Bytes of optimizer state and of master weights, on the device and on the host.

    An optimizer of the engine reports both. The state of any other optimizer counts as on the device.
    """
    if hasattr(optimizer, "state_bytes"):
        reported: dict[str, dict[str, int]] = optimizer.state_bytes()
        return reported
    state = sum(tensor.nbytes for tensor in state_tensors(optimizer))
    return {"device": {"optimizer_state": state, "master": 0}, "host": {}}


def coming_update(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> Update:
    """What the next step changes: what the optimizer says, or else all parameters that have a gradient."""
    if hasattr(optimizer, "coming_update"):
        said: Update = optimizer.coming_update()
        return said
    gradients = [(p, p.grad) for p in model.parameters() if p.grad is not None]
    return Update(
        [p for p, _ in gradients],
        sum(p.numel() for p, _ in gradients),
        sum(gradient.nbytes for _, gradient in gradients),
    )
