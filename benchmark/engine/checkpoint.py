"""Checkpoints of a training loop, which stay usable if the process is killed at any moment.

`save` writes a temporary file, flushes it to disk and renames it over the old one. `load` restores weights,
gradients accumulated so far, optimizer (state, masters, position), scheduler, GradScaler and random number
generators, so that a resumed run gives the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmark.engine import sharded
from benchmark.engine.optimizer import BlockwiseOptimizer
from benchmark.engine.trainables import set_gradient
from benchmark.errors import UserError
from benchmark.files import replacing


def save(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: Any = None,
    scaler: Any = None,
    extra: Any = None,
    only: Container[str] | None = None,
    gradients: bool = True,
) -> None:
    """Write the checkpoint to `path`, whole or not at all.

    extra: plain data and tensors of the loop itself (epoch, micro-batches done, the sampler's position),
    which `load` returns. only: names in the model's state dict that can have changed; None for all of it.
    gradients: write those accumulated so far. A loop that saves between steps needs none.

    A model in shards (`sharded.py`) is saved by a call on every rank: its parts are gathered one at a time in
    the host memory of rank 0, which writes the same checkpoint as one process.
    """
    weights = model.state_dict()
    named = model.named_parameters() if gradients else ()
    saved: dict[str, Any] = {
        "model": {n: t for n, t in weights.items() if only is None or n in only},
        "gradients": {n: p.grad for n, p in named if p.grad is not None},
    }
    if sharded.has_shards(model):
        saved = {key: sharded.gathered(tensors) for key, tensors in saved.items()}
        state = sharded.full_state_dict(optimizer)
        if dist.get_rank() != 0:
            return
    else:
        state = optimizer.state_dict()
    write(
        path,
        {
            **saved,
            "left_out": [n for n in weights if only is not None and n not in only],
            "optimizer": state,
            "scheduler": scheduler.state_dict() if scheduler is not None else None,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "random": random_state(),
            "extra": extra,
        },
    )


def write(path: str | Path, content: dict[str, Any]) -> None:
    """Write plain data and tensors to `path`, whole or not at all."""
    with replacing(Path(path)) as temporary:
        torch.save(content, temporary)


def read(path: str | Path) -> dict[str, Any]:
    """What `write` wrote, its tensors in host memory.

    Raises UserError for a file that is damaged or cut short, and for one that is no checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: damaged, or no checkpoint ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: no checkpoint, but a {type(content).__name__}")
    return content


def load(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: Any = None,
    scaler: Any = None,
) -> Any:
    """Restore a checkpoint that `save` wrote; returns its `extra`.

    The device and `idle` may differ from those of the saved run. Raises UserError, before any weight changes,
    for a damaged file and for a checkpoint of another model, grouping, order or optimizer.
    """
    return restore(read(path), model, optimizer, scheduler=scheduler, scaler=scaler, name=str(path))


def restore(
    content: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    scheduler: Any = None,
    scaler: Any = None,
    name: str = "checkpoint",
) -> Any:
    """As `load`, for what `read` returned. name: the file, for messages."""
    own, left_out = dict(model.state_dict()), content.get("left_out", [])
    for key, value in content["model"].items():
        if key not in own or own[key].shape != value.shape:
            raise UserError(f'{name}: "{key}" of another model, shape {list(value.shape)}')
    state = content["optimizer"]
    if sharded.has_shards(model) and not isinstance(optimizer, BlockwiseOptimizer):
        state = sharded.shard_state(optimizer, state)
    optimizer.load_state_dict(state)
    _restore_dtypes(optimizer, state)
    parts = {name: sharded.part_like(whole, own[name]) for name, whole in content["model"].items()}
    model.load_state_dict(parts, strict=not left_out)
    if isinstance(optimizer, BlockwiseOptimizer):  # torch wants a gradient where its parameter is
        optimizer.weights.stage(content["gradients"])
    for key, parameter in model.named_parameters():
        gradient = content["gradients"].get(key)
        parameter.grad = None
        if gradient is not None and sharded.is_sharded(parameter):
            parameter.grad = sharded.shard_like(gradient, parameter)
        elif gradient is not None:
            set_gradient(parameter, gradient.to(parameter.device))
    for part, saved in ((scheduler, content["scheduler"]), (scaler, content["scaler"])):
        if part is not None and saved is not None:
            part.load_state_dict(saved)
    set_random_state(content["random"])
    return content["extra"]


def _restore_dtypes(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give the state of a plain optimizer its own dtypes: torch casts it to those of the parameters."""
    if isinstance(optimizer, BlockwiseOptimizer):
        return
    groups = zip(optimizer.param_groups, saved["param_groups"], strict=True)
    pairs = [
        pair
        for ours, theirs in groups
        for pair in zip(ours["params"], theirs["params"], strict=True)
    ]
    for parameter, index in pairs:
        for key, value in saved["state"].get(index, {}).items():
            now = optimizer.state[parameter].get(key)
            if isinstance(now, torch.Tensor) and now.dtype != value.dtype:
                optimizer.state[parameter][key] = value.to(now.device)


def random_state() -> dict[str, Any]:
    """The states of the generators of Python, torch and CUDA."""
    return {
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a `random_state()`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
