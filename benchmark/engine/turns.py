"""Turns: which group is active now, and how important each group's gradients have been.

Most orders are known before training, and then the step alone says which group is active. An order that
follows gradients is decided turn by turn. What it was decided from is part of the saved state, so that a
resumed run has the turns of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmark.engine.groups import Group
from benchmark.engine.plan import Plan


class Turns:
    """The turns of a plan, one after another."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._follows = plan.schedule.follows_gradients
        self._importance = Importance(len(plan.groups), plan.schedule.smoothing)
        self._taken: list[int] = []
        self.begin(0)

    @property
    def active(self) -> Group:
        """The group that the next step updates."""
        return self._active

    def begin(self, step: int) -> Group:
        """Begin the turn of which `step` is the first. Returns its group."""
        position = self._plan.schedule.position(step)
        if position.turn == 0:
            self._taken = []
        self._chosen = self._plan.schedule.choose(
            position.sweep, position.turn, self._importance.values, self._taken
        )
        self._taken += self._chosen
        self._active = self._plan.together(self._chosen, step)
        return self._active

    def observe(self, norms: Callable[[Sequence[str]], Sequence[torch.Tensor]]) -> None:
        """Take note of the norms of the active groups' gradients, which `norms(names)` are, as fp32 numbers;
        it leaves out parameters without a gradient. Called once a step, and only if gradients decide."""
        if not self._follows:
            return
        groups = [self._plan.groups[index].parameters for index in self._chosen]
        self._importance.observe(
            [norms([n for n in names if n not in self._plan.always]) for names in groups]
        )

    def end(self) -> None:
        """End the turn: its gradients now count."""
        if self._follows:
            self._importance.move(self._chosen)

    def state(self) -> dict[str, Any] | None:
        """What the turns were decided from, as plain data; None if the step alone decides."""
        if not self._follows:
            return None
        return {
            "chosen": list(self._chosen),
            "taken": list(self._taken),
            **self._importance.state(),
        }

    def load(self, step: int, state: Mapping[str, Any] | None) -> Group:
        """Go to `step`, with the `state` that was saved there. Returns the active group."""
        schedule = self._plan.schedule
        if state is None or not self._follows:
            position = schedule.position(step)
            self._chosen = schedule.choose(position.sweep, position.turn)
        else:
            self._chosen, self._taken = tuple(state["chosen"]), list(state["taken"])
            self._importance.load(state)
        self._active = self._plan.together(self._chosen, step)
        return self._active


class Importance:
    """The exponential average of each group's squared gradient norm, which moves when the group's turn ends.

    G ← smoothing · G + (1 - smoothing) · the mean of |g|² over the turn's steps (MISA, arXiv 2511.00056,
    Algorithm 1). It begins at 0.
    """

    def __init__(self, groups: int, smoothing: float) -> None:
        self.values = [0.0] * groups
        self._smoothing = smoothing
        self._sums: torch.Tensor | None = None  # of |g|² in this turn, of each active group
        self._steps = 0

    def observe(self, norms: Sequence[Sequence[torch.Tensor]]) -> None:
        """Add the norms of a step's gradients, a list for each active group."""
        device = next((each[0].device for each in norms if each), None)
        zero = torch.zeros((), device=device)
        squares = torch.stack(
            [torch.stack(list(each)).square().sum() if each else zero for each in norms]
        )
        self._sums = squares if self._sums is None else self._sums.to(device) + squares
        self._steps += 1

    def move(self, chosen: Sequence[int]) -> None:
        """Count the turn's gradients. A sum that is not finite is left out."""
        sums = [] if self._sums is None else [float(total) for total in self._sums]
        for index, total in zip(chosen, sums, strict=bool(sums)):
            if math.isfinite(total):
                mean = total / self._steps
                old = self.values[index]
                self.values[index] = self._smoothing * old + (1 - self._smoothing) * mean
        self._sums, self._steps = None, 0

    def state(self) -> dict[str, Any]:
        """As plain data."""
        sums = None if self._sums is None else [float(total) for total in self._sums]
        return {"importance": list(self.values), "sums": sums, "steps": self._steps}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()`."""
        self.values, self._steps = list(state["importance"]), int(state["steps"])
        self._sums = None if state["sums"] is None else torch.tensor(state["sums"])
