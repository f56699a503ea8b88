"""DePT: a short prompt, and a low-rank update of the frozen embeddings by a token's place in the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from benchmark.strategies.base import Card
from benchmark.strategies.prompt import Prompt, PromptOptions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class DeptOptions(PromptOptions):
    """length: tokens of a text whose embeddings are updated, the first ones. r: rank of the update.
    low_rank_rate: its learning rate over that of the prompt."""

    length: Annotated[int, Field(ge=1)] = 256
    r: Annotated[int, Field(ge=1)] = 8
    low_rank_rate: Annotated[float, Field(gt=0)] = 0.1


class Dept(Prompt):
    """A of (length, r) starts from random numbers and B of (r, width) from zeros, so the update starts from
    zero. Row i of A B is added to the embedding of token i of the text; special tokens count."""

    card = Card(
        paper="arXiv 2309.05173; the same idea, with projections of the prompt besides, in arXiv 2405.11464",
        reference="section 2 of the paper: its code is for transformers 4 and has no package",
        checked="against base model and sum of embeddings written out, padded, and in generation",
    )

    Options = DeptOptions

    def encoder(self, model: PreTrainedModel) -> torch.nn.Module:
        import torch

        options: DeptOptions = self.options
        encoder, words = super().encoder(model), cast(Any, model.get_input_embeddings())
        encoder.low_rank_a = torch.nn.Parameter(torch.randn(options.length, options.r))
        encoder.low_rank_b = torch.nn.Parameter(torch.zeros(options.r, words.embedding_dim))
        return encoder

    def embedded(self, base: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        import torch

        found, length = super().embedded(base, ids, mask), self.options.length
        counted = torch.ones_like(ids) if mask is None else mask
        places = (counted.cumsum(-1) - 1)[:, -ids.shape[1] :].clamp(min=0)
        encoder = base.prompt_encoder
        update = (encoder.low_rank_a @ encoder.low_rank_b).to(found.dtype)
        return found + update[places.clamp(max=length - 1)] * (places < length)[..., None]

    def rates(self, model: torch.nn.Module) -> dict[str, float]:
        names = [name for name, _ in model.named_parameters() if ".low_rank_" in name]
        return dict.fromkeys(names, self.options.low_rank_rate)
