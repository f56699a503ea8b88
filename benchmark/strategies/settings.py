"""TrainingSettings: the settings of a training that every strategy takes, besides its own options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from benchmark import optimizers

if TYPE_CHECKING:
    from benchmark.records.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Optimizer, learning rate and precision.

    lr: the peak learning rate; None for a strategy that trains nothing. optimizer: a name of
    `benchmark.optimizers`. optimizer_options: its options, such as betas, eps and momentum. fused: use
    torch's fused kernel. weight_decay: of matrices only, not of norms and biases. warmup: the share of the
    steps in which the rate rises from 0. schedule: its shape afterwards, linear, cosine or constant.
    precision: fp32; bf16 or fp16, which are autocast over fp32 weights; bf16_weights, which is bf16 weights
    without fp32 masters (see `TuningStrategy.prepared`); mixed, which is bf16 weights with all fp32 masters
    on the device; mixed_hi, with the masters of the active group alone on the device.
    accumulate: micro-batches of one optimizer step. clip: the largest norm of all gradients together, or
    None. checkpointing: blocks recompute their activations in the backward pass. The loop does these three,
    but for a strategy that `recomputes`; others only say whether they work with them. devices: how many train
    together, with the gradients averaged by the loop. sharded: the loop divides the prepared model over them
    before the strategy builds its optimizer. seed: of the strategy's random choices.

    Raises UserError for an unknown optimizer, and for an option that it does not have.
    """

    lr: float | None
    optimizer: str = "adamw"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = False
    weight_decay: float = 0.0
    schedule: str = "linear"
    warmup: float = 0.0
    precision: str = "fp32"
    accumulate: int = 1
    clip: float | None = None
    checkpointing: bool = False
    devices: int = 1
    sharded: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        optimizers.check_options(self.optimizer, self.optimizer_options)

    @classmethod
    def of(cls, spec: RunSpec) -> TrainingSettings:
        """The settings of a run: those fields of its spec that strategies read."""
        return cls(**{f.name: getattr(spec, f.name) for f in fields(cls)})

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """The arguments of the optimizer class, other than parameters and weight decay."""
        fused = {"fused": True} if self.fused else {}
        return {"lr": self.lr, **self.optimizer_options, **fused}

    def warmup_steps(self, total_steps: int) -> int:
        """Optimizer steps of the warm-up out of `total_steps`, rounded up as in transformers."""
        return -int(-self.warmup * total_steps // 1)
