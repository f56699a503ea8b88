"""The turns of an optimizer that draws its groups, of which a simulation counts one sweep."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from benchmark import rows
from benchmark.engine import Group
from benchmark.memory.training import Training

P = TypeVar("P")
LONGEST = 1000
"""A turn of more steps is taken for the whole run, as HFT's is unless a length is given."""


def counted_turns(training: Training, count: Callable[[Group], P]) -> list[P]:
    """What `count` says of each turn's second step, which has state, or of its only step.

    If the state of idle groups is kept, as many turns come before as it takes to draw every group; with turns
    of one step, one turn that makes the state of what is always active. Gradients that are not counted come
    without a forward and backward pass.
    """
    optimizer: Any = training.optimizer
    schedule = optimizer.plan.schedule
    training.backward(training.forward())
    active = optimizer.active.parameters
    unreached = {n for n in active if optimizer.parameters[rows.whole(n)].grad is None}
    optimizer.zero_grad()

    def update(group: Group | None = None) -> None:
        names = set(group.parameters) - unreached if group else ()
        for parameter in {optimizer.parameters[rows.whole(name)] for name in names}:
            parameter.grad = torch.empty_like(parameter)
        training.update()

    def finish(steps_left: int) -> None:
        for _ in range(steps_left):
            update()

    drawn: set[str] = set()
    trained = {name for group in optimizer.groups for name in group.parameters}
    while (optimizer.keeps_idle_state and drawn < trained) or (schedule.dwell == 1 and not drawn):
        drawn |= set(optimizer.active.parameters)
        update(optimizer.active)
        finish(schedule.dwell - 1)
    found: list[P] = []
    before = min(1, schedule.dwell - 1)
    while len(found) < schedule.turns:
        group = optimizer.active
        if before:
            update(group)
        found.append(count(group))
        if schedule.dwell > LONGEST:
            break
        finish(schedule.dwell - before - 1)
    return found
