"""Predicted peak memory of a matrix's cells, and whether it is within a budget.

No torch is imported but by `simulated`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tasks.base
from benchmark.errors import UserError
from benchmark.matrices.planning import Planned
from benchmark.records.spec import RunSpec
from benchmark.sizes import GIB
from tasks.config import Columns, Words


@dataclass(frozen=True)
class Forecast:
    """The predicted peak of a cell's training step in bytes; None where nothing trains, or for the reason
    `why`."""

    peak: int | None
    why: str = ""


Place = tuple[str, str, str]
"""Task, model and label of a cell."""


def place(planned: Planned) -> Place:
    """Where in the matrix a run lies."""
    return planned.cell.task, planned.cell.model, planned.cell.label


def first_spec(planned: Planned) -> RunSpec:
    """The run's spec; while its rate is searched, with the first of them, which changes no cost."""
    search = planned.cell.search
    return planned.spec or planned.cell.runs(search.lr[0] if search else None)[0]


def of(
    planned: Iterable[Planned], predict: Callable[[RunSpec], int | None]
) -> dict[Place, Forecast]:
    """What `predict` says of each cell, asked once, as its seeds and rates cost the same."""
    found: dict[Place, Forecast] = {}
    for p in planned:
        if place(p) not in found:
            try:
                found[place(p)] = Forecast(predict(first_spec(p)))
            except UserError as error:
                found[place(p)] = Forecast(None, str(error))
    return found


def simulated(spec: RunSpec) -> int | None:
    """Peak bytes of the run's training step on a CUDA device, as `benchmark.memory.simulate` has it; None
    where nothing trains.

    An upper bound: every text is taken as `max_length` tokens long, while a batch is padded to its longest.
    Of candidates that stand in a row's own list one is counted, as their number is not known.
    Raises UserError where the step cannot be simulated.
    """
    from benchmark.memory import simulate
    from benchmark.memory.setting import Setting
    from benchmark.strategies import strategy_class

    if not strategy_class(spec.strategy).trains:
        return None
    adapter = tasks.base.adapter(tasks.base.load(spec.task))
    setting = Setting(
        model=spec.model,
        strategy=spec.strategy,
        options=spec.options,
        optimizer=spec.optimizer,
        optimizer_options=spec.optimizer_options,
        precision=spec.precision,
        batch_size=spec.batch_size * _inputs(adapter.config),
        seq_len=spec.max_length,
        head=adapter.head,
        labels=adapter.model_arguments().get("num_labels", 2),
    )
    return simulate.peak(setting, device="cuda").total


def _inputs(task: Any) -> int:
    """How many inputs the model reads for one training example of the task."""
    candidates = getattr(task, "candidates", None)
    if getattr(task, "loss", "candidates") == "answer":
        return 1
    if isinstance(candidates, Words):
        return len(candidates.words)
    return len(candidates.columns) if isinstance(candidates, Columns) else 1


def columns(forecast: Forecast, budget: int | None) -> dict[str, Any]:
    """The columns of a run's row."""
    peak = forecast.peak
    shown = {"peak_gib": None if peak is None else peak / GIB}
    if budget is None:
        return shown
    return shown | {"fits": None if peak is None else peak <= budget}


def lines(peaks: Mapping[Place, Forecast], budget: int | None) -> Iterator[str]:
    """The largest peak of each method, where it does not fit, and what could not be predicted."""
    unknown: dict[str, list[str]] = {}
    by_method: dict[str, list[tuple[int, str]]] = {}
    for (task, model, label), forecast in peaks.items():
        if forecast.why:
            unknown.setdefault(forecast.why, []).append(f"{model} {label} on {task}")
        elif forecast.peak is not None:
            by_method.setdefault(f"{model} {label}", []).append((forecast.peak, task))
    for method, found in by_method.items():
        most, task = max(found)
        yield f"peak memory: {method} up to {most / GIB:.4g} GiB ({task})"
        over = [name for peak, name in found if budget is not None and peak > budget]
        if over and budget is not None:
            yield f"will not fit in {budget / GIB:.4g} GiB: {method} on {', '.join(over)}"
    for why, places in unknown.items():
        yield f"peak memory not predicted: {why} (for {', '.join(places)})"
