"""Schedule: optimizer step -> active groups and learning-rate factor, as pure functions of the step.

Nothing here is mutable, and nothing needs weights or torch. The position of a run is one number, the step, so
a resumed run has the schedule of an uninterrupted one, and the schedule of a run can be printed before it
starts. An order that follows gradients depends on their norms too, which `choose` takes as an argument.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from benchmark.engine.draws import Draw
from benchmark.errors import UserError, nearest

ORDERS = ("bottom2up", "top2down", "random", "reshuffle", "sample", "importance")
MODES = ("paper", "reference")
T = TypeVar("T")


class Position(NamedTuple):
    """The position of a run before its next step. turn: the number of groups done in the sweep."""

    step: int
    sweep: int
    turn: int


@dataclass(frozen=True)
class Schedule:
    """Which of `n_groups` groups each step updates; a sweep visits them once, `dwell` steps each.

    order: bottom2up, top2down, random (shuffled once, then kept: HiFT), reshuffle (a new permutation each
    sweep: BAdam), sample (a group drawn anew each turn), importance (each sweep from the group with the
    largest gradients to the one with the smallest; the first is bottom2up), a sequence of group indices, or a
    `Draw` of several groups that train together. A sweep of draws is the number of turns that train as many
    groups, or weights, as there are.
    smoothing: of the average of gradient norms that an order by importance follows (`turns.Importance`).
    """

    n_groups: int
    order: str | tuple[int, ...] | Draw = "bottom2up"
    seed: int = 0
    dwell: int = 1
    smoothing: float = 0.8

    def __post_init__(self) -> None:
        if isinstance(self.dwell, bool) or not isinstance(self.dwell, int) or self.dwell < 1:
            raise UserError(f"dwell must be a whole number of steps, at least 1: {self.dwell!r}")
        if not 0 <= self.smoothing < 1:
            raise UserError(f"smoothing must be at least 0 and less than 1: {self.smoothing!r}")
        if isinstance(self.order, str):
            check_order(self.order)
            return
        if isinstance(self.order, Draw):
            self.order.check(self.n_groups)
            return
        object.__setattr__(self, "order", tuple(self.order))
        if sorted(set(self.order)) != list(range(self.n_groups)):
            raise UserError(
                f"order must name each of the {self.n_groups} groups 0..{self.n_groups - 1} at least "
                f"once: {list(self.order)}"
            )

    @property
    def turns(self) -> int:
        """Turns in a sweep: n_groups, the length of `order` if it is a sequence, or what its draw says."""
        if isinstance(self.order, Draw):
            return self.order.turns(self.n_groups)
        return self.n_groups if isinstance(self.order, str) else len(self.order)

    @property
    def sweep_steps(self) -> int:
        """Optimizer steps in a sweep."""
        return self.turns * self.dwell

    @property
    def drawn(self) -> bool:
        """Whether each turn is drawn by itself, so that a sweep may leave groups out."""
        return self.order == "sample" or isinstance(self.order, Draw)

    @property
    def follows_gradients(self) -> bool:
        """Whether gradients decide the order, so that it is not known before training."""
        if isinstance(self.order, Draw):
            return self.order.follows_gradients
        return self.order == "importance"

    def position(self, step: int) -> Position:
        """The position of `step` (from 0)."""
        return Position(step, step // self.sweep_steps, step // self.dwell % self.turns)

    def groups_at(self, step: int) -> tuple[int, ...]:
        """Indices of the groups that `step` (from 0) updates. Raises UserError if gradients decide them."""
        if self.follows_gradients:
            raise UserError("gradients decide this order, so it is not known before training")
        _, sweep, turn = self.position(step)
        return self.choose(sweep, turn)

    def choose(
        self, sweep: int, turn: int, importance: Sequence[float] = (), taken: Sequence[int] = ()
    ) -> tuple[int, ...]:
        """Indices of the groups that train in a turn.

        importance: of each group. taken: the groups of the sweep's earlier turns. Only an order that follows
        gradients needs them.
        """
        if isinstance(self.order, Draw):
            dice = random.Random(f"{self.seed}/{sweep}/{turn}")
            return self.order.draw(self.n_groups, dice, importance)
        if not isinstance(self.order, str):
            return (self.order[turn],)
        if self.order == "importance":
            # only active groups have gradients, so the norms of those left are as when the sweep began
            left = [index for index in range(self.n_groups) if index not in taken]
            return (max(left, key=lambda index: importance[index]),)
        if self.order == "sample":
            return (random.Random(f"{self.seed}/{sweep}/{turn}").randrange(self.n_groups),)
        if self.order == "reshuffle":
            return (arrange(range(self.n_groups), "random", f"{self.seed}/{sweep}")[turn],)
        return (arrange(range(self.n_groups), self.order, self.seed)[turn],)

    def plain(self) -> dict[str, Any]:
        """The schedule as plain data, for saved states."""
        order: Any = self.order
        if isinstance(order, Draw):
            order = order.plain()
        elif not isinstance(order, str):
            order = list(order)
        tracked = {"smoothing": self.smoothing} if self.follows_gradients else {}
        return {"order": order, "seed": self.seed, "dwell": self.dwell, **tracked}


def arrange(items: Sequence[T], order: str, seed: int | str) -> list[T]:
    """`items`, which are bottom to top, in `order`; `random` is a shuffle by `seed`."""
    check_order(order)
    if order == "top2down":
        return list(reversed(items))
    queue = list(items)
    if order == "random":
        random.Random(seed).shuffle(queue)
    return queue


def check_order(order: str) -> None:
    """Raise UserError for an unknown order."""
    if order not in ORDERS:
        raise UserError(f'unknown order "{order}"{nearest(order, ORDERS)}')


def _linear(done: int, span: int) -> float:
    return max(0, span - done) / span


def _cosine(done: int, span: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done / span)))


def _constant(done: int, span: int) -> float:
    return 1.0


# name -> factor after `done` of `span` steps or sweeps, bit for bit as in the schedules of transformers
SHAPES: dict[str, Callable[[int, int], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
}


@dataclass(frozen=True)
class Rate:
    """The delayed learning rate: step -> factor of the base rate, constant within a sweep.

    paper (default): factor(step) = shape(sweep, ceil(total_steps / k)), with k steps per sweep, so the
    schedule ends when training does. Warm-up takes ceil(warmup_steps / k) sweeps. It starts above 0, since a
    first sweep at rate 0 would waste k steps.

    reference: the authors' code, shape(step // floor(n/m), total_steps), which hardly decays. Warm-up takes
    warmup_steps sweeps and starts at 0, as in transformers.
    """

    shape: str
    total_steps: int
    sweep_steps: int
    warmup_steps: int = 0
    mode: str = "paper"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UserError(f'unknown schedule "{self.shape}"{nearest(self.shape, SHAPES)}')
        if self.mode not in MODES:
            raise UserError(f'unknown mode "{self.mode}"{nearest(self.mode, MODES)}')
        for key, least in (("total_steps", 1), ("warmup_steps", 0), ("sweep_steps", 1)):
            if getattr(self, key) < least:
                raise UserError(f"{key} must be at least {least}: {getattr(self, key)}")

    def factor(self, step: int) -> float:
        """Factor of the base learning rate for `step` (from 0)."""
        at = step // self.sweep_steps
        if self.mode == "reference":
            total, warmup, lift = self.total_steps, self.warmup_steps, 0
        else:
            total = math.ceil(self.total_steps / self.sweep_steps)
            warmup, lift = math.ceil(self.warmup_steps / self.sweep_steps), 1
        if at < warmup:
            return (at + lift) / (warmup + lift)
        return SHAPES[self.shape](at - warmup, max(1, total - warmup))
