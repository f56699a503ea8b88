"""LoRA through peft: low-rank updates of the attention projections train, and so does a new head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.peft_method import PeftMethod, targets_of, task_type, transposed

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class LoraOptions(Options):
    """r, alpha and dropout are those of LoRA (arXiv 2106.09685). targets: names of the adapted modules; by
    default peft's choice for the model family."""

    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | None = None


class Lora(PeftMethod):
    """`LoraConfig`; the variants of LoRA set further arguments of it in `variant`."""

    card = Card(
        paper="arXiv 2106.09685",
        reference="peft.LoraConfig",
        checked="trainable parameters, outputs and a step equal those of a model wrapped by peft directly",
    )

    Options = LoraOptions
    variant: ClassVar[Mapping[str, Any]] = {}

    def config(self, model: PreTrainedModel) -> PeftConfig:
        from peft import LoraConfig

        options: LoraOptions = self.options
        scale: Any = options.alpha  # peft annotates it as int, but takes a float
        return LoraConfig(
            task_type=task_type(model),
            r=options.r,
            lora_alpha=scale,
            lora_dropout=options.dropout,
            **targets_of(options),
            **transposed(model),
            **self.variant,
        )

    def check_wrapped(self, model: Any) -> None:
        check_rank(self, model, self.options.r, "r")


def check_rank(method: PeftMethod, model: Any, rank: int, option: str) -> None:
    """Raises UserError if `rank` is larger than the matrix that it is the rank of."""
    for module in model.modules():
        if hasattr(module, "lora_A") and rank > min(module.in_features, module.out_features):
            shape = f"{module.in_features} × {module.out_features}"
            raise method.refusal(f"{option} {rank} is larger than a matrix of {shape}")
