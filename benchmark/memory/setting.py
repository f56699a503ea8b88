"""Setting: everything that the peak memory of a training step depends on, validated and hashed."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.strategies import build, checked_options, strategy_class
from benchmark.strategies.base import TuningStrategy
from benchmark.strategies.compatibility import PRECISIONS
from benchmark.strategies.settings import TrainingSettings

ATTENTION = ("eager", "sdpa")
LOSS = ("whole", "chunked")
LR = 1e-5
"""Any learning rate: no peak depends on it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One training step. Raises UserError for an unknown name or an impossible number.

    model: a name of MODELS, a local folder or a Hub id (its config.json alone is read).
    options: the strategy's own, such as group_size. optimizer_options: as in RunSpec. attention: None for the
    default of transformers. checkpointing: blocks recompute their activations, as in RunSpec; so is loss:
    whole, or chunked for a causal LM without whole logits. head: a key of benchmark.models.facts.HEADS,
    with `labels` classes; None for the architecture that the config names. blocks: only so many of the
    model's lowest blocks are built; None for all.
    """

    model: str
    strategy: str = "hift"
    options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "adamw"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    batch_size: int = 8
    seq_len: int = 512
    attention: str | None = None
    checkpointing: bool = False
    loss: str = "whole"
    head: str | None = None
    labels: int = 2
    blocks: int | None = None

    def __post_init__(self) -> None:
        for key, valid in (
            ("precision", PRECISIONS),
            ("attention", ATTENTION),
            ("loss", LOSS),
        ):
            value = getattr(self, key)
            if value not in valid and not (key == "attention" and value is None):
                raise UserError(f"unknown {key} {value!r}{nearest(value, valid)}")
        if not self.kind.trains:
            raise UserError(f"strategy {self.strategy} trains nothing, so it has no step")
        for key, least in (("batch_size", 1), ("seq_len", 2)):
            if getattr(self, key) < least:
                raise UserError(f"{key} must be at least {least}: {getattr(self, key)}")
        self.built()

    @property
    def kind(self) -> type[TuningStrategy]:
        """The class of the strategy."""
        return strategy_class(self.strategy)

    @property
    def group_size(self) -> int | None:
        """m, the units per group; None for a method without groups of units."""
        size: int | None = getattr(checked_options(self.strategy, self.options), "group_size", None)
        return size

    def built(self) -> TuningStrategy:
        """The strategy. Raises UserError for options or a precision that it does not have."""
        training = TrainingSettings(
            lr=LR,
            optimizer=self.optimizer,
            optimizer_options=self.optimizer_options,
            precision=self.precision,
            checkpointing=self.checkpointing,
        )
        return build(self.strategy, training, self.options)

    def but(self, **changes: Any) -> "Setting":
        """This setting with some fields changed; `group_size` goes to the options."""
        if "group_size" in changes:
            changes["options"] = {**self.options, "group_size": changes.pop("group_size")}
        return dataclasses.replace(self, **changes)

    @property
    def hash(self) -> str:
        """12 hex digits over every field. Those that older records lack are left out at their defaults."""
        fields = dataclasses.asdict(self)
        for name, default in (("optimizer_options", {}), ("loss", "whole"), ("blocks", None)):
            if fields[name] == default:
                del fields[name]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
