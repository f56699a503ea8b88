"""Update: what one optimizer step changes, as those who measure a step ask it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from benchmark.engine.sharded import local


@dataclass(frozen=True)
class Update:
    """What one optimizer step changes.

    parameters: the tensors it writes to. numel: the numbers that are trained, which are fewer than those of
    `parameters` if a mask or a projection leaves some out. gradient_bytes: the bytes of gradients alive at
    the same time in this process. norms: of the gradients of `parameters`, if these are already freed. rate:
    the learning rate where the step is that times the gradient, as SGD's; None where gradients are scaled
    otherwise. rows: of each of `parameters` the first row that trains and the one after the last, where not
    all do.
    """

    parameters: Sequence[nn.Parameter]
    numel: int
    gradient_bytes: int
    norms: Sequence[torch.Tensor] = ()
    rate: float | None = None
    rows: Sequence[tuple[int, int] | None] = ()


@runtime_checkable
class Reporting(Protocol):
    """An optimizer whose step is not to be read from gradients: it has none, or trains a part of a tensor."""

    def coming_update(self) -> Update:
        """The update of the next `step`, asked after the backward pass."""


def coming_update(model: nn.Module, optimizer: torch.optim.Optimizer) -> Update:
    """What the next step changes, asked after the backward pass: what a Reporting optimizer says, or else all
    parameters of `model` that have a gradient."""
    if isinstance(optimizer, Reporting):
        return optimizer.coming_update()
    return of_gradients(model.parameters(), optimizer)


def of_gradients(parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer) -> Update:
    """The update of those of `parameters` that have a gradient."""
    gradients = [(p, p.grad) for p in parameters if p.grad is not None]
    return Update(
        [p for p, _ in gradients],
        sum(p.numel() for p, _ in gradients),
        sum(local(gradient).nbytes for _, gradient in gradients),
        rate=plain_rate(optimizer),
    )


def plain_rate(optimizer: torch.optim.Optimizer) -> float | None:
    """The largest learning rate of an optimizer whose step is that times the gradient; None for others."""
    plain = isinstance(optimizer, torch.optim.SGD)
    return max(float(group["lr"]) for group in optimizer.param_groups) if plain else None


def norms(gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The norm of each gradient, of one dtype: in fp32, or in fp64 if they are."""
    if not gradients:
        return []
    dtype = torch.promote_types(gradients[0].dtype, torch.float32)
    return list(torch._foreach_norm(list(gradients), 2, dtype=dtype))
