"""Which runs are started: those that fit into memory, by the predicted peaks of their steps.

`Room` counts the memory of this machine. An engine that places its runs itself has Limits of its own.
"""

import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from benchmark.matrices.foreseen import Fault
from benchmark.records.spec import RunSpec
from benchmark.sizes import GIB, MIB, readable

LIBRARIES = GIB
"""Bytes of host memory that a run takes beside its tensors: torch and what it loads."""

Predict = Callable[[RunSpec, str], tuple[int, int] | None]
"""The peaks of a run on "cpu" or "cuda": bytes on the device and in host memory; None if nothing trains
(`forecast.peaks`)."""


@dataclass(frozen=True)
class Need:
    """Bytes that a run takes at its peak, of the host and of each of its GPUs."""

    host: int = LIBRARIES
    gpu: int = 0


@dataclass
class Needs:
    """The needs of runs, predicted once for those of a cell. One that cannot be predicted counts with the
    libraries alone."""

    predict: Predict
    _known: dict[tuple[str, ...], Need] = field(default_factory=dict, init=False)

    def of(self, spec: RunSpec, device: str) -> Need:
        """What the run takes on a "cpu", or on a machine with "cuda"."""
        key = (spec.task, spec.model, spec.label, device)
        if key not in self._known:
            self._known[key] = self._predicted(spec, device)
        return self._known[key]

    def _predicted(self, spec: RunSpec, device: str) -> Need:
        try:
            peaks = self.predict(spec, device)
        except (
            ValueError,
            RuntimeError,
        ):  # bad input, which the run will say, or what cannot be simulated
            peaks = None
        if peaks is None:
            return Need()
        on_device, host = peaks
        if device == "cpu":
            return Need(spec.devices * (LIBRARIES + on_device + host))
        return Need(spec.devices * (LIBRARIES + host), on_device)


def too_large(need: int, there: int, memory: str) -> Fault:
    """What is recorded for a run that takes `need` bytes of a memory that has `there`."""
    return Fault(
        "oom",
        f"not started: predicted to need {readable(need)} of {memory}, of which there is {readable(there)}",
    )


class Limits(Protocol):
    """What decides whether a run is started. gpu: of its place; None: the whole machine's, or none."""

    def fault(self, spec: RunSpec, gpu: str | None) -> Fault | None:
        """Why the run cannot be made here, even alone; None if it can."""

    def fits(
        self, spec: RunSpec, gpu: str | None, running: Iterable[tuple[RunSpec, str | None]]
    ) -> bool:
        """Whether the run may start now, beside those that run, each with its GPU."""


@dataclass
class Room:
    """Limits: the bytes of memory of a machine, `host`, and `gpus` by their names in CUDA_VISIBLE_DEVICES."""

    predict: Predict
    host: int = field(default_factory=lambda: psutil.virtual_memory().total)
    gpus: Mapping[str, int] = field(default_factory=lambda: gpu_memory())

    def __post_init__(self) -> None:
        self._needs = Needs(self.predict)

    def fault(self, spec: RunSpec, gpu: str | None) -> Fault | None:
        """Why the run is too large for this machine, even alone; None if it is not."""
        need = self._need(spec, gpu)
        device = self.gpus.get(gpu or "", need.gpu)
        for name, needed, there in (("GPU", need.gpu, device), ("host", need.host, self.host)):
            if needed > there:
                return too_large(needed, there, f"{name} memory")
        return None

    def fits(
        self, spec: RunSpec, gpu: str | None, running: Iterable[tuple[RunSpec, str | None]]
    ) -> bool:
        """Whether the run fits beside those that run, each with its GPU. Alone it may always start."""
        others = [(self._need(other, on), on) for other, on in running]
        need = self._need(spec, gpu)
        host = need.host + sum(other.host for other, _ in others)
        device = need.gpu + sum(other.gpu for other, on in others if on == gpu)
        return not others or (host <= self.host and device <= self.gpus.get(gpu or "", device))

    def _need(self, spec: RunSpec, gpu: str | None) -> Need:
        return self._needs.of(spec, "cpu" if gpu is None else "cuda")


def gpu_memory() -> dict[str, int]:
    """Bytes of each NVIDIA GPU, by its number and by its id; empty without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return {
        name: int(row[2]) * MIB
        for row in rows
        if len(row) == 3 and row[2].isdecimal()
        for name in row[:2]
    }
