"""Runs as processes of this machine, on workers that share out its threads and GPUs."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TextIO

from benchmark.matrices import child, processes
from benchmark.matrices.claims import Claim
from benchmark.matrices.engines.places import Engine
from benchmark.matrices.processes import Process
from benchmark.records import environment
from benchmark.records.spec import RunSpec


def engine(workers: int, warm: bool) -> Engine:
    """`workers` runs at once; warm: forked from servers that have imported all libraries, where possible."""

    @contextlib.contextmanager
    def opened(scratch: Path, note: Callable[[str], None]) -> Iterator[list[Worker]]:
        with contextlib.ExitStack() as stack:
            starters = [
                stack.enter_context(processes.starter(warm, scratch / "warm.log", note))
                for _ in range(workers)
            ]
            yield [Worker(number, workers, starter) for number, starter in enumerate(starters)]

    return opened


@dataclass(frozen=True)
class Worker:
    """Worker `number` of `of`, a Place."""

    number: int
    of: int
    starter: processes.Starter
    apart: ClassVar[bool] = False
    lasting: ClassVar[bool] = False

    @property
    def gpu(self) -> str | None:
        return gpu_of(self.number, os.environ) if self.of > 1 else None

    def prepare(self, spec: RunSpec) -> None:
        self.starter.prepare(self._variables(spec))

    def start(self, spec: RunSpec, arguments: Sequence[str], log: TextIO, claim: Claim) -> Process:
        log.truncate(0)
        return self.starter.start(arguments, log, self._variables(spec), (claim.file,))

    def _variables(self, spec: RunSpec) -> dict[str, str]:
        return variables_of(self.number, self.of, child.environment_of(spec))


def variables_of(worker: int, workers: int, base: Mapping[str, str]) -> dict[str, str]:
    """The environment variables `base` of a run on worker number `worker` (from 0) of `workers`.

    One worker has the whole machine. Of several, each has an equal number of threads, unless fewer are asked
    for, and one of the GPUs in turn.
    """
    if workers == 1:
        return dict(base)
    own = threads_of(processors() // workers, base)
    if gpu := gpu_of(worker, base):
        own["CUDA_VISIBLE_DEVICES"] = gpu
    return {**base, **own}


def threads_of(threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a run with so many `threads`, at least one, or with those of `base`
    if these are fewer."""
    most = max(1, threads)
    return {
        name: str(min(most, int(base[name])) if base.get(name, "").isdecimal() else most)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }


def gpu_of(worker: int, base: Mapping[str, str]) -> str | None:
    """The GPU of worker number `worker`, of which there are several, as CUDA_VISIBLE_DEVICES names it."""
    gpus = _gpus(base)
    return gpus[worker % len(gpus)] if gpus else None


def processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus(base: Mapping[str, str]) -> list[str]:
    """The NVIDIA GPUs that CUDA_VISIBLE_DEVICES names, or else all, read without torch."""
    visible = base.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [
        str(number) for number, _ in enumerate(sorted(environment.NVIDIA.glob("*/information")))
    ]
