"""Frozen lower layers: all but the lowest units (embeddings, then blocks) train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.errors import UserError
from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FreezeLowerOptions(Options):
    """units: how many of the lowest units are frozen; the embeddings are the first."""

    units: Annotated[int, Field(ge=1)] = 1


class FreezeLower(TuningStrategy):
    """Units are the engine's layer units. A head tied to the embeddings is frozen with them."""

    card = Card(
        paper="arXiv 1911.03090",
        reference="benchmark.engine.find_units",
        checked="the parameters of the embeddings and the first blocks, by name",
    )

    Options = FreezeLowerOptions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.engine import find_units

        units, n = find_units(model), self.options.units
        if n >= len(units):
            reason = f"units {n} leaves none of the model's {len(units)} to train"
            raise UserError(f"strategy freeze_lower: {reason}")
        names = {name for unit in units[:n] for name in unit.parameters}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in names)
        return model
