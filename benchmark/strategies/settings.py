"""TrainingSettings: what a strategy needs to know of a training besides its own options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark import optimizers


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the optimizer and its learning rate are to be.

    lr: None where nothing trains. optimizer: a name of `benchmark.optimizers`. optimizer_options: its own,
    such as betas, eps and momentum. fused: torch's fused kernel. weight_decay: of matrices alone. schedule:
    linear, cosine or constant, after `warmup` (a share of the steps). precision: fp32; bf16 or fp16, autocast
    over fp32 weights; or bf16 weights with fp32 masters, all on the device (mixed) or those of the active
    group (mixed_hi). seed: of what a strategy draws itself.
    Raises UserError for an unknown optimizer or option of it.
    """

    lr: float | None
    optimizer: str = "adamw"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = False
    weight_decay: float = 0.0
    schedule: str = "linear"
    warmup: float = 0.0
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        optimizers.check_options(self.optimizer, self.optimizer_options)

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """What the optimizer's class is called with, besides parameters and weight decay."""
        fused = {"fused": True} if self.fused else {}
        return {"lr": self.lr, **self.optimizer_options, **fused}

    def warmup_steps(self, total_steps: int) -> int:
        """Optimizer steps of the warm-up, rounded up as transformers does."""
        return -int(-self.warmup * total_steps // 1)
