"""`hift-bench speed`: step times of strategies on one model, as ratios measured in one process.

The strategies take turns, one step each, over whole sweeps of HiFT with a step per group. Other load on the
machine therefore slows all of them alike. Three yardsticks are timed beside the strategies:

- forward: the forward pass alone.
- bare: the block-coordinate loop in plain torch, with one torch optimizer per group.
- limit: the forward and backward passes of that loop, without an optimizer.

A strategy may be timed with several sets of its options; each is a row. With `bare`, each strategy that has a
bare loop (`bare.py`) is timed beside it.
"""

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmark.engine import BlockwiseOptimizer, Group, find_units, make_plan
from benchmark.engine.wrapped import over
from benchmark.errors import UserError
from benchmark.measure.optimizer_state import state_bytes
from benchmark.models import shapes
from benchmark.models.checkpointing import recompute_activations
from benchmark.run.allocator import keep_freed_memory
from benchmark.strategies import build, share_options
from benchmark.strategies.base import TuningStrategy
from benchmark.strategies.settings import TrainingSettings
from benchmark.timing.bare import LOOPS, Batch, in_turn

LR = 1e-5


@dataclass(frozen=True)
class Variant:
    """A strategy with some of its options."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Cell:
    """A strategy or yardstick, and what is measured of it.

    variant: the strategy and its own options; None for a yardstick. bare: the name of its bare loop's cell.
    step: takes one step. state: bytes of optimizer state on the device. m: units per group, if it has groups.
    sweep: the steps in which it trains each group, if it has groups. ms: the times of its timed steps. saved:
    bytes of saved activations, the largest of any step. peak_state: the largest of `state`.
    """

    name: str
    step: Callable[[], None]
    state: Callable[[], int] = lambda: 0
    m: int | None = None
    sweep: int | None = None
    variant: Variant | None = None
    bare: str = ""
    ms: list[float] = field(default_factory=list)
    saved: int = 0
    peak_state: int = 0

    def run(self, device: torch.device) -> None:
        """Take one step and time it."""
        began = time.perf_counter()
        self.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.ms.append((time.perf_counter() - began) * 1000)
        self.peak_state = max(self.peak_state, self.state())

    def count_activations(self) -> None:
        """Take one step, untimed, and count the bytes of activations saved for its backward pass."""
        with _saved_bytes() as saved:
            self.step()
        self.saved = max(self.saved, saved())


def measure(
    model: str,
    variants: Mapping[str, Variant],
    *,
    options: Mapping[str, Any] | None = None,
    optimizer: str = "adamw",
    checkpointing: bool = False,
    batch_size: int = 8,
    seq_len: int = 128,
    sweeps: int = 3,
    bare: bool = False,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> list[dict[str, Any]]:
    """One row per yardstick and variant, with the fields of `speed_record.Row`. variants: by name.

    options: options of the strategies; each goes to every strategy that has it, unless a variant has its own.
    `group_size` sets that of the yardsticks too. checkpointing: the strategies recompute activations.
    bare: time the strategies' bare loops too. report: called with (steps done, steps in all).

    Raises UserError for unknown names, and for an option that no strategy has.
    """
    shared = share_options([variant.strategy for variant in variants.values()], options or {})
    group_size = (options or {}).get("group_size", 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()  # as a run does
    torch.manual_seed(0)
    base = shapes.build(model, str(device)).train()
    positions = getattr(base.config, "max_position_embeddings", seq_len)
    if seq_len > positions:
        raise UserError(f"seq_len {seq_len} is more than the {positions} positions of {model}")
    batch = _batch(base, batch_size, seq_len, device)
    groups = make_plan(find_units(base), group_size=group_size).groups
    cells = [
        _forward(base, batch),
        _in_turn("limit", base, batch, groups, group_size, None),
        _in_turn("bare", base, batch, groups, group_size, optimizer),
    ]
    settings = TrainingSettings(lr=LR, optimizer=optimizer, checkpointing=checkpointing)
    for name, variant in variants.items():
        own = build(variant.strategy, settings, {**shared[variant.strategy], **variant.options})
        cells.append(_strategy(name, base, batch, variant, own))
        loop = LOOPS.get(variant.strategy)
        if bare and loop is not None:
            cells[-1].bare = f"bare {name}"
            cells.append(_Cell(f"bare {name}", loop(copy.deepcopy(base), batch, own)))
    timed = len(groups) * sweeps
    # a first sweep creates optimizer state, so it is not timed; one longer than what is timed is cut
    first = [min(max(len(groups), cell.sweep or 0), timed) for cell in cells]
    total, done = sum(first) + timed * len(cells), itertools.count(1)
    for cell, steps in zip(cells, first, strict=True):
        for _ in range(steps):
            cell.count_activations()
            report(next(done), total)
    for _ in range(timed):
        for cell in cells:
            cell.run(device)
            report(next(done), total)
    by_name = {cell.name: cell for cell in cells}
    return [_row(cell, by_name, len(groups)) for cell in cells]


def _row(cell: _Cell, cells: Mapping[str, _Cell], sweep: int) -> dict[str, Any]:
    """sweep: the steps of a sweep of one step per group. A cell whose sweep is another one is measured over
    whole ones of its own, if it has made any."""
    if cell.sweep and cell.sweep <= len(cell.ms):
        sweep = cell.sweep
    start = len(cell.ms) % sweep
    ms = cell.ms[start:]
    times = sorted(ms)
    mean = statistics.fmean(times)
    limit = cells["limit"].ms[start:]
    full, own = (cells[each].ms[start:] if each in cells else None for each in ("full", cell.bare))
    ratios = _ratios(ms, full, sweep) if full else []
    return {
        "name": cell.name,
        "m": cell.m,
        "strategy": cell.variant.strategy if cell.variant else None,
        "options": dict(cell.variant.options) if cell.variant else {},
        "median_ms": round(statistics.median(times), 3),
        "p90_ms": round(times[int(0.9 * (len(times) - 1))], 3),
        "mean_ms": round(mean, 3),
        "ratio_to_full": round(mean / statistics.fmean(full), 4) if full else None,
        "ratio_low": round(min(ratios), 4) if full else None,
        "ratio_high": round(max(ratios), 4) if full else None,
        "ratio_to_limit": round(mean / statistics.fmean(limit), 4),
        "ratio_to_bare": round(_typical(ms, sweep) / _typical(own, sweep), 4) if own else None,
        "saved_activation_bytes": cell.saved,
        "state_bytes": cell.peak_state,
        "steps": len(times),
        "sweep_steps": cell.sweep,
    }


def _ratios(ms: Sequence[float], full: Sequence[float], sweep: int) -> list[float]:
    """The ratio of `ms` to `full` in each sweep of `sweep` steps."""
    starts = range(0, len(ms), sweep)
    return [sum(ms[i : i + sweep]) / sum(full[i : i + sweep]) for i in starts]


def _typical(ms: Sequence[float], sweep: int) -> float:
    """The mean over the steps of a sweep of each one's median over the sweeps, so that a step that the system
    interrupted does not count."""
    return statistics.fmean(statistics.median(ms[i::sweep]) for i in range(sweep))


def _batch(model: Any, batch_size: int, seq_len: int, device: torch.device) -> Batch:
    ids = torch.randint(0, model.config.vocab_size, (batch_size, seq_len), device=device)
    if "ForSequenceClassification" in type(model).__name__:
        labels = torch.randint(0, model.config.num_labels, (batch_size,), device=device)
    else:
        labels = ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _strategy(
    name: str, base: Any, batch: Batch, variant: Variant, strategy: TuningStrategy
) -> _Cell:
    """A cell that takes the steps of a training loop with the strategy."""
    model = copy.deepcopy(base)
    if strategy.settings.checkpointing and not strategy.recomputes:
        recompute_activations(model)
    model = strategy.prepare(model).train()
    optimizer, scheduler = strategy.optimizer(model, 10**6)

    def step() -> None:
        strategy.loss(model, lambda: model(**batch).loss).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

    return _Cell(
        name,
        step,
        lambda: state_bytes(optimizer)["device"]["optimizer_state"],
        getattr(strategy.options, "group_size", None),
        optimizer.plan.schedule.sweep_steps if isinstance(optimizer, BlockwiseOptimizer) else None,
        variant,
    )


def _forward(base: Any, batch: Batch) -> _Cell:
    model = copy.deepcopy(base).requires_grad_(False)

    def step() -> None:
        float(model(**batch).loss)

    return _Cell("forward", step)


def _in_turn(
    name: str,
    base: Any,
    batch: Batch,
    groups: Sequence[Group],
    group_size: int,
    optimizer: str | None,
) -> _Cell:
    """The block-coordinate loop in plain torch, with one optimizer per group; without any if `optimizer` is
    None."""

    def build_optimizer(group: list[torch.nn.Parameter]) -> torch.optim.Optimizer | None:
        return over(group, optimizer, lr=LR) if optimizer else None

    step = in_turn(copy.deepcopy(base), batch, groups, build_optimizer)
    return _Cell(name, step, m=group_size, sweep=len(groups))


class _saved_bytes:
    """Context manager whose value is a function: the bytes of storages saved for backward, each counted once.

    Parameters are not counted.
    """

    def __enter__(self) -> Callable[[], int]:
        self._sizes: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                self._sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        self._hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        self._hooks.__enter__()
        return lambda: sum(self._sizes.values())

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
