"""Parallel adapters: a bottleneck network beside the feed-forward layer of each block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from benchmark.strategies.base import Card
from benchmark.strategies.shared.bottleneck import (
    FEEDFORWARD_IN,
    FEEDFORWARD_OUT,
    Bottleneck,
    BottleneckOptions,
    named,
    width_out,
)
from benchmark.strategies.shared.freezing import freeze_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ParallelAdapterOptions(BottleneckOptions):
    """scale: s, by which an adapter's output is multiplied."""

    scale: Annotated[float, Field(gt=0)] = 4.0


class ParallelAdapter(Bottleneck):
    """The scaled parallel adapter: it reads the input of the feed-forward layer, and its output is added to
    the layer's."""

    card = Card(
        paper="arXiv 2110.04366",
        reference="table 1 and section 4.6; the package adapters 1.3 refuses transformers 5 (~=4.57.6)",
        checked="against a BERT written out with the adapters in its blocks",
    )

    Options = ParallelAdapterOptions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        freeze_pretrained(model)
        add_beside_feedforward(model, self.options, self.name)
        return model


def add_beside_feedforward(model: PreTrainedModel, options: Any, strategy: str) -> None:
    """Put a scaled parallel adapter of `options.size` beside every feed-forward layer."""
    from benchmark.strategies.shared.adapter_layers import Adapter, add_parallel

    places = (named(model, pattern, strategy) for pattern in (FEEDFORWARD_IN, FEEDFORWARD_OUT))
    for first, last in zip(*places, strict=True):
        width = width_out(model.get_submodule(last))
        add_parallel(model, first, last, Adapter(width, options.size, "relu", options.scale))
