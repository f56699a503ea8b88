"""Partitions finer than layer units: units cut into modules or tensors; the categories of modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from torch import nn

from benchmark.engine.units import Unit

ATTENTION = re.compile(r"att(n|ention)", re.IGNORECASE)


def cut(model: nn.Module, units: Sequence[Unit], part: Callable[[str], str]) -> tuple[Unit, ...]:
    """Each unit cut into parts: its parameters of the same `part(name)` are a unit of that name."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    cut: list[Unit] = []
    for unit in units:
        parts: dict[str, list[str]] = {}
        for name in unit.parameters:
            parts.setdefault(part(name), []).append(name)
        cut += [
            Unit(label, tuple(names), sum(sizes[name] for name in names), unit.kind)
            for label, names in parts.items()
        ]
    return tuple(cut)


def module_of(name: str) -> str:
    """The path of the module that has the parameter: a weight and its bias have the same."""
    return name.rpartition(".")[0]


def categories(
    model: nn.Module, blocks: Sequence[Unit], modules: Sequence[Unit]
) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The kinds of HFT (arXiv 2404.18466, section 2.3): for each of them, the modules of each block by index.

    The kinds are the matrices of the attention, all other matrices, and the norms, which have only vectors.
    """
    block_of = {name: i for i, block in enumerate(blocks) for name in block.parameters}
    dims = {name: parameter.ndim for name, parameter in model.named_parameters()}
    kinds: dict[str, dict[int, list[int]]] = {}
    for index, module in enumerate(modules):
        block = block_of[module.parameters[0]]
        inside = module.name.removeprefix(blocks[block].name)
        if all(dims[name] < 2 for name in module.parameters):
            kind = "norm"
        else:
            kind = "attention" if ATTENTION.search(inside) else "other"
        kinds.setdefault(kind, {}).setdefault(block, []).append(index)
    return tuple(tuple(map(tuple, layers.values())) for layers in kinds.values())
