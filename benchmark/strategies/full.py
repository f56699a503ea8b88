"""FPFT: full-parameter fine-tuning, every parameter at every step. The baseline HiFT is held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.strategies.base import TuningStrategy
from benchmark.strategies.blockwise import Blockwise

if TYPE_CHECKING:
    import torch


class Full(Blockwise):
    """The contract's defaults are full fine-tuning. With masters (mixed) it is the engine's one group."""

    precisions = (*TuningStrategy.precisions, "mixed")
    master_precisions = ("mixed",)

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        if self.has_masters:
            return self.blockwise(model, total_steps, group_size="all")
        return super().optimizer(model, total_steps)
