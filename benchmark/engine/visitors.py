"""Visitors: state and masters that come to the device piece by piece, while their parameter is updated.

Between two updates they are in the idle store, so the device never has those of more than the pieces in
flight (`lanes.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from benchmark import rows
from benchmark.engine.host import host_memory
from benchmark.engine.lanes import Lanes
from benchmark.engine.offload import Entry
from benchmark.engine.residents import Residents
from benchmark.engine.wrapped import HyperGroup, state_size

ALIGNED = 64
"""Numbers. A piece begins at a multiple of it, so that kernels cut it into the same vectors as the whole."""


class Pieces:
    """The sizes of pieces of which state and master take at most `most` bytes together."""

    def __init__(
        self,
        cls: type[torch.optim.Optimizer],
        hyper: Sequence[HyperGroup],
        options: Mapping[str, Any],
        most: int,
    ) -> None:
        self._most = most
        self._state_size = cache(partial(state_size, cls, hyper, options))

    def numel(self, dtype: torch.dtype, *, masters: bool) -> int:
        """The numbers of a piece of what the optimizer updates, which has that dtype; at least one."""
        bytes_each = self._state_size(dtype) + (dtype.itemsize if masters else 0)
        numel = self._most // max(1, bytes_each)
        return max(1, numel // ALIGNED * ALIGNED or numel)


@dataclass(eq=False)
class Visitors(Residents):
    """Residents whose entries are on the device for as long as `visit` says.

    pieces: the sizes of pieces; None for whole parameters at once. layers: those that can make the gradient
    of their weight by rows, by its name.
    """

    pieces: Pieces | None
    layers: Mapping[str, nn.Module]
    _target: torch.Tensor | None = field(default=None, init=False)
    _lanes: Lanes = field(default_factory=Lanes, init=False)

    def bind(
        self,
        state: MutableMapping[torch.Tensor, Entry],
        make_state: Callable[[list[str]], Mapping[torch.Tensor, Entry]],
    ) -> None:
        super().bind(state, make_state)
        state.clear()

    def target(self, name: str) -> torch.Tensor:
        """The piece of the weights or of their master that visits; the weights themselves if none does."""
        return self.trained.weight(name) if self._target is None else self._target

    def by_rows(self, parameter: str) -> bool:
        """Whether the parameter is trained and takes several pieces, each of whole rows."""
        weights = self.trained.parameters.get(parameter)
        spans = [] if weights is None else list(self._spans(weights))
        width = 1 if weights is None else math.prod(weights.shape[1:])
        return len(spans) > 1 and not any(span is None or span.start % width for span in spans)

    def swap(self, leaving: Iterable[str], arriving: Iterable[str]) -> None:
        """Freeze `leaving`; unfreeze `arriving`. No entry moves, but those of `leaving` may be dropped."""
        old = list(leaving)
        for name in old:
            dropped = self.masters is not None and self.masters.kind == "active"
            self.store.drop(name, state=self.drop, master=dropped)
        self.trained.switch(old, arriving)

    def replace(self, entries: Mapping[str, Entry], names: Iterable[str]) -> None:
        """Make `names` active, with `entries` in place of all state and masters."""
        self._lanes.wait()
        self.trained.switch(list(self.trained.active), ())
        self.store.replace(entries)
        self.swap((), names)

    def here(self) -> Iterator[tuple[str, Entry]]:
        """Nothing, between two visits."""
        return iter(())

    def entries(self) -> dict[str, Entry]:
        """State and masters ("master") of every parameter that has either. The tensors are not copies."""
        self._lanes.wait()
        return super().entries()

    def tensors(self) -> list[torch.Tensor]:
        """The active group's optimizer state and masters, as far as the idle store has them on the device."""
        held = (item for name in self.trained.active for item in self.store.entry(name).items())
        values = (value for key, value in held if not self.store.on_host(key))
        return [value for value in values if isinstance(value, torch.Tensor)]

    def turn(self) -> None:
        """End a step: what was taken back in it may be brought again."""
        self._lanes.turn()

    def visit(self, name: str) -> Iterator[slice | None]:
        """Bring the entry of active weights to the device piece by piece, and back after each.

        Yields the numbers of the flat weights whose state and master are there as `target(name)` is to be
        updated; None for all weights in their own shape. A master that has been updated is rounded into the
        weights.
        """
        self.weights.stage([rows.whole(name)])
        parameter, held = self.trained.weight(name), self.store.entry(name)
        before = dict(held)
        for span in self._spans(parameter):
            came = self._lanes.bring(parameter, partial(self._fetch, before, parameter, span))
            weights = _part(parameter.detach(), span)
            self._target = self._open_piece(name, weights, came)
            yield span
            went = self._state.pop(self._target, {})
            if self.masters:
                weights.copy_(self._target)
                went = {**went, "master": self._target}
            went = {  # on the device what came is part of the store, but for numbers
                key: value
                for key, value in went.items()
                if self.store.on_host(key) or _is_number(value) or value is not came.get(key)
            }
            self._lanes.take_back(
                parameter, went, partial(self._store, held, went, parameter, span)
            )
            self._target = None
        self.weights.updated([rows.whole(name)])

    def _spans(self, parameter: torch.Tensor) -> Iterator[slice | None]:
        if self.pieces is None or not parameter.ndim or not parameter.is_contiguous():
            yield None
            return
        kind = torch.float32 if self.masters else parameter.dtype
        most = self.pieces.numel(kind, masters=self.masters is not None)
        rows = math.lcm(ALIGNED, math.prod(parameter.shape[1:]))
        if most >= rows:
            most = most // rows * rows
        for start in range(0, parameter.numel(), most):
            yield slice(start, min(start + most, parameter.numel()))

    def _open_piece(self, name: str, weights: torch.Tensor, came: Entry) -> torch.Tensor:
        """Give the wrapped optimizer the state that came. Returns the tensor that it is to update."""
        state = {key: value for key, value in came.items() if key != "master"}
        self._target = weights
        if self.masters:
            self._target = came.get("master")
            if self._target is None:
                self._target = weights.to(torch.float32, copy=True)
        if state:
            self._state[self._target] = state
        elif self._make_state is not None:
            self._state.update(self._make_state([name]))
        return self._target

    def _fetch(self, entry: Entry, parameter: torch.Tensor, span: slice | None) -> Entry:
        """The entry's numbers of `span`, on the device. A number that all pieces share is copied for each."""
        return {key: self._piece(key, value, parameter, span) for key, value in entry.items()}

    def _piece(self, key: str, value: Any, parameter: torch.Tensor, span: slice | None) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if self.store.stays(value, parameter):
            return value.clone()
        if not self.store.on_host(key):
            return _part(value, span) if value.shape == parameter.shape else value
        with host_memory():
            part = _part(value, span) if value.shape == parameter.shape else value
        return part.to(parameter.device, copy=True, non_blocking=True)

    def _store(self, held: Entry, went: Entry, parameter: torch.Tensor, span: slice | None) -> None:
        """Write what `went` into what the store has `held`."""
        for key, value in went.items():
            held[key] = self._written(key, held.get(key), value, parameter, span)

    def _written(
        self, key: str, old: Any, value: Any, parameter: torch.Tensor, span: slice | None
    ) -> Any:
        """`old` with `value` in it, or new memory if it has no place for that."""
        if not isinstance(value, torch.Tensor) or self.store.stays(value, parameter):
            return value
        host = self.store.on_host(key)
        if not host and span is None:
            return value
        shape = value.shape if span is None else parameter.shape
        with host_memory() if host else nullcontext():
            if not isinstance(old, torch.Tensor) or old.shape != shape or old.dtype != value.dtype:
                old = self.store.empty(key, shape, value)
            _part(old, span).copy_(value, non_blocking=True)
        return old


def _is_number(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) or value.ndim == 0


def _part(tensor: torch.Tensor, span: slice | None) -> torch.Tensor:
    return tensor if span is None else tensor.view(-1)[span]
