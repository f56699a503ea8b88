"""DoRA through peft: LoRA, with the norm of each row of the adapted matrices trained apart."""

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmark.strategies.base import Card
from benchmark.strategies.lora import Lora


class Dora(Lora):
    """Options are those of LoRA."""

    card = Card(
        paper="arXiv 2402.09353",
        reference="peft.LoraConfig(use_dora=True)",
        checked="trainable parameters, outputs and a step equal those of a model wrapped by peft directly",
    )
    variant: ClassVar[Mapping[str, Any]] = {"use_dora": True}
