"""MAM adapters: a prefix before the keys and values of attention, and a parallel adapter beside each
feed-forward layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.strategies.base import Card
from benchmark.strategies.parallel_adapter import add_beside_feedforward
from benchmark.strategies.prefix import Prefix, PrefixOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MamOptions(PrefixOptions):
    """size: width of an adapter's inner layer. scale: by which its output is multiplied."""

    tokens: Annotated[int, Field(ge=1)] = 30
    size: Annotated[int, Field(ge=1)] = 512
    scale: Annotated[float, Field(gt=0)] = 4.0


class Mam(Prefix):
    """Prefix tuning with a parallel adapter; sizes are the paper's."""

    card = Card(
        paper="arXiv 2110.04366",
        reference="table 1 and section 4.6; the package adapters 1.3 refuses transformers 5 (~=4.57.6)",
        checked="with adapters at zero it is prefix; the adapters are those of parallel_adapter",
    )

    Options = MamOptions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        model = super().prepare(model)
        add_beside_feedforward(model, self.options, self.name)
        return model
