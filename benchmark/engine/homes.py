"""Blocks whose weights have a home in host memory: which weights those are, and how they lie in a buffer.

A weight has a home if it belongs to one block alone. What is outside the blocks and what blocks share has
none. On a machine with a CUDA device a home is pinned memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmark.engine.pinned import pinned_like
from benchmark.engine.units import find_units
from benchmark.errors import UserError

ALIGNED = 256
"""Bytes. In a buffer each weight begins at a multiple of it, as tensors of the allocator do."""
Place = tuple[nn.Module, str]  # of a parameter: the module that has it, and the attribute


@dataclass(eq=False)
class Block:
    """A block. places: of its weights with a home, by name. homes: the weights in host memory. in_graph:
    whether its last forward pass built a graph."""

    index: int
    module: nn.Module
    places: dict[str, Place]
    homes: dict[str, torch.Tensor] = field(default_factory=dict)
    in_graph: bool = False
    nbytes: int = 0
    """Bytes that the weights take in a buffer."""

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters with a home, by name."""
        for name, place in self.places.items():
            yield name, at(place)

    def settle(self, *, pinned: bool) -> None:
        """Make the parameters' present data their homes, in host memory. Their data is then their home."""
        for name, parameter in self.weights():
            weight = parameter.data
            if weight.is_cuda or (pinned and not weight.is_pinned()):
                weight = _host_copy(weight, self.homes.get(name))
            parameter.data = self.homes[name] = weight
        self.nbytes = max(end for *_, end in self._layout())

    def views(self, memory: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights as parts of `memory`, with the strides of their homes."""
        for name, home, start, end in self._layout():
            flat = memory[start:end].view(home.dtype)
            yield name, flat.as_strided(home.shape, home.stride(), flat.storage_offset())

    def _layout(self) -> Iterator[tuple[str, torch.Tensor, int, int]]:
        """Of each weight: its name, its home, and where its bytes begin and end in a buffer."""
        start = 0
        for name, home in self.homes.items():
            yield name, home, start, start + home.nbytes
            start += -(-home.nbytes // ALIGNED) * ALIGNED


def find_blocks(model: nn.Module) -> list[Block]:
    """The blocks of `model` that have weights of their own, bottom to top. Raises UserError if none has."""
    instead = 'use weights="resident"'
    try:
        units = find_units(model)
    except UserError:
        raise UserError(
            f'weights="stream": {type(model).__name__} holds no list of repeated blocks to stream; {instead}'
        ) from None
    modules = dict(model.named_modules(remove_duplicate=False))
    paths = [unit.name for unit in units if unit.kind == "block"]
    users: dict[int, set[str]] = {}
    for path, module in modules.items():
        block = next((p for p in paths if f"{path}.".startswith(f"{p}.")), "")
        for parameter in module._parameters.values():
            users.setdefault(id(parameter), set()).add(block)
    blocks: list[Block] = []
    for path in paths:
        everything = places_in(modules[path], f"{path}.").items()
        alone = {name: place for name, place in everything if users[id(at(place))] == {path}}
        if alone:
            blocks.append(Block(len(blocks), modules[path], alone))
    if not blocks:
        raise UserError(
            f'weights="stream": no block of {type(model).__name__} has weights of its own; {instead}'
        )
    return blocks


def places_in(module: nn.Module, prefix: str = "") -> dict[str, Place]:
    """Where the parameters of `module` are registered, by name."""
    modules = dict(module.named_modules())
    named = {name: name.rpartition(".") for name, _ in module.named_parameters()}
    return {
        prefix + name: (modules[path], attribute) for name, (path, _, attribute) in named.items()
    }


def at(place: Place) -> nn.Parameter:
    """The parameter that is registered there now."""
    module, attribute = place
    parameter = module._parameters[attribute]
    assert parameter is not None
    return parameter


def _host_copy(weight: torch.Tensor, old: torch.Tensor | None) -> torch.Tensor:
    """The weight in pinned host memory, in that of `old` if it fits."""
    if old is None or not old.is_pinned() or old.dtype != weight.dtype or old.shape != weight.shape:
        old = pinned_like(weight)
    return old.copy_(weight)
