"""Which process writes an MLflow run: a tag by which others tell whether it still can."""

import contextlib
import functools
import os
import socket

import psutil

_CLOCK_S = 5.0  # a start time is counted from that of the system, which follows the clock


@functools.lru_cache
def _this(pid: int) -> str:
    return f"{socket.gethostname()} {pid} {psutil.Process(pid).create_time():.0f}"


def this_process() -> str:
    """The tag's value for this process: host, process id, and start in seconds since 1970."""
    return _this(os.getpid())


def has_ended(owner: str | None) -> bool:
    """Whether the process of a tag has ended. One on another host counts as running, one without a tag (None,
    by versions before 0.2) as ended."""
    if owner is None:
        return True
    host, pid, started = owner.split()
    if host != socket.gethostname():
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > _CLOCK_S
    return True
