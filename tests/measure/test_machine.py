"""The load of other processes, measured beside a process whose processor time is known."""

import subprocess
import sys
import time

import psutil
import pytest

from benchmark.measure.machine import Others

SPIN = "import time\nwhile True: pass"


def test_the_load_of_another_process_counts_and_that_of_this_one_does_not():
    others = Others()
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
    quiet = others.share()
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        process = psutil.Process(child.pid)
        others = Others()
        before = sum(process.cpu_times()[:2])
        time.sleep(0.4)
        child_time = sum(process.cpu_times()[:2]) - before
        loud = others.share()
        child.kill()
    assert 0 <= quiet <= 1 and 0 < loud <= 1
    # the kernel's clock has steps of 0.01 s; other processes can only add to the share
    assert loud >= child_time / psutil.cpu_count() - 0.1


def test_the_share_is_zero_right_after_construction():
    assert Others().share() == pytest.approx(0.0)
