"""Blockwise: what the methods that the engine runs have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmark.strategies.base import TuningStrategy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Blockwise(TuningStrategy):
    """A method that is a setting of the engine's block-wise optimizer (`blockwise`)."""

    master_precisions: tuple[str, ...] = ()
    """Those in which the weights are bf16 and each has an fp32 master."""
    _masters: dict[str, torch.Tensor] | None = None  # from `prepare` until the optimizer takes them

    @property
    def has_masters(self) -> bool:
        return self.settings.precision in self.master_precisions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """The weights are lowered here, on the host: the device never holds them all in fp32."""
        import torch

        from benchmark.engine import lower

        if self.has_masters:
            self._masters = lower(model, torch.bfloat16)
        return model

    def blockwise(
        self, model: torch.nn.Module, total_steps: int, *, rate: str = "paper", **knobs: Any
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The engine's optimizer with these `knobs` (see `HiFT`) and its delayed rate."""
        from benchmark.engine import HiFT, decay_groups

        settings = self.settings
        optimizer = HiFT(
            model,
            settings.optimizer,
            param_groups=decay_groups(model, settings.weight_decay),
            seed=settings.seed,
            master="none" if self._masters is None else self._masters,
            **settings.optimizer_arguments,
            **knobs,
        )
        return optimizer, optimizer.delayed_lr(
            settings.schedule,
            total_steps=total_steps,
            warmup_steps=settings.warmup_steps(total_steps),
            mode=rate,
        )
