"""Prefix tuning: trained keys and values stand before those of every layer, and a new head trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from benchmark.errors import UserError
from benchmark.strategies.base import Card, Options
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


class PrefixOptions(Options):
    """tokens: number of virtual tokens. projection: width of the MLP that makes keys and values from
    embeddings, as in the paper; by default they train themselves."""

    tokens: Annotated[int, Field(ge=1)] = 20
    projection: Annotated[int, Field(ge=1)] | None = None


class Prefix(VirtualTokens):
    """peft's `PrefixEncoder`, whose keys and values are put into the cache of the base model."""

    card = Card(
        paper="arXiv 2101.00190",
        reference="peft.PrefixEncoder; its wrapper only where inputs need no padding",
        checked="outputs equal peft's for unpadded inputs; a padded row's equal those of the row alone",
    )

    Options = PrefixOptions
    refuses: ClassVar[Mapping[str, str]] = {
        "checkpointing": "transformers leaves the cache out, and with it the prefix: use prompt or ptuning"
    }

    def encoder(self, model: PreTrainedModel) -> torch.nn.Module:
        from peft import PrefixEncoder, PrefixTuningConfig

        if "past_key_values" not in inspect.signature(base_of(model).forward).parameters:
            kind = type(base_of(model)).__name__
            raise UserError(
                f"strategy prefix: {kind} takes no keys and values from before: use prompt"
            )
        layers, heads, width = _cache_shape(model)
        config = PrefixTuningConfig(
            num_virtual_tokens=self.options.tokens,
            token_dim=heads * width,
            num_layers=layers,
            num_attention_heads=heads,
            num_transformer_submodules=1,
            prefix_projection=self.options.projection is not None,
            encoder_hidden_size=self.options.projection,
        )
        return PrefixEncoder(config)

    def before(self, base: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        from transformers import DynamicCache

        inputs, tokens = by_name(base, args, kwargs), self.options.tokens
        cache = inputs.get("past_key_values")
        if not is_filled(cache):
            given = inputs.get("input_ids")
            size = len(inputs["inputs_embeds"] if given is None else given)
            cache = DynamicCache() if cache is None else cache
            layers, heads, width = _cache_shape(base)
            pairs = self.vectors(base).view(tokens, layers, 2, heads, width).permute(1, 2, 3, 0, 4)
            for layer, pair in enumerate(pairs.to(base.dtype)):
                key, value = pair[:, None].expand(-1, size, -1, -1, -1)
                cache.update(key, value, layer)
            inputs["past_key_values"] = cache
        return (), inputs | wider_mask(inputs, tokens) | later_positions(inputs, tokens)


def _cache_shape(model: Any) -> tuple[int, int, int]:
    """Layers, heads of keys and values, and the width of a head."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return config.num_hidden_layers, heads, width
