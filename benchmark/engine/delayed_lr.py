"""DelayedLR: the delayed learning rate as a torch scheduler.

The rate depends on the optimizer's position, not on the number of calls to the scheduler. A step that
GradScaler skips therefore does not advance it, and extra calls, once per micro-batch or process, do no harm.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from benchmark.engine.contract import Blockwise
from benchmark.engine.schedule import Rate
from benchmark.errors import UserError


class DelayedLR(LRScheduler):
    """Each parameter group's lr = its own initial lr × `rate.factor(steps done)`."""

    optimizer: Any  # torch's Optimizer, and Blockwise

    def __init__(self, optimizer: Optimizer, rate: Rate) -> None:
        self.rate = rate
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """The rates for the step that comes next."""
        blocks: Blockwise = self.optimizer
        factor = self.rate.factor(blocks.position.step)
        return [base * factor for base in self.base_lrs]  # type: ignore[misc]

    def state_dict(self) -> dict[str, Any]:
        """Plain data: the rate's definition and torch's counters."""
        rest = {k: v for k, v in super().state_dict().items() if k != "rate"}
        return {"rate": asdict(self.rate), **rest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises UserError for the state of a schedule with another definition."""
        mine, theirs = asdict(self.rate), state_dict.get("rate", {})
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise UserError(
                    f"learning rate saved with {key} {theirs.get(key)!r}, not {value!r}"
                )
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "rate"})
