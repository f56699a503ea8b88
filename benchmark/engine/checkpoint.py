"""Checkpoints of a training loop, which stay usable if the process is killed at any moment.

`save` writes a temporary file, flushes it to disk and renames it over the old one. `load` restores weights,
gradients accumulated so far, optimizer (state, masters, position), scheduler, GradScaler and random number
generators, so that a resumed run gives the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.engine.optimizer import BlockwiseOptimizer
from benchmark.engine.trainables import set_gradient
from benchmark.errors import UserError
from benchmark.files import replacing


def save(
    path: str | Path,
    model: nn.Module,
    optimizer: BlockwiseOptimizer,
    *,
    scheduler: Any = None,
    scaler: Any = None,
    extra: Any = None,
) -> None:
    """Write the checkpoint to `path`, whole or not at all.

    extra: plain data and tensors of the loop itself (epoch, micro-batches done, the sampler's position),
    which `load` returns.
    """
    named = model.named_parameters()
    content = {
        "model": model.state_dict(),
        "gradients": {n: p.grad for n, p in named if p.grad is not None},
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict() if scheduler is not None else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "random": _random_state(),
        "extra": extra,
    }
    with replacing(Path(path)) as temporary:
        torch.save(content, temporary)


def load(
    path: str | Path,
    model: nn.Module,
    optimizer: BlockwiseOptimizer,
    *,
    scheduler: Any = None,
    scaler: Any = None,
) -> Any:
    """Restore a checkpoint that `save` wrote; returns its `extra`.

    The device and `idle` may differ from those of the saved run. Raises UserError, before any weight changes,
    for a checkpoint of another model, grouping, order or optimizer.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    own = dict(model.state_dict())
    for name, value in content["model"].items():
        if name not in own or own[name].shape != value.shape:
            raise UserError(f'{path}: "{name}" of another model, shape {list(value.shape)}')
    optimizer.load_state_dict(content["optimizer"])
    model.load_state_dict(content["model"])
    optimizer.weights.stage(content["gradients"])  # torch wants a gradient where its parameter is
    for name, parameter in model.named_parameters():
        gradient = content["gradients"].get(name)
        parameter.grad = None
        if gradient is not None:
            set_gradient(parameter, gradient.to(parameter.device))
    for part, saved in ((scheduler, content["scheduler"]), (scaler, content["scaler"])):
        if part is not None and saved is not None:
            part.load_state_dict(saved)
    _set_random_state(content["random"])
    return content["extra"]


def _random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
