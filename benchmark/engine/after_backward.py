"""The ordinary update: all of the active group at once in `step`, after the backward pass.

With master weights the wrapped optimizer updates these, and the weights are rounded from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmark.engine.precision import Masters
from benchmark.engine.residents import Residents
from benchmark.engine.turns import Turns
from benchmark.engine.update import Update, of_gradients
from benchmark.engine.wrapped import Roster


class AfterBackward:
    """Updates the residents, all of which have their state and masters on the device."""

    def __init__(
        self,
        wrapped: torch.optim.Optimizer,
        residents: Residents,
        roster: Roster,
        turns: Turns,
    ) -> None:
        self._wrapped, self._residents = wrapped, residents
        self._roster, self._turns = roster, turns
        # GradScaler then leaves unscaling to this class, which unscales the fp32 gradients
        self.takes_scaled = residents.masters is not None

    def step(self, scaler: Any) -> bool:
        """Update the active group. Returns False if a GradScaler found an overflow, which changes nothing.

        scaler: has `grad_scale` and `found_inf` if a GradScaler left unscaling to the optimizer.
        """
        residents, names = self._residents, self._turns.active.parameters
        residents.store.ready()
        residents.weights.stage(names)
        if residents.masters is None:
            self._update()
        elif not self._step_masters(residents.masters, scaler):
            return False
        residents.weights.updated(names)
        return True

    def coming_update(self) -> Update:
        """What the next step changes, asked after the backward pass."""
        return of_gradients(self._residents.parameters.values(), self._wrapped)

    def remove(self) -> None:
        """Nothing is left behind on the model."""

    def _update(self) -> None:
        """The step of the wrapped optimizer."""
        self._turns.observe(self._norms)
        self._wrapped.step()

    def _step_masters(self, masters: Masters, scaler: Any) -> bool:
        """Update the masters, then the weights from them."""
        found_inf = getattr(scaler, "found_inf", None)
        if found_inf is not None and found_inf.item() > 0:
            return False
        parameters, names = self._residents.parameters, self._turns.active.parameters
        masters.take_gradients(parameters, getattr(scaler, "grad_scale", None))
        self._roster.show(self._wrapped.param_groups, names, masters.active.__getitem__)
        self._update()
        masters.publish(parameters)
        self._roster.show(self._wrapped.param_groups, names, parameters.__getitem__)
        return True

    def _norms(self, names: Sequence[str]) -> Sequence[torch.Tensor]:
        found = [self._residents.target(name).grad for name in names]
        gradients = [gradient for gradient in found if gradient is not None]
        return torch._foreach_norm(gradients, 2, dtype=torch.float32) if gradients else ()
