"""Block-coordinate fine-tuning for any training loop.

optimizer = HiFT(model, torch.optim.AdamW, lr=2e-5, group_size=1, order="bottom2up")
scheduler = optimizer.delayed_lr("linear", total_steps=1000)
"""

from benchmark.engine.delayed_lr import DelayedLR
from benchmark.engine.groups import Group, make_groups
from benchmark.engine.hift import HiFT
from benchmark.engine.ledger import Bytes, Ledger
from benchmark.engine.optimizer import BlockwiseOptimizer
from benchmark.engine.plan import Plan, make_plan
from benchmark.engine.precision import lower
from benchmark.engine.presets import badam, fpft, hft, lisa, misa
from benchmark.engine.schedule import Position, Rate, Schedule
from benchmark.engine.stream import keep_on_host, stream_of
from benchmark.engine.units import Unit, find_units
from benchmark.engine.wrapped import decay_groups
from benchmark.optimizers import OPTIMIZERS

__all__ = [
    "OPTIMIZERS",
    "BlockwiseOptimizer",
    "Bytes",
    "DelayedLR",
    "Group",
    "HiFT",
    "Ledger",
    "Plan",
    "Position",
    "Rate",
    "Schedule",
    "Unit",
    "badam",
    "decay_groups",
    "find_units",
    "fpft",
    "hft",
    "keep_on_host",
    "lisa",
    "lower",
    "make_groups",
    "make_plan",
    "misa",
    "stream_of",
]
