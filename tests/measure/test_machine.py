"""What other work takes of the processors: processes with a known load, beside this one."""

import subprocess
import sys
import time

import psutil
import pytest

from benchmark.measure.machine import Others

SPIN = "import time\nwhile True: pass"


def test_what_another_process_burns_is_seen_and_what_this_one_burns_is_not():
    others = Others()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    quiet = others.share()
    with subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        process = psutil.Process(child.pid)
        others = Others()
        before = sum(process.cpu_times()[:2])
        time.sleep(1.0)
        burnt = sum(process.cpu_times()[:2]) - before
        loud = others.share()
        child.kill()
    assert 0 <= quiet <= 1 and 0 < loud <= 1
    # the kernel counts in hundredths of a second, and something else may run as well
    assert loud >= burnt / psutil.cpu_count() - 0.1


def test_the_first_moment_has_no_share():
    assert Others().share() == pytest.approx(0.0)
