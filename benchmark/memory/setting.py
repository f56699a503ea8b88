"""Setting: what a step's peak memory depends on, checked, with a hash that names it."""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from benchmark.errors import UserError, nearest
from benchmark.records.spec import Optimizer, RunSpec
from benchmark.strategies import STRATEGIES, options_of, strategy_class

PRECISIONS = ("fp32", "bf16", "fp16", "mixed", "mixed_hi")
"""bf16 and fp16: autocast over fp32 weights. mixed_hi: bf16 weights, fp32 masters of the active group on the
device. mixed: bf16 weights, all fp32 masters on the device (the paper's Mixed)."""
OPTIMIZERS: tuple[str, ...] = typing.get_args(Optimizer)
ATTENTION = ("eager", "sdpa")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One training step. Raises UserError for a name or number that cannot be.

    model: a name of benchmark.models.shapes, a local folder or a Hub id (its config.json alone is read).
    options: the strategy's own, such as group_size. attention: None is what transformers chooses.
    checkpointing: every block recomputes, as `gradient_checkpointing_enable()` makes it. head: a key of
    benchmark.models.registry.HEADS in place of the architecture that the config names, with `labels` classes.
    """

    model: str
    strategy: str = "hift"
    options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "adamw"
    precision: str = "fp32"
    batch_size: int = 8
    seq_len: int = 512
    attention: str | None = None
    checkpointing: bool = False
    head: str | None = None
    labels: int = 2

    def __post_init__(self) -> None:
        for key, valid in (
            ("strategy", STRATEGIES),
            ("optimizer", OPTIMIZERS),
            ("precision", PRECISIONS),
            ("attention", ATTENTION),
        ):
            value = getattr(self, key)
            if value not in valid and not (key == "attention" and value is None):
                raise UserError(f"unknown {key} {value!r}{nearest(value, valid)}")
        if not strategy_class(self.strategy).trains:
            raise UserError(f"strategy {self.strategy} trains nothing, so it has no step")
        for key, least in (("batch_size", 1), ("seq_len", 2)):
            if getattr(self, key) < least:
                raise UserError(f"{key} must be at least {least}: {getattr(self, key)}")
        try:
            options_of(self.strategy)(**self.options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"strategy {self.strategy}: {where}: {first['msg']}") from None

    def but(self, **changes: Any) -> "Setting":
        """This setting with some fields changed; `group_size` goes to the options."""
        if "group_size" in changes:
            changes["options"] = {**self.options, "group_size": changes.pop("group_size")}
        return dataclasses.replace(self, **changes)

    @property
    def hash(self) -> str:
        """12 hex digits over every field."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def spec(self, **changes: Any) -> RunSpec:
        """The RunSpec that the strategy is made from; task and data stand for none."""
        fields = {
            "strategy": self.strategy,
            "options": dict(self.options),
            "precision": self.precision,
        } | changes
        return RunSpec(
            **{"matrix": "memory", "task": "memory", "task_version": 1, "data": "twin"},
            **{"seed": 0, "lr": 1e-5, "max_steps": 1, "label": self.strategy},
            model=self.model,
            optimizer=self.optimizer,
            batch_size=self.batch_size,
            **fields,
        )
