"""FT-top-n: the last n blocks and the head train; embeddings and lower blocks are frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.errors import UserError
from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from benchmark.models.layers import Layers


class TopNOptions(Options):
    """blocks: n."""

    blocks: Annotated[int, Field(ge=1)] = 2


class TopN(TuningStrategy):
    """Blocks and head are the engine's layer units. A head tied to the embeddings is frozen with them."""

    card = Card(
        paper="FT-top2 of arXiv 2101.00190, table 1",
        reference="benchmark.engine.find_units",
        checked="the parameters of the last blocks and the head, by name",
    )

    Options = TopNOptions

    def check_layers(self, layers: Layers) -> None:
        n = self.options.blocks
        if layers.blocks and n > layers.blocks:
            reason = f"blocks {n} is more than the {layers.blocks} of the model"
            raise UserError(f"strategy top_n: {reason}")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.engine import find_units

        units = find_units(model)
        blocks = [unit for unit in units if unit.kind == "block"]
        n = self.options.blocks
        if n > len(blocks):
            raise UserError(
                f"strategy top_n: blocks {n} is more than the {len(blocks)} of the model"
            )
        trained = [*blocks[-n:], *(unit for unit in units if unit.kind == "head")]
        names = {name for unit in trained for name in unit.parameters}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
        return model
