"""The update inside the backward pass: each parameter is updated as soon as its gradient is whole.

The gradient is then freed, so one gradient exists at a time, and the state and masters of one piece
(`visitors.py`). The weights are the same to the last bit as those of the update after the backward pass.
Nothing that needs all gradients together works: accumulation over several backward passes, clipping by their
norm, a GradScaler's check for overflows, and averaging over ranks. All are refused but clipping, which finds
no gradients and changes nothing: where transformers' or Lightning's Trainer clips, a warning says so.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmark import rows
from benchmark.engine import distributed
from benchmark.engine.clipping import clips
from benchmark.engine.hooks import on_gradient
from benchmark.engine.turns import Turns
from benchmark.engine.update import Update, plain_rate
from benchmark.engine.visitors import Visitors
from benchmark.engine.wrapped import Roster
from benchmark.errors import UserError, nearest

UPDATES = ("step", "in_backward")
USED_UP = 'update="in_backward" uses each gradient up inside the backward pass'


def check_update(update: str, piece: int) -> None:
    """Raise UserError for an unknown update, and for a piece that is no number of bytes."""
    if update not in UPDATES:
        raise UserError(f'unknown update "{update}"{nearest(update, UPDATES)}')
    if isinstance(piece, bool) or not isinstance(piece, int) or piece < 1:
        raise UserError(f"piece must be a whole number of bytes, at least 1: {piece!r}")


class InBackward:
    """Updates the active parameters from hooks on their gradients. `step` changes no weight.

    A parameter's gradient is whole when autograd has added up what all its uses contribute, and it is only
    then that no other gradient depends on its value, so a tied weight too is updated once.
    """

    takes_scaled = (
        True  # so that a GradScaler leaves its marks on the optimizer, where `step` sees them
    )

    def __init__(
        self,
        wrapped: torch.optim.Optimizer,
        visitors: Visitors,
        roster: Roster,
        turns: Turns,
    ) -> None:
        self._wrapped, self._visitors = wrapped, visitors
        self._roster, self._turns = roster, turns
        self._norms: dict[str, torch.Tensor] = {}  # of the gradients since the last step
        self._largest = 0  # bytes of one of them
        self._has_stepped = False
        this = weakref.ref(self)  # the hooks, which the model owns, do not keep the optimizer alive

        def hook(name: str, parameter: torch.Tensor) -> None:
            updates = this()
            if updates is not None:
                updates._on_gradient(name)

        self._hooks = [
            on_gradient(parameter, partial(hook, name))
            for name, parameter in visitors.trained.parameters.items()
        ]

    def step(self, scaler: Any) -> bool:
        """End the step, whose updates have happened. Raises UserError if a GradScaler scaled the loss."""
        if getattr(scaler, "found_inf", None) is not None:
            raise UserError(
                f"{USED_UP}, before a GradScaler unscales it, so the weights are wrong now: train in "
                'bfloat16, or with update="step"'
            )
        if not self._has_stepped:
            self._warn_of_clipping()
        self._has_stepped = True
        self._turns.observe(self._known_norms)
        self._visitors.turn()
        self._norms, self._largest = {}, 0
        return True

    def coming_update(self) -> Update:
        """What the backward pass since the last step has updated."""
        trained = self._visitors.trained
        return Update(
            [trained.parameter(name) for name in self._norms],
            sum(trained.weight(name).numel() for name in self._norms),
            self._largest,
            tuple(self._norms.values()),
            plain_rate(self._wrapped),
            [rows.bounds(name) for name in self._norms],
        )

    def remove(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _on_gradient(self, parameter_name: str) -> None:
        """Update the active weights of the parameter, and free its gradient."""
        distributed.check_alone(f"{USED_UP}, before it could be averaged")
        parameter = self._visitors.trained.parameters[parameter_name]
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        self._largest = max(self._largest, gradient.nbytes)
        shown = [group["params"] for group in self._wrapped.param_groups]
        for name in self._visitors.trained.within(parameter_name):
            self._update(name, rows.of(gradient, name))
        for group, members in zip(self._wrapped.param_groups, shown, strict=True):
            group["params"] = members

    def _update(self, name: str, gradient: torch.Tensor) -> None:
        if name in self._norms:
            raise UserError(
                f'{USED_UP}, and "{name}" has had one since the last step(): raise the batch size instead '
                'of accumulating gradients, or pass update="step"'
            )
        self._norms[name] = torch._foreach_norm([gradient], 2, dtype=torch.float32)[0]
        for span in self._visitors.visit(name):
            target = self._visitors.target(name)
            part = gradient if span is None else gradient.reshape(-1)[span]
            target.grad = part.to(target.dtype)
            self._roster.show(self._wrapped.param_groups, [name], self._visitors.target)
            self._wrapped.step()
            target.grad = None

    def _warn_of_clipping(self) -> None:
        """Say so if the loop that steps clips gradients: it finds none."""
        found = clips()
        if found is not None:
            setting, off = found
            warnings.warn(
                f'{USED_UP}, so {setting} clips nothing: set {off}, or clip with update="step"',
                stacklevel=2,
            )

    def _known_norms(self, names: Sequence[str]) -> Sequence[torch.Tensor]:
        return [self._norms[name] for name in names if name in self._norms]
