"""GreenTrainer: the tensors that lower the loss most train, chosen under a budget of operations (arXiv
2309.13192)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    import torch

    from benchmark.strategies.rules.flop_budget import FlopBudget


class GreentrainerOptions(Options):
    """rho: the operations of a step, as a share of full fine-tuning's; the forward pass alone takes about a
    third. every: steps after which tensors are chosen anew."""

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    every: Annotated[int, Field(ge=1)] = 100


class Greentrainer(TuningStrategy):
    """A choice costs two full backward passes and a copy of the weights on the host.

    The optimizer state of tensors that no longer train is kept, as in the authors' code. Their code counts
    operations by the names of OPT's and BLOOM's tensors; here they are counted in the forward pass of any
    model.
    """

    card = Card(
        paper="arXiv 2309.13192",
        reference="github.com/pittisl/GreenTrainer, decoder_lm/train.py and tensor_selector.py",
        checked="choices against all subsets; importance against a written-out step; operations by hand",
    )

    Options = GreentrainerOptions
    starts_again = "which tensors are chosen is in no state_dict"
    # not fp16: the gradients of the trial are not scaled, and small ones would be lost
    precisions = ("fp32", "bf16", "bf16_weights")
    refuses: ClassVar[dict[str, str]] = {
        "data_parallel": "each device would choose its own tensors by its part of the batch",
    }
    _rule: FlopBudget

    def loss(self, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        self._rule.prepare(forward)
        return forward()

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.engine.wrapped import all_at_once
        from benchmark.strategies.rules.flop_budget import FlopBudget

        settings = self.settings
        inner = all_at_once(
            model,
            settings.optimizer,
            weight_decay=settings.weight_decay,
            **settings.optimizer_arguments,
        )
        self._rule = FlopBudget(model, inner, rho=self.options.rho, every=self.options.every)
        return self._rule, self.scheduler(self._rule, total_steps)
