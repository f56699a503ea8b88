"""Processes in which tests run a function on every rank, over gloo on the CPU; two unless a test says more.

They start once (imports are most of the cost) and get a fresh process group for each call. A
call is a function of a test module and plain arguments; what it returns, or the exception it raised,
comes back, one per rank.
"""

import contextlib
import os
import queue
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forks import FORKS

TRIES = 3
TIMEOUT = 120  # seconds until a call whose ranks wait for each other is given up


def _serve(rank: int, world: int, calls: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    while True:
        run, args, meeting = calls.get()
        try:
            dist.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world
            )
            answer = run(rank, *args)
        except Exception as error:
            answer = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        finally:
            with contextlib.suppress(Exception):
                dist.destroy_process_group()
        answers.put((rank, answer))


class Failure(Exception):
    """What went wrong on a rank: its message first, then where."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(message, where)
        self.message = message


class Ranks:
    """`ranks(run, *args)` is [run(0, *args), run(1, *args), ...], each in its own process."""

    def __init__(self, folder: Path, world: int) -> None:
        self._folder, self._world, self._count = folder, world, 0
        self._processes: list[Any] = []

    def __call__(self, run: Callable[..., Any], *args: Any) -> list[Any]:
        answers = self.attempt(run, *args)
        for answer in answers:
            if isinstance(answer, Failure):
                raise answer
        return answers

    def attempt(self, run: Callable[..., Any], *args: Any) -> list[Any]:
        """As a call, but a rank's exception is its answer."""
        for _ in range(TRIES):
            answers = self._answers_of(run, *args)
            if answers is not None:
                return answers
        raise RuntimeError(f"the ranks could not connect in {TRIES} tries")

    def _answers_of(self, run: Callable[..., Any], *args: Any) -> list[Any] | None:
        """An answer per rank; None if they could not connect, after which there are new processes.

        On a busy machine gloo at times closes the connection that it has just made. The other rank then waits
        for ever.
        """
        if not self._processes:
            self._start()
        self._count += 1
        for calls in self._calls:
            calls.put((run, args, str(self._folder / f"meeting{self._count}")))
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + TIMEOUT
        while len(answers) < self._world:
            with contextlib.suppress(queue.Empty):
                rank, answer = self._answers.get(timeout=1)
                answers[rank] = answer
                if isinstance(answer, Failure) and "connectFullMesh failed" in answer.message:
                    self.close()
                    return None
                continue
            dead = [p.exitcode for p in self._processes if not p.is_alive()]
            if dead or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"no answer; exit codes {dead}; so far: {answers}")
        return [answers[rank] for rank in range(self._world)]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._processes = []

    def _start(self) -> None:
        self._calls = [FORKS.SimpleQueue() for _ in range(self._world)]
        self._answers = FORKS.Queue()
        self._processes = [
            FORKS.Process(target=_serve, args=(r, self._world, calls, self._answers), daemon=True)
            for r, calls in enumerate(self._calls)
        ]
        for process in self._processes:
            process.start()


def start(world: int = 2) -> Iterator[Ranks]:
    """For a fixture that several tests share."""
    here = str(Path(__file__).parent)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    assert here in sys.path  # spawned processes get it, and find test modules by name
    with tempfile.TemporaryDirectory() as folder:
        ranks = Ranks(Path(folder), world)
        try:
            yield ranks
        finally:
            ranks.close()


@contextlib.contextmanager
def launched(rank: int) -> Iterator[None]:
    """What torchrun sets for its processes, for libraries that look there."""
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_PORT": 29500,  # the process group exists already; nothing listens here
        "TORCHELASTIC_RUN_ID": "test",
    }
    os.environ.update({key: str(value) for key, value in variables.items()})
    _forget_accelerate()
    try:
        yield
    finally:
        for key in variables:
            os.environ.pop(key)
        _forget_accelerate()


def _forget_accelerate() -> None:
    """Its state is one per process, and a rank here lives through many runs."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies, whole where they are sharded."""
    named = {n: getattr(p, "full_tensor", lambda p=p: p)() for n, p in model.named_parameters()}
    return {n: tensor.detach().clone() for n, tensor in named.items()}


def apart(answers: list[dict[str, torch.Tensor]], expected: torch.nn.Module) -> float:
    """The largest difference of any weight on any rank from the expected model's."""
    return max(
        (answer[n].float() - p.detach().float()).abs().max().item()
        for answer in answers
        for n, p in expected.named_parameters()
    )


class Traffic:
    """Bytes given to dist.all_reduce while it is open: floats (gradients) and the rest."""

    def __enter__(self):
        self.gradients = self.rest = 0
        self._real = dist.all_reduce

        def counted(tensor, *args, **kwargs):
            if tensor.is_floating_point():
                self.gradients += tensor.nbytes
            else:
                self.rest += tensor.nbytes
            return self._real(tensor, *args, **kwargs)

        dist.all_reduce = counted
        return self

    def __exit__(self, *error):
        dist.all_reduce = self._real
