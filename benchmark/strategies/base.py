"""TuningStrategy: the contract of a fine-tuning method. Knows models and optimizers, never tasks or loops.

Not to be confused with Lightning's `Trainer(strategy=)`, which means DDP or FSDP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from benchmark.records.spec import Strict
from benchmark.strategies.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Options(Strict):
    """A strategy's own settings, with defaults that never change (see RunSpec)."""


class TuningStrategy:
    """One method: which parameters train, and with which optimizer and learning rate.

    `benchmark.strategies.build` makes one, and checks its settings and options first.
    """

    Options: type[BaseModel] = Options
    trains = True
    """Whether there are training steps at all; without, a spec has no learning rate and no steps."""
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")
    simulated_precisions: ClassVar[Mapping[str, str]] = {}
    """Precisions that no step has yet -> the one whose step is counted for them, with all masters on the
    device."""

    def __init__(self, settings: TrainingSettings, options: BaseModel) -> None:
        self.settings = settings
        self.options: Any = options

    def check(self) -> None:
        """Raises UserError, before any model is loaded, for options whose values the optimizer refuses.
        Imports torch."""
        from benchmark.engine.wrapped import check_values

        if self.trains:
            check_values(self.settings.optimizer, self.settings.optimizer_arguments)

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Freeze, wrap, lower or leave `model`, which is on the host: what comes back moves to the device
        before the optimizer exists. Default: all of it trains."""
        return model

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer over what trains and its scheduler, stepped once per optimizer step."""
        import torch

        from benchmark.engine import Rate
        from benchmark.engine.wrapped import all_at_once

        settings = self.settings
        optimizer: Any = all_at_once(
            model,
            settings.optimizer,
            weight_decay=settings.weight_decay,
            **settings.optimizer_arguments,
        )
        # a fused kernel would unscale fp16 gradients by itself, after they are clipped, so Lightning refuses
        # to clip at all; without this the scaler unscales them before, as it does for any other optimizer
        optimizer._step_supports_amp_scaling = False
        rate = Rate(settings.schedule, total_steps, 1, settings.warmup_steps(total_steps))
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate.factor)
