"""Draws: which groups train together in a turn, where chance decides and not a queue.

A draw is a pure function of its dice and of the importance of the groups. The dice are made anew for each
turn, from the seed and the position, so a draw has no state of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from benchmark.errors import UserError


@dataclass(frozen=True)
class Draw:
    """The base class. Each turn draws some of the groups 0..n-1, and trains them together."""

    follows_gradients: ClassVar[bool] = False
    """Whether the importance of the groups, which training tells, changes what is drawn."""

    def check(self, n: int) -> None:
        """Raises UserError if the draw cannot be made from `n` groups."""

    def turns(self, n: int) -> int:
        """How many turns of this draw train as much as one turn of each group would."""
        raise NotImplementedError

    def draw(self, n: int, dice: random.Random, importance: Sequence[float]) -> tuple[int, ...]:
        """The groups of a turn, bottom to top. importance: that of each group."""
        raise NotImplementedError

    def plain(self) -> dict[str, Any]:
        """The draw as plain data, for saved states."""
        return {"draw": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Uniform(Draw):
    """`count` different groups, all equally likely (LISA, arXiv 2403.17919)."""

    count: int

    def check(self, n: int) -> None:
        if not 1 <= self.count <= n:
            raise UserError(f"{self.count} groups cannot be drawn from {n}")

    def turns(self, n: int) -> int:
        return math.ceil(n / self.count)

    def draw(self, n: int, dice: random.Random, importance: Sequence[float]) -> tuple[int, ...]:
        return tuple(sorted(dice.sample(range(n), self.count)))


@dataclass(frozen=True)
class Halves(Draw):
    """Half of each category (HFT, arXiv 2404.18466, section 2.3).

    kinds: for each kind of category, such as the attention matrices, one category per layer; a category is
    the indices of its groups. Where a category has an odd number of groups, half of the layers train the
    larger half and the other layers the smaller half.
    """

    kinds: tuple[tuple[tuple[int, ...], ...], ...]

    def check(self, n: int) -> None:
        if sorted(self._groups()) != list(range(n)):
            raise UserError(f"the categories must hold each of the groups 0..{n - 1} once")

    def turns(self, n: int) -> int:
        return 2

    def draw(self, n: int, dice: random.Random, importance: Sequence[float]) -> tuple[int, ...]:
        drawn: list[int] = []
        for categories in self.kinds:
            odd = [i for i, groups in enumerate(categories) if len(groups) % 2]
            larger = set(dice.sample(odd, math.ceil(len(odd) / 2)))
            for i, groups in enumerate(categories):
                drawn += dice.sample(groups, len(groups) // 2 + (i in larger))
        return tuple(sorted(drawn))

    def _groups(self) -> list[int]:
        return [i for categories in self.kinds for groups in categories for i in groups]


@dataclass(frozen=True)
class ByImportance(Draw):
    """Groups drawn with probability softmax(eta · importance), until a budget is used up (MISA, arXiv
    2511.00056, Algorithm 1).

    sizes: parameter elements of each group. budget: the most elements that train together. Groups are drawn
    one after another without replacement; one that is larger than what is left of the budget is passed over.
    eta = 0 makes all groups equally likely.
    """

    sizes: tuple[int, ...]
    budget: int
    eta: float
    follows_gradients: ClassVar[bool] = True

    def check(self, n: int) -> None:
        if len(self.sizes) != n:
            raise UserError(f"{len(self.sizes)} sizes for {n} groups")
        if max(self.sizes) > self.budget:
            raise UserError(
                f"a group of {max(self.sizes)} numbers can never be drawn with a budget of {self.budget}"
            )

    def turns(self, n: int) -> int:
        return math.ceil(sum(self.sizes) / self.budget)

    def probabilities(self, importance: Sequence[float]) -> list[float]:
        """The probability of each group to be drawn first."""
        top = max(importance)  # the softmax of shifted values is the same, and cannot overflow
        weights = [math.exp(self.eta * (value - top)) for value in importance]
        return [weight / sum(weights) for weight in weights]

    def draw(self, n: int, dice: random.Random, importance: Sequence[float]) -> tuple[int, ...]:
        left, weights = list(range(n)), self.probabilities(importance)
        drawn, budget = [], self.budget
        while left:
            # weights that are all zero, as of groups far below the most important, are equally likely
            place = dice.choices(range(len(left)), weights if sum(weights) else None)[0]
            group = left.pop(place)
            weights.pop(place)
            if self.sizes[group] <= budget:
                drawn.append(group)
                budget -= self.sizes[group]
        return tuple(sorted(drawn))
