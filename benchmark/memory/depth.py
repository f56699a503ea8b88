"""The peak of a deep model from two shallow ones, in seconds for a model of any depth.

At each moment of a step (forward pass, backward pass before and after the first gradient, update) the bytes
of every kind are a number for each block and a rest. So two depths give the line of each moment, and the
largest of the lines at the whole depth is the peak. Blocks must be alike, or alternate in twos.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmark.engine import find_units
from benchmark.memory import known, simulate
from benchmark.memory.setting import Setting
from benchmark.memory.simulate import GRADIENTS, KINDS, Peak
from benchmark.memory.training import build

LEAST = 2
"""Blocks of the shallower one at least: a window of blocks that is on the device."""
Place = tuple[int, str]


def peak(setting: Setting, *, device: str = "cuda") -> Peak:
    """The peak of the worst group, as `simulate.peak`; the group and its units are those of the deeper of
    the shallow models. Raises UserError as that does."""
    return known.peak(setting, f"{device}, by depth", lambda: _peak(setting, device))


def _peak(setting: Setting, device: str) -> Peak:
    with torch.device("meta"):
        units = find_units(build(setting))
    blocks = sum(unit.kind == "block" for unit in units)
    depths = shallow(blocks, len(units) - blocks, setting.group_size or 1)
    if blocks <= depths[-1]:
        return simulate.peak(setting, device=device)
    low, high = (_moments(simulate.sweep(setting.but(blocks=n), device=device)) for n in depths)
    found = []
    for (group, moment), each in high.items():
        from_the_top = 2 * group >= each.groups
        below = each.groups - next(iter(low.values())).groups
        pair = low.get((group - below * from_the_top, moment))
        if pair is None:  # the blocks are not alike
            return simulate.peak(setting, device=device)
        found.append(_at(pair, each, depths, blocks))
    worst = max(found, key=lambda each: each.total)
    return replace(worst, moment="backward") if worst.moment == GRADIENTS else worst


def shallow(blocks: int, others: int, m: int) -> tuple[int, int]:
    """The two depths that stand for `blocks` blocks beside `others` units.

    Their highest groups hold as many units as that of the whole, and a group of m blocks is between the
    lowest and the highest.
    """
    step = m if m % 2 == 0 else 2 * m
    low = max(LEAST, 2 * m + 1 - others)
    low += (blocks - low) % step
    return low, low + step


def _moments(peaks: list[Peak]) -> Mapping[Place, Peak]:
    """The worst peak of each group and moment."""
    worst: dict[Place, Peak] = {}
    for each in peaks:
        for moment, kinds in each.moments.items():
            sizes: dict[str, Any] = {kind: kinds.get(kind, 0) for kind in KINDS}
            there = replace(each, moment=moment, **sizes)
            place = each.group, moment
            if place not in worst or there.total > worst[place].total:
                worst[place] = there
    return worst


def _at(low: Peak, high: Peak, depths: tuple[int, int], blocks: int) -> Peak:
    """The peak at the depth `blocks`, on the line through the two."""
    first, second = depths
    grown: dict[str, Any] = {
        name: round(a + (b - a) * (blocks - first) / (second - first))
        for name in (*KINDS, "standing", "host", "groups")
        for a, b in [(getattr(low, name), getattr(high, name))]
    }
    return replace(high, **grown, moments={})
