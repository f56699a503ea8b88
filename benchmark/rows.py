"""Row ranges: how a partition into them is written, and the names of rows that train by themselves.

"tokens.weight[0:4096]" are the rows 0 to 4095 of "tokens.weight", along dimension 0; any other name is of a
whole parameter. torch is not imported, so that a matrix is checked without it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from benchmark.errors import UserError, nearest

PARTITIONS = ("units", "modules")
"""Partitions besides rows:N."""
_SIZE = re.compile(r"(\d+)([kmb]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")


def most(partition: str) -> int | None:
    """N, the numbers of a unit, if the partition is "rows:N", as in rows:32M, rows:500K or rows:4096 (K, M
    and B are powers of 1,000); None for those of PARTITIONS. Raises UserError for anything else."""
    if partition in PARTITIONS:
        return None
    kind, _, text = str(partition).partition(":")
    size = _SIZE.fullmatch(text)
    if kind == "rows" and size is not None and int(size[1]):
        return int(size[1]) * _FACTORS[size[2].lower()]
    if kind == "rows":
        raise UserError(
            f'partition "{partition}": N of rows:N is a whole number of parameters from 1, as in rows:32M, '
            "rows:500K or rows:4096"
        )
    meant = "rows:N" if size is None else f"rows:{text}"
    raise UserError(f'unknown partition "{partition}"{nearest(partition, (*PARTITIONS, meant))}')


def part(name: str, start: int, stop: int) -> str:
    """The name of the rows `start` to `stop` - 1 of a parameter."""
    return f"{name}[{start}:{stop}]"


@lru_cache(maxsize=1 << 16)
def parsed(name: str) -> tuple[str, tuple[int, int] | None]:
    """The parameter's name, and (start, stop) of its rows, None for all."""
    match = _PART.fullmatch(name)
    return (name, None) if match is None else (match[1], (int(match[2]), int(match[3])))


def whole(name: str) -> str:
    """The name of the parameter."""
    return parsed(name)[0]


def bounds(name: str) -> tuple[int, int] | None:
    """The first row of the named part, and the one after its last; None for a whole parameter."""
    return parsed(name)[1]


def is_part(name: str) -> bool:
    """Whether the name is of rows, not of a whole parameter."""
    return bounds(name) is not None


def first(name: str) -> int:
    """The first row of the named part; 0 for a whole parameter."""
    return (bounds(name) or (0, 0))[0]


def count(name: str) -> int:
    """The number of rows of the named part."""
    start, stop = bounds(name) or (0, 0)
    return stop - start


def of(tensor: Any, name: str) -> Any:
    """The rows of the named part in `tensor`, which has those of the parameter; all for a whole one."""
    between = bounds(name)
    return tensor if between is None else tensor[slice(*between)]


def shape(name: str, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The shape of the named part. shapes: of the parameters."""
    size = tuple(shapes[whole(name)])
    return (count(name), *size[1:]) if is_part(name) else size
