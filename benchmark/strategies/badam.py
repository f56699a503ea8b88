"""BAdam: one layer unit trains for `dwell` steps, then its optimizer state is dropped (arXiv 2404.02827)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.shared.blockwise import Blockwise

if TYPE_CHECKING:
    import torch


class BadamOptions(Options):
    """dwell: K, the steps of a unit before the next one. order: of the units in a sweep; reshuffle takes a
    new permutation each sweep. embeddings, head: whether these train too; the package leaves them out."""

    dwell: Annotated[int, Field(ge=1)] = 50
    order: Literal["reshuffle", "bottom2up", "top2down"] = "reshuffle"
    embeddings: bool = True
    head: bool = True


class Badam(Blockwise):
    """Block-coordinate descent with Adam, or with any other optimizer.

    In precision mixed_hi, as in the package, the host keeps no fp32 weights of idle units.
    """

    card = Card(
        paper="arXiv 2404.02827",
        reference="github.com/Ledzy/BAdam, src/badam/block_optim.py",
        checked="weights and states of the PyPI package badam, step by step, in fp32 and bf16",
    )

    Options = BadamOptions
    precisions = (*TuningStrategy.precisions, "mixed_hi")
    master_precisions = ("mixed_hi",)
    masters = "active"

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        from benchmark.engine import badam, find_units

        options: BadamOptions = self.options
        trains = {"embeddings": options.embeddings, "block": True, "head": options.head}
        return self.blockwise(
            model,
            total_steps,
            make=badam,
            rate="every_step",
            switch_every=options.dwell,
            order=options.order,
            frozen=[unit.name for unit in find_units(model) if not trains[unit.kind]],
        )
