"""Training the tensors that lower the loss most under a budget of floating-point operations (GreenTrainer,
arXiv 2309.13192).

An operation of the backward pass belongs to a tensor in two ways: that of its own gradient (dw) is needed if
the tensor trains, and that of passing the gradient on (dy) if it or a tensor below it trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from benchmark.errors import UserError
from benchmark.strategies.rules.closure import run_closure

RESOLUTION = 10_000
"""Units of the backward pass in which costs are counted, rounded up, so that no choice exceeds the budget."""


class FlopBudget(torch.optim.Optimizer):
    """A wrapped optimizer of all tensors, of which only the chosen ones have gradients.

    A choice takes a step on a trial, so that the weights' change and the gradients after it give each
    tensor's importance, -Σ g Δw; then the weights go back. As in the authors' code the trial stays in the
    optimizer's moments.
    """

    def __init__(
        self, model: nn.Module, inner: torch.optim.Optimizer, *, rho: float, every: int
    ) -> None:
        """rho: of the operations of full fine-tuning, forward and backward. every: steps of a choice."""
        self._model, self._inner = model, inner
        self._rho, self._every, self._done = rho, every, 0
        self._named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._chosen = False
        super().__init__(inner.param_groups, inner.defaults)
        self.param_groups, self.state = inner.param_groups, inner.state

    def prepare(self, forward: Callable[[], torch.Tensor]) -> None:
        """Choose tensors on the micro-batch of `forward`, if the coming step is the first of a choice."""
        if not self._chosen:
            self._choose(forward)
            self._chosen = True

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = run_closure(closure)
        self._inner.step()
        self._done += 1
        self._chosen = self._done % self._every != 0
        return result

    def _choose(self, forward: Callable[[], torch.Tensor]) -> None:
        tensors = list(self._named.values())
        for tensor in tensors:
            tensor.requires_grad_(True)
            tensor.grad = None
        with operations(self._model, self._named) as cost:
            loss = forward()
        loss.backward()
        start = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
        self._inner.step()
        for tensor in tensors:
            tensor.grad = None
        forward().backward()
        importance = []
        for tensor, before in zip(tensors, start, strict=True):
            change = tensor.detach() - before.to(tensor.device)
            gradient = tensor.grad
            importance.append(0.0 if gradient is None else -float((gradient * change).sum()))
            tensor.data.copy_(before)
            tensor.grad = None
        everything = cost.forward + sum(cost.dy) + sum(cost.dw)
        budget = self._rho * everything - cost.forward
        chosen = select(importance[::-1], cost.dy[::-1], cost.dw[::-1], budget)[::-1]
        if not any(chosen):
            least = (cost.forward + cost.dy[-1] + cost.dw[-1]) / everything
            raise UserError(
                f"strategy greentrainer: rho {self._rho} leaves no tensor to train; the forward pass and the "
                f"last tensor alone are {least:.2f} of the operations"
            )
        for tensor, trains in zip(tensors, chosen, strict=True):
            tensor.requires_grad_(trains)


class Cost:
    """Operations of a micro-batch: those of the forward pass, and dy and dw of each tensor."""

    def __init__(self, tensors: int) -> None:
        self.forward = 0
        self.dy, self.dw = [0] * tensors, [0] * tensors


@contextmanager
def operations(model: nn.Module, named: dict[str, nn.Parameter]) -> Iterator[Cost]:
    """Context in which forward passes count the operations that belong to each of the `named` tensors.

    A weight that multiplies n positions takes 2 n operations for each of its entries: forward, to pass the
    gradient on, and for its own gradient; an embedding is looked up, and takes n for each column of its
    gradient. Attention scores belong to no tensor and are left out.
    """
    cost = Cost(len(named))
    place = {id(parameter): index for index, parameter in enumerate(named.values())}
    seen: set[int] = set()

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        own = [p for p in module.parameters(recurse=False) if id(p) in place]
        given = next((value for value in inputs if isinstance(value, torch.Tensor)), None)
        if not own or given is None:
            return
        lookup = isinstance(module, nn.Embedding)
        positions = given.numel() if lookup else given.numel() // given.shape[-1]
        for parameter in own:
            index = place[id(parameter)]
            if lookup:
                cost.dw[index] += positions * parameter.shape[-1]
            elif parameter is getattr(module, "bias", None):
                cost.dw[index] += positions * parameter.numel()
            else:
                multiplied = 2 * positions * parameter.numel()
                cost.forward += multiplied
                cost.dw[index] += multiplied
                # a tied output projection passes its gradient on above all other tensors
                cost.dy[-1 if index in seen else index] += multiplied
            seen.add(index)

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        yield cost
    finally:
        for hook in hooks:
            hook.remove()


def select(
    importance: Sequence[float], dy: Sequence[int], dw: Sequence[int], budget: float
) -> list[bool]:
    """The tensors of the greatest total importance whose backward pass fits the budget; none if none fits.

    All tensors are in the order of the backward pass, output first. The cost of a choice is dy of all tensors
    down to the deepest chosen one, and dw of the chosen. Dynamic programming: for each deepest tensor, the
    rest is a knapsack of those above it.
    """
    unit = (sum(dy) + sum(dw)) / RESOLUTION
    size = math.floor(budget / unit) if budget > 0 else -1
    if size < 0:
        return [False] * len(dw)
    cost = [math.ceil(each / unit) for each in dw]
    worth = torch.zeros(
        size + 1, dtype=torch.float64
    )  # of the best choice so far, by units of dw spent
    taken = []  # for each tensor, whether the best choice by units takes it
    best, deepest, left, passed = -math.inf, -1, 0, 0.0
    for index, value in enumerate(importance):
        passed += dy[index]
        rest = size - math.ceil(passed / unit) - cost[index]
        if rest >= 0 and value + float(worth[rest]) > best:
            best, deepest, left = value + float(worth[rest]), index, rest
        with_it = torch.full_like(worth, -math.inf)
        with_it[cost[index] :] = worth[: max(0, size + 1 - cost[index])] + value
        taken.append(with_it > worth)
        worth = torch.maximum(worth, with_it)
    chosen = [False] * len(dw)
    if deepest >= 0:
        chosen[deepest] = True
        for index in reversed(range(deepest)):
            if bool(taken[index][left]):
                chosen[index] = True
                left -= cost[index]
    return chosen
