"""HiFT: the block-wise optimizer with the paper's settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from benchmark.engine.optimizer import BlockwiseOptimizer


class HiFT(BlockwiseOptimizer):
    """Hierarchical full-parameter fine-tuning (arXiv 2401.15207, Algorithm 1).

    `BlockwiseOptimizer` with the paper's settings: one step per group, a group of `group_size`
    units, idle optimizer state kept in host memory. Mixed^Hi is master="all",
    low_dtype=torch.bfloat16; with master=lower(model, torch.bfloat16), called on the host, the device
    never has fp32 weights of the whole model. With idle_master="keep" besides it is the paper's mixed: the
    masters of all parameters stay on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: str | type[torch.optim.Optimizer] = "adamw",
        *,
        group_size: int | str = 1,
        order: str | Sequence[int] = "bottom2up",
        idle: str = "cpu",
        **settings: Any,
    ) -> None:
        super().__init__(
            model, optimizer, group_size=group_size, order=order, idle=idle, **settings
        )
