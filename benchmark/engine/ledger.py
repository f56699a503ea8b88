"""The memory ledger: bytes of weights, gradients, optimizer state and masters, in closed form.

The bytes are exact, and tests compare them with live tensors. With AdamW in fp32, full fine-tuning takes 4·P
and HiFT P + 3·P_max elements on the device, where P_max is the size of the largest group. Activations are not
part of the ledger. Of a matrix whose rows train apart, gradients, state and masters are those of the active
rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from benchmark import rows
from benchmark.engine.plan import Plan
from benchmark.errors import UserError, nearest
from benchmark.optimizers import OPTIMIZERS, Shape

CLOSED = {name: entry.state for name, entry in OPTIMIZERS.items() if entry.state is not None}
"""Optimizers whose state has a closed form."""


@dataclass(frozen=True)
class Bytes:
    """Bytes at one moment. host_*: in host memory (idle="cpu"); all others are on the device."""

    parameters: int
    gradients: int
    optimizer_state: int
    master: int
    host_optimizer_state: int
    host_master: int

    @property
    def device(self) -> int:
        """All bytes on the device."""
        return self.parameters + self.gradients + self.optimizer_state + self.master

    def largest(self, other: Bytes) -> Bytes:
        """The larger value of each field."""
        return Bytes(*(max(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


@dataclass(frozen=True)
class Ledger:
    """Bytes of a run that follows `plan`, step by step.

    shapes: of every parameter, frozen ones too. weight_size: bytes per weight (4 fp32, 2 bf16 or
    fp16). optimizer: a name in CLOSED, with its options. idle, idle_master and master: as in
    BlockwiseOptimizer.
    """

    plan: Plan
    shapes: Mapping[str, Shape]
    optimizer: str = "adamw"
    options: Mapping[str, Any] | None = None
    weight_size: int = 4
    idle: str = "cpu"
    master: str = "none"
    idle_master: str | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in CLOSED:
            raise UserError(
                f'no closed form for "{self.optimizer}"{nearest(self.optimizer, CLOSED)}'
            )

    @classmethod
    def of(cls, model: nn.Module, plan: Plan, **settings: Any) -> Ledger:
        """The ledger of `model`, which may be on the meta device."""
        return cls(plan, {n: tuple(p.shape) for n, p in model.named_parameters()}, **settings)

    def at(self, step: int, moment: str = "backward") -> Bytes:
        """Bytes at `step` (from 0).

        moment: "backward", before the optimizer runs; or "step", after the wrapped optimizer has updated the
        group and before the next group becomes active.
        """
        active = set(self.plan.group_at(step).parameters)
        has_state = active if moment == "step" else active & self._with_state(step)
        idle = self._with_state(step) - active if self.idle in ("keep", "cpu") else set()
        masters = self.master != "none"
        in_step = masters and moment == "step"  # the masters' gradients, in fp32
        parked = set(self._all) - active if self.master == "all" else set()
        device = {
            "parameters": self._numel(self.shapes) * self.weight_size,
            "gradients": self._numel(active) * (4 if in_step else self.weight_size),
            "optimizer_state": self._state(has_state),
            "master": self._numel(active) * 4 if masters else 0,
        }
        # idle or not, all states have the same tables, which are on the device
        entry = OPTIMIZERS[self.optimizer]
        device["optimizer_state"] += entry.table_bytes(self.shapes[n] for n in has_state | idle)
        state, master = self._state(idle), self._numel(parked) * 4
        if self.idle == "keep":
            device["optimizer_state"] += state
            state = 0
        if (self.idle_master or self.idle) == "keep":
            device["master"] += master
            master = 0
        return Bytes(**device, host_optimizer_state=state, host_master=master)

    def whole_gradient(self, step: int) -> int:
        """Bytes of the largest gradient from which `step` cuts its rows. The backward pass holds it, beside
        what `at` says, until they are cut; 0 without rows."""
        names = self.plan.group_at(step).parameters
        whole = {rows.whole(name) for name in names if rows.is_part(name)}
        return max((self._numel([name]) for name in whole), default=0) * self.weight_size

    def peak(self) -> Bytes:
        """The largest value of each field over the second sweep, when every group has its state."""
        sweep = self.plan.schedule.sweep_steps
        moments = [self.at(sweep + i, m) for i in range(sweep) for m in ("backward", "step")]
        top = moments[0]
        for moment in moments[1:]:
            top = top.largest(moment)
        return top

    @property
    def _all(self) -> set[str]:
        return {name for group in self.plan.groups for name in group.parameters}

    def _with_state(self, step: int) -> set[str]:
        """Parameters whose state exists as `step` begins."""
        schedule = self.plan.schedule
        active = set(self.plan.group_at(step).parameters)
        # Adagrad creates its state when the group becomes active
        eager = active if self.optimizer == "adagrad" else set()
        if self.idle in ("drop", "reset"):
            if step % schedule.dwell:
                return active
            before = set(self.plan.group_at(step - 1).parameters) if step else set()
            return eager | (before & (active if self.idle == "drop" else self.plan.always))
        first = 0 if schedule.drawn else max(0, step - 2 * schedule.sweep_steps)
        turns = range(first, step, schedule.dwell)
        return eager.union(*(self.plan.group_at(s).parameters for s in turns))

    def _numel(self, names: Any) -> int:
        return sum(math.prod(rows.shape(name, self.shapes)) for name in names)

    def _state(self, names: set[str]) -> int:
        size = 4 if self.master != "none" else self.weight_size
        state = CLOSED[self.optimizer]
        options = {**OPTIMIZERS[self.optimizer].implied, **(self.options or {})}
        return sum(state(rows.shape(name, self.shapes), size, options) for name in names)
