"""Linear probing: only the new head trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.errors import UserError
from benchmark.strategies.base import Card, TuningStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Head(TuningStrategy):
    """Freezes the base model (`model.base_model`), with its pooler if it has one."""

    card = Card(
        paper="arXiv 1610.01644",
        reference="the head that transformers puts on the base model",
        checked="the base model stays byte for byte",
    )

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        base = model.base_model
        if base is model:
            raise UserError(
                f"strategy head: {type(model).__name__} has no head apart from its base"
            )
        for parameter in base.parameters():
            parameter.requires_grad_(False)
        return model
