"""Bottleneck: the base class of the methods that put small networks (adapters) beside the layers of a block.

They are written here: the package adapters 1.3 needs transformers ~=4.57, and peft has none of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from benchmark.errors import UserError
from benchmark.strategies.base import Options, TuningStrategy
from benchmark.strategies.shared.freezing import freeze_pretrained

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ATTENTION_OUT = re.compile(
    r"\.(attention\.output\.dense|attn\.c_proj|attention\.out_proj|self_attn\.(out_proj|o_proj))$"
)
"""The last projection of attention, in the names of BERT and RoBERTa, GPT-2, GPT-Neo, OPT, LLaMA."""
FEEDFORWARD_IN = re.compile(r"\.(intermediate\.dense|mlp\.c_fc|fc1|mlp\.gate_proj)$")
"""The first projection of the feed-forward layer."""
FEEDFORWARD_OUT = re.compile(r"\.((?<!attention\.)output\.dense|mlp\.c_proj|fc2|mlp\.down_proj)$")
"""Its last projection."""


class BottleneckOptions(Options):
    """size: width of an adapter's inner layer."""

    size: Annotated[int, Field(ge=1)] = 64


class Bottleneck(TuningStrategy):
    """The base model is frozen. An adapter after each projection of `after` trains, and so does a new head.

    An adapter's output is added to the projection's, before the residual connection. It is zero at the start,
    so the outputs are those of the pretrained model.
    """

    Options = BottleneckOptions
    after: ClassVar[tuple[re.Pattern[str], ...]] = (ATTENTION_OUT, FEEDFORWARD_OUT)

    def adapter(self, width: int) -> torch.nn.Module:
        """A new adapter of vectors of this width."""
        from benchmark.strategies.shared.adapter_layers import Adapter

        return Adapter(width, self.options.size, "gelu")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.strategies.shared.adapter_layers import add

        freeze_pretrained(model)
        for pattern in self.after:
            for name in named(model, pattern, self.name):
                add(model, name, self.adapter(width_out(model.get_submodule(name))))
        return model


def named(model: PreTrainedModel, pattern: re.Pattern[str], strategy: str) -> list[str]:
    """The paths of the modules of the base model that match. Raises UserError if there are none."""
    inside = {id(module) for module in model.base_model.modules()}
    names = [n for n, m in model.named_modules() if pattern.search(n) and id(m) in inside]
    if not names:
        kind = type(model).__name__
        raise UserError(
            f"strategy {strategy}: the projections of {kind} have no known names: use lora with targets"
        )
    return names


def width_out(projection: Any) -> int:
    """The width of what a linear layer, or GPT-2's Conv1D, gives."""
    width: int = projection.nf if hasattr(projection, "nf") else projection.out_features
    return width
