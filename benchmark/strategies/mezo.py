"""MeZO: the slope of the loss along a random direction, from two forward passes (arXiv 2305.17333)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card
from benchmark.strategies.shared.adapted import Adapted, AdaptedOptions

if TYPE_CHECKING:
    import torch

    from benchmark.strategies.rules.zeroth_order import ZerothOrder


class MezoOptions(AdaptedOptions):
    """eps: how far from the weights the two losses are taken, in standard deviations of the direction. With
    an adapter, such as lora or prefix, what it trains moves alone."""

    eps: Annotated[float, Field(gt=0)] = 1e-3


class Mezo(Adapted):
    """No backward pass, no gradients, no optimizer state: the memory of a forward pass.

    Dropout is off in training, as in MeZO's code. The training loss is that of the perturbed weights. A good
    rate is far below that of other methods, 1e-7 to 1e-6 for all parameters of OPT.
    """

    card = Card(
        paper="arXiv 2305.17333",
        reference="github.com/princeton-nlp/MeZO, large_models/trainer.py",
        checked="against SPSA with stored directions, to 1e-9 in fp64; simulated peak against a forward pass",
    )

    Options = MezoOptions
    precisions = (
        "fp32",
        "bf16",
        "bf16_weights",
    )  # fp16 needs gradients: it watches them for overflow
    optimizers = ()
    refuses: ClassVar[dict[str, str]] = {
        "accumulate": "it takes one direction a step, as MeZO's code does; raise batch_size, "
        "since no activations are kept",
        "clip": "it has no gradients to clip; a lower lr bounds the step",
        "data_parallel": "no gradients pass between devices, which would drift apart",
    }
    _rule: ZerothOrder

    def loss(self, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A leaf, so that the loop's backward ends at once."""
        return self._rule.estimate(model, forward).requires_grad_()

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.strategies.rules.zeroth_order import ZerothOrder

        assert self.settings.lr is not None
        self._rule = ZerothOrder(
            self.decay_groups(model),
            lr=self.settings.lr,
            eps=self.options.eps,
            seed=self.settings.seed,
        )
        return self._rule, self.scheduler(self._rule, total_steps)
