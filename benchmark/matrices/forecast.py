"""Predicted peak memory of a matrix's cells, and whether it is within a budget.

Only `simulated` and `peaks` import torch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tasks.base
from benchmark.errors import UserError
from benchmark.matrices.planning import Planned
from benchmark.models import registry
from benchmark.records.spec import RunSpec
from benchmark.sizes import GIB
from tasks import own
from tasks.config import Columns, Words


@dataclass(frozen=True)
class Forecast:
    """The predicted peak of a cell's training step, in bytes.

    It is None if nothing trains, or if the step cannot be simulated; `why` then gives the reason.
    """

    peak: int | None
    why: str = ""


Place = tuple[str, str, str]
"""Task, model and label of a cell."""


def place(planned: Planned) -> Place:
    """The cell of a run."""
    return planned.cell.task, planned.cell.model, planned.cell.label


def first_spec(planned: Planned) -> RunSpec:
    """The run's spec. If its learning rate is not chosen yet, the spec has the first rate of the grid: a
    learning rate changes no memory."""
    search = planned.cell.search
    return planned.spec or planned.cell.runs(search.lr[0] if search else None)[0]


def of(
    planned: Iterable[Planned], predict: Callable[[RunSpec], int | None]
) -> dict[Place, Forecast]:
    """The forecast of each cell. `predict` is called once a cell: seed and learning rate change no memory."""
    forecasts: dict[Place, Forecast] = {}
    for p in planned:
        if place(p) not in forecasts:
            try:
                forecasts[place(p)] = Forecast(predict(first_spec(p)))
            except UserError as error:
                forecasts[place(p)] = Forecast(None, str(error))
    return forecasts


def simulated(spec: RunSpec) -> int | None:
    """Peak bytes of the run's training step on a CUDA device; otherwise as `peaks`."""
    found = peaks(spec, "cuda")
    return None if found is None else found[0]


def placing(spec: RunSpec, device: str) -> tuple[int, int] | None:
    """What a run is placed by: its `peaks`, and None for a twin, whose few megabytes count for nothing beside
    the libraries, while a simulation takes longer than its training."""
    return None if registry.is_twin(spec.model) else peaks(spec, device)


def peaks(spec: RunSpec, device: str) -> tuple[int, int] | None:
    """Peak bytes of the run's training step on each `device` ("cpu" or "cuda"), and of the state that it
    keeps in host memory for it, from `benchmark.memory.simulate`, or from `divided` if devices divide the
    model; None if nothing trains.

    The prediction assumes that every text has `max_length` tokens, so it is at least the peak of a real
    batch. The exception are tasks whose rows list their own candidates: their number is not known, and one is
    counted. Raises UserError if the step cannot be simulated.
    """
    from benchmark.memory import divided, simulate
    from benchmark.memory.setting import Setting
    from benchmark.strategies import strategy_class

    if not strategy_class(spec.strategy).trains:
        return None
    adapter = tasks.base.adapter(own.of(spec.task, spec.task_file))
    setting = Setting(
        model=spec.model,
        strategy=spec.strategy,
        options=spec.options,
        optimizer=spec.optimizer,
        optimizer_options=spec.optimizer_options,
        precision=spec.precision,
        batch_size=-(-spec.batch_size // spec.devices) * _inputs(adapter.config),
        seq_len=spec.max_length,
        head=adapter.head,
        labels=adapter.model_arguments().get("num_labels", 2),
        checkpointing=spec.checkpointing,
        loss=spec.loss,
    )
    if spec.sharded:
        return divided.peaks(setting, spec.devices, device)
    found = simulate.peak(setting, device=device)
    return found.total, found.host


def _inputs(task: Any) -> int:
    """How many inputs the model reads for one training example of the task."""
    candidates = getattr(task, "candidates", None)
    if getattr(task, "loss", "candidates") == "answer":
        return 1
    if isinstance(candidates, Words):
        return len(candidates.words)
    return len(candidates.columns) if isinstance(candidates, Columns) else 1


def columns(forecast: Forecast, budget: int | None) -> dict[str, Any]:
    """The columns that a forecast adds to a run's row: the peak in GiB and, with a budget in bytes, whether
    it fits."""
    peak = forecast.peak
    in_gib = {"peak_gib": None if peak is None else peak / GIB}
    if budget is None:
        return in_gib
    return in_gib | {"fits": None if peak is None else peak <= budget}


def lines(peaks: Mapping[Place, Forecast], budget: int | None) -> Iterator[str]:
    """Lines about the largest peak of each method, the tasks on which it exceeds `budget` (bytes), and the
    cells without a prediction."""
    unknown: dict[str, list[str]] = {}
    peaks_of: dict[str, list[tuple[int, str]]] = {}
    for (task, model, label), forecast in peaks.items():
        if forecast.why:
            unknown.setdefault(forecast.why, []).append(f"{model} {label} on {task}")
        elif forecast.peak is not None:
            peaks_of.setdefault(f"{model} {label}", []).append((forecast.peak, task))
    for method, peaks_by_task in peaks_of.items():
        highest, task = max(peaks_by_task)
        yield f"peak memory: {method} up to {highest / GIB:.4g} GiB ({task})"
        over = [name for peak, name in peaks_by_task if budget is not None and peak > budget]
        if over and budget is not None:
            yield f"will not fit in {budget / GIB:.4g} GiB: {method} on {', '.join(over)}"
    for why, places in unknown.items():
        yield f"peak memory not predicted: {why} (for {', '.join(places)})"
