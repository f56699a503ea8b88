"""Activation checkpointing of the active path: the blocks above the active group's lowest unit.

Blocks below the active group store no activations, since nothing in or below them requires a gradient. The
lowest active unit stores its activations, because its backward pass comes last. Every block above it drops
its activations and recomputes them in the backward pass. So `checkpointing="active_path"` recomputes only
where this saves memory. The checkpoints are non-reentrant: they accept any inputs, and dropout draws the same
random numbers again.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmark.engine.groups import Group
from benchmark.engine.units import Unit
from benchmark.errors import UserError

MARK = "active_path"  # attribute of a block: (weak reference to its path, its rank among the units)


class ActivePath:
    """The blocks of a model that recompute: those above the lowest unit of a group, which `follow` sets.

    `remove`, or the end of the last reference to the path, stops recomputation. Copies and pickles of the
    model have the original classes of the blocks and recompute nothing.
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        self._rank = {unit.name: i for i, unit in enumerate(units)}
        self._blocks = _blocks(model, units)
        self.lowest = len(units)
        for name, block in self._blocks.items():
            if MARK not in vars(block):
                kind: Any = type(block)
                block.__class__ = _recomputing(kind)
            vars(block)[MARK] = (weakref.ref(self), self._rank[name])

    def follow(self, group: Group) -> None:
        """Recompute the blocks above the group's lowest unit from now on."""
        self.lowest = min(self._rank[name] for name in group.units)

    def remove(self) -> None:
        """Restore the original classes of the blocks."""
        for block in self._blocks.values():
            del vars(block)[MARK]
            block.__class__ = type(block).__bases__[0]


def _blocks(model: nn.Module, units: Sequence[Unit]) -> dict[str, nn.Module]:
    modules = dict(model.named_modules(remove_duplicate=False))
    names = [unit.name for unit in units if unit.kind == "block"]
    if lost := [name for name in names if name not in modules]:
        raise UserError(
            f'checkpointing="active_path": unit "{lost[0]}" is not the path of a module, so its '
            "forward pass cannot be wrapped"
        )
    return {name: modules[name] for name in names}


@cache
def _recomputing(cls: Any) -> Any:
    """A subclass of `cls` whose forward pass is checkpointed while the block is above the active group.

    It is a subclass, not a patched instance, so that copies and pickles of a block can be of `cls` itself.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        reference, rank = vars(self)[MARK]
        path, run = reference(), super(subclass, self).forward
        above = path is not None and rank > path.lowest
        if not (above and self.training and torch.is_grad_enabled()):
            return run(*args, **kwargs)
        args = tuple(None if _is_cache(a) else a for a in args)
        kwargs = {k: None if _is_cache(v) else v for k, v in kwargs.items()}
        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    def reduce(self: Any, protocol: int) -> Any:
        plain = object.__new__(cls)
        vars(plain).update({k: v for k, v in vars(self).items() if k != MARK})
        return plain.__reduce_ex__(1)  # protocols from 2 on require the class of the object itself

    body = {"forward": forward, "__reduce_ex__": reduce, "__module__": cls.__module__}
    subclass: Any = type(cls.__name__, (cls,), body)
    return subclass


def _is_cache(value: Any) -> bool:
    """Whether `value` is a key-value cache. Recomputing would append to it twice, and training does not need
    it."""
    return hasattr(value, "get_seq_length") and hasattr(value, "update")
