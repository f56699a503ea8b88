"""APOLLO's optimizer: AdamW of apollo-torch."""

from __future__ import annotations

from apollo_torch import APOLLOAdamW
from apollo_torch.random_projector import GradientProjector

from benchmark.strategies.rules.projecting import Projecting


class Apollo(Projecting, APOLLOAdamW):
    """Its random projections have generators of their own, seeded by the number of the parameter."""

    projector = GradientProjector
