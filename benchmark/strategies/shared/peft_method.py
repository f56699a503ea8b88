"""PeftMethod: the base class of the methods that wrap the model with peft."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError, nearest
from benchmark.strategies.base import TuningStrategy

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

    from benchmark.models.layers import Layers


class PeftMethod(TuningStrategy):
    """The base model is frozen; the parameters that peft adds train, and so does a new head, which peft finds
    by the task type."""

    def config(self, model: PreTrainedModel) -> PeftConfig:
        """peft's configuration of the method for this model."""
        raise NotImplementedError

    def check_layers(self, layers: Layers) -> None:
        targets = getattr(self.options, "targets", None) or ()
        if targets and all(map(layers.lack, targets)):
            close = nearest(targets[0], layers.names)
            raise self.refusal(f"the model has no layer with such a name{close}")

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        from peft import get_peft_model

        try:
            with warnings.catch_warnings():
                # peft 0.21 uses a deprecated name of transformers, and warns of a value that it corrects
                warnings.simplefilter("ignore")
                wrapped: Any = get_peft_model(model, self.config(model))
        except (ValueError, TypeError) as error:
            raise self.refusal(str(error).splitlines()[0]) from None
        self.check_wrapped(wrapped)
        return wrapped  # a PeftModel, which forwards all attributes of a PreTrainedModel

    def check_wrapped(self, model: Any) -> None:
        """Raises UserError for options that do not fit the shapes of the wrapped model's layers."""

    def refusal(self, reason: str) -> UserError:
        """The error for a model that the options do not fit; it names the targets where they can be set."""
        if "targets" not in type(self.options).model_fields:
            return UserError(f"strategy {self.name}: {reason}")
        targets = ", ".join(self.options.targets or ()) or "by default"
        return UserError(f"strategy {self.name}: targets: {targets}: {reason}")


def targets_of(options: Any) -> dict[str, Any]:
    """peft's argument for the option `targets`; None lets peft choose by the model family."""
    return {"target_modules": list(options.targets) if options.targets else None}


def transposed(model: PreTrainedModel) -> dict[str, Any]:
    """peft's argument that says whether projections are transposed (GPT-2's Conv1D); else it warns."""
    from transformers.pytorch_utils import Conv1D

    return {"fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.modules())}


def task_type(model: PreTrainedModel) -> str | None:
    """peft's task type for the model's head; None for a masked LM, whose head is pretrained and stays
    frozen."""
    if hasattr(model, "qa_outputs"):
        return "QUESTION_ANS"
    if hasattr(model, "num_labels"):
        return "SEQ_CLS"
    return "CAUSAL_LM" if model.can_generate() else None
