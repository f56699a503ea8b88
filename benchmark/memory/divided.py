"""The peak of a step whose model is divided over devices (FSDP2), from the simulated one of a whole model."""

import math

import torch

from benchmark.engine import find_units
from benchmark.memory import simulate
from benchmark.memory.setting import Setting
from benchmark.memory.training import build

DIVIDED = ("parameters", "gradients", "optimizer_state", "master")
"""The kinds of bytes of which each device has its part."""
AHEAD = 2
"""The most blocks that are gathered at a time: the one that computes and the next one."""
COPIES = 2
"""Whole weights that are gathered take this many times their bytes: their own, and the buffer in which they
arrive or their gradients leave."""


def peaks(setting: Setting, devices: int, device: str) -> tuple[int, int]:
    """Bytes on each of `devices` at the peak, an estimate from above, and in host memory for each.

    device: cuda or cpu. What is in no block is gathered beside the blocks for the whole of a pass. Raises
    UserError as `simulate.peak`, and for a model without repeated blocks.
    """
    found = simulate.peak(setting, device=device)
    with torch.device("meta"):
        units = find_units(build(setting))
    blocks = sorted(unit.numel for unit in units if unit.kind == "block")
    total = sum(unit.numel for unit in units)
    gathered = total - sum(blocks[:-AHEAD])
    each = COPIES * gathered * found.parameters / total
    worst = max(
        sum(size / devices if kind in DIVIDED else size for kind, size in kinds.items())
        for kinds in found.moments.values()
    )
    return math.ceil(worst + each), math.ceil(found.host / devices)
