"""BitFit: only biases and a new head train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.errors import UserError
from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.shared.freezing import freeze_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class BitFitOptions(Options):
    """only: ends of the names of the biases that train, such as query.bias; by default all of them."""

    only: tuple[str, ...] = ()


class BitFit(TuningStrategy):
    """A tensor is a bias if its name ends in `bias`, as those of normalisation layers do."""

    card = Card(
        paper="arXiv 2106.10199",
        reference="github.com/benzakenelad/BitFit, which trains the biases by name and the classifier",
        checked="biases and the new head move, all else stays byte for byte",
    )

    Options = BitFitOptions
    # a norm's trained bias would be fp32 beside its frozen bf16 weight, which torch has no kernel for
    precisions = ("fp32", "bf16", "fp16")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        freeze_pretrained(model)
        ends = self.options.only or ("bias",)
        biases = [
            parameter
            for name, parameter in model.base_model.named_parameters()
            if name.endswith("bias") and name.endswith(ends)
        ]
        if not biases:
            kind = type(model).__name__
            raise UserError(f"strategy bitfit: {kind} has no bias by the name {', '.join(ends)}")
        for parameter in biases:
            parameter.requires_grad_(True)
        return model
