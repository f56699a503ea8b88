"""Stores the state of idle groups, on the device (keep) or in host memory (cpu).

With CUDA, host memory is pinned and allocated once per tensor. When the group switches, a side stream copies
the old group's state to the host and the new group's state to the device, during the next forward and
backward pass. No step synchronises, and the device never has the state of more than these two groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

Entry = dict[str, Any]  # one parameter's optimizer state (and "master"), as in Optimizer.state


class IdleStore:
    """The entries of idle parameters, by name.

    host: store them in host memory; otherwise they stay where they are. device_scalars: put 0-d tensors
    (Adam's step) on the device too, as fused and capturable optimizers need; otherwise they stay on the CPU.
    """

    def __init__(self, *, host: bool, device_scalars: bool = False) -> None:
        self.host = host
        self._device_scalars = device_scalars
        self._held: dict[str, Entry] = {}
        self._pinned: dict[tuple[str, str], torch.Tensor] = {}
        self._stream: torch.cuda.Stream | None = None
        self._compute: torch.cuda.Stream | None = None
        self._in_flight = False

    def swap(
        self, leaving: Mapping[str, Entry], arriving: Mapping[str, torch.device]
    ) -> dict[str, Entry]:
        """Store the entries of `leaving`; return those of `arriving` on their devices ({} if there are none).

        The copies may not be complete on return: call `ready()` before computing with them.
        """
        cuda = next((d for d in arriving.values() if d.type == "cuda"), None)
        if cuda is None or not self.host:
            self._held.update(leaving)
            return {n: self._to(self._held.pop(n, {}), d) for n, d in arriving.items()}
        if self._stream is None:
            self._stream = torch.cuda.Stream(cuda)
        self._compute = torch.cuda.current_stream(cuda)
        self._stream.wait_stream(self._compute)
        with torch.cuda.stream(self._stream):
            self._held.update({n: self._write_back(n, entry) for n, entry in leaving.items()})
            fetched = {n: self._to(self._held.pop(n, {}), d) for n, d in arriving.items()}
        self._in_flight = True
        return fetched

    def ready(self) -> None:
        """Make the current stream wait for the last fetch, without synchronising the host."""
        if self._in_flight and self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._in_flight = False

    def entries(self) -> Mapping[str, Entry]:
        """All stored entries. Waits until copies to the host are complete."""
        if self._stream is not None:
            self._stream.synchronize()
        return self._held

    def replace(self, entries: Mapping[str, Entry]) -> None:
        """Store `entries` in place of all others, as when a checkpoint is loaded."""
        self.entries()
        self._held = dict(entries)
        for name, entry in entries.items():
            for key, value in entry.items():
                if isinstance(value, torch.Tensor) and value.is_cpu and value.is_pinned():
                    self._pinned[name, key] = value

    def entry(self, name: str) -> Entry:
        """The entry of a parameter itself, to be changed in place; empty if it has none yet."""
        return self._held.setdefault(name, {})

    def drop(self, name: str, *, state: bool, master: bool) -> None:
        """Forget the parameter's state, its master, or both."""
        entry = self._held.pop(name, {})
        if kept := {k: v for k, v in entry.items() if not (master if k == "master" else state)}:
            self._held[name] = kept

    def empty(self, shape: torch.Size, like: torch.Tensor) -> torch.Tensor:
        """Memory of the store for what has that shape and the dtype of `like`, pinned for a CUDA device."""
        device = "cpu" if self.host else like.device
        pinned = self.host and like.is_cuda
        return torch.empty(shape, dtype=like.dtype, device=device, pin_memory=pinned)

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

    def _write_back(self, name: str, entry: Entry) -> Entry:
        parked: Entry = {}
        for key, value in entry.items():
            if isinstance(value, torch.Tensor) and value.is_cuda:
                if (name, key) not in self._pinned:
                    self._pinned[name, key] = torch.empty_like(value, device="cpu", pin_memory=True)
                # the caching allocator must not hand the memory out before the copy has run
                value.record_stream(torch.cuda.current_stream(value.device))
                value = self._pinned[name, key].copy_(value, non_blocking=True)
            parked[key] = value
        return parked

    def _to(self, entry: Entry, device: torch.device) -> Entry:
        return {key: self._move(value, device) for key, value in entry.items()}

    def _move(self, value: Any, device: torch.device) -> Any:
        if not isinstance(value, torch.Tensor) or value.device == device:
            return value
        if value.ndim == 0 and not self._device_scalars:
            return value
        moved = value.to(device, non_blocking=True)
        if self._compute is not None and moved.is_cuda:
            # allocated on the side stream, used and freed on the one that computes
            moved.record_stream(self._compute)
        return moved
