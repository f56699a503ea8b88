"""HiFT: one group of layer units per optimizer step, all else frozen (arXiv 2401.15207, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from benchmark.strategies.base import Options, TuningStrategy
from benchmark.strategies.blockwise import Blockwise

if TYPE_CHECKING:
    import torch


class HiftOptions(Options):
    """The engine's knobs. `group_size` is m; `dwell` steps per group; `idle`: where the optimizer state
    of the other groups waits; `rate`: the paper's delayed learning rate or the authors' code's."""

    group_size: Annotated[int, Field(ge=1)] = 1
    order: Literal["bottom2up", "top2down", "random"] = "bottom2up"
    dwell: Annotated[int, Field(ge=1)] = 1
    idle: Literal["keep", "cpu", "drop"] = "cpu"
    rate: Literal["paper", "reference"] = "paper"


class Hift(Blockwise):
    """All parameters train, a group at a time; the engine does the rest."""

    Options = HiftOptions
    precisions = (*TuningStrategy.precisions, "mixed_hi")
    master_precisions = ("mixed_hi",)
    simulated_precisions: ClassVar[Mapping[str, str]] = {"mixed": "mixed_hi"}

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        options: HiftOptions = self.options
        return self.blockwise(model, total_steps, **options.model_dump())
