"""The turns of an optimizer that draws its groups, of which a simulation counts one sweep."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from benchmark.engine import Group
from benchmark.memory.training import Training

P = TypeVar("P")


def counted_turns(training: Training, count: Callable[[Group], P]) -> list[P]:
    """What `count` says of each turn's second step, which has state, or of its only step.

    A turn that makes the state of what is always active comes before; if the state of idle groups is kept, as
    many turns as it takes to draw every group. Their gradients come without a forward and backward pass.
    """
    optimizer: Any = training.optimizer
    schedule = optimizer.plan.schedule
    training.backward(training.forward())
    drawn = set(optimizer.active.parameters)
    unreached = {name for name in drawn if optimizer.parameters[name].grad is None}
    optimizer.zero_grad()

    def turn(counted_step: int | None = None) -> list[P]:
        group, found = optimizer.active, []
        for step in range(schedule.dwell):
            if step == counted_step:
                found.append(count(group))
                continue
            if step == 0:
                for name in set(group.parameters) - unreached:
                    parameter = optimizer.parameters[name]
                    parameter.grad = torch.empty_like(parameter)
            training.update()
        return found

    turn()
    while optimizer.keeps_idle_state and len(drawn) < len(optimizer.parameters):
        drawn |= set(optimizer.active.parameters)
        turn()
    last = min(1, schedule.dwell - 1)
    return [counted for _ in range(schedule.turns) for counted in turn(last)]
