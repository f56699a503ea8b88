"""Blockwise: the base class of the methods that use the engine's block-wise optimizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmark.strategies.base import TuningStrategy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Blockwise(TuningStrategy):
    """A method that trains with the engine's optimizer; `blockwise` builds it."""

    master_precisions: tuple[str, ...] = ()
    """The precisions with bf16 weights and an fp32 master of each."""
    _masters: dict[str, torch.Tensor] | None = None  # from `prepare` until the optimizer takes them

    @property
    def has_masters(self) -> bool:
        """Whether the weights have fp32 masters."""
        return self.settings.precision in self.master_precisions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Cast the weights to bf16 on the host, so that the device never holds all of them in fp32."""
        import torch

        from benchmark.engine import lower

        if self.has_masters:
            self._masters = lower(model, torch.bfloat16)
        return model

    def blockwise(
        self, model: torch.nn.Module, total_steps: int, *, rate: str = "paper", **options: Any
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The engine's optimizer with `options` (see `HiFT`), and its scheduler, the delayed learning
        rate."""
        from benchmark.engine import HiFT, decay_groups

        settings = self.settings
        optimizer = HiFT(
            model,
            settings.optimizer,
            param_groups=decay_groups(model, settings.weight_decay),
            seed=settings.seed,
            master="none" if self._masters is None else self._masters,
            **settings.optimizer_arguments,
            **options,
        )
        return optimizer, optimizer.delayed_lr(
            settings.schedule,
            total_steps=total_steps,
            warmup_steps=settings.warmup_steps(total_steps),
            mode=rate,
        )
