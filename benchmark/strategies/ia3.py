"""(IA)³ through peft: vectors that scale keys, values and the inner activations of feed-forward layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.peft_method import PeftMethod, targets_of, task_type, transposed

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class Ia3Options(Options):
    """targets: names of the scaled modules. feedforward: those of them whose input is scaled, not their
    output. Both by default peft's choice for the model family."""

    targets: tuple[str, ...] | None = None
    feedforward: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _feedforward_are_targets(self) -> Ia3Options:
        if not set(self.feedforward or ()) <= set(self.targets or ()):
            raise ValueError("feedforward must be among targets")
        return self


class Ia3(PeftMethod):
    """`IA3Config`. Every vector starts from ones."""

    card = Card(
        paper="arXiv 2205.05638",
        reference="peft.IA3Config",
        checked="trainable parameters, outputs and a step equal those of a model wrapped by peft directly",
    )

    Options = Ia3Options

    def config(self, model: PreTrainedModel) -> PeftConfig:
        from peft import IA3Config

        options: Ia3Options = self.options
        # with targets of its own peft also needs the feed-forward ones said, if only as none
        feedforward = list(options.feedforward or ()) if options.targets else None
        return IA3Config(
            task_type=task_type(model),
            feedforward_modules=feedforward,
            **targets_of(options),
            **transposed(model),
        )
