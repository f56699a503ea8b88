"""Blockwise: the base class of the methods that use the engine's block-wise optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.strategies.base import TuningStrategy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.engine import BlockwiseOptimizer


class Blockwise(TuningStrategy):
    """A method that trains with the engine's optimizer; `blockwise` builds it."""

    master_precisions: tuple[str, ...] = ()
    """The precisions with bf16 weights and fp32 masters."""
    masters: ClassVar[str] = "all"
    """all: the masters of idle groups are kept. active: masters are made of the bf16 weights when a group's
    turn begins, and dropped when it ends."""
    _masters: dict[str, torch.Tensor] | str = (
        "none"  # from `prepare` until the optimizer takes them
    )

    @property
    def has_masters(self) -> bool:
        """Whether the weights have fp32 masters."""
        return self.settings.precision in self.master_precisions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Cast the weights to bf16 on the host, so that the device never holds all of them in fp32."""
        import torch

        from benchmark.engine import lower

        if self.has_masters:
            lowered = lower(model, torch.bfloat16)
            self._masters = lowered if self.masters == "all" else self.masters
        return model

    def blockwise(
        self,
        model: torch.nn.Module,
        total_steps: int,
        *,
        make: Callable[..., BlockwiseOptimizer] | None = None,
        rate: str = "paper",
        boundaries: str = "device",
        **options: Any,
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The engine's optimizer and its scheduler.

        make: `HiFT` (the default) or one of `engine.presets`, called with `options`. rate: the mode of the
        delayed learning rate, or every_step for a rate that moves at each step. boundaries: what blocks that
        recompute keep, device, host or parts (`HiftOptions`).
        """
        from benchmark.engine import DelayedLR, HiFT, Rate, decay_groups

        settings = self.settings
        if settings.precision == "mixed" and self.has_masters:
            options["idle_master"] = "keep"
        if boundaries != "device":
            options["checkpointing"] = boundaries
        elif self.recomputes and settings.checkpointing:
            options["checkpointing"] = "boundaries"
        optimizer = (make or HiFT)(
            model,
            settings.optimizer,
            param_groups=decay_groups(model, settings.weight_decay),
            seed=settings.seed,
            master=self._masters,
            **settings.optimizer_arguments,
            **options,
        )
        warmup = settings.warmup_steps(total_steps)
        if rate == "every_step":
            return optimizer, DelayedLR(optimizer, Rate(settings.schedule, total_steps, 1, warmup))
        return optimizer, optimizer.delayed_lr(
            settings.schedule, total_steps=total_steps, warmup_steps=warmup, mode=rate
        )
