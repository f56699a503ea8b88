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

SHALLOW = (4, 6)
"""The depths that are simulated: deeper than any window of blocks that is on the device."""
Place = tuple[int, str]


def peak(setting: Setting, *, device: str = "cuda") -> Peak:
    """The peak of the worst group, as `simulate.peak`; the group and its units are those of the deeper of
    the shallow models. Raises UserError as that does."""
    return known.peak(setting, f"{device}, by depth", lambda: _peak(setting, device))


def _peak(setting: Setting, device: str) -> Peak:
    with torch.device("meta"):
        blocks = sum(unit.kind == "block" for unit in find_units(build(setting)))
    if blocks <= SHALLOW[-1]:
        return simulate.peak(setting, device=device)
    low, high = (_moments(simulate.sweep(setting.but(blocks=n), device=device)) for n in SHALLOW)
    if low.keys() != high.keys():  # the blocks are not alike
        return simulate.peak(setting, device=device)
    found = [_at(low[place], high[place], blocks) for place in high]
    worst = max(found, key=lambda each: each.total)
    return replace(worst, moment="backward") if worst.moment == GRADIENTS else worst


def _moments(peaks: list[Peak]) -> Mapping[Place, Peak]:
    """The worst peak of each group and moment. A group in the upper half is named from the top."""
    worst: dict[Place, Peak] = {}
    for each in peaks:
        group = each.group if 2 * each.group < each.groups else each.group - each.groups
        for moment, kinds in each.moments.items():
            sizes: dict[str, Any] = {kind: kinds.get(kind, 0) for kind in KINDS}
            there = replace(each, moment=moment, **sizes)
            place = group, moment
            if place not in worst or there.total > worst[place].total:
                worst[place] = there
    return worst


def _at(low: Peak, high: Peak, blocks: int) -> Peak:
    """The peak at the depth `blocks`, on the line through the two."""
    first, second = SHALLOW
    grown: dict[str, Any] = {
        name: round(a + (b - a) * (blocks - first) / (second - first))
        for name in (*KINDS, "standing", "host", "groups")
        for a, b in [(getattr(low, name), getattr(high, name))]
    }
    return replace(high, **grown, moments={})
