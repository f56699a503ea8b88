"""rsLoRA through peft: LoRA scaled by alpha / sqrt(r) in place of alpha / r."""

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmark.strategies.base import Card
from benchmark.strategies.lora import Lora


class Rslora(Lora):
    """Options are those of LoRA."""

    card = Card(
        paper="arXiv 2312.03732",
        reference="peft.LoraConfig(use_rslora=True)",
        checked="trainable parameters, outputs and a step equal those of a model wrapped by peft directly",
    )
    variant: ClassVar[Mapping[str, Any]] = {"use_rslora": True}
