"""Freed memory stays with the process: the kernel, which counts page faults, says so."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """\
import resource

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * (64 << 20)  # above 32 MiB: a block of its own by default
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
"""Code that defines `faults()`: the page faults of writing 64 MiB, which are freed at once."""

PAGES = (64 << 20) // 4096


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallopt"), reason="the allocator is not glibc's"
)
def test_memory_that_was_freed_is_used_again():
    code = f"""{FAULTS}
from benchmark.run.allocator import keep_freed_memory
before = faults(), faults()
keep_freed_memory()
print(*before, faults(), faults())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    *taken, kept = map(int, done.stdout.split())
    assert min(taken) > PAGES * 0.9
    assert kept < PAGES / 100
