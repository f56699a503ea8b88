"""LT-SFT: only the entries that moved most in a full fine-tuning train, from their first values (arXiv
2110.07560)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    import torch


class LtSftOptions(Options):
    """share: of the entries of the base model that train. full: the share of the steps that the full
    fine-tuning takes, which selects them."""

    share: Annotated[float, Field(gt=0, le=1)] = 0.01
    full: Annotated[float, Field(gt=0, lt=1)] = 0.5


class LtSft(TuningStrategy):
    """Both phases have the schedule of the settings, from warm-up to end. A new head trains whole.

    The memory of the first phase is that of FPFT.
    """

    card = Card(
        paper="arXiv 2110.07560",
        reference="github.com/cambridgeltl/composable-sft, src/sft/lt_sft.py, one iteration",
        checked="a written-out loop with masked gradients; only selected entries move; differences compose",
    )

    Options = LtSftOptions
    refuses: ClassVar[Mapping[str, str]] = {"sharded": "its entries are chosen over whole matrices"}
    starts_again = "the selected entries and the weights of the beginning are in no state_dict"
    # those that treat each entry by itself, so that a vector of some entries trains as they would in place
    optimizers = ("adamw", "adam", "nadam", "radam", "sgd", "sgdm", "adagrad", "rmsprop", "lion")

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        import torch

        from benchmark.engine import Rate
        from benchmark.engine.wrapped import find_optimizer
        from benchmark.strategies.rules.lottery_ticket import LotteryTicket

        settings, options = self.settings, self.options
        base: Any = getattr(model, "base_model", model)
        kind, implied = find_optimizer(settings.optimizer)
        full_steps = max(1, int(options.full * total_steps))
        optimizer = LotteryTicket(
            self.decay_groups(model),
            lambda groups: kind(groups, **implied | settings.optimizer_arguments),
            sparse=[parameter for parameter in base.parameters() if parameter.requires_grad],
            share=options.share,
            full_steps=full_steps,
        )
        steps = (full_steps, max(1, total_steps - full_steps))
        rates = [Rate(settings.schedule, n, 1, settings.warmup_steps(n)) for n in steps]

        def factor(step: int) -> float:
            if step < full_steps:
                return rates[0].factor(step)
            return rates[1].factor(step - full_steps)

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
