"""Ranks: the processes of a run that trains on several devices, and what they tell each other.

The first rank is the process of the run. When the training begins it starts the others, each of which loads
model and data itself, by the same code and seed. Every rank trains on its part of each batch, and the engine
averages the gradients, so all have the same weights; or they divide the model among them (`shards.py`). The
others end with the training.
"""

import contextlib
import datetime
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy

from benchmark.engine import BlockwiseOptimizer
from benchmark.engine.distributed import synchronise
from benchmark.engine.sharded import has_shards
from benchmark.engine.sums import Sums
from benchmark.lifetime import die_at_once, end_with
from benchmark.measure.peaks import out_of_memory
from benchmark.measure.training import Diverged
from benchmark.records.spec import RunSpec
from benchmark.run.allocator import keep_freed_memory

Report = Callable[[dict[str, Any]], None]

OUT_OF_MEMORY = 12
"""The exit status of a rank that ran out of memory (ENOMEM)."""
PATIENCE = datetime.timedelta(minutes=30)
"""How long a rank waits for the others, which load their data and may evaluate."""
LAST_S = 60
"""Seconds that the other ranks have to end after the training."""
BUCKET = 1 << 20
"""The most bytes of gradients that are copied to be sent together."""


class Ranks:
    """Rank `number` of the `of` of a run. folder: where they meet; of the first, made when they do."""

    def __init__(self, number: int, of: int, folder: Path | None = None) -> None:
        self.number, self.of = number, of
        self._folder = folder

    @property
    def is_first(self) -> bool:
        """Whether this is the process of the run, which alone reports, saves and scores."""
        return self.number == 0

    def trainer(self) -> dict[str, Any]:
        """The arguments of Lightning's Trainer for the devices."""
        if self.of == 1:
            return {"devices": 1}
        return {
            "devices": self.of,
            "strategy": _Unwrapped(),
            "plugins": [_Started(self.number, self.of)],
            "use_distributed_sampler": False,
        }

    @contextlib.contextmanager
    def together(
        self, spec: RunSpec, folder: Path, scratch: Path | None, report: Report
    ) -> Iterator[None]:
        """Context of the training, in which the ranks can talk. All but the first end with it.

        folder, scratch, report: those of the run. If another rank fails, this process ends with status 1, and
        its last line on stderr says so; an event of `report` does if that rank ran out of memory.
        """
        if self.of == 1:
            yield
            return
        with contextlib.ExitStack() as stack:
            if self.is_first:
                self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                torch.set_num_threads(max(1, torch.get_num_threads() // self.of))
                told = {
                    "spec": spec.model_dump(mode="json"),
                    "folder": str(folder),
                    "scratch": None if scratch is None else str(scratch),
                }
                (self._folder / "run.json").write_text(json.dumps(told), encoding="utf-8")
                stack.enter_context(_Others(self._folder, self.of, report))
            self._join()
            try:
                yield
                if not self.is_first:
                    sys.exit(0)
            except Exception as error:
                if self.is_first or not (isinstance(error, Diverged) or out_of_memory(error)):
                    raise
                sys.exit(OUT_OF_MEMORY if out_of_memory(error) else 0)
            finally:
                dist.destroy_process_group()

    def _join(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_device(self.number)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            init_method=f"file://{self._folder}/meeting",
            rank=self.number,
            world_size=self.of,
            timeout=PATIENCE,
        )

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum over all ranks of each of the values, which go through the host."""
        if self.of == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def agreed(self, choice: bool) -> bool:
        """The choice of the first rank, for all."""
        return self.sum([self.is_first and choice])[0] > 0

    def gather(self, value: Any) -> list[Any] | None:
        """The values of all ranks, by their numbers: on the first rank, and None on the others."""
        values: list[Any] | None = [None] * self.of if self.is_first else None
        dist.gather_object(value, values)
        return values

    def weighted(self, loss: torch.Tensor, weight: float) -> torch.Tensor:
        """The loss whose mean over the ranks is that of the whole batch. weight: of this rank's part."""
        if self.of == 1:
            return loss
        (total,) = self.sum([weight])
        return loss * (weight * self.of / total)

    @contextlib.contextmanager
    def draws(self, *position: int) -> Iterator[None]:
        """Context of a forward pass: its random numbers depend on rank and `position`. Those after it do not,
        so what optimizers and samplers draw stays the same on all ranks."""
        if self.of == 1:
            yield
            return
        text = repr((*position, self.number)).encode()
        cuda = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(cuda):
            torch.manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8]) >> 1)
            yield

    def averaging(
        self, optimizer: torch.optim.Optimizer, model: torch.nn.Module
    ) -> Callable[[], None]:
        """Have gradients averaged over the ranks: by the engine within the backward pass, if the optimizer is
        its own. Returns what is to be called after each backward pass. A model in shards averages by itself.
        """
        if self.of == 1 or has_shards(model):
            return lambda: None
        if isinstance(optimizer, BlockwiseOptimizer):
            synchronise(optimizer, model)
            return lambda: None

        @torch.no_grad()
        def average() -> None:
            Sums([p for p in model.parameters() if p.requires_grad], None, BUCKET).finish()

        return average


class _Others:
    """Context manager: the other ranks, as processes that end with this one."""

    def __init__(self, folder: Path, of: int, report: Report) -> None:
        self._folder, self._of, self._report = folder, of, report
        self._processes: list[subprocess.Popen[bytes]] = []
        self._done = False

    def __enter__(self) -> None:
        threads = str(torch.get_num_threads())
        for number in range(1, self._of):
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    __name__,
                    str(self._folder),
                    str(number),
                    str(self._of),
                ],
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                preexec_fn=functools.partial(end_with, os.getpid()),
            )
            self._processes.append(process)
            threading.Thread(target=self._watch, args=(number, process), daemon=True).start()

    def _watch(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """End this process, which would wait for ever, if the rank fails."""
        code = process.wait()
        if not code or self._done:
            return
        if code == OUT_OF_MEMORY:
            self._report({"event": "oom", "error": f"rank {number} ran out of memory"})
        sys.stderr.write(f"rank {number} ended with status {code}\n")
        sys.stderr.flush()
        os._exit(1)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._done = kind is not None and kind is not Diverged
        for process in self._processes:
            if self._done:
                process.kill()
            try:
                process.wait(LAST_S)
            except subprocess.TimeoutExpired:
                self._done = True
                process.kill()
                process.wait()


class _Unwrapped(DDPStrategy):
    """Lightning's DDP without torch's: the engine averages, and needs no buckets of the model's size."""

    def configure_ddp(self) -> None: ...


class _Started(ClusterEnvironment):
    """Tells Lightning that the ranks of this machine have been started and know each other."""

    def __init__(self, number: int, of: int) -> None:
        super().__init__()
        self._number, self._of = number, of

    creates_processes_externally = True
    main_address, main_port = "127.0.0.1", 0  # nothing listens there: the process group exists

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._of

    def set_world_size(self, size: int) -> None: ...

    def global_rank(self) -> int:
        return self._number

    def set_global_rank(self, rank: int) -> None: ...

    def local_rank(self) -> int:
        return self._number

    def node_rank(self) -> int:
        return 0


def main() -> int:
    """Be the rank `sys.argv[2]` of `sys.argv[3]`, which meet in the folder `sys.argv[1]`."""
    from benchmark.run import recipe

    die_at_once()
    keep_freed_memory()
    folder, number, of = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    recipe.run(
        RunSpec(**told["spec"]),
        Path(told["folder"]),
        scratch=told["scratch"] and Path(told["scratch"]),
        ranks=Ranks(number, of, folder),
    )
    return 1  # not reached: a rank ends with the training


if __name__ == "__main__":
    sys.exit(main())
