"""PiSSA through peft: LoRA that starts from the largest singular values; the frozen rest is the remainder."""

from collections.abc import Mapping
from typing import Any, ClassVar

from benchmark.strategies.base import Card
from benchmark.strategies.lora import Lora


class Pissa(Lora):
    """Options are those of LoRA. The frozen remainder and the update sum to the pretrained matrix."""

    card = Card(
        paper="arXiv 2404.02948",
        reference="peft.LoraConfig(init_lora_weights='pissa')",
        checked="as lora; outputs at the start equal the pretrained model's to 1e-5",
    )
    variant: ClassVar[Mapping[str, Any]] = {"init_lora_weights": "pissa"}
