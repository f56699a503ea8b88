"""One row for each cell of a matrix: mean scores and costs over seeds, and the Pareto front of the rows.

The report, `hift-bench run` and `hift-bench status` show these rows. This file reads no files and imports no
torch and no mlflow.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmark.matrices.search import Search
from benchmark.records.record import RunRecord
from benchmark.records.spec import RunSpec
from benchmark.sizes import MIB

BUSY = 0.1
"""Largest share of the processors' time that other processes may use in a run whose step time is shown."""
MEMORY_NAMES = {
    "cuda": "peak GPU memory",
    "counted_cpu_tensors": "peak memory (counted tensor bytes, CPU)",
}


class Cell(Protocol):
    """A cell of a matrix (task, model and strategy), with one run id for each seed."""

    @property
    def task(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def strategy(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def run_ids(self) -> tuple[str, ...]: ...
    @property
    def search(self) -> Search | None: ...
    @property
    def is_baseline(self) -> bool: ...
    def trials(self, rates: Sequence[float] = ()) -> list[RunSpec]: ...


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A run without a score: the status of its record, or "missing", and the reason in one line."""

    run_id: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A cell, summarised over its seeds.

    `mean` is the mean score, None unless every seed succeeded; then `so_far` is that of the seeds that did.
    `std` is the standard deviation over seeds (ddof=1). `stderr` is the standard error of one seed's score
    over its examples, averaged over seeds.

    Costs are over the `n` successful seeds: `ratio_peak` and bytes are maxima, `step_ms` is the median of
    medians, `fixed_s` and `ratio_mean` are means. `step_ms` is None where other processes used more than
    BUSY of the processors in some run. `lr` is None where seeds differ.
    """

    task: str
    model: str
    strategy: str
    label: str
    seeds: int
    n: int
    is_baseline: bool = False
    mean: float | None = None
    so_far: float | None = None
    std: float | None = None
    stderr: float | None = None
    metric: str | None = None
    higher_is_better: bool = True
    ratio_peak: float | None = None
    ratio_mean: float | None = None
    peak_bytes: int | None = None
    parameters_bytes: int | None = None
    gradients_bytes: int | None = None
    state_bytes: int | None = None
    master_bytes: int | None = None
    memory_kind: str | None = None
    host_state_bytes: int | None = None
    step_ms: float | None = None
    fixed_s: float | None = None
    lr: float | None = None
    data_source: str | None = None
    model_source: str | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def complete(self) -> bool:
        return self.n == self.seeds

    @property
    def is_twin(self) -> bool:
        """Whether the data are generated or the model is random; then the score says nothing about the real
        task."""
        return "twin" in (self.data_source, self.model_source)


def rows(cells: Iterable[Cell], records: Iterable[RunRecord]) -> list[Row]:
    """One row for each cell, in the order of `cells`."""
    by_id = {record.run_id: record for record in records}
    return [_row(cell, by_id) for cell in cells]


Key = tuple[str, str, str]
"""A row's task, model and label."""


def printable(
    table: Iterable[Row],
    verdicts: Mapping[Key, str],
    majorities: Mapping[Key, float],
) -> list[dict[str, Any]]:
    """The rows as `hift-bench run` and `status` print them for programs and with --wide: numbers not rounded,
    memory in MiB.

    `verdicts` has the result of the tests in words (`verdicts.words`), `majorities` the accuracy of always
    predicting the most frequent class (`verdicts.majorities`).
    """
    return [
        {
            "task": row.task,
            "data": row.data_source,
            "model": row.model,
            "strategy": row.label,
            "metric": row.metric,
            "mean": row.mean,
            "mean_so_far": row.so_far,
            "std": row.std,
            "stderr": row.stderr,
            "majority": majorities.get((row.task, row.model, row.label)),
            "verdict": verdicts.get((row.task, row.model, row.label)),
            "seeds": f"{row.n} of {row.seeds}",
            "lr": row.lr,
            "ratio_peak": row.ratio_peak,
            "ratio_mean": row.ratio_mean,
            "peak_mib": None if row.peak_bytes is None else row.peak_bytes / MIB,
            "memory": row.memory_kind,
            "step_ms": row.step_ms,
            "fixed_s": row.fixed_s,
            "problems": _counted(f"{p.status}: {p.reason}" for p in row.problems),
        }
        for row in table
    ]


def _row(cell: Cell, by_id: Mapping[str, RunRecord]) -> Row:
    records = [by_id[run_id] for run_id in cell.run_ids if run_id in by_id]
    scored = [record for record in records if record.status == "success" and record.scores]
    problems = [_problem(run_id, by_id.get(run_id)) for run_id in cell.run_ids]
    scores = [record.scores for record in scored if record.scores]
    trains = [record.train for record in scored if record.train]
    params = [record.params for record in scored if record.params]
    memory = [record.memory for record in scored if record.memory]
    inputs = [record.inputs for record in records if record.inputs]
    quiet = trains and all(train.others is not None and train.others <= BUSY for train in trains)
    steps = [train.step_ms_median for train in trains if quiet and train.step_ms_median is not None]
    fixed = [record.times.fixed_s for record in scored if record.times.fixed_s is not None]
    mains = [score.main for score in scores]
    errors = [score.stderr for score in scores if score.stderr is not None]
    complete = len(scored) == len(cell.run_ids) > 0
    return Row(
        task=cell.task,
        model=cell.model,
        strategy=cell.strategy,
        label=cell.label,
        seeds=len(cell.run_ids),
        n=len(scored),
        is_baseline=cell.is_baseline,
        mean=statistics.fmean(mains) if complete else None,
        so_far=statistics.fmean(mains) if mains and not complete else None,
        std=statistics.stdev(mains) if complete and len(mains) > 1 else None,
        stderr=statistics.fmean(errors) if complete and len(errors) == len(mains) else None,
        metric=_only(score.metric for score in scores),
        higher_is_better=all(score.higher_is_better for score in scores),
        ratio_peak=max((p.ratio_peak for p in params), default=None),
        ratio_mean=statistics.fmean(p.ratio_mean for p in params) if params else None,
        peak_bytes=max((m.peak for m in memory), default=None),
        parameters_bytes=max((m.parameters for m in memory), default=None),
        gradients_bytes=max((m.gradients for m in memory), default=None),
        state_bytes=max((m.optimizer_state for m in memory), default=None),
        master_bytes=max((m.master for m in memory), default=None),
        memory_kind=_only(m.kind for m in memory),
        host_state_bytes=max((m.host_state for m in memory), default=None),
        step_ms=statistics.median(steps) if steps else None,
        fixed_s=statistics.fmean(fixed) if fixed else None,
        lr=_only(record.spec.get("lr") for record in records),
        data_source=_only(i.dataset_source for i in inputs),
        model_source=_only(i.model_source for i in inputs),
        problems=tuple(problem for problem in problems if problem),
    )


def _problem(run_id: str, record: RunRecord | None) -> Problem | None:
    if record is None:
        return Problem(run_id=run_id, status="missing", reason="not run yet")
    if record.status != "success":
        reason = " ".join((record.error or "no reason recorded").split())
        return Problem(run_id=run_id, status=record.status, reason=reason[:300])
    if record.scores is None:
        return Problem(run_id=run_id, status="failed", reason="success recorded without a score")
    return None


def _counted(texts: Iterable[str]) -> str:
    """Each distinct text once, after the number of times it occurs."""
    return "; ".join(f"{count} {text}" for text, count in Counter(texts).items())


def _only(values: Iterable[Any]) -> Any:
    """The value that all have in common, None where they differ or there is none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def pareto_front(candidates: Iterable[Row]) -> list[Row]:
    """The rows that no other row dominates in peak memory and mean score, by ascending memory."""
    known = [r for r in candidates if r.mean is not None and r.peak_bytes is not None]
    sign = 1 if all(r.higher_is_better for r in known) else -1
    front: list[Row] = []
    for row in sorted(known, key=lambda r: (r.peak_bytes or 0, -sign * _mean(r))):
        if not front or sign * _mean(row) > sign * _mean(front[-1]):
            front.append(row)
    return front


def _mean(row: Row) -> float:
    assert row.mean is not None
    return row.mean
