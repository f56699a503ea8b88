"""What the engine's other parts may know of a block-wise optimizer, so that they need not import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from benchmark.engine.groups import Group
from benchmark.engine.plan import Plan
from benchmark.engine.schedule import Position


class Averaging(Protocol):
    """Whoever averages the gradients of the active group over ranks."""

    pending: bool
    """Whether there are gradients that no average has seen."""

    def remove(self) -> None:
        """Average no more."""


class Blockwise(Protocol):
    """An optimizer whose groups take turns. `parameters`: all scheduled ones by name."""

    parameters: Mapping[str, nn.Parameter]
    plan: Plan
    synchroniser: Averaging | None

    @property
    def groups(self) -> Sequence[Group]:
        """All groups, bottom to top."""

    @property
    def active(self) -> Group:
        """The group whose gradients the next backward produces."""

    @property
    def position(self) -> Position:
        """Where the run stands before its next step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, keyed by parameter name."""
