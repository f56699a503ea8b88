"""P-tuning: the embeddings of virtual tokens come from a small trained network, and a new head trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.soft_prompts import SoftPrompts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class PtuningOptions(Options):
    """tokens: number of virtual tokens. network: an MLP, or the paper's LSTM before one. width: of its hidden
    layers; by default that of the embeddings."""

    tokens: Annotated[int, Field(ge=1)] = 20
    network: Literal["mlp", "lstm"] = "mlp"
    width: Annotated[int, Field(ge=1)] | None = None


class Ptuning(SoftPrompts):
    """peft's `PromptEncoder`, put in at the base model. All virtual tokens stand before the input."""

    card = Card(
        paper="arXiv 2103.10385",
        reference="peft.PromptEncoder; its wrapper only where inputs need no padding",
        checked="outputs equal peft's for unpadded inputs; a padded row's equal those of the row alone",
    )

    Options = PtuningOptions

    def encoder(self, model: PreTrainedModel) -> torch.nn.Module:
        from peft import PromptEncoder, PromptEncoderConfig

        words: Any = model.get_input_embeddings()
        width: int = words.embedding_dim
        config = PromptEncoderConfig(
            num_virtual_tokens=self.options.tokens,
            token_dim=width,
            num_transformer_submodules=1,
            encoder_reparameterization_type=self.options.network.upper(),
            encoder_hidden_size=self.options.width or width,
        )
        return PromptEncoder(config)
