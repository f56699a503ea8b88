"""Activation checkpointing of the active path: the blocks from the active group's lowest parameter upwards.

Blocks below the active group store no activations, since nothing in or below them requires a gradient. Every
block above the lowest active one drops its activations and recomputes them in the backward pass. With
`checkpointing="active_path"` the lowest active block itself stores its activations, because its backward pass
comes last. With "boundaries" it recomputes too, so that the input of each block is all that is stored while
the blocks above it take their turn; that is the least memory. The checkpoints are non-reentrant: they accept
any inputs, and dropout draws the same random numbers again.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from benchmark.engine.groups import Group
from benchmark.engine.units import find_units

KINDS = ("active_path", "boundaries")
MARK = "active_path"  # attribute of a block: (weak reference to its path, its rank among the units)


class ActivePath:
    """The blocks of a model that recompute, as the active group that `follow` sets decides. kind: of KINDS.

    `remove`, or the end of the last reference to the path, stops recomputation. Copies and pickles of the
    model have the original classes of the blocks and recompute nothing. Raises UserError for a model without
    repeated blocks.
    """

    def __init__(self, model: nn.Module, kind: str = "active_path") -> None:
        units, modules = find_units(model), dict(model.named_modules(remove_duplicate=False))
        self._rank = {name: i for i, unit in enumerate(units) for name in unit.parameters}
        self._blocks = {i: modules[u.name] for i, u in enumerate(units) if u.kind == "block"}
        self._spared = 0 if kind == "boundaries" else 1
        self.lowest = len(units)
        for rank, block in self._blocks.items():
            if MARK not in vars(block):
                cls: Any = type(block)
                block.__class__ = _recomputing(cls)
            vars(block)[MARK] = (weakref.ref(self), rank)

    def follow(self, group: Group) -> None:
        """Recompute from the block of the group's lowest parameter upwards from now on."""
        self.lowest = min(self._rank[name] for name in group.parameters) + self._spared

    def remove(self) -> None:
        """Restore the original classes of the blocks."""
        for block in self._blocks.values():
            del vars(block)[MARK]
            block.__class__ = type(block).__bases__[0]


@cache
def _recomputing(cls: Any) -> Any:
    """A subclass of `cls` whose forward pass is checkpointed while the block is on the active path.

    It is a subclass, not a patched instance, so that copies and pickles of a block can be of `cls` itself.
    """

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        reference, rank = vars(self)[MARK]
        path, run = reference(), super(subclass, self).forward
        active = path is not None and rank >= path.lowest
        if not (active and self.training and torch.is_grad_enabled()):
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
