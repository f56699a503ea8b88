"""The closure of `torch.optim.Optimizer.step`, which every update rule here may be given."""

from collections.abc import Callable
from typing import Any

import torch


def run_closure(closure: Callable[[], Any] | None) -> Any:
    """The loss that the closure computes, with gradients on inside a step that has them off; None without
    one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
