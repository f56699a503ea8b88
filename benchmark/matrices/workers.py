"""Workers: how many runs go on at once, and which processors and GPU each of them has."""

import os
from collections.abc import Mapping

from benchmark.records import environment


def variables_of(worker: int, workers: int, base: Mapping[str, str]) -> dict[str, str]:
    """The environment variables `base` of a run on worker number `worker` (from 0) of `workers`.

    One worker has the whole machine. Of several, each has an equal number of threads, unless fewer are asked
    for, and one of the GPUs in turn.
    """
    if workers == 1:
        return dict(base)
    threads = max(1, _processors() // workers)
    own = {
        name: str(min(threads, int(base[name])) if base.get(name, "").isdecimal() else threads)
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    }
    if gpu := gpu_of(worker, base):
        own["CUDA_VISIBLE_DEVICES"] = gpu
    return {**base, **own}


def gpu_of(worker: int, base: Mapping[str, str]) -> str | None:
    """The GPU of worker number `worker`, of which there are several, as CUDA_VISIBLE_DEVICES names it."""
    gpus = _gpus(base)
    return gpus[worker % len(gpus)] if gpus else None


def _processors() -> int:
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
