"""What fits a budget: the largest batch, length and m of a setting, in few simulations.

The peak never falls as batch, length or m grows. In batch and length it is convex: the maximum over moments
of functions that are affine, or quadratic in length with eager attention. So the chord between a value that
fits and one that does not lies above the peak, and the value at which it meets the budget fits. The search
steps along chords. It ends with a value that was simulated to fit and whose successor was simulated not to.
For a deep model most values are estimated from two shallow ones (`depth.py`), and only the last few are
simulated.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmark.engine import find_units
from benchmark.engine.partitions import partition
from benchmark.memory import depth, simulate
from benchmark.memory.setting import Setting
from benchmark.memory.training import build, longest

LIMIT = 2**20
"""The largest batch or length that is tried."""
SHORTEST = 2
"""The shortest input: a causal model predicts the second token from the first."""


@dataclass(frozen=True)
class Largest:
    """value: the largest value that fits, 0 if none does. bound: no larger one exists (positions, units)."""

    value: int
    bound: bool = False


def largest(
    total: Callable[[int], int],
    budget: int,
    *,
    start: int,
    low: int,
    high: int,
    estimate: Callable[[int], int] | None = None,
) -> Largest:
    """The largest n in low..high with total(n) <= budget, for a `total` that never falls as n grows.

    estimate: about `total`, and cheaper; it decides where the search for the exact value begins.
    """
    if estimate is not None:
        about = largest(estimate, budget, start=start, low=low, high=high)
        start = max(low, about.value)
    known: dict[int, int] = {}

    def fits(n: int) -> bool:
        known[n] = total(n)
        return known[n] <= budget

    good, bad = low - 1, high + 1
    first = probe = min(max(start, low), high)
    while bad - good > 1:
        if fits(probe):
            good = probe
        else:
            bad = probe
        if estimate is not None and first in (good, bad) and len(known) == 1:
            probe = good + 1 if first == good else bad - 1
        elif bad > high:
            probe = min(high, 2 * good)
        elif good < low:
            probe = max(low, bad // 2)
        else:
            probe = _chord(known, good, bad, budget)
    return Largest(good if good >= low else 0, bound=good == high)


def _chord(known: dict[int, int], good: int, bad: int, budget: int) -> int:
    """Where the line from `good`, which fits, to `bad`, which does not, meets the budget."""
    rise = (known[bad] - known[good]) / (bad - good)
    step = math.floor((budget - known[good]) / rise) if rise else bad - good
    return min(max(good + step, good + 1), bad - 1)


def what_fits(setting: Setting, budget: int, *, device: str = "cuda") -> dict[str, Largest]:
    """The largest batch_size, seq_len and (if the method has one) group_size, with the others unchanged."""
    positions, units = _bounds(setting)
    bounds = {
        "batch_size": (setting.batch_size, 1, LIMIT),
        "seq_len": (setting.seq_len, SHORTEST, positions or LIMIT),
    }
    if setting.group_size is not None:
        bounds["group_size"] = (setting.group_size, 1, units)
    fits = {}
    for field, (start, low, high) in bounds.items():

        def total(value: int, field: str = field) -> int:
            return simulate.peak(setting.but(**{field: value}), device=device).total

        def estimate(value: int, field: str = field) -> int:
            return depth.peak(setting.but(**{field: value}), device=device).total

        fits[field] = largest(total, budget, start=start, low=low, high=high, estimate=estimate)
    return fits


def smallest(setting: Setting, *, device: str = "cuda") -> simulate.Peak:
    """The peak of the smallest step: one example of two tokens, m = 1."""
    least: dict[str, Any] = {"batch_size": 1, "seq_len": SHORTEST}
    if setting.group_size is not None:
        least["group_size"] = 1
    return simulate.peak(setting.but(**least), device=device)


def _bounds(setting: Setting) -> tuple[int | None, int]:
    """The number of positions of the model (None: no limit) and the number of its units."""
    import torch

    with torch.device("meta"):
        model = build(setting)
    kind = setting.options.get("partition", "units")
    return longest(model), len(partition(model, find_units(model), kind))
