"""Measure: a Lightning callback that measures time, memory, operations and trained parameters of a run.

It works the same for every strategy. A parameter counts as trained in a step where it has a gradient. On a
CUDA device the allocator reports the peak. On a CPU tensor bytes are counted (LiveBytes), on steps whose
batch is the largest so far for the active group. Operations are counted once for each group and batch shape.
Steps on which bytes or operations were counted are left out of the step times, because counting slows them.
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightning
import torch

from benchmark.measure.flops import Flops
from benchmark.measure.load_peak import LoadPeak
from benchmark.measure.machine import Others
from benchmark.measure.optimizer_state import active_group
from benchmark.measure.peaks import Peaks
from benchmark.measure.trained import Method, TrainedParameters
from benchmark.records.record import Memory, Params, Train

CURVE_COLUMNS = (
    *("step", "seconds", "loss", "lr", "group", "trainable_ratio", "tokens", "flops", "step_ms"),
    *("peak_bytes", "host_bytes"),
)
"""`peak_bytes` is the peak of the step on the device: of each step on a GPU, and of those that are counted on
a CPU. `host_bytes` is what of the optimizer waits in host memory after the step."""


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


class Ranks(Protocol):
    """The processes that train together (`benchmark.run.ranks`)."""

    of: int

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum over all of them of each of the values."""


class Alone:
    """One process."""

    of = 1

    def sum(self, values: Sequence[float]) -> list[float]:
        return list(values)


@dataclass
class _Step:
    """The measurements of the current optimizer step, which spans `accumulate` micro-batches."""

    started: float
    losses: list[torch.Tensor]
    counted: bool = False
    examples: int = 0
    tokens: int = 0
    flops: int = 0
    trainable_ratio: float = 0.0
    lr: float = math.nan
    group: int = 0


class Measure(lightning.Callback):
    """Fills `curve` (rows of CURVE_COLUMNS); after fit, `train()`, `params()` and `memory()` return results.

    `method` says what a step of `model` trains. `report` is called with each row once its step is done (for
    progress bars and live tracking). Of several `ranks`, each counts its own bytes; examples, tokens and
    operations are those of all, and the loss is that of the whole batch.
    """

    def __init__(
        self,
        method: Method,
        model: torch.nn.Module,
        report: Callable[[dict[str, Any]], None] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.curve: list[dict[str, Any]] = []
        self._method, self._model, self._report = method, model, report
        self._ranks = ranks or Alone()
        self._step: _Step | None = None
        self._counters = contextlib.ExitStack()
        self._flops: dict[Any, int] = {}
        self._loading: LoadPeak | None = None
        self.examples = 0
        self._groups = 1
        self._paused = 0.0
        self._seconds = 0.0
        self._others_share: float | None = None

    def observe(self, device: torch.device) -> None:
        """Count the parameters (numbers and bytes) of the model on `device`. A run that trains nothing calls
        only this."""
        self._peaks = Peaks(self._model, device)
        self._trained = TrainedParameters(self._model)

    def setup(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str
    ) -> None:
        """Start LoadPeak. Between this hook and `on_fit_start` Lightning moves the model to the device and
        builds the optimizer."""
        loading = LoadPeak(self._model, trainer.strategy.root_device)
        self._loading = self._counters.enter_context(loading)

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert self._loading is not None
        self._loading.built(trainer.optimizers[0])
        self._counters.close()
        self.observe(module.device)
        self._trained.begin()
        self._peaks.restart_allocator()
        self._others = Others()
        self._started = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        batch: Mapping[str, torch.Tensor],
        batch_idx: int,
    ) -> None:
        if self._step is None:
            self._step = _Step(time.perf_counter(), [])
            self._global_step = trainer.global_step
            self._peaks.visit(active_group(trainer.optimizers[0]))
        if examples := examples_in(batch):
            self._step.examples += examples
            self._step.tokens += int(batch["attention_mask"].sum())
        self._count_bytes(trainer.optimizers[0], batch)
        self._count_operations(active_group(trainer.optimizers[0]), batch)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Mapping[str, torch.Tensor],
        batch_idx: int,
    ) -> None:
        self._counters.close()
        step = self._step
        assert step is not None
        step.flops += self._flops[self._key]
        step.losses.append(outputs["loss"].detach())
        if trainer.global_step == self._global_step:
            return  # gradients are still accumulating
        # float() waits for the device, so the time below includes its work
        own = float(torch.stack(step.losses).mean()) / self._ranks.of
        loss, examples, tokens, flops = self._ranks.sum(
            [own, step.examples, step.tokens, step.flops]
        )
        self.examples += int(examples)
        # Lightning divides the loss of a micro-batch by accumulate_grad_batches before the backward pass
        loss *= trainer.accumulate_grad_batches
        now = time.perf_counter()
        host_bytes = self._peaks.add_state(trainer.optimizers[0])
        row = dict(
            zip(
                CURVE_COLUMNS,
                (
                    trainer.global_step,
                    round(now - self._started - self._paused, 4),
                    loss if math.isfinite(loss) else None,
                    step.lr,
                    step.group,
                    step.trainable_ratio,
                    int(tokens),
                    int(flops),
                    None if step.counted else round((now - step.started) * 1000, 3),
                    self._peaks.end_step(),
                    host_bytes,
                ),
                strict=True,
            )
        )
        self.curve.append(row)
        self._step = None
        if self._report is not None:
            self._report(row)
        if row["loss"] is None:
            raise Diverged(f"the loss became {loss} at step {trainer.global_step}")

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        assert self._step is not None
        update = self._method.coming_update(self._model, optimizer)
        self._step.trainable_ratio = self._trained.add(update)
        self._step.lr = float(optimizer.param_groups[0]["lr"])
        self._step.group = active_group(optimizer)
        self._peaks.add_gradients(update.gradient_bytes)

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._seconds = time.perf_counter() - self._started - self._paused
        self._others_share = round(self._others.share(), 3)
        self._groups = len(getattr(trainer.optimizers[0], "groups", ())) or 1
        self._peaks.read_allocator()
        self._trained.end(self._method.set_back(self._model))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time and memory are not measured, such as an evaluation during training."""
        began = time.perf_counter()
        self._peaks.read_allocator()
        yield
        self._peaks.restart_allocator()
        self._paused += time.perf_counter() - began

    def on_exception(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self._counters.close()

    def state_dict(self) -> dict[str, Any]:
        """The measurements so far, between two steps (Lightning's protocol of a callback)."""
        return {
            "curve": self.curve,
            "examples": self.examples,
            "flops": self._flops,
            "seconds": time.perf_counter() - self._started - self._paused,
            "others": self._others.seconds(),
            "peaks": self._peaks.state_dict(),
            "trained": self._trained.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict()`, after `on_fit_start`. The time between the two does not count."""
        self.curve, self.examples = list(state_dict["curve"]), state_dict["examples"]
        self._flops = dict(state_dict["flops"])
        self._started = time.perf_counter() - self._paused - state_dict["seconds"]
        self._others = Others(state_dict["others"])
        self._peaks.load_state_dict(state_dict["peaks"])
        self._trained.load_state_dict(state_dict["trained"])

    def train(self) -> Train:
        times = sorted(row["step_ms"] for row in self.curve if row["step_ms"] is not None)
        return Train(
            steps=len(self.curve),
            examples=self.examples,
            tokens=sum(row["tokens"] for row in self.curve),
            seconds=round(self._seconds, 3),
            step_ms_median=round(statistics.median(times), 3) if times else None,
            step_ms_p90=times[math.ceil(0.9 * len(times)) - 1] if times else None,
            final_loss=self.curve[-1]["loss"] if self.curve else None,
            flops=sum(row["flops"] for row in self.curve),
            group_tokens=self._group_tokens(),
            others=self._others_share,
        )

    def so_far(self) -> dict[str, Any]:
        """The cost of training so far, by field name of `record.Evaluation`."""
        return {
            "step": self.curve[-1]["step"],
            "seconds": self.curve[-1]["seconds"],
            "examples": self.examples,
            "tokens": sum(row["tokens"] for row in self.curve),
            "flops": sum(row["flops"] for row in self.curve),
        }

    def _group_tokens(self) -> list[float]:
        tokens: dict[int, list[int]] = {}
        for row in self.curve:
            tokens.setdefault(row["group"], []).append(row["tokens"])
        return [round(statistics.fmean(tokens[group]), 2) for group in sorted(tokens)]

    def params(self) -> Params:
        return self._trained.params(self._groups)

    def memory(self) -> Memory:
        return self._peaks.memory(self._loading.bytes if self._loading else None)

    def _count_operations(self, group: int, batch: Mapping[str, torch.Tensor]) -> None:
        """Count the operations of this micro-batch, unless its group and shape were counted before."""
        assert self._step is not None
        shapes = [(name, tuple(tensor.shape)) for name, tensor in sorted(batch.items())]
        answers = batch.get(
            "answer_lengths"
        )  # the longest answer decides how many logits are computed
        key = (group, *shapes, None if answers is None else int(answers.max()))
        if key not in self._flops:
            self._step.counted = True
            counter = self._counters.enter_context(Flops())
            self._counters.callback(lambda: self._flops.__setitem__(key, counter.total))
        self._key = key

    def _count_bytes(
        self, optimizer: torch.optim.Optimizer, batch: Mapping[str, torch.Tensor]
    ) -> None:
        """Count the bytes of this micro-batch if it may set a new peak for the active group."""
        counter = self._peaks.counter(optimizer, batch)
        if counter is not None:
            assert self._step is not None
            self._step.counted = True
            self._counters.enter_context(counter)
            self._counters.callback(lambda: self._peaks.add_live(counter.peak))


def examples_in(batch: Mapping[str, torch.Tensor]) -> int:
    """Number of examples in a batch. Where an example has several inputs (rows), `counts` has one number an
    example. 0 if the batch is `idle`: those in it are another rank's."""
    if getattr(batch, "idle", False):
        return 0
    return len(batch.get("counts", batch["input_ids"]))
