"""RunSpec: every setting that decides the outcome of one run, frozen and strictly checked, and its hash.

The results folder and the machine are not part of it. This file imports no torch, lightning or mlflow, so
that `hift-bench plan` starts fast.
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

LARGEST = 2**31 - 1
"""The largest count that a setting may be."""
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
OptimizerOption = int | float | bool | tuple[float | None, ...]
SAMPLING = 2
"""Version of the code that samples, holds out and orders rows (benchmark/data). It is part of every hash, so
a run that used an older version does not count as done."""
TRAINING = frozenset(
    {
        *("optimizer", "optimizer_options", "fused", "lr", "weight_decay", "schedule", "warmup"),
        *("clip", "epochs", "max_steps", "batch_size", "group_by_length", "accumulate"),
        *("checkpointing", "loss", "select", "eval_every", "checkpoint_every", "keep"),
        *("devices", "sharded"),
    }
)
"""Fields of RunSpec that only training uses. A spec without `lr` must leave them at their defaults."""
CHANGES_NOTHING = frozenset({"matrix", "label", "task_file", "checkpoint_every", "keep"})
"""Fields of RunSpec that change no number of the run, and so are not part of its hash."""


class Strict(BaseModel):
    """A frozen model. Unknown keys, NaN, infinity, and booleans in fields that are not boolean are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        items = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(item, bool) for item in items):
            annotation = cls.model_fields[str(info.field_name)].annotation
            if annotation is not bool:
                raise ValueError(f"{value!r}: a boolean is not allowed here")
        return value


class RunSpec(Strict):
    """One training run and its evaluation. Without `lr` nothing trains: the model is evaluated as loaded.

    `task_file`: the YAML of a task of the user's own (`tasks.own`). `task_digest`: a hash of that task and of
    its files of rows, which `data: files` stands for. `keep`: whether the trained model is saved, as it is at
    the last step or as `select` chooses it.

    A new field must have a default. No default and no meaning of a field ever changes. The hash leaves out
    fields that equal their default, so existing records stay valid when fields are added.

    checkpoint_every: how often a training is saved, so that a run that is broken off goes on from there: a
    number of steps, minutes of training as `10min`, or `never`.
    devices: how many train together, GPUs of one machine or processes on its CPU; each has a part of every
    batch.
    sharded: the devices divide weights, gradients and optimizer state among them (FSDP2); otherwise each has
    them whole.
    """

    matrix: str
    task: str
    task_version: int
    task_file: str | None = None
    task_digest: str | None = None
    model: str
    model_revision: str | None = None
    strategy: str
    label: str
    options: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    data: Literal["hub", "mirror", "twin", "files"]
    train_examples: Positive | None = None
    eval_examples: Positive | None = None
    dev_examples: Count = 0
    score_on: Literal["eval", "dev", "dev_loss"] = "eval"
    max_length: Annotated[int, Field(ge=4, le=LARGEST)] = 128
    too_long: Literal["drop", "truncate", "error"] = "drop"
    demonstrations: Count = 0

    optimizer: str = "adamw"
    optimizer_options: dict[str, OptimizerOption] = Field(default_factory=dict)
    fused: bool = False
    lr: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = None
    max_steps: Positive | None = None
    batch_size: Positive = 16
    group_by_length: bool = False
    accumulate: Positive = 1
    checkpointing: bool = False
    loss: Literal["whole", "chunked"] = "whole"
    eval_batch_size: Positive = 64
    precision: Literal["fp32", "bf16", "fp16", "bf16_weights", "mixed", "mixed_hi"] = "fp32"
    select: Literal["last", "best", "best_loss"] = "last"
    eval_every: Positive | None = None
    keep: Literal["none", "last", "best"] = "none"
    checkpoint_every: Positive | Annotated[str, Field(pattern=r"^([1-9]\d*min|never)$")] = "10min"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    sharded: bool = False

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
                    raise ValueError(f"lr: missing, so nothing trains and {name} is not used")
        elif (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give exactly one of epochs and max_steps")
        elif self.demonstrations:
            raise ValueError("demonstrations: only for evaluation without training (no lr)")
        if self.is_trial and (not self.dev_examples or self.lr is None):
            raise ValueError(f"score_on: {self.score_on} requires dev_examples and lr")
        if self.devices > self.batch_size:
            raise ValueError(
                f"devices: {self.devices} are more than the {self.batch_size} examples of a batch"
            )
        if self.sharded and self.devices == 1:
            raise ValueError("sharded: the model is divided over devices: give devices: 2 or more")
        if self.sharded and self.loss == "chunked":
            raise ValueError(
                "sharded: with loss: chunked the output layer is used apart from the model, which alone "
                "gathers its weights: use loss: whole"
            )
        if self.select != "last" and not self.dev_examples:
            raise ValueError(
                f"select: {self.select} requires dev_examples (rows held out of the training set)"
            )
        if self.keep != "none" and (self.keep == "last") != (self.select == "last"):
            needs = "best or best_loss" if self.keep == "best" else "last"
            raise ValueError(
                f"keep: {self.keep} requires select: {needs}, as what is kept is what is scored"
            )
        try:
            optimizers.check_options(self.optimizer, self.optimizer_options)
        except UserError as error:
            raise ValueError(f"optimizer_options: {error}") from None
        if self.fused and self.optimizer not in optimizers.FUSED:
            have = ", ".join(optimizers.FUSED)
            raise ValueError(
                f"fused: torch has a fused kernel for {have}, not for {self.optimizer}"
            )
        return self

    @property
    def hash(self) -> str:
        """The first 12 hex digits of the SHA-256 of SAMPLING and every field that differs from its default,
        without CHANGES_NOTHING."""
        content = self.model_dump(exclude=set(CHANGES_NOTHING), exclude_defaults=True)
        content["sampling"] = SAMPLING
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def is_trial(self) -> bool:
        """Whether this is a learning-rate trial: scored on rows held out of train, never shown in a table."""
        return self.score_on != "eval"

    @property
    def run_id(self) -> str:
        """A file name made of task, model, label and seed, and for a trial its learning rate."""
        parts = [self.task, self.model, self.label, f"s{self.seed}"]
        if self.is_trial:
            parts.append(f"lr{self.lr:g}")
        return file_stem(*parts)

    @property
    def stem(self) -> str:
        """The file name, without suffix, of the run's curve, predictions and unfinished state.

        It includes the hash, because specs that differ in other settings can have the same run id.
        """
        return f"{self.run_id}.{self.hash}"

    def steps(self, train_size: int) -> int:
        """Number of optimizer steps on `train_size` training examples; 0 without `lr`.

        Incomplete gradient accumulation at the end of an epoch counts as a step, as in Lightning.
        """
        if self.lr is None:
            return 0
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None
        batches = math.ceil(train_size / self.batch_size)
        return max(1, math.ceil(math.ceil(batches / self.accumulate) * self.epochs))
