"""AdamMini: Adam with one second moment for each block of a parameter (arXiv 2406.16793, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmark.strategies.rules.closure import run_closure


@dataclass(frozen=True)
class Blocks:
    """How a parameter is cut into blocks, along the dimension of its outputs.

    parts: (size, blocks) of each part of that dimension, one after the other; a part is cut into so many
    blocks of equal size.
    """

    outputs: int
    parts: tuple[tuple[int, int], ...]

    def cut(self, value: torch.Tensor) -> list[torch.Tensor]:
        """The parts of `value`, a tensor of the parameter's shape, as views with a dimension of blocks in
        front of the one within a block."""
        parts = value.split([size for size, _ in self.parts], self.outputs)
        return [
            part.unflatten(self.outputs, (blocks, size // blocks))
            for part, (size, blocks) in zip(parts, self.parts, strict=True)
        ]

    def mean(self, part: torch.Tensor) -> torch.Tensor:
        """The mean of each block of a part, with dimensions of 1 for all others."""
        return part.mean([d for d in range(part.ndim) if d != self.outputs], keepdim=True)


class AdamMini(torch.optim.Optimizer):
    """The state is Adam's first moment, and one number a block."""

    def __init__(
        self,
        params: Iterable[Mapping[str, Any]],
        blocks: Mapping[torch.nn.Parameter, Blocks],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        """params: groups of parameters, each with its `weight_decay`. blocks: of every parameter."""
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0}
        super().__init__(params, defaults)  # type: ignore[arg-type]
        self._blocks = blocks

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = run_closure(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return result

    def _update(
        self, parameter: torch.nn.Parameter, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state, blocks = self.state[parameter], self._blocks[parameter]
        first, second = group["betas"]
        parts = blocks.cut(gradient)
        if not state:
            state["step"] = 0
            state["average"] = torch.zeros_like(parameter)
            state["squares"] = [torch.zeros_like(blocks.mean(part)) for part in parts]
        state["step"] += 1
        state["average"].lerp_(gradient, 1 - first)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        correction = math.sqrt(1 - second ** state["step"])
        rate = group["lr"] / (1 - first ** state["step"])
        weights, averages = blocks.cut(parameter), blocks.cut(state["average"])
        for weight, average, part, square in zip(
            weights, averages, parts, state["squares"], strict=True
        ):
            square.mul_(second).add_(blocks.mean(part.square()), alpha=1 - second)
            weight.addcdiv_(average, square.sqrt().div_(correction).add_(group["eps"]), value=-rate)
