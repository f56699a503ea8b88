"""Ends a run's process when the process that started it ends, so that no orphan keeps training."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (prctl(2)). `parent`: the parent's process id.

    Linux only. On other systems the run ends when it reports its next step, because the pipe is closed.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)
