"""Pinned host memory of exactly the bytes asked for, for what stays there as long as its optimizer.

torch's own allocator rounds each pinned tensor up to a power of two. AdamW's moments and the masters of
LLaMA-7B, 75 GiB, would take 99, because each of its feed-forward matrices has 172 MiB and would take 256.
Pages that are registered with CUDA have no such rounding. The allocator remains the better choice for memory
that comes and goes, since it keeps what is freed until the copies from and to it are complete.
"""

from __future__ import annotations

import mmap
import weakref
from typing import Any

import torch

LEAST = 1 << 20
"""Bytes. What is smaller comes from torch's allocator: a registration takes whole pages and some time."""
PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device


def pinned_like(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An uninitialised tensor in pinned memory with the shape and, if it is dense, the strides of `tensor`.

    dtype: None for that of `tensor`. Needs CUDA. Copies from and to the result must be complete before the
    last reference to it ends.
    """
    layout = torch.empty_like(tensor, dtype=dtype, device="meta")
    nbytes = layout.untyped_storage().nbytes()
    if nbytes >= LEAST:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        flat = torch.frombuffer(memory, dtype=layout.dtype)
        cuda: Any = torch.cuda.cudart()
        address = flat.data_ptr()
        if int(cuda.cudaHostRegister(address, nbytes, PORTABLE)) == 0:
            ending = weakref.finalize(flat.untyped_storage(), cuda.cudaHostUnregister, address)
            ending.atexit = False  # the process ends with all its memory
            return flat.as_strided(layout.shape, layout.stride())
    return torch.empty_like(layout, device="cpu", pin_memory=True)
