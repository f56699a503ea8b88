"""Groups: the units that one optimizer step updates, m at a time.

`make_groups` is the paper's partition: k = ceil(n/m) fixed groups of neighbouring units.
`rotating_groups` is the authors' queue, whose groups shift when m does not divide n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.engine.units import Unit
from benchmark.errors import UserError, nearest


@dataclass(frozen=True)
class Group:
    """The units and parameters that one step updates, by name. numel: the number of parameter elements."""

    index: int
    units: tuple[str, ...]
    parameters: tuple[str, ...]
    numel: int


def make_groups(
    units: Sequence[Unit], *, group_size: int | str = 1, always_active: Iterable[str] = ()
) -> tuple[Group, ...]:
    """ceil(n/m) groups of m = `group_size` units, bottom to top; the last one may be smaller.

    group_size: 1..n, or "all" for one group (FPFT). always_active: names of units that belong to
    every group and are not partitioned. Raises UserError for m < 1, m > n or an unknown
    unit.
    """
    always, rest = _split(units, always_active)
    if not rest:
        return (_group(0, always),)
    size = check_group_size(group_size, len(rest))
    chunks = [rest[i : i + size] for i in range(0, len(rest), size)]
    return tuple(_group(i, [*chunk, *always]) for i, chunk in enumerate(chunks))


def rotating_groups(
    units: Sequence[Unit], *, group_size: int | str = 1, always_active: Iterable[str] = ()
) -> tuple[Group, ...]:
    """The distinct groups of the authors' queue, in the order in which they come.

    Their trainer pops m units from the head and puts them back at the tail
    (hift/trainer.py:662-679), so with n = 14, m = 4 the fourth group is [12, 13, 0, 1]; after n /
    gcd(n, m) steps it repeats. `units` are already in queue order.
    """
    always, rest = _split(units, always_active)
    n = len(rest)
    size = check_group_size(group_size, n)
    starts = [size * i % n for i in range(n // math.gcd(n, size))]
    return tuple(
        _group(i, [*(rest[(start + j) % n] for j in range(size)), *always])
        for i, start in enumerate(starts)
    )


def union(index: int, groups: Sequence[Group], always_numel: int) -> Group:
    """The groups as one. always_numel: the elements of what is in every group, which counts once."""
    units = dict.fromkeys(unit for group in groups for unit in group.units)
    parameters = dict.fromkeys(name for group in groups for name in group.parameters)
    numel = sum(group.numel for group in groups) - always_numel * (len(groups) - 1)
    return Group(index, tuple(units), tuple(parameters), numel)


def check_group_size(group_size: int | str, n: int) -> int:
    """m as a number in 1..n; "all" is n. Raises UserError otherwise."""
    if group_size == "all":
        return n
    if isinstance(group_size, bool) or not isinstance(group_size, int) or group_size < 1:
        raise UserError(
            f'group_size must be a whole number from 1 to {n}, or "all": {group_size!r}'
        )
    if group_size > n:
        raise UserError(
            f'group_size {group_size} is more than the {n} units; use {n} or "all" for one group'
        )
    return group_size


def check_unit_names(names: Iterable[str], units: Sequence[Unit], what: str) -> set[str]:
    """The names as a set. Raises UserError for a name that is not a unit's."""
    chosen, valid = list(names), [unit.name for unit in units]
    for name in chosen:
        if name not in valid:
            raise UserError(f'{what}: no unit is named "{name}"{nearest(name, valid)}')
    return set(chosen)


def _split(units: Sequence[Unit], always: Iterable[str]) -> tuple[list[Unit], list[Unit]]:
    names = check_unit_names(always, units, "always_active")
    return [u for u in units if u.name in names], [u for u in units if u.name not in names]


def _group(index: int, units: Sequence[Unit]) -> Group:
    parameters = tuple(name for unit in units for name in unit.parameters)
    return Group(index, tuple(u.name for u in units), parameters, sum(u.numel for u in units))
