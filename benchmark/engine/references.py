"""Weights that a graph refers to: it saves where they are, and asks for them in the backward pass.

Autograd keeps the tensors that a backward pass needs. A streamed block's weights are in the window only while
the block computes, so its graph keeps a reference in place of each, and shows the block again when the
backward pass asks. All other tensors go to the hooks that are already there, such as those of a checkpoint.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from benchmark.engine.homes import Block

Show = Callable[[Block], None]


@dataclass(frozen=True)
class _Reference:
    """A view of a parameter: its shape, its strides, and the number of the parameter's data at which it
    begins. version: that of the parameter when the view was saved."""

    name: str
    parameter: nn.Parameter
    version: int
    shape: torch.Size
    stride: tuple[int, ...]
    begin: int

    def view(self) -> torch.Tensor:
        """The view of the parameter's present data. Raises RuntimeError, as torch does, if what it shows was
        written to since."""
        if self.parameter._version != self.version:
            raise RuntimeError(
                f'"{self.name}", which is needed for gradient computation, has been modified by an inplace '
                f"operation: it is at version {self.parameter._version}; expected version {self.version}"
            )
        data = self.parameter.data
        return data.as_strided(self.shape, self.stride, data.storage_offset() + self.begin)


def saved_by_reference(block: Block, show: Show) -> saved_tensors_hooks:
    """Context in which a graph saves the weights of `block`, which are shown now, as references.

    show: called in the backward pass, makes the block's parameters those on the device.
    """
    weights = sorted(block.weights(), key=lambda named: _start(named[1]))
    starts = [_start(parameter) for _, parameter in weights]
    window = weights[0][1].untyped_storage()._cdata
    # torch has no public name for the hooks that a new pair hides
    above: Any = torch._C._autograd._top_saved_tensors_default_hooks(False)

    def pack(tensor: torch.Tensor) -> Any:
        if tensor.layout is torch.strided and tensor.untyped_storage()._cdata == window:
            place = bisect(starts, _start(tensor)) - 1
            name, weight = weights[place]
            begin = (_start(tensor) - starts[place]) // tensor.itemsize
            return _Reference(name, weight, weight._version, tensor.shape, tensor.stride(), begin)
        return tensor if above is None else above[0](tensor)

    def unpack(packed: Any) -> torch.Tensor:
        if isinstance(packed, _Reference):
            show(block)
            return packed.view()
        found: torch.Tensor = packed if above is None else above[1](packed)
        return found

    return saved_tensors_hooks(pack, unpack)


def _start(tensor: torch.Tensor) -> int:
    """Where it begins in its storage, in bytes."""
    return int(tensor.storage_offset()) * tensor.itemsize
