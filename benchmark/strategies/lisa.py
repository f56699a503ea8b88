"""LISA: embeddings and head always train, and a few blocks drawn every `dwell` steps (arXiv 2403.17919)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.shared.blockwise import Blockwise

if TYPE_CHECKING:
    import torch


class LisaOptions(Options):
    """layers: γ, the blocks that train together. dwell: K, the steps before others are drawn."""

    layers: Annotated[int, Field(ge=1)] = 2
    dwell: Annotated[int, Field(ge=1)] = 20


class Lisa(Blockwise):
    """The blocks are drawn uniformly and independently of the draw before.

    The optimizer state of blocks that are no longer active is dropped, which is the memory that the paper
    states; `lisa_keep` has that of the authors' implementation.
    """

    card = Card(
        paper="arXiv 2403.17919",
        reference="Algorithm 1; drawn as in github.com/OptimalScale/LMFlow",
        checked="with all layers FPFT bit for bit; a written-out loop; how often layers are drawn",
    )

    Options = LisaOptions
    precisions = (*TuningStrategy.precisions, "mixed_hi")
    master_precisions: tuple[str, ...] = ("mixed_hi",)
    idle: ClassVar[str] = "drop"

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.engine import lisa

        options: LisaOptions = self.options
        return self.blockwise(
            model,
            total_steps,
            make=lisa,
            rate="every_step",
            layers=options.layers,
            switch_every=options.dwell,
            idle=self.idle,
        )
