"""The allocator of a run's process: host memory that is freed stays with the process, to be used again."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> None:
    """Have malloc return no freed memory to the kernel until the process ends. Does nothing without glibc.

    By default malloc takes each block of 32 MiB or more from the kernel and returns it when it is freed.
    AdamW makes temporary tensors as large as each parameter in each step. Those of MiniLM's word embeddings
    have 45 MiB, and two thirds of the update's processor time went into page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
