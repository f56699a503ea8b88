"""VirtualTokens: the base class of the methods that train vectors in front of the tokens of every input.

peft's own wrappers of these methods are not used, only its modules that hold the vectors: they ignore the
positions of a batch padded on the left, read a decoder's class from the padding, give back logits for the
virtual tokens too, and know no masked LM. Here the vectors go in at the base model (`base_of`), whose output
is that of the real tokens alone. Every head, loss and `generate` then works as without them.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError
from benchmark.strategies.base import TuningStrategy
from benchmark.strategies.shared.freezing import freeze_pretrained

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class VirtualTokens(TuningStrategy):
    """The base model is frozen. The vectors (`prompt_encoder` of the base model) train, and so does a new
    head."""

    @property
    def added_positions(self) -> int:
        tokens: int = self.options.tokens
        return tokens

    def encoder(self, model: PreTrainedModel) -> torch.nn.Module:
        """The module that makes the vectors, in the form of peft's prompt encoders: of token numbers (1, P)
        it makes (1, P, width). Raises UserError for a model that the method cannot be used with."""
        raise NotImplementedError

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        if model.config.is_encoder_decoder:
            reason = (
                f"{type(model).__name__} has two stacks, and virtual tokens go into one: use lora"
            )
            raise UserError(f"strategy {self.name}: {reason}")
        freeze_pretrained(model)
        base = base_of(model)
        base.add_module("prompt_encoder", self.encoder(model).to(base.device))
        base.register_forward_pre_hook(self.before, with_kwargs=True)
        return model

    def vectors(self, base: Any) -> torch.Tensor:
        """What the encoder makes of all virtual tokens, (P, width)."""
        import torch

        numbers = torch.arange(self.options.tokens, device=base.device)[None]
        made: torch.Tensor = base.prompt_encoder(numbers)[0]
        return made

    def before(self, base: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The base model's arguments with the vectors in them: a forward pre-hook."""
        raise NotImplementedError


def base_of(model: Any) -> Any:
    """The module that takes embeddings and gives hidden states. OPT's language model calls the decoder of its
    base model, not the base model."""
    return getattr(model.base_model, "decoder", model.base_model)


def by_name(base: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the base model's forward, positional ones included, by name."""
    return dict(zip(inspect.signature(base.forward).parameters, args, strict=False)) | kwargs


def is_filled(cache: Any) -> bool:
    """Whether the cache of keys and values holds tokens: generation is past its first step."""
    return cache is not None and cache.get_seq_length() > 0


def wider_mask(inputs: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The attention mask with `tokens` more columns in front, which every token may attend to."""
    import torch

    mask = inputs.get("attention_mask")
    if mask is None:
        return {}
    return {"attention_mask": torch.cat([mask.new_ones(len(mask), tokens), mask], dim=1)}


def later_positions(inputs: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The position ids of the real tokens, moved up by `tokens`."""
    places = inputs.get("position_ids")
    return {} if places is None else {"position_ids": places + tokens}
