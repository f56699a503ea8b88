"""VeRA through peft: two vectors per adapted matrix train, around random matrices that all layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from benchmark.strategies.base import Card, Options
from benchmark.strategies.shared.peft_method import PeftMethod, targets_of, task_type, transposed

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel


class VeraOptions(Options):
    """r: rows of the shared matrices, which may be more than those of an adapted one. initial: the start of
    the vector between them. dropout: before them. targets: names of the adapted modules, all of one shape;
    by default peft's choice for the model family."""

    r: Annotated[int, Field(ge=1)] = 256
    initial: Annotated[float, Field(gt=0)] = 0.1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: tuple[str, ...] | None = None


class Vera(PeftMethod):
    """`VeraConfig`. The shared matrices are drawn from the run's seed."""

    card = Card(
        paper="arXiv 2310.11454",
        reference="peft.VeraConfig",
        checked="trainable parameters, outputs and a step equal those of a model wrapped by peft directly",
    )

    Options = VeraOptions

    def config(self, model: PreTrainedModel) -> PeftConfig:
        from peft import VeraConfig

        options: VeraOptions = self.options
        return VeraConfig(
            task_type=task_type(model),
            r=options.r,
            d_initial=options.initial,
            vera_dropout=options.dropout,
            projection_prng_key=self.settings.seed,
            **targets_of(options),
            **transposed(model),
        )
