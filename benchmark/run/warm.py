"""The warm server: imports what a run needs once, then forks a fresh process for each run.

The runner starts it as `python -m benchmark.run.warm SOCKET`, SOCKET the number of an inherited Unix socket
that keeps packets apart (SOCK_SEQPACKET). One run at a time, three packets a run:

    runner -> server   {"arguments": [...]}, with two file descriptors: the run's stdout and stderr
    server -> runner   {"pid": 123}          the run has begun; or {"error": "..."}: no fork can be had
    server -> runner   {"returncode": 0}     it has ended; as in subprocess, -N where signal N ended it

Libraries read some environment variables when they are imported, so a server serves one environment.
Linux only.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from benchmark.run.parent import end_with

FAMILIES = ("bert", "gpt2", "gpt_neo", "llama", "opt", "roberta")
"""The families of transformers that the models of `benchmark.models.registry.MODELS` belong to."""

LATER = (
    *("benchmark.engine", "benchmark.twin.data", "benchmark.twin.models"),
    *("datasets", "evaluate", "peft", "scipy.io", "sklearn.metrics", "transformers.pipelines"),
    *(f"transformers.models.{name}.modeling_{name}" for name in FAMILIES),
)
"""What a run imports where it is first used, beside the modules of its strategy and its task."""


def preload() -> None:
    """Import what runs import, and note the code's commit, so that no fork has to.

    Reads no data and makes no tensor. Torch's and NumPy's random states stay as they are; Python seeds its
    own anew in each fork.
    """
    from benchmark.records import environment
    from benchmark.strategies import STRATEGIES
    from tasks.base import ADAPTERS

    places = [*STRATEGIES.values(), *(place for place, _ in ADAPTERS.values())]
    ours = [place.partition(":")[0] for place in places]
    for name in ("benchmark.run.recipe", *ours, *LATER):
        importlib.import_module(name)
    environment.code()  # of what is imported here, whatever is checked out later
    from transformers import conversion_mapping

    conversion_mapping.get_checkpoint_conversion_mapping("bert")  # compiles those of all families


def unsafe() -> str | None:
    """Why a fork of this process would not be as good as a fresh process; None where it is.

    A fork has none of the other threads, so a lock that one of them holds stays locked. A CUDA context does
    not survive a fork.
    """
    threads = sorted(os.listdir("/proc/self/task"))
    if len(threads) > 1:
        return f"it has {len(threads)} threads: {', '.join(map(_name_of, threads))}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "it has initialised CUDA"
    return None


def _name_of(thread: str) -> str:
    with open(f"/proc/self/task/{thread}/comm", encoding="utf-8") as file:
        return file.read().strip()


def serve(requests: socket.socket, run: Callable[[], int]) -> int:
    """Fork a process for each request until the runner closes its end of the socket.

    Returns in the server with 0, and in each fork with what `run` returned there, called with the request's
    `arguments` in `sys.argv[1:]`. Both are exit statuses.
    """
    server, ended = os.getpid(), None
    while True:
        message, files, _, _ = socket.recv_fds(requests, 1 << 16, 2)
        if ended is not None:
            os.waitpid(ended, 0)
        if not message:
            return 0
        ended = None
        if (reason := unsafe()) is not None:
            _send(requests, {"error": reason})
        elif (pid := os.fork()) == 0:
            end_with(server)
            requests.close()
            _become(json.loads(message)["arguments"], files)
            return run()
        else:
            _send(requests, {"pid": pid})
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert found is not None
            # not reaped before the next request: until then no other process has this pid, and the runner
            # may still send it a signal
            ended = pid
            exited = found.si_code == os.CLD_EXITED
            _send(requests, {"returncode": found.si_status if exited else -found.si_status})
        for file in files:
            os.close(file)


def _become(arguments: Sequence[str], files: Sequence[int]) -> None:
    """Give this fork its `arguments`, and `files` as stdout and stderr."""
    for file, place in zip(files, (1, 2), strict=True):
        os.dup2(file, place)
        os.close(file)
    sys.argv[1:] = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _send(requests: socket.socket, reply: dict[str, object]) -> None:
    requests.send(json.dumps(reply).encode())


class Exit:
    """The exit status of this process, once known; then the interpreter's end is cut short.

    Freeing each module would copy the pages that a fork shares with the server: over half a second. Made
    before anything is imported that registers with atexit, it is called after all of that.
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner and the run
    end_with(os.getppid())
    leave = Exit()
    requests = socket.socket(fileno=int(sys.argv[1]))
    preload()
    gc.collect()
    gc.freeze()  # collections in a fork leave alone what it shares with this process
    recipe = importlib.import_module("benchmark.run.recipe")
    leave.status = serve(requests, recipe.main)
    return leave.status


if __name__ == "__main__":
    sys.exit(main())
