"""What is frozen where a method trains parameters of its own beside the pretrained ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def freeze_pretrained(model: PreTrainedModel) -> None:
    """Freeze all of the model but a new head: the head of an LM is pretrained."""
    from benchmark.strategies.shared.peft_method import task_type

    pretrained = model if task_type(model) in (None, "CAUSAL_LM") else model.base_model
    for parameter in pretrained.parameters():
        parameter.requires_grad_(False)
