"""How processes end: a child with the process that started it, and a program by the signals of schedulers.

A program does not end with the reader of what it prints.
"""

import contextlib
import ctypes
import errno
import functools
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

PR_SET_PDEATHSIG = 1
STOPPING = ("SIGTERM", "SIGHUP")
"""The signals that ask a program to end. Schedulers and `kill` send the first, a closed terminal the second.
"""

RUNNER = "HIFT_RUNNER"
"""Environment variable of a run that has an interpreter of its own: the process id of its runner."""


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process the signal `number` when its parent ends (prctl(2)).

    parent: the parent's process id. Linux only. On other systems a run ends when it reports its next step,
    because the pipe is closed.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


def end_together() -> None:
    """Have every process that this one forks, and those that they fork, end with its parent.

    These are the runs of a warm server and the workers of a DataLoader, but not what `subprocess` starts.
    """
    parent: list[int] = []
    os.register_at_fork(
        before=lambda: parent.append(os.getpid()),
        after_in_parent=parent.clear,
        after_in_child=lambda: end_with(parent.pop()),
    )


class Family:
    """Context manager: runs `command` in a process group of its own, which ends with the context.

    All of the group get SIGTERM, and SIGKILL after `grace` seconds. If this process is killed, the command
    gets SIGTERM from the kernel (Linux only), and has to pass it on to its children, as `mlflow ui` does.
    """

    def __init__(self, command: Sequence[str], grace: float = 5.0) -> None:
        self._command, self._grace = command, grace

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            self._command,
            start_new_session=True,
            preexec_fn=functools.partial(end_with, os.getpid(), signal.SIGTERM),
        )
        return self._process

    def __exit__(self, *error: object) -> None:
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._grace)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class Stopped(KeyboardInterrupt):
    """One of STOPPING asked the program to end; the message names the signal."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Context in which the signals of STOPPING do what Ctrl-C does: they raise Stopped.

    Only the first does. Those after it are ignored, so that what the program writes last is written. A signal
    that was ignored before, as SIGHUP is under nohup, stays so.
    """
    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(f"stopped by {signal.Signals(number).name}")

    before = {n: h for n in numbers if (h := signal.getsignal(n)) != signal.SIG_IGN}
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def die_at_once() -> None:
    """End at SIGTERM as if no library handled it. Lightning would finish the step, and end with status 0."""

    def die(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, die)


_UNREAD = (errno.EPIPE, errno.EIO)
"""A closed pipe, and a terminal that is gone."""


class _Lasting(io.FileIO):
    """A file that takes what is written to it also once nobody reads it, and loses it then."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _UNREAD:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


def outlive_readers() -> None:
    """From now on this process may print to stdout and stderr after their reader, such as `head`, has ended,
    or where they were closed before it started: what nobody can read is lost, and the process goes on."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a file would get their numbers
        pass
    os.close(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):  # not one that a test put there
            lasting = io.TextIOWrapper(
                io.BufferedWriter(_Lasting(number, "w", closefd=False)),
                encoding=getattr(stream, "encoding", "utf-8"),
                errors=getattr(stream, "errors", "replace"),
                # what is said to the user is in a log at once, too
                line_buffering=name == "stderr" or getattr(stream, "line_buffering", True),
            )
            setattr(sys, name, lasting)
