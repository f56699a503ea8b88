"""The warm server: imports the libraries of a run once, then forks a fresh process for each run.

The runner starts it as `python -m benchmark.run.warm SOCKET`. SOCKET is the file descriptor of an inherited
Unix socket of type SOCK_SEQPACKET. The server does one run at a time, with three packets per run:

    runner -> server   {"arguments": [...]}, with file descriptors: the run's stdout and stderr, and those
                       that it holds open (the lock on the run)
    server -> runner   {"pid": 123}: the run has started; or {"error": "..."}: the server cannot fork
    server -> runner   {"returncode": 0}: the run has ended; -N if signal N ended it, as in subprocess

Some libraries read environment variables at import, so all runs of a server share one environment.
Linux only.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

from benchmark.lifetime import end_together, end_with

FAMILIES = ("bert", "gpt2", "gpt_neo", "llama", "opt", "roberta")
"""The transformers model families of `benchmark.models.registry.MODELS`."""

LATER = (
    *("benchmark.engine", "benchmark.twin.data", "benchmark.twin.models"),
    *("datasets", "evaluate", "peft", "scipy.io", "sklearn.metrics", "transformers.pipelines"),
    *(f"transformers.models.{name}.modeling_{name}" for name in FAMILIES),
)
"""Modules that a run imports inside functions, apart from those of its strategy and its task."""


MOST_FILES = 8
"""File descriptors that one request may have."""


def preload() -> None:
    """Import the modules of a run and read the code's commit, so that the forks need not.

    Reads no data, creates no tensor and leaves the random states of torch and NumPy as they are. Python
    reseeds its own random state in each fork.
    """
    from benchmark.records import environment
    from benchmark.strategies import STRATEGIES
    from tasks.base import ADAPTERS

    classes = [*STRATEGIES.values(), *(path for path, _ in ADAPTERS.values())]
    modules = [path.partition(":")[0] for path in classes]
    with _hidden("bitsandbytes"):
        for name in ("benchmark.run.recipe", *modules, *LATER):
            importlib.import_module(name)
    # now: another commit may be checked out while the server runs
    environment.code()
    environment.sources()
    from transformers import conversion_mapping

    conversion_mapping.get_checkpoint_conversion_mapping(
        "bert"
    )  # compiles the patterns of all families


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Inside this context the package cannot be imported, as if it were not installed.

    peft imports bitsandbytes if it is there, and bitsandbytes asks for a GPU when it is imported, after which
    CUDA does not work in a fork. A fork that needs it imports it.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


def unsafe() -> str | None:
    """The reason why this process must not be forked, for a message; None if a fork is safe.

    A fork does not have the other threads of the process, so a lock that one of them holds stays locked. A
    CUDA context does not work in a fork.
    """
    threads = sorted(os.listdir("/proc/self/task"))
    if len(threads) > 1:
        return f"it has {len(threads)} threads: {', '.join(map(_name_of, threads))}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "it has initialised CUDA"
    return None


def _name_of(thread: str) -> str:
    """The name of a thread of this process, by its id."""
    with open(f"/proc/self/task/{thread}/comm", encoding="utf-8") as file:
        return file.read().strip()


def serve(requests: socket.socket, run: Callable[[], int]) -> int:
    """Fork a process for each request until the runner closes its end of the socket.

    A fork calls `run` with the request's `arguments` in `sys.argv[1:]`. Returns an exit status: 0 in the
    server, the return value of `run` in a fork.
    """
    ended = None
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 16, MOST_FILES)
        if ended is not None:
            os.waitpid(ended, 0)
        if not message:
            return 0
        ended = None
        if (reason := unsafe()) is not None:
            _send(requests, {"error": reason})
        elif (pid := os.fork()) == 0:
            requests.close()
            _become(json.loads(message)["arguments"], files)
            return run()
        else:
            _send(requests, {"pid": pid})
            result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert result is not None
            # The run is reaped at the next request only. Until then no other process can get its pid, to
            # which the runner may still send a signal.
            ended = pid
            exited = result.si_code == os.CLD_EXITED
            _send(requests, {"returncode": result.si_status if exited else -result.si_status})
        for file in files:
            os.close(file)


def _become(arguments: Sequence[str], files: Sequence[int]) -> None:
    """Set the `arguments` of this fork, and redirect its stdout and stderr to the first two of `files`."""
    for file, standard in zip(files, (1, 2), strict=False):
        os.dup2(file, standard)
        os.close(file)
    sys.argv[1:] = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _send(requests: socket.socket, reply: dict[str, object]) -> None:
    requests.send(json.dumps(reply).encode())


class Exit:
    """Ends the process with `status`, if that is set, without the interpreter's final cleanup.

    Freeing the modules would copy the memory pages that a fork shares with the server, which takes over half
    a second. atexit calls its functions in reverse order, so this object is made before other imports: it is
    called last.
    """

    status: int | None = None

    def __init__(self) -> None:
        atexit.register(self._now)

    def _now(self) -> None:
        if self.status is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)


def main() -> int:
    """Serve on the socket whose number is the only argument."""
    for number in (signal.SIGINT, signal.SIGTERM):  # which the runner and the run handle
        signal.signal(number, signal.SIG_IGN)
    end_with(os.getppid())
    end_together()
    leave = Exit()
    requests = socket.socket(fileno=int(sys.argv[1]))
    preload()
    gc.collect()
    gc.freeze()  # garbage collection in a fork does not touch objects shared with the server
    recipe = importlib.import_module("benchmark.run.recipe")
    leave.status = serve(requests, recipe.main)
    return leave.status


if __name__ == "__main__":
    sys.exit(main())
