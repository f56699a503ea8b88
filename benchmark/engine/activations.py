"""Activation checkpointing of the active path: the blocks from the active group's lowest parameter upwards.

Blocks below the active group store no activations, since nothing in or below them requires a gradient. Every
block above the lowest active one drops its activations and recomputes them in the backward pass. With
`checkpointing="active_path"` the lowest active block itself stores its activations, because its backward pass
comes last. With "boundaries" it recomputes too, so that the input of each block is all that is stored while
the blocks above it take their turn. With "host" these inputs wait in host memory, pinned if the device is a
GPU. With "parts" the parts of a block, as its attention and its MLP, recompute apart besides, so only one of
them has activations at a time; that is the least memory, and computes the forward pass of the attention once
more. The checkpoints are non-reentrant: they accept any inputs, and dropout draws the same random numbers
again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from benchmark import rows
from benchmark.engine.blocks import Wrapper, unwrap, wrap
from benchmark.engine.groups import Group
from benchmark.engine.host import host_memory
from benchmark.engine.units import find_units
from benchmark.errors import UserError, nearest

KINDS = ("active_path", "boundaries", "host", "parts")
MARK = "active_path"


def check_checkpointing(kind: str | None) -> None:
    """Raise UserError for a kind that is neither None nor one of KINDS."""
    if kind not in (None, *KINDS):
        raise UserError(f'unknown checkpointing "{kind}"{nearest(kind, KINDS)}')


class ActivePath:
    """The blocks of a model that recompute, as the active group that `follow` sets decides. kind: of KINDS.

    `remove`, or the end of the last reference to the path, stops recomputation. Copies and pickles of the
    model have the original classes of the blocks and recompute nothing. Raises UserError for a model without
    repeated blocks.
    """

    def __init__(self, model: nn.Module, kind: str = "active_path") -> None:
        units, modules = find_units(model), dict(model.named_modules(remove_duplicate=False))
        self._rank = {name: i for i, unit in enumerate(units) for name in unit.parameters}
        blocks = {i: modules[u.name] for i, u in enumerate(units) if u.kind == "block"}
        self._spared = 1 if kind == "active_path" else 0
        self.lowest = len(units)
        self._wrapped: list[nn.Module] = []
        for rank, block in blocks.items():
            self._wrap(block, _OnPath(self, rank, on_host=kind in ("host", "parts")))
            for part in _parts(block) if kind == "parts" else ():
                self._wrap(part, _OnPath(self, rank, on_host=False))

    def _wrap(self, module: nn.Module, wrapper: _OnPath) -> None:
        if MARK in vars(module):
            unwrap(module, MARK)
        wrap(module, MARK, wrapper)  # outermost: what recomputes is streamed again
        self._wrapped.append(module)

    def follow(self, group: Group) -> None:
        """Recompute from the block of the group's lowest parameter upwards from now on."""
        self.lowest = min(self._rank[rows.whole(n)] for n in group.parameters) + self._spared

    def remove(self) -> None:
        """Restore the original classes."""
        for module in self._wrapped:
            unwrap(module, MARK)


class _OnPath(Wrapper):
    """Around the block that has this rank among the units, or a part of it: recomputes it while it is on the
    active path. on_host: its inputs wait in host memory."""

    def __init__(self, path: ActivePath, rank: int, *, on_host: bool) -> None:
        self._path, self._rank, self._on_host = weakref.ref(path), rank, on_host

    def forward(
        self, block: nn.Module, run: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        path = self._path()
        if path is None or self._rank < path.lowest:
            return run(*args, **kwargs)
        if block.training and torch.is_grad_enabled():
            return recomputed(run, args, kwargs, on_host=self._on_host)
        return run(*args, **kwargs)


def _parts(block: nn.Module) -> list[nn.Module]:
    """The modules of a block that have modules of their own with matrices, as its attention and its MLP."""
    return [
        child
        for child in block.children()
        if list(child.children()) and any(p.ndim > 1 for p in child.parameters())
    ]


def recomputed(
    run: Callable[..., Any], args: Any, kwargs: dict[str, Any], *, on_host: bool = False
) -> Any:
    """What `run` returns, with a graph that stores its inputs alone and computes the rest again.

    on_host: the inputs through which gradients flow wait in host memory. Others, such as masks and rotary
    embeddings, are the same tensors for every block, and stay where they are.
    """
    names = list(kwargs)  # torch keeps what comes by name as it is, wherever the rest waits
    given = [None if _is_cache(value) else value for value in (*args, *kwargs.values())]

    def call(*values: Any) -> Any:
        split = len(values) - len(names)
        return run(*values[:split], **dict(zip(names, values[split:], strict=True)))

    with saved_tensors_hooks(_to_host, _from_host) if on_host else nullcontext():
        return checkpoint(call, *given, use_reentrant=False)


def _to_host(tensor: torch.Tensor) -> tuple[torch.device | None, torch.Tensor]:
    """The tensor's device, and a copy of it in host memory; None and the tensor itself if it stays. The
    device's stream orders the copies there and back, so neither waits."""
    if not tensor.requires_grad:
        return None, tensor
    with host_memory():
        copy = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
        return tensor.device, copy.copy_(tensor, non_blocking=True)


def _from_host(waiting: tuple[torch.device | None, torch.Tensor]) -> torch.Tensor:
    device, tensor = waiting
    return tensor if device is None else tensor.to(device, non_blocking=True, copy=True)


def _is_cache(value: Any) -> bool:
    """Whether `value` is a key-value cache. Recomputing would append to it twice, and training does not need
    it."""
    return hasattr(value, "get_seq_length") and hasattr(value, "update")
