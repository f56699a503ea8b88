"""Layer-wise rate decay: all parameters train, each unit at a smaller learning rate than the one above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    import torch


class LlrdOptions(Options):
    """decay: the rate of a unit over that of the unit above it."""

    decay: Annotated[float, Field(gt=0, le=1)] = 0.95


class Llrd(TuningStrategy):
    """The head has the rate of the settings, and the embeddings the smallest. The schedule scales each."""

    card = Card(
        paper="arXiv 1801.06146, section 3.2; as compared in arXiv 2006.05987",
        reference="benchmark.engine.find_units",
        checked="weights after 5 steps equal a loop with a torch optimizer per unit; decay 1 equals full",
    )

    Options = LlrdOptions

    def rates(self, model: torch.nn.Module) -> dict[str, float]:
        from benchmark.engine import find_units

        return {
            name: self.options.decay**depth
            for depth, unit in enumerate(reversed(find_units(model)))
            for name in unit.parameters
        }
