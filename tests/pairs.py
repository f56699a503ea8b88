"""Fewer combinations of three parameters: every two values meet, not every three (all-pairs testing)."""

from collections.abc import Iterable
from typing import Any


def each_pair(
    first: Iterable[Any], second: Iterable[Any], third: Iterable[Any]
) -> list[tuple[Any, Any, Any]]:
    """(a, b, c) once for each a and b, so that each c stands beside each a and beside each b: a Latin square.

    `first` and `second` have at least as many values as `third`.
    """
    first, second, third = list(first), list(second), list(third)
    assert len(third) <= min(len(first), len(second))
    return [
        (a, b, third[(i + j) % len(third)])
        for i, a in enumerate(first)
        for j, b in enumerate(second)
    ]
