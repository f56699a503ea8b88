"""The update inside the backward pass: each parameter is updated as soon as its gradient is whole.

The gradient is then freed, so one gradient exists at a time, and the state and masters of one piece
(`visitors.py`). Of a matrix of several pieces the gradient too is made by the piece (`by_rows.py`), where its
layer can. The weights are those of the update after the backward pass: to the last bit where gradients are
made whole, else up to the order of the sums inside a product.

Nothing that needs all gradients together works: accumulation over several backward passes, clipping by their
norm, a GradScaler's check for overflows, and averaging over ranks. All are refused but clipping, which finds
no gradients and changes nothing: where transformers' or Lightning's Trainer clips, a warning says so.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmark import rows
from benchmark.engine import distributed
from benchmark.engine.by_rows import ByRows, Rows
from benchmark.engine.clipping import clips
from benchmark.engine.hooks import on_gradient
from benchmark.engine.turns import Turns
from benchmark.engine.update import Update, norms, plain_rate
from benchmark.engine.visitors import Visitors
from benchmark.engine.wrapped import Roster
from benchmark.errors import UserError, nearest

UPDATES = ("step", "in_backward")
Part = Callable[[slice | None], torch.Tensor]
"""A span of the flat weights, None for all in their shape -> its gradient."""
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
        self._largest = 0  # bytes of what was alive of one of them
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
        self._by_rows = [
            ByRows(layer, name, self)
            for name, layer in visitors.layers.items()
            if visitors.by_rows(name)
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
        for layer in self._by_rows:
            layer.end_step()
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
        for layer in self._by_rows:
            layer.remove()

    def take_rows(self, name: str, make: Rows) -> None:
        """Update the active weights of the parameter, whose gradient `make` makes by rows."""

        def part_of(active: str) -> Part:
            weight, first = self._visitors.trained.weight(active), rows.first(active)
            width = math.prod(weight.shape[1:])

            def part(span: slice | None) -> torch.Tensor:
                between = slice(0, weight.numel()) if span is None else span
                made = make(first + between.start // width, first + between.stop // width)
                self._largest = max(self._largest, made.nbytes)
                return made if span is None else made.reshape(-1)

            return part

        self._update_within(name, part_of)

    def _on_gradient(self, name: str) -> None:
        """Update the active weights of the parameter, and free its gradient."""
        parameter = self._visitors.trained.parameters[name]
        gradient, parameter.grad = parameter.grad, None
        if gradient is None:
            return  # it was used up by rows
        whole = gradient
        self._largest = max(self._largest, whole.nbytes)

        def part_of(active: str) -> Part:
            own = rows.of(whole, active)
            return lambda span: own if span is None else own.reshape(-1)[span]

        self._update_within(name, part_of)

    @torch.no_grad()
    def _update_within(self, parameter: str, part_of: Callable[[str], Part]) -> None:
        distributed.check_alone(f"{USED_UP}, before it could be averaged")
        shown = [group["params"] for group in self._wrapped.param_groups]
        for name in self._visitors.trained.within(parameter):
            self._update(name, part_of(name))
        for group, members in zip(self._wrapped.param_groups, shown, strict=True):
            group["params"] = members

    def _update(self, name: str, part: Part) -> None:
        """Update the weights `name`, piece by piece."""
        if name in self._norms:
            raise UserError(
                f'{USED_UP}, and "{name}" has had one since the last step(): raise the batch size instead '
                'of accumulating gradients, or pass update="step"'
            )
        found: list[torch.Tensor] = []
        for span in self._visitors.visit(name):
            target, gradient = self._visitors.target(name), part(span)
            found += norms([gradient])
            target.grad = gradient.to(target.dtype)
            del gradient
            self._roster.show(self._wrapped.param_groups, [name], self._visitors.target)
            self._wrapped.step()
            target.grad = None
        self._norms[name] = found[0] if len(found) == 1 else torch.stack(found).norm()

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
