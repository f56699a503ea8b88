"""HiFT: one group of layer units per optimizer step, all else frozen (arXiv 2401.15207, Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from benchmark.strategies.base import Options, TuningStrategy, warmup_steps

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.records.spec import RunSpec


class HiftOptions(Options):
    """The engine's knobs. `group_size` is m; `dwell` steps per group; `idle`: where the optimizer state
    of the other groups waits; `rate`: the paper's delayed learning rate or the authors' code's."""

    group_size: Annotated[int, Field(ge=1)] = 1
    order: Literal["bottom2up", "top2down", "random"] = "bottom2up"
    dwell: Annotated[int, Field(ge=1)] = 1
    idle: Literal["keep", "cpu", "drop"] = "cpu"
    rate: Literal["paper", "reference"] = "paper"


class Hift(TuningStrategy):
    """All parameters train, a group at a time; the engine does the rest."""

    Options = HiftOptions
    precisions = (*TuningStrategy.precisions, "mixed_hi")

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec)
        self._masters: dict[str, torch.Tensor] = {}  # from `prepare` until the optimizer takes them

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Mixed^Hi lowers the weights here, on the host: the device never holds them all in fp32."""
        import torch

        from benchmark.engine import lower

        if self.spec.precision == "mixed_hi":
            self._masters = lower(model, torch.bfloat16)
        return model

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.engine import HiFT, decay_groups

        spec, options = self.spec, self.options
        optimizer = HiFT(
            model,
            spec.optimizer,
            lr=spec.lr,
            param_groups=decay_groups(model, spec.weight_decay),
            group_size=options.group_size,
            order=options.order,
            dwell=options.dwell,
            idle=options.idle,
            seed=spec.seed,
            master=self._masters if spec.precision == "mixed_hi" else "none",
            **({"fused": True} if spec.fused else {}),
        )
        return optimizer, optimizer.delayed_lr(
            spec.schedule,
            total_steps=total_steps,
            warmup_steps=warmup_steps(spec, total_steps),
            mode=options.rate,
        )
