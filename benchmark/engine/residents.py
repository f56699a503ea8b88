"""Residents: the weights of the active group, with their optimizer state and masters on the device.

Only this class moves optimizer state and master weights between the wrapped optimizer and the idle store. It
knows names of weights, not groups or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmark import rows
from benchmark.engine.offload import Entry, IdleStore
from benchmark.engine.precision import Masters
from benchmark.engine.sharded import local
from benchmark.engine.stream import Weights
from benchmark.engine.trainables import Trainables


@dataclass(eq=False)
class Residents:
    """trained: the weights of all groups. masters: None without master weights. drop: discard the state of
    weights that become idle, but not their master. weights: where the weights are.

    Without masters the wrapped optimizer updates parameters, and views of the rows that train apart."""

    trained: Trainables
    store: IdleStore
    masters: Masters | None
    drop: bool
    weights: Weights
    _views: dict[str, torch.Tensor] = field(default_factory=dict, init=False)
    _state: MutableMapping[torch.Tensor, Entry] = field(default_factory=dict, init=False)
    _make_state: Callable[[list[str]], Mapping[torch.Tensor, Entry]] | None = field(
        default=None, init=False
    )

    def bind(
        self,
        state: MutableMapping[torch.Tensor, Entry],
        make_state: Callable[[list[str]], Mapping[torch.Tensor, Entry]],
    ) -> None:
        """Use `state`, that of the wrapped optimizer.

        make_state: builds the state of named parameters that have none, for optimizers that need it before
        their first step (Adagrad).
        """
        self._make_state = make_state if state else None
        self._state = state

    def target(self, name: str) -> torch.Tensor:
        """The tensor that the wrapped optimizer updates: the active weights or their master."""
        if self.masters:
            return self.masters.active[name]
        return self._views[name] if name in self._views else self.trained.parameter(name)

    def swap(self, leaving: Iterable[str], arriving: Iterable[str]) -> None:
        """Freeze `leaving` and store their entries; then unfreeze `arriving` and fetch theirs. No other
        weights change. At least one of them holds a name."""
        old, new = list(leaving), list(arriving)
        self.trained.switch(old, new)
        devices = {n: self.weights.device_of(self.trained.parameter(n)) for n in (*old, *new)}
        with self.store.switching(next(iter(devices.values()))):
            for name in old:
                self.store.put(name, self._close(name))
            fetched = {name: self.store.take(name, devices[name]) for name in new}
        without = [name for name in new if not self._open(name, fetched[name])]
        if without and self._make_state is not None:
            self._state.update(self._make_state(without))

    def replace(self, entries: Mapping[str, Entry], names: Iterable[str]) -> None:
        """Make `names` active, with `entries` in place of all state and masters."""
        self.store.ready()
        old = list(self.trained.active)
        for name in old:
            self._close(name)
        self._state.clear()
        self.store.replace(entries)
        self.trained.switch(old, ())
        self.swap((), names)

    def ready(self, names: Iterable[str]) -> None:
        """Make all that an update of these active weights needs complete on the device."""
        self.store.ready()
        self.weights.stage(map(rows.whole, names))
        for name, view in self._views.items():
            view.data = self.trained.weight(name)

    def take_gradients(self, scale: torch.Tensor | None) -> None:
        """Put the gradients where the wrapped optimizer finds them. scale: that of the loss, if masters have
        to take it away."""
        if self.masters:
            self.masters.take_gradients(self.trained.take_gradients(), scale)
        for name, view in self._views.items():
            view.grad = self.trained.gradient(name)

    def publish(self, names: Iterable[str]) -> None:
        """The weights have been updated, or their masters, from which they are rounded now."""
        if self.masters:
            self.masters.publish(self.trained.weight)
        for view in self._views.values():
            view.grad = None
        self.weights.updated(map(rows.whole, names))

    def entries(self) -> dict[str, Entry]:
        """State and masters ("master") of every parameter that has either. The tensors are not copies."""
        self.store.ready()
        return {**self.store.entries(), **dict(self.here())}

    def here(self) -> Iterator[tuple[str, Entry]]:
        """(name, entry) of the parameters whose state and masters are on the device to be used."""
        for name in self.trained.active:
            target = self.target(name)
            entry = dict(self._state.get(target, {}))
            yield name, {**entry, "master": target} if self.masters else entry

    def layout(self) -> dict[str, dict[str, Any]]:
        """name -> {"shape", "dtype"} of the tensor that the optimizer updates, weight or master, as plain
        data."""
        shapes = {name: p.shape for name, p in self.trained.parameters.items()}
        kinds = {n: p.dtype for n, p in self.trained.parameters.items()}
        return {
            name: {
                "shape": list(rows.shape(name, shapes)),
                "dtype": str(torch.float32 if self.masters else kinds[rows.whole(name)]),
            }
            for name in self.trained.names
        }

    def tensors(self) -> list[torch.Tensor]:
        """The active group's optimizer state and masters."""
        values = (value for _, entry in self.here() for value in entry.values())
        return [value for value in values if isinstance(value, torch.Tensor)]

    def nbytes(self) -> dict[str, dict[str, int]]:
        """{"device" | "host": {"gradients", "optimizer_state", "master"}} in bytes, alive now; "host" has
        "weights" too, those that are streamed."""
        here = [(key, value) for _, entry in self.here() for key, value in entry.items()]
        masters = [value for key, value in here if key == "master"]
        gradients = _nbytes(p.grad for p in (*self.trained.parameters.values(), *masters))
        idle = list(self.store.tensors())
        device = [*here, *(item for item in idle if not self.store.on_host(item[0]))]
        host = [item for item in idle if self.store.on_host(item[0])]
        weights = _nbytes(self.weights.on_host())
        return {
            "device": {"gradients": gradients, **_by_kind(device)},
            "host": {"gradients": 0, **_by_kind(host), "weights": weights},
        }

    def _close(self, name: str) -> Entry:
        """The state and master of weights that become idle."""
        entry = self._state.pop(self.target(name), {})
        if self.drop:
            entry = {}
        self._views.pop(name, None)
        master = self.masters.close(name) if self.masters else None
        return entry if master is None else {**entry, "master": master}

    def _open(self, name: str, entry: Entry) -> bool:
        """Restore the entry of weights that become active; returns whether they have state."""
        weight = self.trained.weight(name)
        if self.masters:
            device = self.weights.device_of(self.trained.parameter(name))
            weight = self.masters.open(name, weight, entry.pop("master", None), device)
        elif rows.is_part(name):
            self._views[name] = weight
        if entry:
            self._state[weight] = entry
        return bool(entry)


def _by_kind(items: Iterable[tuple[str, Any]]) -> dict[str, int]:
    """The bytes of entries' values, given with their keys."""
    kinds: dict[str, list[Any]] = {"optimizer_state": [], "master": []}
    for key, value in items:
        kinds["master" if key == "master" else "optimizer_state"].append(value)
    return {kind: _nbytes(values) for kind, values in kinds.items()}


def _nbytes(values: Iterable[Any]) -> int:
    """The bytes of the tensors among `values`. One that several parameters share, as a table, counts once."""
    parts = [local(value) for value in values if isinstance(value, torch.Tensor)]
    places = {(p.untyped_storage()._cdata, p.storage_offset()): p.nbytes for p in parts}
    return sum(places.values())
