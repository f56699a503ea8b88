"""Top-layer re-initialisation: the last blocks and the pooler start anew, and all parameters train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from benchmark.errors import UserError
from benchmark.strategies.base import Card, Options, TuningStrategy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from benchmark.models.layers import Layers


class ReinitTopOptions(Options):
    """blocks: how many of the last blocks start anew."""

    blocks: Annotated[int, Field(ge=1)] = 1


class ReinitTop(TuningStrategy):
    """New values are those that the model's own `_init_weights` gives a new model, by the run's seed."""

    card = Card(
        paper="arXiv 2006.05987, section 4",
        reference="transformers' PreTrainedModel._init_weights",
        checked="new values by their mean and spread; all below the blocks stays byte for byte",
    )

    Options = ReinitTopOptions

    def check_layers(self, layers: Layers) -> None:
        n = self.options.blocks
        if layers.blocks and n > layers.blocks:
            reason = f"blocks {n} is more than the {layers.blocks} of the model"
            raise UserError(f"strategy reinit_top: {reason}")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from benchmark.engine import find_units

        names = [unit.name for unit in find_units(model) if unit.kind == "block"]
        n = self.options.blocks
        if n > len(names):
            reason = f"blocks {n} is more than the {len(names)} of the model"
            raise UserError(f"strategy reinit_top: {reason}")
        base: Any = model.base_model
        anew: list[Any] = [model.get_submodule(name) for name in names[-n:]]
        anew += [base.pooler] if getattr(base, "pooler", None) is not None else []
        for module in (part for whole in anew for part in whole.modules()):
            for parameter in module.parameters(recurse=False):
                # transformers skips what it has marked as loaded
                parameter._is_hf_initialized = False
            model._init_weights(module)
        return model
