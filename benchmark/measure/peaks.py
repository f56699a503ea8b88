"""Peaks: the peak bytes of a training, read from the allocator of a CUDA device or counted on a CPU."""

import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch

from benchmark.engine.sharded import local
from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.optimizer_state import active_group, state_bytes, state_tensors
from benchmark.measure.weights import device_weights, host_weights
from benchmark.records.record import Memory

COUNTED_VISITS = 2
"""The bytes of a group's first steps are counted whatever the size of the batch: the first step creates the
optimizer state, and the second one starts with it."""

_PEAKS = (
    *("_live", "_gradients", "_state", "_master", "_host_state", "_reserved"),
    *("_visits", "_largest"),
)


class Peaks:
    """The peaks of a training of `model` on `device`, in bytes."""

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self._model, self._device = model, device
        self._cuda = device.type == "cuda"
        weights = [*model.parameters(), *model.buffers()]
        self._parameters = sum(local(tensor).nbytes for tensor in weights)
        self._live = self._gradients = self._state = self._master = self._host_state = 0
        self._reserved: int | None = None
        self._step: int | None = None
        self._visits: dict[int, int] = {}
        self._largest: dict[int, int] = {}

    def restart_allocator(self) -> None:
        """Forget what the allocator saw since `read_allocator`."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self._device)

    def read_allocator(self) -> None:
        """Take the allocator's peaks since `restart_allocator`."""
        if self._cuda:
            self.add_live(torch.cuda.max_memory_allocated(self._device))
            reserved = torch.cuda.max_memory_reserved(self._device)
            self._reserved = max(self._reserved or 0, reserved)

    def visit(self, group: int) -> None:
        """A step of `group` begins."""
        self._visits[group] = self._visits.get(group, 0) + 1

    def counter(
        self, optimizer: torch.optim.Optimizer, batch: Mapping[str, torch.Tensor]
    ) -> LiveBytes | None:
        """A context for a micro-batch that may set a new peak for the active group, on a CPU. Its peak goes
        to `add_live`. None if the micro-batch is not counted."""
        group, size = active_group(optimizer), batch["input_ids"].numel()
        known = self._visits[group] > COUNTED_VISITS and size <= self._largest.get(group, 0)
        if self._cuda or known:
            return None
        self._largest[group] = max(size, self._largest.get(group, 0))
        state = state_bytes(optimizer)["device"]
        resident = [*device_weights(self._model), *batch.values()]
        resident += [p.grad for p in self._model.parameters() if p.grad is not None]
        return LiveBytes(
            resident,
            counted_elsewhere=[*state_tensors(optimizer), *host_weights(self._model)],
            base=state["optimizer_state"] + state["master"],
        )

    def add_live(self, size: int) -> None:
        self._live = max(self._live, size)
        self._step = max(self._step or 0, size)

    def end_step(self) -> int | None:
        """The peak of the step that has ended; None where nothing was counted in it. The next one begins."""
        self.read_allocator()
        self.restart_allocator()
        peak, self._step = self._step, None
        return peak

    def add_gradients(self, size: int) -> None:
        self._gradients = max(self._gradients, size)

    def add_state(self, optimizer: torch.optim.Optimizer) -> int:
        """Take the bytes of the optimizer's state and masters as they are after a step. Returns those that
        wait in host memory."""
        state = state_bytes(optimizer)
        self._state = max(self._state, state["device"]["optimizer_state"])
        self._master = max(self._master, state["device"]["master"])
        host = sum(state["host"].values())
        self._host_state = max(self._host_state, host)
        return host

    def state_dict(self) -> dict[str, Any]:
        """The peaks so far."""
        return {name: getattr(self, name) for name in _PEAKS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the peaks of a `state_dict()`."""
        vars(self).update(state)

    def memory(self, load_peak: int | None) -> Memory:
        """The peaks for the record, with that of loading."""
        return Memory(
            kind="cuda" if self._cuda else "counted_cpu_tensors",
            device=str(self._device),
            peak_allocated=self._live,
            peak_reserved=self._reserved,
            parameters=self._parameters,
            gradients=self._gradients,
            optimizer_state=self._state,
            master=self._master,
            host_state=self._host_state,
            host_rss_peak=host_rss_peak(),
            eval_peak=None,
            load_peak=load_peak,
        )


def host_rss_peak() -> int:
    """Peak resident set size of this process so far, in bytes, libraries included.

    In a run forked from the warm server it includes the server's resident memory at the time of the fork,
    which the two share until one of them writes to it. Earlier peaks of the server do not count.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that torch (on a device or CPU) or Python could not allocate memory."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)
