"""What the files of the engine know of each other's optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from benchmark.engine.groups import Group
from benchmark.engine.plan import Plan
from benchmark.engine.schedule import Position
from benchmark.engine.update import Update


class Averaging(Protocol):
    """The object that averages the gradients of the active group over ranks (`distributed.Synchroniser`)."""

    pending: bool
    """Whether there are gradients that have not been averaged yet."""

    def remove(self) -> None:
        """Stop averaging."""


class Updates(Protocol):
    """When and how the active parameters are updated: after the backward pass, or inside it."""

    takes_scaled: bool
    """Whether a GradScaler leaves scaled gradients to the optimizer."""

    def step(self, scaler: Any) -> bool:
        """The update's part in `step`. Returns False if a GradScaler, whose marks are attributes of `scaler`,
        found an overflow, which changes nothing."""

    def coming_update(self) -> Update:
        """What the next step changes, asked after the backward pass."""

    def remove(self) -> None:
        """Leave nothing behind on the model."""


class Blockwise(Protocol):
    """An optimizer whose groups take turns. parameters: every parameter of its groups, by name."""

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
        """The position of the run before its next step."""

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to resume, by parameter name."""
