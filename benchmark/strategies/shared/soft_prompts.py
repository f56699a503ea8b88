"""SoftPrompts: the base class of the methods whose virtual tokens are input embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmark.strategies.shared.virtual_tokens import (
    VirtualTokens,
    base_of,
    by_name,
    is_filled,
    later_positions,
    wider_mask,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class SoftPrompts(VirtualTokens):
    """The encoder's vectors stand before the embeddings of the tokens. They pass through every layer. What
    comes out for them is dropped, so a pooler reads the first real token."""

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        model = super().prepare(model)
        base_of(model).register_forward_hook(self.after, with_kwargs=True)
        return model

    def embedded(self, base: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The embeddings (B, L, width) of the real tokens `ids` (B, L), the last of those in `mask`."""
        found: torch.Tensor = base.get_input_embeddings()(ids)
        return found

    def before(self, base: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        import torch

        inputs, tokens = by_name(base, args, kwargs), self.options.tokens
        ids = inputs.pop("input_ids")
        inputs["inputs_embeds"] = self.embedded(base, ids, inputs.get("attention_mask"))
        inputs |= wider_mask(inputs, tokens) | later_positions(inputs, tokens)
        if is_filled(inputs.get("past_key_values")):  # the virtual tokens are in the cache
            return (), inputs
        vectors = self.vectors(base).to(base.dtype).expand(len(ids), -1, -1)
        inputs["inputs_embeds"] = torch.cat([vectors, inputs["inputs_embeds"]], dim=1)
        places, types = inputs.get("position_ids"), inputs.get("token_type_ids")
        if places is not None:
            own = torch.arange(tokens, device=places.device).expand(len(places), -1)
            inputs["position_ids"] = torch.cat([own, places], dim=1)
        if types is not None:
            inputs["token_type_ids"] = torch.cat([types.new_zeros(len(ids), tokens), types], dim=1)
        return (), inputs

    def after(self, base: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """The base model's output of the real tokens: a forward hook."""
        cache, read = kwargs.get("past_key_values"), kwargs["inputs_embeds"].shape[1]
        if cache is not None and cache.get_seq_length() > read:
            return output  # a later step of generation, which read real tokens alone
        output.last_hidden_state = output.last_hidden_state[:, self.options.tokens :]
        if output.get("pooler_output") is not None:
            output.pooler_output = base.pooler(output.last_hidden_state)
        return output
