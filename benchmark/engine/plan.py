"""Plan: the groups of a run, their schedule and their learning rate, computed without weights.

`HiFT` follows a plan; `hift-bench schedule` prints one; a recipe reads trainable ratios from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.engine.draws import Draw
from benchmark.engine.groups import (
    Group,
    check_group_size,
    make_groups,
    rotating_groups,
    union,
)
from benchmark.engine.schedule import MODES, Rate, Schedule, arrange, check_order
from benchmark.engine.units import Unit
from benchmark.errors import UserError, nearest


@dataclass(frozen=True)
class Plan:
    """Groups and the schedule over them.

    reference_sweep: steps of a sweep in the authors' code, floor(n/m) × dwell; those of the paper's sweep are
    `schedule.sweep_steps`.
    """

    groups: tuple[Group, ...]
    schedule: Schedule
    reference_sweep: int
    always: frozenset[str]  # parameters that are in every group (always_active)
    always_numel: int = 0  # their elements

    def group_at(self, step: int) -> Group:
        """The group that `step` (from 0) updates. Raises UserError if gradients decide the order."""
        return self.together(self.schedule.groups_at(step), step)

    def together(self, chosen: Sequence[int], step: int) -> Group:
        """What `step` updates if it trains the groups `chosen`: one of `groups`, or for a draw their union.

        The index of a union is the number of its turn.
        """
        if not isinstance(self.schedule.order, Draw):
            return self.groups[chosen[0]]
        return union(
            step // self.schedule.dwell, [self.groups[i] for i in chosen], self.always_numel
        )

    def rate(
        self, shape: str = "linear", *, total_steps: int, warmup_steps: int = 0, mode: str = "paper"
    ) -> Rate:
        """The delayed learning rate over this plan; `total_steps` counts optimizer steps."""
        sweep = self.reference_sweep if mode == "reference" else self.schedule.sweep_steps
        return Rate(shape, total_steps, sweep, warmup_steps, mode)


def make_plan(
    units: Sequence[Unit],
    *,
    group_size: int | str = 1,
    order: str | Sequence[int] | Draw = "bottom2up",
    seed: int = 0,
    dwell: int = 1,
    queue: str = "paper",
    always_active: Iterable[str] = (),
    smoothing: float = 0.8,
) -> Plan:
    """Cut `units` into groups and say which is active when.

    queue: "paper" has ceil(n/m) fixed groups, taken in `order`; "reference" orders the units first
    and then takes m at a time from a rotating queue, as the authors' code does. Raises UserError
    for a group size outside 1..n, an unknown order, queue or unit, or dwell < 1.
    """
    always = tuple(always_active)
    if queue not in MODES:
        raise UserError(f'unknown queue "{queue}"{nearest(queue, MODES)}')
    n = sum(unit.name not in always for unit in units)
    size = check_group_size(group_size, n) if n else 1
    if queue == "paper":
        groups = make_groups(units, group_size=group_size, always_active=always)
        over = order if isinstance(order, (str, Draw)) else tuple(order)
        schedule = Schedule(len(groups), over, seed, dwell, smoothing)
    else:
        if not isinstance(order, str):
            raise UserError('queue "reference" takes a named order, not a sequence of groups')
        check_order(order)
        if order == "importance":
            raise UserError('queue "reference" has no order "importance": its units rotate')
        queued = arrange(units, order, seed)
        groups = rotating_groups(queued, group_size=group_size, always_active=always)
        schedule = Schedule(len(groups), dwell=dwell)
    shared = [unit for unit in units if unit.name in always]
    return Plan(
        groups,
        schedule,
        max(1, n // size) * schedule.dwell,
        frozenset(name for unit in shared for name in unit.parameters),
        sum(unit.numel for unit in shared),
    )
