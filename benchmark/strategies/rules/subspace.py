"""Training inside a random subspace: θ = θ₀ + P z, where z has few numbers and P is never stored.

P has one block of rows for each tensor, a Fastfood transform drawn anew from its seed wherever it is needed:
P_i z = s H G Π H B z, with H the Walsh-Hadamard matrix, B random signs, Π a permutation and G Gaussian (arXiv
1804.08838, section S7). s makes the columns of P_i unit vectors on average.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmark.engine.update import Update
from benchmark.engine.wrapped import over
from benchmark.strategies.rules.closure import run_closure


class Subspace(torch.optim.Optimizer):
    """A wrapped optimizer trains z; the weights follow it.

    The gradient of a tensor is projected onto z as soon as it is whole, and freed, so no two exist at the
    same time. z and its optimizer state are all that is kept.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        optimizer: str | type[torch.optim.Optimizer],
        *,
        dimension: int,
        seed: int,
        **options: Any,
    ) -> None:
        """dimension: of z. options: of the wrapped optimizer."""
        self._parameters, self._seed = list(parameters), seed
        self.z = torch.zeros(dimension, device=self._parameters[0].device)
        self.wrapped = over([self.z], optimizer, **options)
        super().__init__(self.wrapped.param_groups, self.wrapped.defaults)
        self.param_groups, self.state = self.wrapped.param_groups, self.wrapped.state
        self._seen: list[torch.nn.Parameter] = []  # in the backward passes since the last step
        self._norms: list[torch.Tensor] = []
        self._largest = 0  # bytes of a gradient
        for index, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(
                lambda p, index=index: self._on_gradient(p, index)
            )

    @torch.no_grad()
    def _on_gradient(self, parameter: torch.nn.Parameter, index: int) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        self._seen.append(parameter)
        self._norms.append(torch.linalg.vector_norm(gradient, dtype=torch.float32))
        self._largest = max(self._largest, gradient.nbytes)
        share = project_back(gradient.flatten(), len(self.z), self._seed + index)
        self.z.grad = share if self.z.grad is None else self.z.grad + share

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move z, and the weights by the projection of its change."""
        result = run_closure(closure)
        before = self.z.clone()
        self.wrapped.step()
        change = self.z - before
        for index, parameter in enumerate(self._parameters):
            moved = project(change, parameter.numel(), self._seed + index)
            parameter.add_(moved.view_as(parameter))
        self._seen, self._norms, self._largest = [], [], 0
        return result

    def coming_update(self) -> Update:
        """All tensors that had a gradient, by as many numbers as z has."""
        seen = {id(p): (p, norm) for p, norm in zip(self._seen, self._norms, strict=True)}
        parameters, norms = [p for p, _ in seen.values()], [norm for _, norm in seen.values()]
        return Update(parameters, len(self.z), self._largest + self.z.nbytes, norms)

    def device_tensors(self) -> list[torch.Tensor]:
        """z and its optimizer state."""
        state = [v for each in self.state.values() for v in each.values()]
        return [self.z, *(value for value in state if isinstance(value, torch.Tensor))]


def project(z: torch.Tensor, numel: int, seed: int) -> torch.Tensor:
    """P z: the direction in the weights, `numel` numbers, of a direction in the subspace."""
    signs, order, gauss, scale = _fastfood(len(z), numel, seed, z.device)
    wide = torch.zeros_like(gauss)
    wide[: len(z)] = z
    wide = hadamard(wide.mul_(signs))[order]
    return hadamard(wide.mul_(gauss))[:numel].mul_(scale)


def project_back(gradient: torch.Tensor, dimension: int, seed: int) -> torch.Tensor:
    """Pᵀ g: the gradient of z, `dimension` numbers, of a gradient of the weights."""
    signs, order, gauss, scale = _fastfood(dimension, gradient.numel(), seed, gradient.device)
    wide = torch.zeros_like(gauss)
    wide[: gradient.numel()] = gradient
    wide = hadamard(wide).mul_(gauss)
    back = torch.empty_like(wide)
    back[order] = wide
    return hadamard(back).mul_(signs)[:dimension].mul_(scale)


def hadamard(x: torch.Tensor) -> torch.Tensor:
    """The Walsh-Hadamard transform of a vector whose length is a power of two, without normalisation."""
    width = 1
    while width < len(x):
        pairs = x.view(-1, 2, width)
        x = torch.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).view(-1)
        width *= 2
    return x


def _fastfood(
    dimension: int, numel: int, seed: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(B, Π, G, s), the same for the same arguments."""
    size = 2 ** math.ceil(math.log2(max(dimension, numel)))
    dice = torch.Generator(device).manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=dice, device=device).mul_(2).sub_(1).float()
    order = torch.randperm(size, generator=dice, device=device)
    gauss = torch.randn(size, generator=dice, device=device)
    scale = 1 / (gauss.norm() * math.sqrt(numel))
    return signs, order, gauss, scale
