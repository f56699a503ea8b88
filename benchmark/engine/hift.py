"""HiFT: the block-wise optimizer with the paper's settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmark.engine.delayed_lr import DelayedLR
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
        self._watches_rates = True
        self._last: tuple[int, list[Any]] | None = None  # sweep and rates of the last step

    def delayed_lr(self, *args: Any, **settings: Any) -> DelayedLR:
        """As `BlockwiseOptimizer.delayed_lr`: the paper's learning rate, constant within a sweep."""
        self._watches_rates = False
        return super().delayed_lr(*args, **settings)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """As `BlockwiseOptimizer.step`. Warns once if a scheduler changes the rate within a sweep."""
        if self._watches_rates:
            self._watch_rates()
        return super().step(closure)

    def _watch_rates(self) -> None:
        sweep, rates = self.position.sweep, [group["lr"] for group in self.param_groups]
        if self._last is not None and self._last[0] == sweep and self._last[1] != rates:
            self._watches_rates = False
            warnings.warn(
                "the learning rate changes within a sweep, so the groups train at different rates: use the "
                "scheduler that delayed_lr() returns, in transformers' Trainer as optimizers=(optimizer, "
                "scheduler)",
                stacklevel=3,
            )
        self._last = sweep, rates
