"""HFT, half fine-tuning: a random half of each kind of tensor trains, the other half is frozen (arXiv
2404.18466)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.shared.blockwise import Blockwise

if TYPE_CHECKING:
    import torch


class HftOptions(Options):
    """dwell: the steps of a round, after which another half is drawn; by default the whole run is one
    round."""

    dwell: Annotated[int, Field(ge=1)] | None = None


class Hft(Blockwise):
    """Of every block half of the attention matrices, of the other matrices and of the norms train.

    Where a block has an odd number of them, half of the blocks train one more. Embeddings and head always
    train. A bias goes with its weight.
    """

    card = Card(
        paper="arXiv 2404.18466",
        reference="section 2.3, category-level selection",
        checked="the frozen half stays byte for byte; the counts of each category; halves change by round",
    )

    Options = HftOptions
    precisions = (*TuningStrategy.precisions, "mixed_hi")
    master_precisions = ("mixed_hi",)

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.engine import hft

        options: HftOptions = self.options
        return self.blockwise(
            model,
            total_steps,
            make=hft,
            rate="every_step",
            switch_every=options.dwell or total_steps,
        )
