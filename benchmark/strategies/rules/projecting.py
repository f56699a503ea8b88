"""Projecting: what the optimizers of galore-torch and apollo-torch need to train in any loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Projecting:
    """Mixin before such an optimizer; its `step` does two more things.

    It calls the closure on its own, because the packages call it without gradients. And it frees what the
    projections do not use: those of singular vectors are views into the vectors of all ranks.
    """

    state: Any

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None if closure is None else closure()
        super().step()  # type: ignore[misc]
        for state in self.state.values():
            if "projector" in state:
                projector = state["projector"]
                projector.ortho_matrix = _own(projector.ortho_matrix)
        return result


def _own(matrix: Any) -> Any:
    """The matrix, or each of a list of them, in memory of its own size."""
    if isinstance(matrix, torch.Tensor):
        return matrix if matrix.untyped_storage().nbytes() == matrix.nbytes else matrix.clone()
    return [_own(part) for part in matrix]
