"""GaLore: AdamW on gradients projected onto their leading singular vectors (arXiv 2403.03507)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from benchmark.strategies.base import Card
from benchmark.strategies.shared.projected import Projected, ProjectedOptions


class GaloreOptions(ProjectedOptions):
    """The defaults are those of the authors' example on GLUE."""

    rank: Annotated[int, Field(ge=1)] = 4
    update_proj_gap: Annotated[int, Field(ge=1)] = 500
    scale: Annotated[float, Field(gt=0)] = 4.0


class Galore(Projected):
    """The state of an m × n matrix, m ≤ n, is its m × r projection and two r × n moments.

    Q-GaLore (arXiv 2407.08296) is no strategy: its package q-galore-torch 1.0 does not run with bitsandbytes
    0.50 (KeyError: 'percentile_clipping'), and its step needs CUDA.
    """

    card = Card(
        paper="arXiv 2403.03507",
        reference="the package galore-torch 1.0",
        checked="weights after 10 steps are the package's, bit for bit; the paper's count of the state",
    )

    Options = GaloreOptions
    package = "galore-torch"

    def imported(self) -> Any:
        from benchmark.strategies.rules.galore import GaLore

        return GaLore
