"""APOLLO: gradients scaled by channel, as Adam would in a random low-rank space (arXiv 2412.05270)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from benchmark.strategies.base import Card
from benchmark.strategies.shared.projected import Projected, ProjectedOptions


class ApolloOptions(ProjectedOptions):
    """scale: the authors take 1 for a rank of a quarter of the hidden size, and hidden size / rank in
    fine-tuning. proj: the projection is random, or of singular vectors as in GaLore."""

    rank: Annotated[int, Field(ge=1)] = 8
    scale: Annotated[float, Field(gt=0)] = 1.0
    proj_type: Literal["std", "reverse_std", "right", "left"] = "std"
    proj: Literal["random", "svd"] = "random"


class Apollo(Projected):
    """The step has the direction of the full gradient; only the factors come from the low-rank space."""

    card = Card(
        paper="arXiv 2412.05270",
        reference="the package apollo-torch 1.0.3",
        checked="weights after 10 steps are the package's, bit for bit",
    )

    Options = ApolloOptions
    package = "apollo-torch"
    scale_type = "channel"
    """One factor per row or column of a matrix, along its longer side; or one per `tensor`."""

    def projection(self) -> dict[str, Any]:
        return {**super().projection(), "proj": self.options.proj, "scale_type": self.scale_type}

    def imported(self) -> Any:
        from benchmark.strategies.rules.apollo import Apollo

        return Apollo
