"""Residents: the active group's parameters with what the device holds for them, and the idle rest.

The one place where parameters freeze and thaw and where optimizer state and master weights move
between the wrapped optimizer and the idle store. It knows names, not groups or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from benchmark.engine.offload import Entry, IdleStore
from benchmark.engine.precision import Masters
from benchmark.engine.sharded import local


class Residents:
    """parameters: all scheduled ones by name. masters: None without master weights. drop: state of
    a parameter that goes idle is discarded (its master is not)."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        store: IdleStore,
        masters: Masters | None,
        *,
        drop: bool,
    ) -> None:
        self.parameters = parameters
        self.store = store
        self.masters = masters
        self.names: list[str] = []
        self._drop = drop
        self._state: MutableMapping[torch.Tensor, Entry] = {}
        self._make_state: Callable[[list[str]], Mapping[torch.Tensor, Entry]] | None = None

    def bind(
        self,
        state: MutableMapping[torch.Tensor, Entry],
        make_state: Callable[[list[str]], Mapping[torch.Tensor, Entry]],
    ) -> None:
        """Use the wrapped optimizer's `state`. `make_state(names)` builds the state of parameters
        that have none, for optimizers that want it before their first step (Adagrad)."""
        self._make_state = make_state if state else None
        self._state = state

    def target(self, name: str) -> torch.Tensor:
        """What the wrapped optimizer updates: the active parameter or its master."""
        return self.masters.active[name] if self.masters else self.parameters[name]

    def swap(self, leaving: Iterable[str], arriving: Iterable[str]) -> None:
        """Freeze and park `leaving`, thaw and fetch `arriving`; nothing else is touched."""
        left, come = set(leaving), list(arriving)
        parked = {name: self._close(name) for name in left}
        devices = {name: self.parameters[name].device for name in come}
        fetched = self.store.swap({n: entry for n, entry in parked.items() if entry}, devices)
        self.names = [n for n in self.names if n not in left] + come
        without = [name for name in come if not self._open(name, fetched[name])]
        if without and self._make_state is not None:
            self._state.update(self._make_state(without))

    def replace(self, entries: Mapping[str, Entry], names: Iterable[str]) -> None:
        """Make `names` active, with `entries` in place of all state and masters."""
        self.store.ready()
        for name in self.names:
            self._close(name)
        self._state.clear()
        self.names = []
        self.store.replace(entries)
        self.swap((), names)

    def entries(self) -> dict[str, Entry]:
        """State and masters ("master") of every parameter that has any; tensors are live."""
        self.store.ready()
        entries = dict(self.store.entries())
        for name in self.names:
            target = self.target(name)
            entries[name] = dict(self._state.get(target, {}))
            if self.masters:
                entries[name]["master"] = target
        return entries

    def layout(self) -> dict[str, dict[str, Any]]:
        """name -> {"shape", "dtype"} of what the optimizer updates, weights or masters, as plain data."""
        kinds = {n: torch.float32 if self.masters else p.dtype for n, p in self.parameters.items()}
        return {
            name: {"shape": list(self.parameters[name].shape), "dtype": str(kind)}
            for name, kind in kinds.items()
        }

    def tensors(self) -> list[torch.Tensor]:
        """The active group's optimizer state and masters."""
        targets = [self.target(name) for name in self.names]
        values = (v for target in targets for v in self._state.get(target, {}).values())
        state = [value for value in values if isinstance(value, torch.Tensor)]
        return state + targets if self.masters else state

    def nbytes(self) -> dict[str, dict[str, int]]:
        """{"device" | "host": {"gradients", "optimizer_state", "master"}} in bytes, alive now."""
        targets = [self.target(name) for name in self.names]
        masters = targets if self.masters else []
        device = {
            "gradients": _nbytes(p.grad for p in (*self.parameters.values(), *masters)),
            "optimizer_state": _nbytes(
                value for target in targets for value in self._state.get(target, {}).values()
            ),
            "master": _nbytes(masters),
        }
        idle = {"gradients": 0, "optimizer_state": 0, "master": 0}
        for key, tensor in self.store.tensors():
            idle["master" if key == "master" else "optimizer_state"] += local(tensor).nbytes
        if self.store.host:
            return {"device": device, "host": idle}
        return {"device": {k: device[k] + idle[k] for k in device}, "host": dict.fromkeys(idle, 0)}

    def _close(self, name: str) -> Entry:
        parameter = self.parameters[name]
        parameter.requires_grad_(False)
        parameter.grad = None
        entry = self._state.pop(self.target(name), {})
        if self._drop:
            entry = {}
        master = self.masters.close(name) if self.masters else None
        return entry if master is None else {**entry, "master": master}

    def _open(self, name: str, entry: Entry) -> bool:
        """Whether the parameter had state."""
        parameter = self.parameters[name]
        parameter.requires_grad_(True)
        target: torch.Tensor = parameter
        if self.masters:
            target = self.masters.open(name, parameter, entry.pop("master", None))
        if entry:
            self._state[target] = entry
        return bool(entry)


def _nbytes(values: Iterable[Any]) -> int:
    return sum(local(v).nbytes for v in values if isinstance(v, torch.Tensor))
