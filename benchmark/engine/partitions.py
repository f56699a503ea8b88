"""Partitions finer than layer units: units cut into modules or tensors; the categories of modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from torch import nn

from benchmark.engine.units import Unit
from benchmark.errors import UserError, nearest

PARTITIONS = ("units", "modules")
SMALL = 1 / 64
"""A module with a smaller share of its unit's largest one is joined to a neighbour, as are those of vectors
alone: a step for a norm, or for two token types, would be a step lost."""
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


def partition(model: nn.Module, units: Sequence[Unit], kind: str) -> tuple[Unit, ...]:
    """The units as they are, or (modules) each cut into its modules with parameters: the matrices of a block,
    each with its bias, and the tables of the embeddings.

    Norms and modules that are `SMALL` go with the module before them in the same unit, or with the one after
    if they are the first. A unit of vectors alone stays whole. Every parameter stays in exactly one unit,
    and the order is that of the units and of the parameters in them. Raises UserError for an unknown kind.
    """
    if kind not in PARTITIONS:
        raise UserError(f'unknown partition "{kind}"{nearest(kind, PARTITIONS)}')
    if kind == "units":
        return tuple(units)
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2}
    return tuple(part for unit in units for part in _joined(cut(model, [unit], module_of), vectors))


def _joined(parts: Sequence[Unit], vectors: Collection[str]) -> list[Unit]:
    """The parts of one unit, those that are small joined to a neighbour; the larger one names both."""
    least = SMALL * max(part.numel for part in parts)
    joined: list[Unit] = []
    waiting: list[Unit] = []
    for part in parts:
        small = part.numel < least or all(name in vectors for name in part.parameters)
        if small and joined:
            joined[-1] = _join(joined[-1], part)
        elif small:
            waiting.append(part)
        else:
            joined.append(_join(part, *waiting, before=True))
            waiting = []
    return joined or [_join(*parts)]


def _join(part: Unit, *more: Unit, before: bool = False) -> Unit:
    """A unit of the name of `part` with the parameters of all, `more` before its own or after."""
    order = (*more, part) if before else (part, *more)
    names = tuple(name for each in order for name in each.parameters)
    return Unit(part.name, names, sum(each.numel for each in order), part.kind)


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
