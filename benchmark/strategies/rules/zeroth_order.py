"""ZerothOrder: gradient descent along random directions, from two forward passes and no backward pass.

It is MeZO's memory-efficient SPSA (arXiv 2305.17333, Algorithm 1). No direction is ever stored: the weights
are perturbed in place, and each direction is drawn again from its seed when it is needed.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from benchmark.engine.update import Update
from benchmark.strategies.rules.closure import run_closure

PIECE = 2**22
"""The numbers of a direction that exist at the same time, but for a longer row of a matrix. A whole matrix at
a time, as in MeZO's code, would need memory of the size of the largest one."""


class ZerothOrder(torch.optim.Optimizer):
    """The step is θ ← θ - lr (g z + weight_decay θ), with z normal and g the slope of the loss along z.

    `estimate` finds g; `step` applies it. The directions have generators of their own, so other random
    numbers, such as the order of the data, are those of any other method.
    """

    def __init__(
        self, params: Iterable[Mapping[str, Any]], *, lr: float, eps: float, seed: int
    ) -> None:
        """params: groups of parameters, each with its `weight_decay`. eps: the distance of the two forward
        passes from the weights. seed: of the sequence of directions."""
        super().__init__(params, {"lr": lr, "weight_decay": 0.0})  # type: ignore[arg-type]
        self._eps = eps
        self._seeds = random.Random(seed)
        self._estimate: tuple[int, float] | None = None  # the seed of z, and g

    @torch.no_grad()
    def estimate(self, model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The loss at θ + eps z, a scalar without a graph; θ is restored.

        Both passes run in eval mode, so dropout is off, as in MeZO's large_models/trainer.py.
        """
        seed = self._seeds.randrange(2**31)
        with _eval_mode(model):
            self._perturb(seed, self._eps)
            above = forward()
            self._perturb(seed, -2 * self._eps)
            below = forward()
            self._perturb(seed, self._eps)
        self._estimate = seed, ((above - below) / (2 * self._eps)).item()
        return above

    def coming_update(self) -> Update:
        """Every parameter moves; there are no gradients."""
        parameters = [p for group in self.param_groups for p in group["params"]]
        return Update(parameters, sum(p.numel() for p in parameters), 0)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply the last estimate once. Without an estimate the weights stay."""
        result = run_closure(closure)
        if self._estimate is not None:
            seed, slope = self._estimate
            for group, piece, z in self._directions(seed):
                if group["weight_decay"]:
                    piece.mul_(1 - group["lr"] * group["weight_decay"])
                piece.add_(z, alpha=-group["lr"] * slope)
        self._estimate = None
        return result

    def state_dict(self) -> dict[str, Any]:
        """As in torch, with the generator of the directions."""
        return {**super().state_dict(), "directions": self._seeds.getstate()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        version, internal, gauss = state_dict["directions"]
        self._seeds.setstate((version, tuple(internal), gauss))

    def _perturb(self, seed: int, distance: float) -> None:
        """θ ← θ + distance z."""
        for _, piece, z in self._directions(seed):
            piece.add_(z, alpha=distance)
        torch.clear_autocast_cache()  # it holds copies of the weights as they were

    def _directions(self, seed: int) -> Iterator[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]:
        """(parameter group, rows of a parameter, z of these rows), always in the same order."""
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                device = parameter.device
                if device not in generators:
                    generators[device] = torch.Generator(device).manual_seed(seed)
                rows = torch.atleast_1d(parameter)
                for piece in rows.split(max(1, PIECE // max(1, rows[0].numel()))):
                    z = torch.randn(
                        piece.shape, generator=generators[device], device=device, dtype=piece.dtype
                    )
                    yield group, piece, z


@contextlib.contextmanager
def _eval_mode(model: torch.nn.Module) -> Iterator[None]:
    """Context in which every module is in eval mode; afterwards each is in the mode it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
