"""Pfeiffer adapters: one bottleneck network a block, after the feed-forward layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from benchmark.strategies.base import Card
from benchmark.strategies.shared.bottleneck import FEEDFORWARD_OUT, Bottleneck

if TYPE_CHECKING:
    import re

    import torch


class Pfeiffer(Bottleneck):
    """With ReLU. The adapter reads what the projection gives; in AdapterHub it reads the layer norm of that
    and the residual."""

    card = Card(
        paper="arXiv 2005.00247",
        reference="section 4 of the paper; the package adapters 1.3 refuses transformers 5 (~=4.57.6)",
        checked="against a BERT written out with the adapters in its blocks",
    )

    after: ClassVar[tuple[re.Pattern[str], ...]] = (FEEDFORWARD_OUT,)

    def adapter(self, width: int) -> torch.nn.Module:
        from benchmark.strategies.shared.adapter_layers import Adapter

        return Adapter(width, self.options.size, "relu")
