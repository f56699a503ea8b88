"""Partitions finer than layer units: units cut into modules, tensors or ranges of rows; the categories of
modules."""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, groupby, pairwise

from torch import nn

from benchmark import rows
from benchmark.engine.groups import check_unit_names
from benchmark.engine.units import Unit
from benchmark.errors import UserError

SMALL = 1 / 64
"""A module with a smaller share of its unit's largest one is joined to a neighbour, as are those of vectors
alone: a step for a norm, or for two token types, would be a step lost. Of N, what a unit of rows may have
more."""
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


def chosen(
    model: nn.Module,
    layers: Sequence[Unit],
    kind: str,
    frozen: Iterable[str],
    always: Iterable[str],
) -> tuple[tuple[Unit, ...], set[str]]:
    """The units to train, bottom to top, and the names of those that are always active.

    A name in `frozen` or `always` is of one of the `layers`, which is then not cut, or of a unit that their
    partition makes. Raises UserError for any other name, for an unknown kind, and if
    nothing is left.
    """
    rows.most(kind)
    left_out, stay = list(frozen), set(always)
    kept = [layer for layer in layers if layer.name not in left_out]
    runs = groupby(kept, key=lambda layer: layer.name in stay)
    units = tuple(
        chain.from_iterable(
            run if stays else partition(model, list(run), kind) for stays, run in runs
        )
    )
    of_layers = {layer.name for layer in layers}
    out = check_unit_names([n for n in left_out if n not in of_layers], units, "frozen")
    units = tuple(unit for unit in units if unit.name not in out)
    if not units:
        raise UserError("every unit is frozen; nothing to train")
    return units, check_unit_names(stay, units, "always_active")


def partition(model: nn.Module, units: Sequence[Unit], kind: str) -> tuple[Unit, ...]:
    """The units as they are, cut into their modules, or (rows:N) into units of about N numbers.

    modules: those with parameters, such as the matrices of a block, each with its bias, and the tables of the
    embeddings. Norms and modules that are `SMALL` go with the module before them in the same unit, or with
    the one after if they are the first. A unit of vectors alone stays whole.

    rows:N: a parameter of more than N numbers is cut along its first dimension into ranges of at most N, or
    of a single row, that differ by one row at most. Ranges and smaller parameters that follow each other are
    put together, across units too, as far as N goes: into as few units as that takes, the largest of which is
    as small as it can be. The largest part names a unit.

    Every number stays in exactly one unit, and the order is that of the units and of the parameters in them.
    Raises UserError for an unknown kind.
    """
    most = rows.most(kind)
    if most is not None:
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        return _filled([part for unit in units for part in _ranges(unit, shapes, most)], most)
    if kind == "units":
        return tuple(units)
    vectors = {name for name, parameter in model.named_parameters() if parameter.ndim < 2}
    return tuple(part for unit in units for part in _joined(cut(model, [unit], module_of), vectors))


def _ranges(unit: Unit, shapes: Mapping[str, Sequence[int]], most: int) -> list[Unit]:
    """The parameters of a unit, those of more than `most` numbers in ranges, as units of their own."""
    found = []
    for name in unit.parameters:
        numel, height = math.prod(shapes[name]), next(iter(shapes[name]), 1) or 1
        parts = 1
        if numel > most:
            parts = math.ceil(height / max(1, most * height // numel))
        bounds = [height * i // parts for i in range(parts + 1)]
        for start, stop in pairwise(bounds):
            part = name if parts == 1 else rows.part(name, start, stop)
            found.append(Unit(part, (part,), numel // height * (stop - start), unit.kind))
    return found


def _filled(parts: Sequence[Unit], most: int) -> tuple[Unit, ...]:
    """Neighbouring parts in as few units as possible, the largest of which is as small as it can be."""

    def fill(size: int) -> list[list[Unit]]:
        filled: list[list[Unit]] = []
        room = 0
        for part in parts:
            if not filled or part.numel > room:
                filled.append([])
                room = size
            filled[-1].append(part)
            room -= part.numel
        return filled

    sizes = range(most + int(SMALL * most) + 1)
    fewest = len(fill(sizes[-1]))
    at = bisect.bisect_left(sizes, True, key=lambda size: len(fill(size)) == fewest)
    return tuple(_together(each) for each in fill(sizes[at]))


def _together(parts: Sequence[Unit]) -> Unit:
    largest = max(parts, key=lambda part: part.numel)
    names = tuple(name for part in parts for name in part.parameters)
    return Unit(largest.name, names, sum(part.numel for part in parts), largest.kind)


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
