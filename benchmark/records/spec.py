"""RunSpec: everything that decides one run's outcome, strict and frozen, with the hash that names it.

Where results lie and which machine runs them is not in it. No torch, lightning or mlflow here, so `plan`
stays fast.
"""

import hashlib
import json
import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from benchmark import optimizers
from benchmark.errors import UserError
from benchmark.files import file_stem

Positive = Annotated[int, Field(ge=1)]
OptimizerOption = int | float | bool | tuple[float | None, ...]
SAMPLING = 2
"""Version of how rows are drawn, held out and put in order (benchmark/data). It is part of every hash, so no
run in an older order counts as done."""
TRAINING = frozenset(
    {
        *("optimizer", "optimizer_options", "fused", "lr", "weight_decay", "schedule", "warmup"),
        *("clip", "epochs", "max_steps", "batch_size", "group_by_length", "accumulate"),
        *("select", "eval_every"),
    }
)
"""Fields of RunSpec that a run which trains nothing has no use for."""


class Strict(BaseModel):
    """Frozen; an unknown key, NaN, infinity and `true` where a number belongs are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        given = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, bool) for item in given):
            declared = cls.model_fields[str(info.field_name)].annotation
            if declared is not bool:
                raise ValueError(f"{value!r} is not what belongs here")
        return value


class RunSpec(Strict):
    """One training run and its evaluation; without `lr` the evaluation of the model as it is.

    Fields may be added with a default; a default never changes and no field changes its meaning, because
    the hash leaves out what equals its default: so records stay valid when the schema grows.
    """

    matrix: str
    task: str
    task_version: int
    model: str
    model_revision: str | None = None
    strategy: str
    label: str
    options: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    data: Literal["hub", "mirror", "twin"]
    train_examples: Positive | None = None
    eval_examples: Positive | None = None
    dev_examples: Annotated[int, Field(ge=0)] = 0
    score_on: Literal["eval", "dev", "dev_loss"] = "eval"
    max_length: Annotated[int, Field(ge=4)] = 128
    too_long: Literal["drop", "truncate", "error"] = "drop"
    demonstrations: Annotated[int, Field(ge=0)] = 0

    optimizer: str = "adamw"
    optimizer_options: dict[str, OptimizerOption] = Field(default_factory=dict)
    fused: bool = False
    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    max_steps: Positive | None = None
    batch_size: Positive = 16
    group_by_length: bool = False
    accumulate: Positive = 1
    eval_batch_size: Positive = 64
    precision: Literal["fp32", "bf16", "fp16", "mixed_hi"] = "fp32"
    select: Literal["last", "best", "best_loss"] = "last"
    eval_every: Positive | None = None

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        optimizers.find(name)
        return name

    @model_validator(mode="after")
    def _consistent(self) -> "RunSpec":
        if self.lr is None:
            fields = type(self).model_fields
            for name in sorted(TRAINING):
                if getattr(self, name) != fields[name].get_default(call_default_factory=True):
                    raise ValueError(f"lr: missing, so nothing trains and {name} has no use")
        elif (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give either epochs or max_steps, not both and not neither")
        elif self.demonstrations:
            raise ValueError("demonstrations: stand before prompts of a model that is not trained")
        if self.is_trial and (not self.dev_examples or self.lr is None):
            raise ValueError(
                f"score_on: {self.score_on} needs dev_examples and an lr, which it is the trial of"
            )
        if self.select != "last" and not self.dev_examples:
            raise ValueError(
                f"select: {self.select} needs dev_examples, a slice held out of train to select on"
            )
        try:
            optimizers.check_options(self.optimizer, self.optimizer_options)
        except UserError as error:
            raise ValueError(f"optimizer_options: {error}") from None
        if self.fused and self.optimizer not in optimizers.FUSED:
            has = ", ".join(optimizers.FUSED)
            raise ValueError(f"fused: torch has it for {has}, not for {self.optimizer}")
        return self

    @property
    def hash(self) -> str:
        """12 hex digits over SAMPLING and every field that differs from its default, less the names of the
        cell."""
        content = self.model_dump(exclude={"matrix", "label"}, exclude_defaults=True)
        content["sampling"] = SAMPLING
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def is_trial(self) -> bool:
        """A learning-rate trial: scored on the held-out slice of train, never in a table."""
        return self.score_on != "eval"

    @property
    def run_id(self) -> str:
        """The name of the cell and seed (a file name); a trial's carries its rate as well."""
        parts = [self.task, self.model, self.label, f"s{self.seed}"]
        if self.is_trial:
            parts.append(f"lr{self.lr:g}")
        return file_stem(*parts)

    def steps(self, train_size: int) -> int:
        """Optimizer steps of this run on `train_size` training examples, 0 without `lr`; a partial
        accumulation window at the end of an epoch is a step of its own, as Lightning counts."""
        if self.lr is None:
            return 0
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None
        batches = math.ceil(train_size / self.batch_size)
        return max(1, math.ceil(math.ceil(batches / self.accumulate) * self.epochs))
