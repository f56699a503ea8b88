"""Stores the state and masters of idle groups, on the device (keep) or in host memory (cpu).

With CUDA, host memory is pinned and allocated once per tensor. When the group switches, a side stream copies
the old group's state to the host and then the new group's state to the device, during the next forward and
backward pass. No step synchronises. What arrives takes the memory of what left, so the device never has more
than the larger of the two states.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from benchmark.engine.pinned import pinned_like
from benchmark.engine.sharded import is_sharded, layout, local, shard
from benchmark.errors import UserError, nearest

Entry = dict[str, Any]  # one parameter's optimizer state (and "master"), as in Optimizer.state
IDLE = ("keep", "cpu", "drop", "reset")
IDLE_MASTER = ("keep", "cpu")


def check_idle(idle: str, idle_master: str | None, masters: str) -> None:
    """Raise UserError for an unknown value, and for an `idle_master` where none is kept. masters: as in
    `Masters`."""
    if idle not in IDLE:
        raise UserError(f'unknown idle state "{idle}"{nearest(idle, IDLE)}')
    if idle_master is None:
        return
    if idle_master not in IDLE_MASTER:
        raise UserError(f'unknown idle_master "{idle_master}"{nearest(idle_master, IDLE_MASTER)}')
    if masters != "all":
        raise UserError(
            f'idle_master="{idle_master}" is for masters that are kept: pass master="all", not "{masters}"'
        )


class IdleStore:
    """The entries of idle parameters, by name. Of DTensors it holds the parts that are in this process.

    host: store state in host memory; otherwise it stays where it is. host_masters: the same of masters.
    device_scalars: put 0-d tensors (Adam's step) on the device too, as fused and capturable optimizers need;
    otherwise they stay on the CPU. tables: keys under which all entries have the same tensor, which stays on
    the device.
    """

    def __init__(
        self,
        *,
        host: bool,
        host_masters: bool,
        device_scalars: bool = False,
        tables: Collection[str] = (),
    ) -> None:
        self._host, self._host_masters = host, host_masters
        self._device_scalars = device_scalars
        self._table_keys = frozenset(tables)
        self._tables: dict[str, torch.Tensor] = {}
        self._held: dict[str, Entry] = {}
        self._layouts: dict[tuple[str, str], Any] = {}  # of what is part of a DTensor
        self._pinned: dict[tuple[str, str], torch.Tensor] = {}
        self._stream: torch.cuda.Stream | None = None
        self._in_flight = False

    def on_host(self, key: str) -> bool:
        """Whether idle values of that key, of the state or "master", are in host memory."""
        if key in self._table_keys:
            return False
        return self._host_masters if key == "master" else self._host

    @contextmanager
    def switching(self, device: torch.device) -> Iterator[None]:
        """Context for `put` and `take` between two steps on `device`; all that leaves is put before anything
        is taken.

        One stream copies out, frees and allocates in that order, after the step that has just been queued. So
        memory that is freed here can be allocated here at once, and the host waits for nothing. The copies
        may not be complete at the end: call `ready()` before computing with what was taken.
        """
        if device.type != "cuda" or not (self._host or self._host_masters):
            yield
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(self._stream):
            yield
        self._in_flight = True

    def put(self, name: str, entry: Entry) -> None:
        """Store the entry of a parameter that becomes idle. Nobody else may keep its tensors."""
        if entry:
            parts = self._parts(name, entry)
            self._held[name] = {key: self._leave(name, key, v) for key, v in parts.items()}

    def take(self, name: str, device: torch.device) -> Entry:
        """The entry of a parameter that becomes active, on its device; {} if there is none."""
        entry = self._held.pop(name, {})
        came = {
            key: self._table(key, value, device)
            if key in self._table_keys
            else self._arrive(value, device)
            for key, value in entry.items()
        }
        return self._wholes(name, came)

    def ready(self) -> None:
        """Make the current stream wait for the last fetch, without synchronising the host."""
        if self._in_flight and self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._in_flight = False

    def entries(self) -> Mapping[str, Entry]:
        """All stored entries. Waits until copies to the host are complete."""
        if self._stream is not None:
            self._stream.synchronize()
        return {name: self._wholes(name, entry) for name, entry in self._held.items()}

    def replace(self, entries: Mapping[str, Entry]) -> None:
        """Store `entries` in place of all others, as when a checkpoint is loaded."""
        if self._stream is not None:
            self._stream.synchronize()
        self._held = {name: self._parts(name, entry) for name, entry in entries.items()}
        self._tables = {}
        for name, entry in self._held.items():
            for key, value in entry.items():
                if key in self._table_keys:
                    entry[key] = self._tables.setdefault(key, value)
                elif isinstance(value, torch.Tensor) and value.is_cpu and value.is_pinned():
                    self._pinned[name, key] = value

    def entry(self, name: str) -> Entry:
        """The entry of a parameter itself, to be changed in place; empty if it has none yet."""
        return self._held.setdefault(name, {})

    def drop(self, name: str, *, state: bool, master: bool) -> None:
        """Forget the parameter's state, its master, or both."""
        entry = self._held.pop(name, {})
        if kept := {k: v for k, v in entry.items() if not (master if k == "master" else state)}:
            self._held[name] = kept

    def empty(self, key: str, shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
        """Memory of the store for a value of that key, with that shape and the dtype of `like`, pinned for a
        CUDA device."""
        if self.on_host(key) and like.is_cuda:
            return pinned_like(torch.empty(shape, dtype=like.dtype, device="meta"))
        device = "cpu" if self.on_host(key) else like.device
        return torch.empty(shape, dtype=like.dtype, device=device)

    def stays(self, value: torch.Tensor, parameter: torch.Tensor) -> bool:
        """Whether a value of the state is on the CPU also while its parameter is updated, as Adam's step."""
        return value.ndim == 0 and parameter.ndim > 0 and not self._device_scalars

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(state key, tensor) of all memory in use. It includes the pinned buffers of the active group."""
        for (_, key), buffer in self._pinned.items():
            yield key, buffer
        for name, entry in self._held.items():
            for key, value in entry.items():
                if isinstance(value, torch.Tensor) and (name, key) not in self._pinned:
                    yield key, value

    def _parts(self, name: str, entry: Entry) -> Entry:
        """The entry with the parts of DTensors that are in this process in place of these."""
        parts = dict(entry)
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and is_sharded(value):
                self._layouts[name, key], parts[key] = layout(value), local(value)
        return parts

    def _wholes(self, name: str, entry: Entry) -> Entry:
        """The entry of which `_parts` made this one."""
        layouts = {key: self._layouts.get((name, key)) for key in entry}
        return {k: v if layouts[k] is None else shard(v, layouts[k]) for k, v in entry.items()}

    def _table(self, key: str, value: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The one tensor of that key, on the device also after a checkpoint was loaded on the host."""
        table = self._tables[key] = self._tables.get(key, value).to(device)
        return table

    def _leave(self, name: str, key: str, value: Any) -> Any:
        """`value` in the memory for idle state."""
        if not (self.on_host(key) and isinstance(value, torch.Tensor) and value.is_cuda):
            return value
        if (name, key) not in self._pinned:
            self._pinned[name, key] = pinned_like(value)
        # state that the step has just made is of the stream that computes, which must not use the memory
        # again before the copy has run
        value.record_stream(torch.cuda.current_stream(value.device))
        return self._pinned[name, key].copy_(value, non_blocking=True)

    def _arrive(self, value: Any, device: torch.device) -> Any:
        """`value` on the device, but for numbers that stay on the CPU."""
        if not isinstance(value, torch.Tensor) or value.device == device:
            return value
        if value.ndim == 0 and not self._device_scalars:
            return value
        return value.to(device, non_blocking=True)


def make_store(
    idle: str, idle_master: str | None, *, device_scalars: bool, tables: Collection[str]
) -> IdleStore:
    """The store for these settings. With idle="drop" and "reset" only masters are stored, and on the host."""
    host = idle != "keep"
    masters = host if idle_master is None else idle_master == "cpu"
    return IdleStore(host=host, host_masters=masters, device_scalars=device_scalars, tables=tables)
