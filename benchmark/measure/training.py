"""Measure: a Lightning callback that measures time, memory, operations and trained parameters of a run.

It works the same for every strategy. A parameter counts as trained in a step where it has a gradient. On a
CUDA device the allocator reports the peak. On a CPU tensor bytes are counted (LiveBytes), on steps whose
batch is the largest so far for the active group. Operations are counted once for each group and batch shape.
Steps on which bytes or operations were counted are left out of the step times, because counting slows them.
"""

import contextlib
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning
import torch

from benchmark.measure.canary import Canary
from benchmark.measure.flops import Flops
from benchmark.measure.live_bytes import LiveBytes
from benchmark.measure.load_peak import LoadPeak
from benchmark.measure.machine import Others
from benchmark.measure.optimizer_state import (
    active_group,
    coming_update,
    state_bytes,
    state_tensors,
)
from benchmark.records.record import Memory, Params, Train

CURVE_COLUMNS = (
    *("step", "seconds", "loss", "lr", "group", "trainable_ratio", "tokens", "flops", "step_ms"),
)
COUNTED_VISITS = 2
"""The bytes of a group's first steps are counted whatever the size of the batch: the first step creates the
optimizer state, and the second one starts with it."""


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass
class _Step:
    """The measurements of the current optimizer step, which spans `accumulate` micro-batches."""

    started: float
    losses: list[torch.Tensor]
    counted: bool = False
    tokens: int = 0
    flops: int = 0
    trainable: int = 0
    lr: float = math.nan
    group: int = 0


class Measure(lightning.Callback):
    """Fills `curve` (rows of CURVE_COLUMNS); after fit, `train()`, `params()` and `memory()` return results.

    `report` is called with each row once its step is done (for progress bars and live tracking).
    """

    def __init__(self, report: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.curve: list[dict[str, Any]] = []
        self._report = report
        self._step: _Step | None = None
        self._counters = contextlib.ExitStack()
        self._flops: dict[Any, int] = {}
        self._loading: LoadPeak | None = None
        self._visits: dict[int, int] = {}
        self._largest: dict[int, int] = {}
        self._ever: set[int] = set()
        self._peaks = {
            "live": 0,
            "gradients": 0,
            "optimizer_state": 0,
            "master": 0,
            "host_state": 0,
        }
        self._reserved: int | None = None
        self.examples = 0
        self._groups = 1
        self._paused = 0.0
        self._seconds = 0.0
        self._others_share: float | None = None
        self._ever_numel = 0
        self._part_numel = 0
        self._unmoved: list[str] = []

    def observe(self, model: torch.nn.Module, device: torch.device) -> None:
        """Count the parameters (numbers and bytes) of `model`. A run that trains nothing calls only this."""
        self._cuda = device.type == "cuda"
        self.device = device
        self._total = sum(p.numel() for p in model.parameters())
        self._total += sum(getattr(module, "packed_numel", 0) for module in model.modules())
        self._parameters = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])

    def setup(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str
    ) -> None:
        """Start LoadPeak. Between this hook and `on_fit_start` Lightning moves the model to the device and
        builds the optimizer."""
        loading = LoadPeak(module, trainer.strategy.root_device)
        self._loading = self._counters.enter_context(loading)

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert self._loading is not None
        self._loading.built(trainer.optimizers[0])
        self._counters.close()
        self.observe(module, module.device)
        self._canary = Canary(module)
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        self._others = Others()
        self._started = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        batch: Mapping[str, torch.Tensor],
        batch_idx: int,
    ) -> None:
        self.examples += examples_in(batch)
        if self._step is None:
            self._step = _Step(time.perf_counter(), [])
            self._global_step = trainer.global_step
            group = active_group(trainer.optimizers[0])
            self._visits[group] = self._visits.get(group, 0) + 1
        self._step.tokens += int(batch["attention_mask"].sum())
        if not self._cuda:
            self._count_bytes(trainer.optimizers[0], module, batch)
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
        loss = float(torch.stack(step.losses).mean())
        # Lightning divides the loss of a micro-batch by accumulate_grad_batches before the backward pass
        loss *= trainer.accumulate_grad_batches
        now = time.perf_counter()
        self._update_state_peaks(trainer.optimizers[0])
        row = dict(
            zip(
                CURVE_COLUMNS,
                (
                    trainer.global_step,
                    round(now - self._started - self._paused, 4),
                    loss if math.isfinite(loss) else None,
                    step.lr,
                    step.group,
                    step.trainable / self._total,
                    step.tokens,
                    step.flops,
                    None if step.counted else round((now - step.started) * 1000, 3),
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
        update = coming_update(optimizer, module)
        self._step.trainable = update.numel
        self._step.lr = float(optimizer.param_groups[0]["lr"])
        self._step.group = active_group(optimizer)
        self._ever.update(map(id, update.parameters))
        if update.numel < sum(p.numel() for p in update.parameters):  # a mask or a projection
            self._part_numel = max(self._part_numel, update.numel)
        self._canary.claim(update.parameters, update.norms, update.rate)
        self._peaks["gradients"] = max(self._peaks["gradients"], update.gradient_bytes)

    def on_fit_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._seconds = time.perf_counter() - self._started - self._paused
        self._others_share = round(self._others.share(), 3)
        self._ever_numel = self._part_numel or sum(
            p.numel() for p in module.parameters() if id(p) in self._ever
        )
        self._groups = len(getattr(trainer.optimizers[0], "groups", ())) or 1
        self._read_allocator()
        if hasattr(trainer.optimizers[0], "pruned"):
            self._canary.excuse(trainer.optimizers[0].pruned())
        self._unmoved = self._canary.unmoved()
        self._canary.check()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Context whose time and memory are not measured, such as an evaluation during training."""
        began = time.perf_counter()
        self._read_allocator()
        yield
        if self._cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        self._paused += time.perf_counter() - began

    def _read_allocator(self) -> None:
        if self._cuda:
            live = torch.cuda.max_memory_allocated(self.device)
            reserved = torch.cuda.max_memory_reserved(self.device)
            self._update_peak(live)
            self._reserved = max(self._reserved or 0, reserved)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self._counters.close()

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
        ratios = [row["trainable_ratio"] for row in self.curve] or [0.0]
        return Params(
            total=self._total,
            trainable_ever=self._ever_numel,
            trainable_peak_per_step=round(max(ratios) * self._total),
            ratio_peak=max(ratios),
            ratio_mean=statistics.fmean(ratios),
            groups=self._groups,
            unmoved=self._unmoved,
        )

    def memory(self) -> Memory:
        return Memory(
            kind="cuda" if self._cuda else "counted_cpu_tensors",
            device=str(self.device),
            peak_allocated=self._peaks["live"],
            peak_reserved=self._reserved,
            parameters=self._parameters,
            gradients=self._peaks["gradients"],
            optimizer_state=self._peaks["optimizer_state"],
            master=self._peaks["master"],
            host_state=self._peaks["host_state"],
            host_rss_peak=host_rss_peak(),
            eval_peak=None,
            load_peak=self._loading.bytes if self._loading else None,
        )

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
        self,
        optimizer: torch.optim.Optimizer,
        module: lightning.LightningModule,
        batch: Mapping[str, torch.Tensor],
    ) -> None:
        """Count the bytes of this micro-batch if it may set a new peak for the active group."""
        group, size = active_group(optimizer), batch["input_ids"].numel()
        if self._visits[group] > COUNTED_VISITS and size <= self._largest.get(group, 0):
            return
        self._largest[group] = max(size, self._largest.get(group, 0))
        assert self._step is not None
        self._step.counted = True
        state = state_bytes(optimizer)["device"]
        resident = [*module.parameters(), *module.buffers(), *batch.values()]
        resident += [p.grad for p in module.parameters() if p.grad is not None]
        counter = LiveBytes(
            resident,
            counted_elsewhere=state_tensors(optimizer),
            base=state["optimizer_state"] + state["master"],
        )
        self._counters.enter_context(counter)
        self._counters.callback(lambda: self._update_peak(counter.peak))

    def _update_peak(self, size: int) -> None:
        self._peaks["live"] = max(self._peaks["live"], size)

    def _update_state_peaks(self, optimizer: torch.optim.Optimizer) -> None:
        state = state_bytes(optimizer)
        sizes = {
            "optimizer_state": state["device"]["optimizer_state"],
            "master": state["device"]["master"],
            "host_state": sum(state["host"].values()),
        }
        for name, size in sizes.items():
            self._peaks[name] = max(self._peaks[name], size)


def examples_in(batch: Mapping[str, torch.Tensor]) -> int:
    """Number of examples in a batch. Where an example has several inputs (rows), `counts` has one number an
    example."""
    return len(batch.get("counts", batch["input_ids"]))


def host_rss_peak() -> int:
    """Peak resident set size of this process so far, in bytes, libraries included.

    In a run forked from the warm server it includes the server's resident memory at the time of the fork,
    which the two share until one of them writes to it. Earlier peaks of the server do not count.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def out_of_memory(error: Exception) -> bool:
    """Whether `error` says that torch (on a device or CPU) or Python could not allocate memory."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)
