"""LOMO: SGD whose update of each tensor happens in the backward pass (arXiv 2306.09782)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    import torch

    from benchmark.strategies.rules.in_backward import InBackward


class LomoOptions(Options):
    """clip_value: the largest absolute value of an entry of a gradient; None cuts none."""

    clip_value: Annotated[float, Field(gt=0)] | None = None


class Lomo(TuningStrategy):
    """All parameters train. There is one gradient at a time, and no optimizer state."""

    card = Card(
        paper="arXiv 2306.09782",
        reference="the package lomo-optim 0.1.1, which cannot run here: it calls backward itself, and "
        "without that its last gradient stays and every hook walks over all parameters",
        checked="against torch.optim.SGD and lomo_optim.Lomo, bit for bit",
    )

    Options = LomoOptions
    precisions = ("fp32", "bf16", "bf16_weights")  # fp16 unscales gradients after the backward pass
    optimizers = ()
    refuses: ClassVar[dict[str, str]] = {
        "accumulate": "each backward pass updates the weights; raise batch_size, with checkpointing",
        "clip": "the norm of all gradients is known only after the weights are updated; use the option "
        "clip_value",
        "data_parallel": "gradients are used up before they could be averaged",
    }

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        assert self.settings.lr is not None
        rule = self.rule()(
            self.decay_groups(model), lr=self.settings.lr, clip_value=self.options.clip_value
        )
        return rule, self.scheduler(rule, total_steps)

    def rule(self) -> type[InBackward]:
        """The class of the optimizer."""
        from benchmark.strategies.rules.in_backward import Lomo

        return Lomo
