"""LoRA through peft: low-rank updates of the attention projections train, and so does a new head."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from benchmark.errors import UserError
from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LoraOptions(Options):
    """r, alpha and dropout are those of LoRA (arXiv 2106.09685). targets: names of the adapted modules; by
    default peft's choice for the model family."""

    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | None = None


class Lora(TuningStrategy):
    """The base model is frozen. peft finds the new head, which trains in full, by the task type."""

    card = Card(
        paper="arXiv 2106.09685",
        reference="peft.LoraConfig",
        checked="the trainable parameters are peft's",
    )

    Options = LoraOptions

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from peft import LoraConfig, get_peft_model
        from transformers.pytorch_utils import Conv1D

        options: LoraOptions = self.options
        scale: Any = options.alpha  # peft annotates it as int, but takes a float
        config = LoraConfig(
            task_type=_task_type(model),
            r=options.r,
            lora_alpha=scale,
            lora_dropout=options.dropout,
            target_modules=list(options.targets) if options.targets else None,
            # GPT-2's projections (Conv1D) are transposed; said here, or else peft warns
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        )
        try:
            with warnings.catch_warnings():  # peft 0.21 uses a deprecated name of transformers
                warnings.simplefilter("ignore", FutureWarning)
                wrapped: Any = get_peft_model(model, config)
                return wrapped  # a PeftModel, which forwards all attributes of a PreTrainedModel
        except ValueError as error:
            targets = ", ".join(options.targets or ()) or "by default"
            reason = str(error).splitlines()[0]
            raise UserError(f"strategy lora: targets: {targets}: {reason}") from None


def _task_type(model: PreTrainedModel) -> str | None:
    """peft's task type for the model's head; None for a masked LM, whose head is pretrained and stays
    frozen."""
    if hasattr(model, "qa_outputs"):
        return "QUESTION_ANS"
    if hasattr(model, "num_labels"):
        return "SEQ_CLS"
    return "CAUSAL_LM" if model.can_generate() else None
