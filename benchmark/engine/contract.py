"""What optimizers tell about themselves: to other files of the engine, and to those who measure a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from benchmark.engine.groups import Group
from benchmark.engine.plan import Plan
from benchmark.engine.schedule import Position


class Averaging(Protocol):
    """The object that averages the gradients of the active group over ranks (`distributed.Synchroniser`)."""

    pending: bool
    """Whether there are gradients that have not been averaged yet."""

    def remove(self) -> None:
        """Stop averaging."""


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


@dataclass(frozen=True)
class Update:
    """What one optimizer step changes.

    parameters: the tensors it writes to. numel: the numbers that are trained, which are fewer than those of
    `parameters` if a mask or a projection leaves some out. gradient_bytes: the bytes of gradients alive at
    the same time. norms: of the gradients of `parameters`, if these are already freed. rate: the learning
    rate where the step is that times the gradient, as SGD's; None where gradients are scaled otherwise.
    """

    parameters: Sequence[nn.Parameter]
    numel: int
    gradient_bytes: int
    norms: Sequence[torch.Tensor] = ()
    rate: float | None = None


class Reporting(Protocol):
    """An optimizer whose step is not to be read from gradients: it has none, or trains a part of a tensor."""

    def coming_update(self) -> Update:
        """The update of the next `step`, asked after the backward pass."""
