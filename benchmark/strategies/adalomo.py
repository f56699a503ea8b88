"""AdaLomo: LOMO with a learning rate of its own for each entry of a tensor (arXiv 2310.10195)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmark.strategies.base import Card
from benchmark.strategies.lomo import Lomo

if TYPE_CHECKING:
    from benchmark.strategies.rules.in_backward import InBackward


class AdaLomo(Lomo):
    """All parameters train. There is one gradient at a time; the state is a row and a column per matrix."""

    card = Card(
        paper="arXiv 2310.10195",
        reference="the package lomo-optim 0.1.1, whose AdaLomo needs CUDA: on a CPU it raises "
        '"Torch not compiled with CUDA enabled"',
        checked="against Algorithm 1 written out, and lomo_optim.AdaLomo with its state on the CPU",
    )

    def rule(self) -> type[InBackward]:
        from benchmark.strategies.rules.in_backward import AdaLomo

        return AdaLomo
