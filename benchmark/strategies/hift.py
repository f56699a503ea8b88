"""HiFT: each optimizer step updates one group of layer units (arXiv 2401.15207, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from benchmark.errors import Unsupported
from benchmark.strategies.base import Card, Options, TuningStrategy
from benchmark.strategies.blockwise import Blockwise
from benchmark.strategies.settings import TrainingSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class HiftOptions(Options):
    """Options of the engine.

    group_size: m, units per group. order: the order of the groups in a sweep; importance begins each sweep
    with the group whose gradients have been the largest. dwell: consecutive steps per group. idle: the
    optimizer state of the idle groups stays on the device (keep), moves to host memory (cpu) or is dropped.
    rate: the delayed learning rate of the paper, or that of the authors' code (reference). adapter: a
    strategy that prepares the model, such as lora; the groups are then of the units in which it trains
    something. adapter_options: its options.
    """

    group_size: Annotated[int, Field(ge=1)] = 1
    order: Literal["bottom2up", "top2down", "random", "importance"] = "bottom2up"
    dwell: Annotated[int, Field(ge=1)] = 1
    idle: Literal["keep", "cpu", "drop"] = "cpu"
    rate: Literal["paper", "reference"] = "paper"
    adapter: str | None = None
    adapter_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _the_adapter_is_known(self) -> HiftOptions:
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


class Hift(Blockwise):
    """All parameters train, one group at a time (`benchmark.engine.HiFT`)."""

    card = Card(
        paper="arXiv 2401.15207",
        reference="Algorithm 1; rate: reference as in github.com/misonsky/HiFT, hift/trainer.py",
        checked="against a written-out loop bit for bit, and traces recorded from the authors' code",
    )

    Options = HiftOptions
    precisions = (*TuningStrategy.precisions, "mixed_hi")
    master_precisions = ("mixed_hi",)
    simulated_precisions: ClassVar[Mapping[str, str]] = {"mixed": "mixed_hi"}

    def __init__(self, settings: TrainingSettings, options: BaseModel) -> None:
        super().__init__(settings, options)
        self._adapter: TuningStrategy | None = None
        if self.options.adapter is not None:
            from benchmark.strategies import build

            name, more = self.options.adapter, self.options.adapter_options
            try:
                self._adapter = build(name, settings, more)
            except Unsupported as error:
                raise Unsupported(f"strategy hift: adapter: {error}") from None

    @property
    def added_positions(self) -> int:
        return self._adapter.added_positions if self._adapter else 0

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        return super().prepare(self._adapter.prepare(model) if self._adapter else model)

    def optimizer(
        self, model: torch.nn.Module, total_steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        options: HiftOptions = self.options
        return self.blockwise(
            model, total_steps, **options.model_dump(exclude={"adapter", "adapter_options"})
        )
