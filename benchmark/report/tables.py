"""The report's tables as cells of text; the templates format them."""

import csv
import dataclasses
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.analysis.summary import MEMORY_NAMES, Row
from benchmark.analysis.verdicts import Verdict
from benchmark.records.consistency import Difference, as_text, flatten, settings
from benchmark.records.record import Inputs, RunRecord
from benchmark.sizes import MIB


class Strong(str):
    """A cell that is shown in bold."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. The first `names` columns have names (left-aligned), the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    title: str = ""


def score_tables(rows: Sequence[Row], verdicts: Iterable[Verdict]) -> list[Table]:
    """A table of strategy × task for each model: mean ± std (n) and standard error; bold by `verdicts`."""
    strong = {(of.task, of.model, label) for of in verdicts for label in of.strong}
    models = _distinct(row.model for row in rows)
    return [_score_table([row for row in rows if row.model == m], strong) for m in models]


def _score_table(rows: Sequence[Row], strong: Container[tuple[str, str, str]]) -> Table:
    tasks, model = _distinct(row.task for row in rows), rows[0].model
    by_place = {(row.label, row.task): row for row in rows}
    body = []
    for label in _distinct(row.label for row in rows):
        cells = [(by_place.get((label, task)), (task, model, label) in strong) for task in tasks]
        body.append((label, *(score_text(cell, strong=bold) for cell, bold in cells)))
    columns = [f"{task_name(rows, task)}, {_metric(rows, task)}" for task in tasks]
    return Table(columns=("strategy", *columns), rows=tuple(body), title=model_name(rows, model))


def score_text(row: Row | None, *, strong: bool = False) -> str:
    """The text of a score. It is empty where the matrix lacks the cell, and a count of seeds where a seed has
    no score."""
    if row is None:
        return ""
    if row.mean is None:
        return f"– ({row.n} of {row.seeds})"
    digits = 4 if abs(row.mean) < 2 else 2
    spread = f" ± {row.std:.{digits}f}" if row.std is not None else ""
    error = f", se {row.stderr:.{digits}f}" if row.stderr is not None else ""
    text = f"{row.mean:.{digits}f}{spread} ({row.n}){error}"
    return Strong(text) if strong else text


def cost_table(rows: Sequence[Row]) -> Table:
    kinds = _distinct(row.memory_kind for row in rows if row.memory_kind)
    memory = MEMORY_NAMES[kinds[0]] if len(kinds) == 1 else "peak memory"
    columns = (
        *("task", "model", "strategy", "learning rate"),
        *("trainable ratio, peak", "trainable ratio, mean", f"{memory}, MiB"),
        *("optimizer state on the host, MiB", "step, ms", "fixed cost, s", "seeds"),
    )
    body = []
    for row in rows:
        kind = f" ({row.memory_kind})" if len(kinds) > 1 and row.memory_kind else ""
        peak = _mebibytes(row.peak_bytes) + kind
        rate = _number(row.lr, "g")
        ratios = (_number(row.ratio_peak, ".2%"), _number(row.ratio_mean, ".2%"))
        costs = (_mebibytes(row.host_state_bytes), _number(row.step_ms, ".1f"))
        last = (_number(row.fixed_s, ".1f"), f"{row.n} of {row.seeds}")
        names = (task_name(rows, row.task), model_name(rows, row.model), row.label)
        body.append((*names, rate, *ratios, peak, *costs, *last))
    return Table(columns=columns, rows=tuple(body), names=3)


def problem_table(rows: Sequence[Row]) -> Table:
    columns = ("run", "status", "reason")
    problems = [(p.run_id, p.status, p.reason) for row in rows for p in row.problems]
    return Table(columns=columns, rows=tuple(problems), names=3)


def difference_table(differences: Sequence[Difference]) -> Table:
    body = []
    for difference in differences:
        values = "; ".join(f"{value} ({_some(runs)})" for value, runs in difference.values)
        body.append((difference.field, difference.scope, values))
    return Table(columns=("field", "should be equal in", "values"), rows=tuple(body), names=3)


def settings_table(records: Sequence[RunRecord]) -> Table:
    """The settings of the compared runs, by task where they differ between tasks."""
    body = []
    for name, values in settings(records).items():
        single = len(values) == 1
        texts = [v if single else f"{v} in {', '.join(tasks)}" for v, tasks in values.items()]
        body.append((name, "; ".join(texts)))
    return Table(columns=("setting", "value"), rows=tuple(body), names=2)


def provenance_table(records: Sequence[RunRecord]) -> Table:
    """The origin of the numbers: code, machine, versions, models, data, metrics."""
    values_of: dict[str, list[str]] = {}
    for record in records:
        facts = {f"code: {k}": v for k, v in flatten(record.code).items()}
        facts |= {f"environment: {k}": v for k, v in flatten(record.environment).items()}
        if record.inputs:
            i = record.inputs
            rows_used = f"{i.examples_train} train, {i.examples_eval} evaluation"
            source = f"{i.dataset_source}, revision {i.dataset_revision or 'none'}"
            facts[f"data: {i.dataset}"] = (
                f"{source}; {rows_used} examples; {i.examples_truncated} truncated; "
                f"{_too_long(i)}task version {i.task_version}"
            )
            facts[f"model: {i.model}"] = f"{i.model_source}, revision {i.model_revision or 'none'}"
        if record.scores:
            s = record.scores
            facts[f"metric: {record.spec['task']}"] = (
                f"{s.metric} {s.metric_version} on {s.split}, {s.n} examples"
            )
        for name, value in facts.items():
            values_of.setdefault(name, []).append(as_text(value))
    if records:
        values_of["runs started"] = [min(record.times.started for record in records)]
        values_of["runs finished"] = [max(record.times.finished for record in records)]
    body = tuple((name, _some(_distinct(values))) for name, values in sorted(values_of.items()))
    return Table(columns=("what", "value"), rows=body, names=2)


def _too_long(inputs: Inputs) -> str:
    """Numbers of examples longer than max_length, by how they were handled; empty where there are none."""
    counts = {
        "too long and left out of training": inputs.long_train_dropped,
        "training prompts cut from the left": inputs.long_train_cut,
        "evaluation prompts cut from the left": inputs.long_eval_cut,
    }
    return "".join(f"{count} {what}; " for what, count in counts.items() if count)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write every row with numbers that are not rounded, in the units that the columns name."""
    names = [field.name for field in dataclasses.fields(Row) if field.name != "problems"]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "problems"])
        for row in rows:
            problems = "; ".join(f"{p.run_id}: {p.status}: {p.reason}" for p in row.problems)
            writer.writerow([*(getattr(row, name) for name in names), problems])


def task_name(rows: Iterable[Row], task: str) -> str:
    """The name of the task, marked where its data are generated."""
    twin = any(row.data_source == "twin" for row in rows if row.task == task)
    return f"{task} (twin data)" if twin else task


def model_name(rows: Iterable[Row], model: str) -> str:
    """The name of the model, marked where its weights are random (a twin)."""
    twin = any(row.model_source == "twin" for row in rows if row.model == model)
    return f"{model} (twin model)" if twin else model


def _metric(rows: Iterable[Row], task: str) -> str:
    metrics = _distinct(row.metric for row in rows if row.task == task and row.metric)
    return " / ".join(metrics) or "no score"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _mebibytes(count: int | None) -> str:
    return "–" if count is None else f"{count / MIB:,.1f}"


def _some(values: Sequence[str], most: int = 3) -> str:
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + more


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
