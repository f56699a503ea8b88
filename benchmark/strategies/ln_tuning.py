"""LN-tuning through peft: weights and biases of the normalisation layers train, and so does a new head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.strategies.base import Card
from benchmark.strategies.shared.peft_method import PeftMethod, task_type

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class LnTuning(PeftMethod):
    """`LNTuningConfig` on every normalisation layer of the base model, since peft's lists lack families."""

    card = Card(
        paper="arXiv 2312.11420",
        reference="peft.LNTuningConfig",
        checked="the layers are peft's own choice for GPT-2 and LLaMA; outputs and a step equal peft's",
    )

    def config(self, model: PreTrainedModel) -> PeftConfig:
        from peft import LNTuningConfig

        found = {id(module) for module in model.base_model.modules() if is_norm(module)}
        names = [name for name, module in model.named_modules() if id(module) in found]
        return LNTuningConfig(task_type=task_type(model), target_modules=names)


def is_norm(module: object) -> bool:
    """Whether the module is a layer or RMS norm: most families have RMS norms of their own class."""
    from torch import nn

    return isinstance(module, nn.LayerNorm) or "RMSNorm" in type(module).__name__
