"""QLoRA: LoRA over a base model whose matrices are 4-bit numbers (bitsandbytes' NF4)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.strategies.base import Card
from benchmark.strategies.lora import Lora, LoraOptions

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class QloraOptions(LoraOptions):
    """double: quantise the scales too. targets: by default every packed matrix, as in the paper."""

    double: bool = True


class Qlora(Lora):
    """The matrices of the blocks are packed; embeddings, norms, biases and head are not. The paper's paged
    optimizer is not part of it."""

    card = Card(
        paper="arXiv 2305.14314",
        reference="bitsandbytes.functional.quantize_4bit and matmul_4bit; peft.LoraConfig",
        checked="packed values against the paper's 16 numbers; a step equals LoRA over the unpacked weights",
    )

    Options = QloraOptions

    def check(self) -> None:
        super().check()
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                "strategy qlora needs the package bitsandbytes: pip install bitsandbytes"
            )

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        self.check()
        self._packed = pack_blocks(model, self.options.double)
        return super().prepare(model)

    def config(self, model: PreTrainedModel) -> PeftConfig:
        config: Any = super().config(model)
        if self.options.targets is None:
            config.target_modules = set(self._packed)
        return config


def pack_blocks(model: PreTrainedModel, double: bool) -> list[str]:
    """Put an Nf4Linear in place of every linear layer of the blocks. Returns their paths."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from benchmark.engine import find_units
    from benchmark.strategies.shared.nf4 import Nf4Linear

    blocks = [f"{unit.name}." for unit in find_units(model) if unit.kind == "block"]
    linear = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and name.startswith(tuple(blocks))
    ]
    for name, module in linear:
        weight: Any = module.weight.T if isinstance(module, Conv1D) else module.weight
        model.set_submodule(name, Nf4Linear(weight, module.bias, double))
    return [name for name, _ in linear]
