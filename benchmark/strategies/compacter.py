"""Compacter: Houlsby's adapters, with matrices that are sums of Kronecker products with shared factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from benchmark.errors import UserError
from benchmark.strategies.base import Card
from benchmark.strategies.shared.bottleneck import Bottleneck, BottleneckOptions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class CompacterOptions(BottleneckOptions):
    """n: the number of products, and the width of the shared factors. rank: that of an adapter's own."""

    n: Annotated[int, Field(ge=1)] = 4
    rank: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _size_is_divided(self) -> CompacterOptions:
        if self.size % self.n:
            raise ValueError(f"size {self.size} cannot be divided by n {self.n}")
        return self


class Compacter(Bottleneck):
    """All adapters share the factors A_i (n, n, n)."""

    card = Card(
        paper="arXiv 2106.04647",
        reference="equations 4 and 5; the package adapters 1.3 refuses transformers 5 (~=4.57.6)",
        checked="matrices equal sums of torch.kron; outputs equal a BERT written out with them",
    )

    Options = CompacterOptions
    refuses: ClassVar[Mapping[str, str]] = {
        "sharded": "its adapters share factors, and each block of the model is gathered by itself"
    }

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        import torch

        n = self.options.n
        self._shared = torch.nn.Parameter(torch.randn(n, n, n) / n)
        return super().prepare(model)

    def adapter(self, width: int) -> torch.nn.Module:
        from benchmark.strategies.shared.adapter_layers import KroneckerAdapter

        if width % self.options.n:
            reason = f"n {self.options.n} does not divide the width {width}"
            raise UserError(f"strategy compacter: {reason}")
        return KroneckerAdapter(width, self.options.size, self._shared, self.options.rank)
