"""TuningStrategy: the contract of a fine-tuning method. Knows models and optimizers, never tasks or loops.

Not to be confused with Lightning's `Trainer(strategy=)`, which means DDP or FSDP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from benchmark.errors import Unsupported, UserError
from benchmark.records.spec import Strict

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from benchmark.records.spec import RunSpec


class Options(Strict):
    """A strategy's own settings, with defaults that never change (see RunSpec)."""


class TuningStrategy:
    """One method: which parameters train, and with which optimizer and learning rate."""

    Options: type[BaseModel] = Options
    trains = True
    """Whether there are training steps at all; without, a spec has no learning rate and no steps."""
    precisions: tuple[str, ...] = ("fp32", "bf16", "fp16")

    def __init__(self, spec: RunSpec) -> None:
        """Raises Unsupported, before any model is loaded, for what this method cannot do."""
        if spec.precision not in self.precisions:
            raise Unsupported(
                f"strategy {spec.strategy} has no precision {spec.precision}, "
                f"only {', '.join(self.precisions)}"
            )
        if self.trains == (spec.lr is None):
            says = "trains, and needs one" if self.trains else "trains nothing, and takes none"
            raise UserError(f"lr: strategy {spec.strategy} {says}")
        self.spec = spec
        self.options: Any = self.Options(**spec.options)

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Freeze, wrap, lower or leave `model`, which is on the host: what comes back moves to the device
        before the optimizer exists. Default: all of it trains."""
        return model

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """The optimizer over what trains and its scheduler, stepped once per optimizer step."""
        import torch

        from benchmark.engine import Rate, decay_groups
        from benchmark.engine.wrapped import find_optimizer

        spec = self.spec
        kind, implied = find_optimizer(spec.optimizer)
        named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = [
            {**group, "params": [named[name] for name in group["params"] if name in named]}
            for group in decay_groups(model, spec.weight_decay)
        ]
        if spec.fused:
            implied["fused"] = True
        optimizer = kind(groups, lr=spec.lr, **implied)
        # a fused kernel would unscale fp16 gradients by itself, after they are clipped, so Lightning refuses
        # to clip at all; without this the scaler unscales them before, as it does for any other optimizer
        optimizer._step_supports_amp_scaling = False
        rate = Rate(spec.schedule, total_steps, 1, warmup_steps(spec, total_steps))
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate.factor)


def warmup_steps(spec: RunSpec, total_steps: int) -> int:
    """The share `spec.warmup` of the run, in optimizer steps, rounded up as transformers does."""
    return -int(-spec.warmup * total_steps // 1)
