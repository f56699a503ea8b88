"""Host memory that is counted apart from the device, on a machine where both are one.

With an accelerator its allocator counts what is on the device. Without one, those who count tensor storages
as they appear (`measure.live_bytes`, the simulator) need to know which of them stand for host memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_apart: ContextVar[bool] = ContextVar("host memory", default=False)


@contextmanager
def host_memory() -> Iterator[None]:
    """Context in which storages that appear are host memory: what is allocated here, and what is viewed."""
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


def is_host_memory() -> bool:
    """Whether a storage that appears now is host memory."""
    return _apart.get()
