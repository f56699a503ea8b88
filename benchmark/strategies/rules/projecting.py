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
    param_groups: list[dict[str, Any]]
    projector: Any
    """The package's class of a projection."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        result = None if closure is None else closure()
        super().step()  # type: ignore[misc]
        for state in self.state.values():
            if "projector" in state:
                projector = state["projector"]
                projector.ortho_matrix = _own(projector.ortho_matrix)
        return result

    def state_dict(self) -> dict[str, Any]:
        """As in torch, but of a projector its fields, so that a checkpoint has plain data alone."""
        saved: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        states = {
            index: {key: vars(v) if key == "projector" else v for key, v in state.items()}
            for index, state in saved["state"].items()
        }
        return {**saved, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        of_projectors, of_torch = {}, {}
        for index, state in state_dict["state"].items():
            of_torch[index] = {key: v for key, v in state.items() if key != "projector"}
            of_projectors[index] = state.get("projector")
        super().load_state_dict({**state_dict, "state": of_torch})  # type: ignore[misc]
        groups = zip(self.param_groups, state_dict["param_groups"], strict=True)
        pairs = [
            pair
            for own, saved in groups
            for pair in zip(own["params"], saved["params"], strict=True)
        ]
        for parameter, index in pairs:
            if (fields := of_projectors.get(index)) is not None:
                projector = self.projector.__new__(self.projector)
                vars(projector).update(fields, ortho_matrix=_to(parameter, fields["ortho_matrix"]))
                self.state[parameter]["projector"] = projector


def _own(matrix: Any) -> Any:
    """The matrix, or each of a list of them, in memory of its own size."""
    if isinstance(matrix, torch.Tensor):
        return matrix if matrix.untyped_storage().nbytes() == matrix.nbytes else matrix.clone()
    return [_own(part) for part in matrix]


def _to(parameter: torch.Tensor, matrix: Any) -> Any:
    """The matrix, or each of a list of them, on the device of the parameter."""
    if matrix is None or isinstance(matrix, torch.Tensor):
        return None if matrix is None else matrix.to(parameter.device)
    return [_to(parameter, part) for part in matrix]
