"""Intrinsic dimension: all weights move, but only inside a random subspace (arXiv 2012.13255, 1804.08838)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    import torch


class IntrinsicOptions(Options):
    """dimension: d, the numbers that train."""

    dimension: Annotated[int, Field(ge=1)] = 1000


class Intrinsic(TuningStrategy):
    """θ = θ₀ + P z with d numbers z, and P a Fastfood transform of each tensor (DID of arXiv 2012.13255).

    Weight decay pulls z to 0, and so the weights to θ₀.
    """

    card = Card(
        paper="arXiv 2012.13255",
        reference="section 3; Fastfood as in arXiv 1804.08838, section S7, tensor by tensor",
        checked="against P as a matrix, and autograd through θ₀ + P z; the update has no part outside P",
    )

    Options = IntrinsicOptions
    starts_again = "the position in the subspace is in no state_dict"
    # not bf16_weights: steps in the subspace are spread over all weights, and bf16 would round them away
    precisions = ("fp32", "bf16", "fp16")
    refuses: ClassVar[dict[str, str]] = {
        "clip": "the gradients of the weights are projected and freed inside the backward pass; "
        "a lower lr bounds the step",
        "data_parallel": "gradients are projected before they could be averaged",
    }

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.strategies.rules.subspace import Subspace

        settings = self.settings
        optimizer = Subspace(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            settings.optimizer,
            dimension=self.options.dimension,
            seed=settings.seed * 2**32,  # one seed for each tensor, and none in two runs
            weight_decay=settings.weight_decay,
            **settings.optimizer_arguments,
        )
        return optimizer, self.scheduler(optimizer, total_steps)
