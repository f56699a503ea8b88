"""Trainables: the weights that train, by name. A name is of a parameter, or of some of its rows (`rows.py`).

Only this class freezes and unfreezes parameters, and only it knows where the rows of a name are.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from torch import nn

from benchmark import rows
from benchmark.engine.hooks import before_gradient, on_gradient


class Trainables:
    """The weights of all groups. parameters: those that have them, by name. names: of all groups, with rows.
    active: the names that train now, in the order in which they became active.

    While a backward pass runs, the gradient of a matrix is as large as the matrix. `Cut` then drops the rows
    that are not active: `.grad` has the active ones, from the lowest to the highest.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], names: Iterable[str]) -> None:
        self.parameters = parameters
        self.names = tuple(names)
        self.active: list[str] = []
        self._parts: dict[str, list[str]] = {}

    @property
    def cut(self) -> list[str]:
        """The names of the parameters whose rows train apart."""
        return list(dict.fromkeys(rows.whole(name) for name in self.names if rows.is_part(name)))

    def parameter(self, name: str) -> nn.Parameter:
        """The parameter that has the weights."""
        return self.parameters[rows.whole(name)]

    def weight(self, name: str) -> torch.Tensor:
        """The weights as they are now: a parameter, or a view of its rows without a graph."""
        parameter = self.parameter(name)
        return rows.of(parameter.detach(), name) if rows.is_part(name) else parameter

    def within(self, parameter: str) -> list[str]:
        """The active names of the weights of a parameter, from its lowest row to its highest."""
        return self._parts.get(parameter, [])

    def switch(self, leaving: Iterable[str], arriving: Iterable[str]) -> None:
        """Freeze `leaving` and unfreeze `arriving`, and forget the gradients of both."""
        gone, come = set(leaving), list(arriving)
        for name in (*gone, *come):
            self.parameter(name).requires_grad_(False)
            self.parameter(name).grad = None
        self.active = [name for name in self.active if name not in gone] + come
        self._parts = {}
        for name in self.active:  # where rows leave, others of the same matrix may stay
            self._parts.setdefault(rows.whole(name), []).append(name)
            self.parameter(name).requires_grad_(True)
        for names in self._parts.values():
            names.sort(key=rows.first)

    def gradient(self, name: str) -> torch.Tensor | None:
        """The gradient of active weights; for rows a view of it."""
        gradient = self.parameter(name).grad
        if gradient is None or not rows.is_part(name):
            return gradient
        if len(gradient) == len(self.parameter(name)):  # nothing was cut off
            return rows.of(gradient, name)
        below = [n for n in self.within(rows.whole(name)) if rows.first(n) < rows.first(name)]
        start = sum(map(rows.count, below))
        return gradient[start : start + rows.count(name)]

    def take_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, gradient) of the active weights that have one. A parameter's gradient is freed with the last
        of its names."""
        left = Counter(map(rows.whole, self.active))
        for name in self.active:
            gradient, parameter = self.gradient(name), rows.whole(name)
            left[parameter] -= 1
            if not left[parameter]:
                self.parameters[parameter].grad = None
            if gradient is not None:
                yield name, gradient


class Cut:
    """Cuts the gradients of matrices to their active rows, as soon as a backward pass has made them.

    So clipping by the norm, and whoever else reads the gradients of a model's parameters, finds the numbers
    that the step uses. A matrix of n numbers takes n more of its dtype while its gradient is made.
    """

    def __init__(self, trained: Trainables) -> None:
        self._trained = trained
        self._sums: dict[str, torch.Tensor] = {}  # of earlier micro-batches, while one is added
        this = weakref.ref(self)  # the hooks, which the model owns, do not keep the optimizer alive

        def before(name: str, gradient: torch.Tensor) -> None:
            cut = this()
            if cut is not None:
                cut._set_aside(name)

        def after(name: str, parameter: torch.Tensor) -> None:
            cut = this()
            if cut is not None:
                cut._cut(name)

        self._hooks = []
        for name in trained.cut:
            parameter = trained.parameters[name]
            self._hooks.append(before_gradient(parameter, partial(before, name)))
            self._hooks.append(on_gradient(parameter, partial(after, name)))

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _set_aside(self, name: str) -> None:
        """Autograd adds gradients of the same shape only."""
        parameter = self._trained.parameters[name]
        if parameter.grad is not None:
            self._sums[name], parameter.grad = parameter.grad, None

    @torch.no_grad()
    def _cut(self, name: str) -> None:
        parameter, names = self._trained.parameters[name], self._trained.within(name)
        gradient = parameter.grad
        assert gradient is not None
        kept = gradient
        if sum(map(rows.count, names)) < len(gradient):
            kept = torch.cat([rows.of(gradient, part) for part in names])
        if name in self._sums:
            kept = self._sums.pop(name).add_(kept)
        set_gradient(parameter, kept)


def set_gradient(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    """Make `gradient` that of the parameter, of whose rows it may have fewer."""
    parameter.grad = (
        parameter.detach()
    )  # torch takes one of the same shape only, but lets its data change
    parameter.grad.data = gradient
