"""Adapted: the base class of methods that train what another strategy, such as lora, prepares to train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, model_validator

from benchmark.errors import Unsupported
from benchmark.strategies.base import Options, TuningStrategy
from benchmark.strategies.settings import TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from benchmark.models.layers import Layers


class AdaptedOptions(Options):
    """adapter: a strategy that prepares the model, such as lora. adapter_options: its options."""

    adapter: str | None = None
    adapter_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _the_adapter_is_known(self) -> AdaptedOptions:
        from benchmark.strategies import checked_options, strategy_class

        if self.adapter is None:
            if self.adapter_options:
                raise ValueError("adapter_options: there is no adapter")
            return self
        kind = strategy_class(self.adapter)
        own = ("loss", "optimizer", "rates")
        if not kind.trains or any(getattr(kind, n) is not getattr(TuningStrategy, n) for n in own):
            reason = "it must be a strategy whose loss and optimizer are the usual ones, as lora"
            raise ValueError(f"adapter: {self.adapter}: {reason}")
        checked_options(self.adapter, self.adapter_options)
        return self


class Adapted(TuningStrategy):
    """With the option `adapter`, the model is prepared by that strategy first; without it, all trains."""

    def __init__(self, settings: TrainingSettings, options: BaseModel) -> None:
        super().__init__(settings, options)
        self._adapter: TuningStrategy | None = None
        if self.options.adapter is not None:
            from benchmark.strategies import build

            name, more = self.options.adapter, self.options.adapter_options
            try:
                self._adapter = build(name, settings, more)
            except Unsupported as error:
                raise Unsupported(f"strategy {self.name}: adapter: {error}") from None

    @property
    def added_positions(self) -> int:
        return self._adapter.added_positions if self._adapter else 0

    def check_layers(self, layers: Layers) -> None:
        if self._adapter:
            self._adapter.check_layers(layers)

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        return super().prepare(self._adapter.prepare(model) if self._adapter else model)
