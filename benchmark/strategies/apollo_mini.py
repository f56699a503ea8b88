"""APOLLO-Mini: APOLLO with rank 1 and one factor per matrix (arXiv 2412.05270)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from benchmark.strategies.apollo import Apollo, ApolloOptions
from benchmark.strategies.base import Card


class ApolloMiniOptions(ApolloOptions):
    """scale: the authors take 128, and more for larger models."""

    rank: Annotated[int, Field(ge=1)] = 1
    scale: Annotated[float, Field(gt=0)] = 128.0


class ApolloMini(Apollo):
    """The state of a matrix is a projection and two moments of one row each."""

    card = Card(
        paper="arXiv 2412.05270",
        reference="the package apollo-torch 1.0.3, scale_type tensor",
        checked="weights after 10 steps are the package's, bit for bit",
    )

    Options = ApolloMiniOptions
    scale_type = "tensor"
