"""Updates inside the backward pass: a parameter is updated as soon as its gradient is whole.

The gradient is freed at once, so no two of them exist at the same time. There is no step that waits for all
gradients, so they cannot accumulate, and no norm of all of them can clip them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from benchmark.engine.update import Update


class InBackward(torch.optim.Optimizer):
    """Base class; a rule is a subclass with `update`. `step` ends the step, it changes no weight."""

    plain = False
    """Whether the step is the learning rate times the gradient."""

    def __init__(
        self,
        params: Iterable[Mapping[str, Any]],
        *,
        lr: float,
        clip_value: float | None = None,
    ) -> None:
        """params: groups of parameters, each with its `weight_decay`. clip_value: the largest absolute value
        of an entry of a gradient; larger ones are cut to it."""
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})  # type: ignore[arg-type]
        self._clip_value = clip_value
        self._updated: list[torch.nn.Parameter] = []  # in the backward pass since the last step
        self._norms: list[torch.Tensor] = []
        self._largest = 0  # bytes of a gradient
        for index, group in enumerate(self.param_groups):
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, index=index: self._on_gradient(p, self.param_groups[index])
                )

    def update(
        self, parameter: torch.nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        """Update `parameter` in place; `gradient` may be overwritten."""
        raise NotImplementedError

    @torch.no_grad()
    def _on_gradient(self, parameter: torch.nn.Parameter, group: dict[str, Any]) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        self._updated.append(parameter)
        self._norms.append(torch.linalg.vector_norm(gradient, dtype=torch.float32))
        self._largest = max(self._largest, gradient.nbytes)
        if self._clip_value is not None:
            gradient.clamp_(-self._clip_value, self._clip_value)
        self.update(parameter, gradient, group)

    def coming_update(self) -> Update:
        """What the backward pass since the last step updated."""
        numel = sum(p.numel() for p in self._updated)
        rate = max(group["lr"] for group in self.param_groups) if self.plain else None
        return Update(self._updated, numel, self._largest, self._norms, rate)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None if closure is None else closure()
        self._updated, self._norms, self._largest = [], [], 0
        return result


class Lomo(InBackward):
    """SGD inside the backward pass (arXiv 2306.09782): θ ← θ - lr (g + weight_decay θ)."""

    plain = True

    def update(
        self, parameter: torch.nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(gradient, alpha=-group["lr"])


class AdaLomo(InBackward):
    """LOMO with Adafactor's second moments and relative step sizes (arXiv 2310.10195, Algorithm 1).

    The state of a matrix is a row and a column of fp32 moments, that of a vector one moment per entry. The
    update is normalised to a root mean square of at most 1, then scaled by that of the parameter.
    """

    DECAY = 0.8  # β_t = 1 - t^-0.8
    TINY = 1e-30  # added to squared gradients
    LEAST = 1e-3  # the least root mean square of a parameter

    def update(
        self, parameter: torch.nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[parameter]
        state["step"] = state.get("step", 0) + 1
        beta = 1 - state["step"] ** -self.DECAY
        gradient = gradient.float()
        change = self._normalised(state, gradient, beta).mul_(gradient)
        change.div_(_rms(change).clamp_(min=1))
        rate = group["lr"] * _rms(parameter.float()).clamp_(min=self.LEAST)
        if group["weight_decay"]:
            parameter.mul_(1 - rate * group["weight_decay"])
        parameter.sub_(change.mul_(rate))

    def _normalised(
        self, state: dict[str, Any], gradient: torch.Tensor, beta: float
    ) -> torch.Tensor:
        """Update the second moments. Returns the inverse of their root, in the shape of `gradient`."""
        square = gradient.square().add_(self.TINY)
        if gradient.ndim < 2:
            _average(state, "square", square, beta)
            root: torch.Tensor = state["square"].rsqrt()
            return root
        _average(state, "row", square.mean(-1), beta)
        _average(state, "column", square.mean(-2), beta)
        rows = state["row"] / state["row"].mean(-1, keepdim=True)
        return rows.rsqrt_().unsqueeze(-1) * state["column"].rsqrt().unsqueeze(-2)


def _average(state: dict[str, Any], name: str, value: torch.Tensor, beta: float) -> None:
    """state[name] ← beta state[name] + (1 - beta) value, from zero."""
    if name not in state:
        state[name] = torch.zeros_like(value)
    state[name].mul_(beta).add_(value, alpha=1 - beta)


def _rms(value: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(value) / math.sqrt(value.numel())
