"""The ordinary update: all of the active group at once in `step`, after the backward pass.

With master weights the wrapped optimizer updates these, and the weights are rounded from them. Of a matrix
whose rows train apart it updates a view of the active ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmark import rows
from benchmark.engine.residents import Residents
from benchmark.engine.sharded import local
from benchmark.engine.trainables import Cut
from benchmark.engine.turns import Turns
from benchmark.engine.update import Update, norms, plain_rate
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
        self._cut = Cut(residents.trained)
        # GradScaler then leaves unscaling to this class, which unscales the fp32 gradients
        self.takes_scaled = residents.masters is not None

    def step(self, scaler: Any) -> bool:
        """Update the active group. Returns False if a GradScaler found an overflow, which changes nothing.

        scaler: has `grad_scale` and `found_inf` if a GradScaler left unscaling to the optimizer.
        """
        found_inf = getattr(scaler, "found_inf", None) if self.takes_scaled else None
        if found_inf is not None and found_inf.item() > 0:
            return False
        residents, names = self._residents, self._turns.active.parameters
        residents.ready(names)
        residents.take_gradients(getattr(scaler, "grad_scale", None))
        self._roster.show(self._wrapped.param_groups, names, residents.target)
        self._turns.observe(self._norms)
        self._wrapped.step()
        residents.publish(names)
        self._roster.show(self._wrapped.param_groups, names, residents.trained.parameter)
        return True

    def coming_update(self) -> Update:
        """What the next step changes, asked after the backward pass."""
        trained = self._residents.trained
        found = {name: trained.gradient(name) for name in trained.active}
        gradients = {name: each for name, each in found.items() if each is not None}
        return Update(
            [trained.parameter(name) for name in gradients],
            sum(each.numel() for each in gradients.values()),
            sum(local(each).nbytes for each in gradients.values()),
            rate=plain_rate(self._wrapped),
            rows=[rows.bounds(name) for name in gradients],
        )

    def remove(self) -> None:
        """Leave nothing behind on the model."""
        self._cut.remove()

    def _norms(self, names: Sequence[str]) -> Sequence[torch.Tensor]:
        found = [self._residents.target(name).grad for name in names]
        gradients = [gradient for gradient in found if gradient is not None]
        return norms(gradients)
