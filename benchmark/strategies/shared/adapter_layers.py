"""The modules of the bottleneck adapters, and how they are put into a model."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Adapter(nn.Module):
    """down, activation, up, times `scale`; up starts from zeros."""

    def __init__(self, width: int, size: int, activation: str, scale: float = 1.0) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        self.activation, self.scale = getattr(functional, activation), scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., width)."""
        made: torch.Tensor = self.up(self.activation(self.down(inputs.to(self.down.weight.dtype))))
        return made * self.scale


class KroneckerLinear(nn.Module):
    """A linear layer whose matrix is a sum of n Kronecker products A_i ⊗ (s_i t_i) (arXiv 2106.04647, eq. 5).

    shared: the A_i (n, n, n), the same parameter in all layers. `rank` is that of s_i t_i. `zero`: t starts
    from zeros.
    """

    def __init__(
        self, width_in: int, width_out: int, shared: nn.Parameter, rank: int, zero: bool = False
    ) -> None:
        super().__init__()
        n = len(shared)
        self.shared = shared
        self.left = nn.Parameter(torch.randn(n, width_in // n, rank) / math.sqrt(width_in // n))
        make = torch.zeros if zero else torch.randn
        self.right = nn.Parameter(make(n, rank, width_out // n) / math.sqrt(rank))
        self.bias = nn.Parameter(torch.zeros(width_out))

    def matrix(self) -> torch.Tensor:
        """(width_in, width_out)."""
        small = self.left @ self.right  # (n, width_in / n, width_out / n)
        n, rows, columns = small.shape
        whole = torch.einsum("iab,icd->acbd", self.shared, small)
        return whole.reshape(n * rows, n * columns)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., width_in) -> (..., width_out)."""
        return inputs @ self.matrix() + self.bias


class KroneckerAdapter(nn.Module):
    """Compacter's adapter: down, GELU, up, both of them a KroneckerLinear."""

    def __init__(self, width: int, size: int, shared: nn.Parameter, rank: int) -> None:
        super().__init__()
        self.down = KroneckerLinear(width, size, shared, rank)
        self.up = KroneckerLinear(size, width, shared, rank, zero=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., width)."""
        made: torch.Tensor = self.up(functional.gelu(self.down(inputs.to(self.down.bias.dtype))))
        return made


def add(model: nn.Module, name: str, adapter: nn.Module) -> None:
    """Let the module `name` give its output plus the adapter's of it. The adapter becomes its sibling."""
    _put_beside(model, name, adapter)
    model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: output + adapter(output).to(output.dtype)
    )


def add_parallel(model: nn.Module, first: str, last: str, adapter: nn.Module) -> None:
    """Let the module `last` give its output plus the adapter's of the input of `first`."""
    _put_beside(model, last, adapter)
    read: list[Any] = []
    model.get_submodule(first).register_forward_pre_hook(
        lambda module, inputs: read.__setitem__(slice(None), inputs[:1])
    )
    model.get_submodule(last).register_forward_hook(
        lambda module, inputs, output: output + adapter(read.pop()).to(output.dtype)
    )


def _put_beside(model: nn.Module, name: str, adapter: nn.Module) -> None:
    projection: Any = model.get_submodule(name)
    parent = model.get_submodule(name.rpartition(".")[0])
    parent.add_module("adapter", adapter.to(projection.weight.device))
