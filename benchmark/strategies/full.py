"""FPFT, full-parameter fine-tuning: every step updates every parameter. The baseline of HiFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.strategies.base import Card, TuningStrategy
from benchmark.strategies.shared.blockwise import Blockwise

if TYPE_CHECKING:
    import torch


class Full(Blockwise):
    """The defaults of TuningStrategy. In precision mixed it is the engine's optimizer with one group."""

    card = Card(
        paper="the usual fine-tuning, as in arXiv 1810.04805",
        reference="torch.optim; transformers' schedules",
        checked="against a training loop in plain torch, bit for bit; rates against transformers",
    )

    precisions = (*TuningStrategy.precisions, "mixed")
    master_precisions = ("mixed",)

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        if self.has_masters:
            return self.blockwise(model, total_steps, group_size="all")
        return super().optimizer(model, total_steps)
