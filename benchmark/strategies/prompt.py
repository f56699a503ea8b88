"""Prompt tuning: trained embeddings stand before the tokens of every input, and a new head trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.soft_prompts import SoftPrompts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class PromptOptions(Options):
    """tokens: number of virtual tokens. start: their embeddings at the start, those of random words of the
    vocabulary, or random numbers."""

    tokens: Annotated[int, Field(ge=1)] = 20
    start: Literal["vocabulary", "random"] = "vocabulary"


class Prompt(SoftPrompts):
    """peft's `PromptEmbedding`, which starts from words as the paper found best, put in at the base model."""

    card = Card(
        paper="arXiv 2104.08691",
        reference="peft.PromptEmbedding; its wrapper only where inputs need no padding",
        checked="outputs equal peft's for unpadded inputs; a padded row's equal those of the row alone",
    )

    Options = PromptOptions

    def encoder(self, model: PreTrainedModel) -> torch.nn.Module:
        from peft import PromptEmbedding, PromptTuningConfig

        words: Any = model.get_input_embeddings()
        config = PromptTuningConfig(
            num_virtual_tokens=self.options.tokens,
            token_dim=words.embedding_dim,
            num_transformer_submodules=1,
            prompt_tuning_init="SAMPLE_VOCAB" if self.options.start == "vocabulary" else "RANDOM",
        )
        return PromptEmbedding(config, words)
